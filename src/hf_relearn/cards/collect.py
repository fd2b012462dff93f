"""Collects the facts of a model card from a configuration, training arguments, a log and a data set."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from hf_relearn.cards.facts import CardFacts, CardInfo, DatasetFacts, EncoderFacts
from hf_relearn.cards.rules import is_hub_id
from hf_relearn.models import MultimodalConfig
from hf_relearn.report.environment import environment
from hf_relearn.report.series import Record, epoch_of, finite

# Where things lie, what is shown, how it is sent, and what a secret may hide in: none of it changes a model.
_NO_HYPERPARAMETERS = re.compile(
    r"(output|run|project|log|logging|report|disable_tqdm|push|hub|save|resume|eval|dataloader|trackio|restore|"
    r"include|prediction|do|ddp|local|use|skip|full_determinism|jit|debug|deepspeed|fsdp|accelerator|liger|per_device_"
    r"eval|remove_unused|label_names|past_index|batch_eval|enable_jit|torch_empty)(_|$).*|.*(token|_dir|path)(_|$).*"
)
_SPEED = ("runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time")
_HUB_FILE = re.compile(r"hf://datasets/(?P<hub_id>[^@]+?)@(?P<revision>[0-9a-f]{40})/")


def collect_facts(
    config: MultimodalConfig,
    *,
    name: str,
    info: CardInfo | None = None,
    repository: str | None = None,
    arguments: Any = None,
    records: Sequence[Record] = (),
    log_history: Sequence[Record] = (),
    step: int | None = None,
    best_step: int | None = None,
    train_dataset: Any = None,
) -> CardFacts:
    """Collect what a card tells.

    Args:
        config: the model's configuration.
        name: of the repository or the output directory; the heading where `info` gives none.
        info: what the author said.
        repository: Hub id that the card's code loads from; None takes the name.
        arguments: training arguments, a dataclass; None where they are not known.
        records: lines of `relearn_history.jsonl`.
        log_history: the Trainer's `state.log_history`.
        step: the step that training has come to.
        best_step: the step whose weights were loaded at the end of training, where they were.
        train_dataset: is asked for the Hub repository that it came from, where `info` names no data sets.

    Returns:
        The facts. No absolute local path is among the names of models and data sets.
    """
    info = info or CardInfo()
    results, results_steps = latest_evaluations(log_history, best_step if best_step is not None else step)
    if info.results is not None:
        results, results_steps = {split: dict(metrics) for split, metrics in info.results.items()}, {}
    datasets = info.datasets
    if datasets is None:
        found = dataset_facts(train_dataset)
        datasets = [found] if found is not None else []
    epochs = [epoch for entry in log_history if (epoch := epoch_of(entry)) is not None]
    seconds = [value for entry in log_history if (value := finite(entry.get("train_runtime"))) is not None]
    return CardFacts(
        name=info.model_name or name,
        repository=repository or name,
        info=info,
        encoders=encoder_facts(config),
        fusion=config.fusion,
        class_names=list((config.id2label or {}).values()),
        multi_label=config.problem_type == "multi_label_classification",
        unimodal_loss_weight=config.unimodal_loss_weight,
        datasets=datasets,
        results=results,
        results_steps=results_steps,
        records=[record for record in records if record.get("kind") != "settings"],
        log_history=log_history,
        settings={**changed_from_defaults(arguments), **info.settings},
        environment=environment(),
        steps=step,
        epochs=max(epochs, default=None),
        seconds=seconds[-1] if seconds else None,
    )


def encoder_facts(config: MultimodalConfig) -> list[EncoderFacts]:
    """One entry for each modality, in the order of fusion."""
    return [
        EncoderFacts(
            modality=name,
            kind=modality.kind,
            architecture=modality.backbone_config.model_type,
            feature_size=modality.feature_size,
            num_frames=modality.num_frames,
            input_size=getattr(modality.backbone_config, "input_size", None),
            pretrained=modality.pretrained,
            base_model=modality.base_model if is_hub_id(modality.base_model) else None,
            base_model_revision=modality.base_model_revision,
        )
        for name, modality in config.modalities.items()
    ]


def changed_from_defaults(arguments: Any, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Hyper-parameters of a dataclass that differ from their defaults; empty for None.

    Where things lie, what is logged, saved or pushed, and anything that a token could hide in is left out.

    Args:
        arguments: a dataclass, or its type.
        values: name -> value, where they are not those of the object but read from a file.
    """
    if arguments is None:
        return {}
    changed = {}
    for item in fields(arguments):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        value = getattr(arguments, item.name) if values is None else values.get(item.name, default)
        value, default = getattr(value, "value", value), getattr(default, "value", default)
        plain = isinstance(value, bool | int | float | str | list | tuple | dict)
        if plain and value != default and (value or default) and not _NO_HYPERPARAMETERS.fullmatch(item.name):
            changed[item.name] = value
    return changed


def latest_evaluations(
    log_history: Sequence[Record], step: int | None
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """The latest evaluation of each data set that says something of the weights of a step.

    Args:
        log_history: the Trainer's `state.log_history`. Evaluations after the end of training are of the final
            weights; earlier ones count if they are no later than `step`.
        step: whose weights are described: the last one, or that of the best model, if that was loaded at the end.

    Returns:
        Name of the data set -> metric -> value, and name -> step of an evaluation that is older than these weights.
    """
    end = max((place for place, entry in enumerate(log_history) if "train_runtime" in entry), default=len(log_history))
    found: dict[str, dict[str, float]] = {}
    older: dict[str, int] = {}
    for place, entry in enumerate(log_history):
        at = int(finite(entry.get("step")) or 0)
        for name in (key.removesuffix("_runtime") for key in entry if key.endswith("_runtime")):
            if name == "train" or (place < end and step is not None and at > step):
                continue
            values = {
                key.removeprefix(f"{name}_"): number
                for key, value in entry.items()
                if key.startswith(f"{name}_") and (number := finite(value)) is not None
            }
            found[name] = {key: value for key, value in values.items() if key not in _SPEED}
            older.pop(name, None)
            if place < end and step is not None and at < step:
                older[name] = at
    return found, older


def dataset_facts(dataset: Any) -> DatasetFacts | None:
    """Read which repository of the Hub a data set was loaded from; None where it does not say."""
    while dataset is not None and not hasattr(dataset, "info"):
        parts = getattr(dataset, "datasets", None)  # of a ConcatDataset; a Subset has the whole data set instead
        dataset = parts[0] if parts else getattr(dataset, "dataset", None)
    info = getattr(dataset, "info", None)
    sources: Mapping[str, Any] = getattr(info, "download_checksums", None) or {}
    for source in sources:
        if match := _HUB_FILE.match(source):
            config = getattr(info, "config_name", None)
            return DatasetFacts(
                name=match["hub_id"],
                hub_id=match["hub_id"],
                config=config if config != "default" else None,
                revision=match["revision"],
            )
    return None
