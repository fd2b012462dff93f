"""Diagnosing a model: which samples are looked at, their features, and the verdict that reaches every process."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainingArguments

from hf_relearn.method import ModalityDiagnosis, diagnose, stratified_indices
from hf_relearn.relearning.features import FeatureFunction, extract_features, without_augmentation
from hf_relearn.relearning.labels import dataset_labels, first_rows, is_stream, label_names
from hf_relearn.relearning.processes import by_first_process
from hf_relearn.relearning.settings import RelearnSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartFeatures:
    """Features of one part: modality -> (n, d) float32 (empty but on the first process), and labels (n,).

    `present` maps modalities to (n,) bool, False for samples without this modality, whose features mean nothing; a
    modality that is not named there is one that all samples have.
    """

    features: Mapping[str, np.ndarray]
    labels: np.ndarray
    present: Mapping[str, np.ndarray] = field(default_factory=dict)

    def having(self, modality: str) -> np.ndarray:
        """Rows of the samples that have a modality."""
        return np.flatnonzero(self.present.get(modality, np.ones(len(self.labels), dtype=bool)))

    def with_gaps(self) -> dict[str, np.ndarray]:
        """Modality -> features, NaN in the rows of samples that lack it, as figures leave them out."""
        return {
            name: np.where(self.present[name][:, None], values, np.nan) if name in self.present else values
            for name, values in self.features.items()
        }


@dataclass(frozen=True)
class Verdict:
    """What a diagnosis gave: per modality, and the seconds that it and its clustering took."""

    modalities: Mapping[str, ModalityDiagnosis]
    seconds: float
    kmeans_seconds: float


class Diagnoser:
    """Diagnoses a model on a training part and a diagnosing part, in the same way each time.

    Args:
        feature_function: (model, batch) -> modality -> (batch, d) tensor, or a pair of it and (batch,) bool, False
            for samples that lack the modality: they do not count for it.
        train_dataset, diagnosis_dataset: the two parts, map-style; of a stream the first `diagnosis_max_samples` (or
            2048) samples are read at once and kept in memory.
        collate_fn: rows -> batch; if it has `without_augmentation()`, that is used, and its `label_column`, if any.
        settings: `diagnosis_sampling`, `diagnosis_max_samples`, `diagnosis_n_init`, `relearn_lambda`.
        args: batch size, device, processes, workers, seed.
        num_classes: clusters of the K-means; None counts the classes of both parts.
        modalities: those to diagnose; None for all that the feature function gives.

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
    ):
        self.feature_function = feature_function
        self.parts, self.streamed = _materialised(
            {"training": train_dataset, "diagnosing": diagnosis_dataset}, settings.diagnosis_max_samples, args.seed
        )
        self.collate_fn = without_augmentation(collate_fn)
        self.settings = settings
        self.args = args
        self._num_classes = num_classes
        self.modalities = modalities
        self.on_features: Callable[[PartFeatures], None] | None = None
        # Read at once, so that what is wrong with them shows before training, not at the first point.
        self.labels = {part: self._read_labels(part) for part in self.parts}

    @cached_property
    def num_classes(self) -> int:
        """Number of classes, and so of clusters."""
        return self._num_classes or len(np.unique(np.concatenate(list(self.labels.values()))))

    @cached_property
    def indices(self) -> dict[str, np.ndarray]:
        """The samples of each part that are looked at: the same at every point."""
        bound = self.settings.diagnosis_max_samples
        sizes = {part: min(len(labels), bound or len(labels)) for part, labels in self.labels.items()}
        if self.settings.diagnosis_sampling == "matched":
            sizes["training"] = min(sizes.values())
        return {
            part: stratified_indices(labels, sizes[part], self.args.seed)
            if sizes[part] < len(labels)
            else np.arange(len(labels))
            for part, labels in self.labels.items()
        }

    def features(self, model: nn.Module) -> dict[str, PartFeatures]:
        """Extract both parts' features, keyed `"training"` and `"diagnosing"`; call it on every process."""
        parts = {}
        for part, dataset in self.parts.items():
            features, present = extract_features(
                model,
                self.feature_function,
                dataset,
                self.indices[part].tolist(),
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
            parts[part] = PartFeatures(kept, self.labels[part][self.indices[part]], present)
        return parts

    def __call__(self, model: nn.Module) -> Verdict:
        """Diagnose a model; call it on every process. The first clusters, and all get its verdict.

        Raises:
            NonFiniteFeaturesError: on every process, if features are NaN or infinite.
            ValueError: on every process, if the diagnosis is impossible.
            Exception: on every process, what failed on one of them.
        """
        start = time.perf_counter()
        parts = self.features(model)
        if self.on_features is not None:
            self.on_features(parts["training"])
        extracted = time.perf_counter()
        modalities = by_first_process(lambda: self.judge(parts), self.args)
        end = time.perf_counter()
        return Verdict(modalities, seconds=end - start, kmeans_seconds=end - extracted)

    def _read_labels(self, part: str) -> np.ndarray:
        try:
            return dataset_labels(self.parts[part], label_names(self.collate_fn))
        except ValueError as error:
            raise ValueError(f"the {part} part cannot be diagnosed: {error}") from error

    def judge(self, parts: Mapping[str, PartFeatures]) -> dict[str, ModalityDiagnosis]:
        """Diagnose features that `features` gave, on the process that has them: modality -> diagnosis.

        Raises:
            NonFiniteFeaturesError: if features are NaN or infinite.
            ValueError: if the diagnosis is impossible.
        """
        names = parts["training"].features
        if missing := [name for name in self.modalities or [] if name not in names]:
            raise ValueError(
                f"the feature function gives no features of {', '.join(missing)}, for which there are encoders: use "
                "the same modality names in both"
            )
        if all(len(part.having(name)) == len(part.labels) for part in parts.values() for name in part.features):
            return self._clustered(parts)
        diagnosed: dict[str, ModalityDiagnosis] = {}
        for name in names:  # samples that lack it do not count for a modality
            diagnosed.update(self._clustered({part: self._only(name, part, parts) for part in parts}))
        return diagnosed

    def _clustered(self, parts: Mapping[str, PartFeatures]) -> dict[str, ModalityDiagnosis]:
        return diagnose(
            parts["training"].features,
            parts["training"].labels,
            parts["diagnosing"].features,
            parts["diagnosing"].labels,
            self.num_classes,
            relearn_lambda=self.settings.relearn_lambda,
            n_init=self.settings.diagnosis_n_init,
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
        if self.settings.diagnosis_sampling == "matched":
            size = min(len(each.having(modality)) for each in parts.values())
            if 0 < size < len(rows):
                rows = rows[stratified_indices(parts[part].labels[rows], size, self.args.seed)]
        return PartFeatures({modality: parts[part].features[modality][rows]}, parts[part].labels[rows])


def _materialised(parts: Mapping[str, Any], bound: int | None, seed: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The parts with streams replaced by their first samples, and how many those are."""
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
