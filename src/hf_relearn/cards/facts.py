"""What a model card tells: facts that only a model's author knows, and those that are collected from its run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_relearn.cards.rules import check_language, check_license

Results = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class DatasetFacts:
    """A data set that a model was trained on.

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
    """What a model card has to be told, since no run knows it. Everything may be left out.

    Args:
        model_name: heading; None takes the name of the repository or of the output directory.
        license: one of the Hub's identifiers, such as `apache-2.0`; `other` for one that is not among them.
        language: ISO 639 codes of the languages in the data, such as `en`.
        tags: further ones for the Hub's search.
        datasets: None reads them from the training set, where that came from the Hub.
        notes: sentences in Markdown that a reader must know, such as where the data come from.
        results: split -> metric -> value; None takes the latest evaluations of the Trainer.
        settings: name -> value of hyper-parameters beside the training arguments.

    Raises:
        ValueError: for a licence or language that the Hub would refuse.
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
        if self.license is not None:
            check_license(self.license)
        for code in self.language:
            check_language(code)


@dataclass(frozen=True)
class EncoderFacts:
    """One modality's encoder; `pretrained` is None where that is not known."""

    modality: str
    kind: str
    architecture: str
    feature_size: int
    num_frames: int = 1
    input_size: int | None = None
    pretrained: bool | None = None
    base_model: str | None = None
    base_model_revision: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """All that a card tells.

    Args:
        name: heading.
        repository: Hub id or folder that the card's code loads from.
        info: what the author said.
        encoders: one for each modality, in the order of fusion.
        fusion: how they are joined.
        class_names: names of the classes, by label.
        multi_label: whether a sample may have several classes.
        unimodal_loss_weight: weight of the uni-modal heads' loss; 0 without heads.
        datasets: what it was trained on.
        results: split -> metric -> value.
        results_steps: split -> step of its evaluation, where these were not the weights that the card describes.
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
