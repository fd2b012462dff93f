"""Diagnosing a model: which samples are looked at, their features, and the verdict that reaches every process."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import TrainingArguments

from hf_relearn.method import ModalityDiagnosis, diagnose, stratified_indices
from hf_relearn.method.regression import numbers_rows, r_squared
from hf_relearn.method.samples import UNLABELLED, diagnosed_rows
from hf_relearn.method.tensors import is_sharded
from hf_relearn.models.modeling_losses import in_target_unit
from hf_relearn.records import Point
from hf_relearn.relearning.features import FeatureFunction, PartFeatures, extract_features, without_augmentation
from hf_relearn.relearning.labels import dataset_labels, dataset_targets, first_rows, is_stream, label_names
from hf_relearn.relearning.processes import by_first_process
from hf_relearn.relearning.settings import RelearnSettings

logger = logging.getLogger(__name__)

# Training samples whose separability is known well enough; all of a large set would cost a third of an epoch.
ENOUGH_TRAINING_SAMPLES = 1000
_PIECE = 8192


class Diagnoser:
    """Diagnose a model on a training part and a held-out part, in the same way each time.

    Args:
        feature_function: (model, batch) -> modality -> (batch, d) tensor, or a pair of it and (batch,) bool, False
            for samples that lack the modality: they do not count for it.
        train_dataset, diagnosis_dataset: the two parts, map-style; of a stream the first `diagnosis_max_samples` (or
            2048) samples are read at once and kept in memory.
        collate_fn: rows -> batch; if it has `without_augmentation()`, that is used, and its `label_column`, if any.
        settings: the `diagnosis_` fields and `relearn_lambda`.
        args: batch size, device, processes, workers, seed.
        num_classes: clusters of the K-means; None counts the classes of both parts.
        numbers: whether the labels are numbers, as of a regression.
        modalities: those to diagnose; None for all that the feature function gives.
        heads: model -> modality -> linear head on its features, if the model has uni-modal heads.

    Attributes:
        on_features: called with the training part's features at each diagnosis, before any weight moves.
        streamed: part -> number of samples that were read from the beginning of a stream; empty without streams.

    Raises:
        ValueError: as `dataset_labels` and `first_rows`; the message names the part.
    """

    def __init__(
        self,
        feature_function: FeatureFunction,
        train_dataset: Any,
        diagnosis_dataset: Any,
        collate_fn: Callable[[list], Any],
        settings: RelearnSettings,
        args: TrainingArguments,
        num_classes: int | None = None,
        modalities: list[str] | None = None,
        heads: Callable[[nn.Module], Mapping[str, nn.Module]] | None = None,
        numbers: bool = False,
    ):
        if numbers and settings.diagnosis_estimator == "purity":
            raise ValueError(
                "--diagnosis_estimator purity counts classes in clusters, and the labels are numbers: use separability"
            )
        self.feature_function = feature_function
        self.parts, self.streamed = _materialised(
            {"training": train_dataset, "diagnosing": diagnosis_dataset}, settings.diagnosis_max_samples, args.seed
        )
        self.collate_fn = without_augmentation(collate_fn)
        self.settings = settings
        self.args = args
        self._num_classes = num_classes
        self.modalities = modalities
        self.heads = heads
        self.numbers = numbers
        self.on_features: Callable[[PartFeatures], None] | None = None
        # Read at once, so that what is wrong with them shows before training, not at the first diagnosis.
        self.labels = {part: self._read_labels(part) for part in self.parts}
        bounds: Any = {
            "max_samples": settings.diagnosis_max_samples,
            "enough": ENOUGH_TRAINING_SAMPLES,
            "seed": args.seed,
        }
        if numbers:
            rows = numbers_rows(*self.labels.values(), **bounds)
        else:
            estimator: Any = settings.diagnosis_estimator
            sampling: Any = settings.diagnosis_sampling
            rows = diagnosed_rows(*self.labels.values(), estimator=estimator, sampling=sampling, **bounds)
        self.indices = dict(zip(self.parts, rows, strict=True))

    @cached_property
    def num_classes(self) -> int:
        """Number of classes, and so of clusters; 0 if the labels are numbers."""
        if self.numbers:
            return 0
        labels = np.concatenate(list(self.labels.values()))
        return self._num_classes or len(np.unique(labels[labels != UNLABELLED]))

    def features(self, model: nn.Module, evaluated: PartFeatures | None = None) -> dict[str, PartFeatures]:
        """Extract both parts' features, keyed `"training"` and `"diagnosing"`; call it on every process.

        Args:
            model: in any mode.
            evaluated: features of all held-out samples with the present weights, if an evaluation has just seen them.
        """
        parts = {}
        for part, dataset in self.parts.items():
            rows = self.indices[part]
            if part == "diagnosing" and evaluated is not None:
                parts[part] = self._chosen(evaluated, rows)
                continue
            features, present = extract_features(
                model,
                self.feature_function,
                dataset,
                rows.tolist(),
                self.collate_fn,
                batch_size=self.args.per_device_eval_batch_size,
                device=self.args.device,
                process_index=self.args.process_index,
                num_processes=self.args.world_size,
                num_workers=self.args.dataloader_num_workers,
                seed=self.args.seed,
                description=f"Features of the {part} part",
                progress=not self.args.disable_tqdm,
            )
            kept = {name: features[name] for name in features if self.modalities is None or name in self.modalities}
            parts[part] = PartFeatures(kept, self.labels[part][rows], present)
        return parts

    def _chosen(self, evaluated: PartFeatures, rows: np.ndarray) -> PartFeatures:
        names = [name for name in evaluated.features if self.modalities is None or name in self.modalities]
        return PartFeatures(
            {name: evaluated.features[name][rows] for name in names},
            self.labels["diagnosing"][rows],
            {name: having[rows] for name, having in evaluated.present.items()},
        )

    def __call__(self, model: nn.Module, evaluated: PartFeatures | None = None) -> Point:
        """Diagnose a model; call it on every process. The first one judges, and all get the same diagnosis.

        Args:
            model: in any mode.
            evaluated: as `features` takes it.

        Raises:
            ValueError: on every process, if the diagnosis is impossible.
            Exception: on every process, what failed on one of them.
        """
        start = time.perf_counter()
        parts = self.features(model, evaluated)
        if self.on_features is not None:
            self.on_features(parts["training"])
        extracted = time.perf_counter()
        diagnoses, accuracies = by_first_process(
            lambda: (self.judge(parts), self._accuracies(model, parts)), self.args
        )
        end = time.perf_counter()
        return Point(
            diagnoses=diagnoses,
            head_accuracies=accuracies,
            num_classes=self.num_classes,
            streamed=self.streamed,
            seconds=end - start,
            estimator_seconds=end - extracted,
        )

    def _read_labels(self, part: str) -> np.ndarray:
        try:
            read = dataset_targets if self.numbers else dataset_labels
            return read(self.parts[part], label_names(self.collate_fn))
        except ValueError as error:
            raise ValueError(f"the {part} part cannot be diagnosed: {error}") from error

    def _accuracies(self, model: nn.Module, parts: Mapping[str, PartFeatures]) -> dict[str, tuple[float, float]]:
        """Measure each uni-modal head's accuracy, or R², on both parts; empty without heads or if they are sharded."""
        heads = self.heads(model) if self.heads is not None else {}
        accuracies = {}
        for name, head in heads.items():
            if name not in parts["training"].features or any(map(is_sharded, head.parameters())):
                continue
            both = []
            for part in parts.values():
                rows = part.having(name)
                outputs = _outputs(head, part.features[name][rows])
                if self.numbers:
                    outputs = in_target_unit(outputs, getattr(extract_model_from_parallel(model), "config", None))
                    both.append(r_squared(outputs[:, 0].numpy(), part.labels[rows]))
                else:
                    both.append(float(np.mean(outputs.argmax(dim=-1).numpy() == part.labels[rows])))
            accuracies[name] = (both[0], both[1])
        return accuracies

    def judge(self, parts: Mapping[str, PartFeatures]) -> dict[str, ModalityDiagnosis]:
        """Diagnose features that `features` gave, on the process that has them: modality -> diagnosis.

        A modality with features that are not finite is missing.

        Raises:
            ValueError: if the diagnosis is impossible.
        """
        names = parts["training"].features
        if missing := [name for name in self.modalities or [] if name not in names]:
            raise ValueError(
                f"the feature function gives no features of {', '.join(missing)}, for which there are encoders: use "
                "the same modality names in both"
            )
        if all(len(part.having(name)) == len(part.labels) for part in parts.values() for name in part.features):
            return self._diagnosed(parts)
        diagnosed: dict[str, ModalityDiagnosis] = {}
        for name in names:  # samples that lack it do not count for a modality
            diagnosed.update(self._diagnosed({part: self._only(name, part, parts) for part in parts}))
        return diagnosed

    def _diagnosed(self, parts: Mapping[str, PartFeatures]) -> dict[str, ModalityDiagnosis]:
        return diagnose(
            parts["training"].features,
            parts["training"].labels,
            parts["diagnosing"].features,
            parts["diagnosing"].labels,
            self.num_classes or None,
            relearn_lambda=self.settings.relearn_lambda,
            n_init=self.settings.diagnosis_n_init,
            estimator=self.settings.diagnosis_estimator,  # type: ignore[arg-type]
            nonfinite="skip",
            targets="numbers" if self.numbers else "classes",
        )

    def _only(self, modality: str, part: str, parts: Mapping[str, PartFeatures]) -> PartFeatures:
        """One modality in one part, by the samples that have it; as many as in the other part, if sizes are matched.

        Raises:
            ValueError: if no sample has it.
        """
        rows = parts[part].having(modality)
        if len(rows) == 0:
            raise ValueError(
                f"no sample of the {part} part that is diagnosed has the modality {modality!r}: give more samples, or "
                "leave it out of --relearn_modalities"
            )
        if self.settings.diagnosis_estimator == "purity" and self.settings.diagnosis_sampling == "matched":
            size = min(len(each.having(modality)) for each in parts.values())
            if 0 < size < len(rows):
                rows = rows[stratified_indices(parts[part].labels[rows], size, self.args.seed)]
        return PartFeatures({modality: parts[part].features[modality][rows]}, parts[part].labels[rows])


@torch.no_grad()
def _outputs(head: nn.Module, features: np.ndarray) -> torch.Tensor:
    """Return what a head makes of features, (n, outputs) float32; adapters may have wrapped it."""
    weight = next(head.parameters())
    pieces = torch.from_numpy(features).split(_PIECE)
    return torch.cat([head(piece.to(weight)).float().cpu() for piece in pieces])


def _materialised(parts: Mapping[str, Any], bound: int | None, seed: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the parts with streams replaced by their first samples, and how many those are."""
    datasets, streamed = dict(parts), {}
    for part, dataset in parts.items():
        if is_stream(dataset):
            try:
                datasets[part] = first_rows(dataset, bound, seed)
            except ValueError as error:
                raise ValueError(f"the {part} part cannot be diagnosed: {error}") from error
            streamed[part] = len(datasets[part])
            logger.info(
                "the %s part is a stream: its first %d samples are diagnosed (--diagnosis_max_samples sets how many)",
                part,
                streamed[part],
            )
    return datasets, streamed
