"""The data and the model of a recipe: which modalities, what is held out, how the model is built."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
from transformers import TrainingArguments

from hf_relearn.cards import CardInfo
from hf_relearn.data.corruption import corrupt_splits, parse_corruptions
from hf_relearn.experiments.modalities import Modality, columns_of
from hf_relearn.experiments.model_arguments import InputArguments, ModelArguments, merge_options, read_pairs
from hf_relearn.models import MultimodalConfig, MultimodalForClassification, MultimodalProcessor
from hf_relearn.training import RelearnTrainingArguments
from hf_relearn.training.data_parts import count_samples


@dataclass(frozen=True)
class Experiment:
    """Describe a recipe's data and model.

    Args:
        title: heading of the report.
        modalities: modality -> its column and backbone, in the order of fusion.
        label_column: column of a `ClassLabel`, or of a list of them if a sample may have several classes, or of
            numbers to predict.
        train, evaluation, test: the splits; evaluation and test may be None.
        model, inputs: the flags of the model and of its inputs.
        notes: what a reader of the report has to know.
        card: what the model card has to be told; without notes of its own it has those of the report.
    """

    title: str
    modalities: Mapping[str, Modality]
    label_column: str
    train: datasets.Dataset
    evaluation: datasets.Dataset | None
    test: datasets.Dataset | None
    model: ModelArguments
    inputs: InputArguments
    notes: tuple[str, ...] = ()
    card: CardInfo = field(default_factory=CardInfo)

    def of_modalities(self, args: RelearnTrainingArguments) -> tuple["Experiment", RelearnTrainingArguments]:
        """Return the experiment and arguments with those modalities alone that `--use_modalities` names.

        Flags that name another modality are left out; a single modality needs no fusion.

        Raises:
            ValueError: for a name that is not a modality.
        """
        wanted = self.model.use_modalities
        if wanted is None:
            return self, args
        for name in wanted:
            if name not in self.modalities:
                raise ValueError(f"--use_modalities names {name!r}; the modalities are {', '.join(self.modalities)}")
        others = [name for name in self.modalities if name not in wanted]

        def kept(values: list[str] | None) -> list[str] | None:
            return [
                value for value in values or () if not any(re.match(rf"{name}\b", value) for name in others)
            ] or None

        model = replace(self.model, pooling=kept(self.model.pooling), encoders_from=kept(self.model.encoders_from))
        if len(wanted) == 1:
            model = replace(model, fusion="concat", fusion_options=None)
        args = copy.copy(args)
        for flag in ("learning_rates", "freeze", "relearn_modalities"):
            setattr(args, flag, kept(getattr(args, flag)))
        if args.relearn_alpha is not None:
            args.relearn_alpha = ",".join(kept(args.relearn_alpha.split(",")) or ()) or None
        modalities = {name: modality for name, modality in self.modalities.items() if name in wanted}
        return replace(self, modalities=modalities, model=model), args

    @property
    def held_out(self) -> dict[str, datasets.Dataset]:
        """The splits that are evaluated at the end: `validation` and `test`, if they are there."""
        splits = {"validation": self.evaluation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def several_labels(self) -> bool:
        """Whether a sample may have several classes."""
        return not self.numbers and not isinstance(self.train.features[self.label_column], datasets.ClassLabel)

    @property
    def numbers(self) -> bool:
        """Whether a number is predicted."""
        return isinstance(self.train.features[self.label_column], datasets.Value)

    @property
    def class_names(self) -> list[str]:
        """The classes in order; of a regression the name of the number."""
        if self.numbers:
            return [self.label_column]
        feature = self.train.features[self.label_column]
        return (feature.feature if self.several_labels else feature).names

    def count_samples(self) -> dict[str, dict[str, Any]]:
        """Count each split's samples, and under `missing` those that lack a modality."""
        splits = {"train": self.train, "validation": self.evaluation, "test": self.test}
        return count_samples(splits, columns_of(self.modalities))

    def corrupted(self, corruptions: Sequence[str] | None, args: TrainingArguments) -> "Experiment":
        """Return the experiment on spoilt data, of which its notes tell; `corrupt_splits` says how.

        Args:
            corruptions: as `--corrupt` takes them.
            args: the seed is used, and the main process prepares the data first.

        Raises:
            ValueError: for what cannot be done to these data.
        """
        parsed = parse_corruptions(corruptions, list(self.modalities))
        if not parsed:
            return self
        splits = {"train": self.train, "evaluation": self.evaluation, "test": self.test}
        with args.main_process_first(desc="spoiling the data"):
            spoilt = corrupt_splits(
                {name: split for name, split in splits.items() if split is not None},
                parsed,
                columns=columns_of(self.modalities),
                kinds={name: modality.kind for name, modality in self.modalities.items()},
                label_column=self.label_column,
                seed=args.seed,
            )
        notes = [f"Spoilt for an experiment: {corruption}." for corruption in parsed]
        card = replace(self.card, notes=[*self.card.notes, *notes]) if self.card.notes else self.card
        return replace(self, **{**splits, **spoilt}, notes=(*self.notes, *notes), card=card)

    def backbones(self) -> dict[str, Any]:
        """Modality -> what `from_backbones` takes."""
        return {name: modality.build_backbone(name, self.train) for name, modality in self.modalities.items()}

    def build_model(self) -> MultimodalForClassification:
        """Build a new model by torch's generator. Each part starts the same, whatever the other parts are.

        Raises:
            ValueError: if an encoder is to start from that of a saved model that is another one.
        """
        kwargs = self.model.build_kwargs(list(self.modalities))
        options = {name: modality.model_options(self.inputs) for name, modality in self.modalities.items()}
        kwargs["modality_options"] = merge_options(options, kwargs["modality_options"])
        if self.several_labels:
            kwargs["problem_type"] = "multi_label_classification"
        if self.numbers:
            kwargs |= {"problem_type": "regression", "regression_loss": self.model.regression_loss}
        elif self.model.regression_loss != "mse":
            raise ValueError(f"--regression_loss {self.model.regression_loss} needs --problem_type regression")
        model = MultimodalForClassification.from_backbones(
            self.backbones(), id2label=dict(enumerate(self.class_names)), **kwargs
        )
        for name, folder in read_pairs("encoders_from", self.model.encoders_from, self.modalities).items():
            _load_encoder(model, name, folder)
        return model

    def build_processor(self, model: MultimodalForClassification) -> MultimodalProcessor:
        """Return the processor that goes with the model."""
        config = model.config
        assert isinstance(config, MultimodalConfig)
        options = {
            name: modality.processor_options(name, config.modalities[name], self.inputs, self.train)
            for name, modality in self.modalities.items()
        }
        return MultimodalProcessor.from_model(config, self.backbones(), options)


def _load_encoder(model: MultimodalForClassification, name: str, folder: str) -> None:
    saved = MultimodalForClassification.from_pretrained(folder, dtype=model.dtype)
    if name not in saved.encoders:
        raise ValueError(f"--encoders_from {name}={folder}: that model has {', '.join(saved.encoders)}")
    try:
        model.encoders[name].load_state_dict(saved.encoders[name].state_dict())
    except RuntimeError as error:
        raise ValueError(f"--encoders_from {name}={folder}: that model's {name} has another backbone") from error
