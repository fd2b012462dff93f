"""Collect the facts of a model card: those that only a model's author knows, and those of its run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id

from hf_relearn.models import MultimodalConfig
from hf_relearn.quality import quality_metrics
from hf_relearn.records import Record, epoch_of, finite
from hf_relearn.report.environment import environment


def check_language(code: str) -> None:
    """Refuse what cannot be an ISO 639 code.

    Raises:
        ValueError: for anything but two or three small letters, `code` or `multilingual`.
    """
    if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", code):
        raise ValueError(
            f"the language {code!r} is no ISO 639 code: give two or three small letters (en, de, yue), 'code' or "
            "'multilingual'"
        )


def is_hub_id(name: str | None) -> bool:
    """Check whether a name can be that of a repository on the Hub, which an absolute path cannot."""
    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return False
    return True


Results = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class DatasetFacts:
    """Describe a data set that a model was trained on.

    Args:
        name: for a reader.
        hub_id: of its repository on the Hub; None for data that are not there.
        config: its configuration's name.
        revision: commit hash of the repository.
    """

    name: str
    hub_id: str | None = None
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class CardInfo:
    """Describe a model by what its run does not know. Everything may be left out.

    Args:
        model_name: heading; None takes the name of the repository or of the output directory.
        license: one of the Hub's identifiers, such as `apache-2.0`; `other` for one that is not among them. The Hub
            checks it when the card is pushed.
        language: ISO 639 codes of the languages in the data, such as `en`.
        tags: further ones for the Hub's search.
        datasets: None reads them from the training set, if that came from the Hub.
        notes: sentences in Markdown that a reader must know, such as where the data come from.
        results: split -> metric -> value; None takes the latest evaluations of the Trainer.
        settings: name -> value of hyper-parameters beside the training arguments.

    Raises:
        ValueError: for a language that the Hub would refuse.
    """

    model_name: str | None = None
    license: str | None = None
    language: Sequence[str] = ()
    tags: Sequence[str] = ()
    datasets: Sequence[DatasetFacts] | None = None
    notes: Sequence[str] = ()
    results: Results | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for code in self.language:
            check_language(code)


@dataclass(frozen=True)
class EncoderFacts:
    """Describe one modality's encoder; `pretrained` is None if that is not known."""

    modality: str
    kind: str
    architecture: str
    feature_size: int
    num_frames: int = 1
    input_size: int | None = None
    pretrained: bool | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    row: Mapping[str, Any] | None = None  # made up, of a table


@dataclass(frozen=True)
class CardFacts:
    """Hold all facts of a card.

    Args:
        name: heading.
        repository: Hub id or folder that the card's code loads from.
        info: what the author said.
        encoders: one for each modality, in the order of fusion.
        fusion: how they are joined.
        class_names: names of the classes, by label.
        multi_label: whether a sample may have several classes.
        regression: whether a number is predicted, whose name stands in the place of a class.
        unimodal_loss_weight: weight of the uni-modal heads' loss; 0 without heads.
        datasets: what it was trained on.
        results: split -> metric -> value.
        results_steps: split -> step of its evaluation, if these were not the weights that the card describes.
        records: diagnosis records, without those of changed settings.
        log_history: the Trainer's.
        settings: hyper-parameters that differ from their defaults.
        environment: versions and machine.
        steps, epochs: length of training so far.
        seconds: that it took; None before its end.
    """

    name: str
    repository: str
    info: CardInfo
    encoders: Sequence[EncoderFacts]
    fusion: str
    class_names: Sequence[str]
    multi_label: bool = False
    regression: bool = False
    unimodal_loss_weight: float = 0.0
    datasets: Sequence[DatasetFacts] = ()
    results: Results = field(default_factory=dict)
    results_steps: Mapping[str, int] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    log_history: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None

    @property
    def modalities(self) -> list[str]:
        return [encoder.modality for encoder in self.encoders]


# Where things lie, what is shown, how it is sent, and what a secret may hide in: none of it changes a model.
_NO_HYPERPARAMETERS = re.compile(
    r"(output|run|project|log|logging|report|disable_tqdm|push|hub|save|resume|eval|dataloader|trackio|restore|"
    r"include|prediction|do|ddp|local|use|skip|full_determinism|jit|debug|deepspeed|fsdp|accelerator|liger|per_device_"
    r"eval|remove_unused|label_names|past_index|batch_eval|enable_jit|torch_empty)(_|$).*|.*(token|_dir|path)(_|$).*"
)
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
    """Collect the facts of a card.

    Args:
        config: the model's configuration.
        name: of the repository or the output directory; the heading if `info` gives none.
        info: what the author said.
        repository: Hub id that the card's code loads from; None takes the name.
        arguments: training arguments, a dataclass; None if they are not known.
        records: lines of `relearn_history.jsonl`.
        log_history: the Trainer's `state.log_history`.
        step: the step that training has come to.
        best_step: the step whose weights were loaded at the end of training, if they were.
        train_dataset: is asked for the Hub repository that it came from, if `info` names no data sets.

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
        regression=config.problem_type == "regression",
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
    """Describe the encoder of each modality, in the order of fusion."""
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
            row=_made_up_row(modality.backbone_config) if modality.kind == "table" else None,
        )
        for name, modality in config.modalities.items()
    ]


def _made_up_row(config: Any) -> dict[str, Any]:
    return {column: 1.0 if place < config.num_numbers else "a" for place, column in enumerate(config.columns)}


def changed_from_defaults(arguments: Any, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Find the hyper-parameters of a dataclass that differ from their defaults; empty for None.

    Where things lie, what is logged, saved or pushed, and anything that a token could hide in is left out.

    Args:
        arguments: a dataclass, or its type.
        values: name -> value, if they are not those of the object but read from a file.
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
    """Find the latest evaluation of each data set that applies to the weights of a step.

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
            found[name] = quality_metrics(entry, name)
            older.pop(name, None)
            if place < end and step is not None and at < step:
                older[name] = at
    return found, older


def dataset_facts(dataset: Any) -> DatasetFacts | None:
    """Read which repository of the Hub a data set was loaded from; None if it does not say."""
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
