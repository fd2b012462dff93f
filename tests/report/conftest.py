"""Runs made up for the report's tests."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

Record = dict[str, Any]


@pytest.fixture
def make_entry() -> Callable[..., Record]:
    """Factory of what a record says of one modality; the gap and the diagnosed α follow from the purities."""

    def make(train: float = 0.9, val: float = 0.6, **changes: Any) -> Record:
        gap = abs(train - val)
        alpha = float(np.tanh(3 * gap))
        entry = {
            "train_purity": train,
            "val_purity": val,
            "train_chance_purity": 0.21,
            "val_chance_purity": 0.24,
            "gap": gap,
            "diagnosed_alpha": alpha,
            "alpha": alpha,
            "distance": 0.12,
        }
        return {**entry, **changes}

    return make


@pytest.fixture
def make_measured() -> Callable[..., Record]:
    """Factory of what a record says of one modality by its separability; share and gate follow from it."""

    def make(
        train: float = 0.9, val: float = 0.85, error: float = 0.02, chance: float = 0.2, **changes: Any
    ) -> Record:
        learnt = train - chance
        memorised, memorised_error = (max(0.0, train - val) / learnt, error / learnt) if learnt >= 0.05 else (0.0, 0.0)
        alpha = 0.9 if memorised - 2 * memorised_error > 0.3 else 0.0
        entry = {
            "train_separability": train,
            "val_separability": val,
            "gap": train - val,
            "standard_error": error,
            "chance": chance,
            "separator": "ridge",
            "memorised": memorised,
            "memorised_error": memorised_error,
            "train_purity": None,
            "val_purity": None,
            "diagnosed_alpha": alpha,
            "alpha": alpha,
            "distance": alpha / 3,
        }
        return {**entry, **changes}

    return make


@pytest.fixture
def make_measured_run(
    make_measured: Callable[..., Record], make_record: Callable[..., Record]
) -> Callable[..., list[Record]]:
    """Factory of the records of a gated run of 12 epochs with points at epochs 3 and 6.

    By default one modality learns, one memorises, and one is noise.
    """

    def make(**curves: Any) -> list[Record]:
        curves = curves or {
            "audio": lambda epoch: (0.2 + 0.05 * epoch, 0.2 + 0.045 * epoch),
            "vision": lambda epoch: (0.2 + 0.06 * epoch, 0.2 + 0.02 * epoch),
            "noise": lambda epoch: (0.2 + 0.04 * epoch, 0.2 + (-1) ** epoch * 0.01),
        }
        records = []
        for epoch in range(13):
            kind = {0: "start", 3: "point", 6: "point", 12: "end"}.get(epoch, "record")
            entries = {name: make_measured(*curve(epoch)) for name, curve in curves.items()}
            if kind != "point":
                entries = {name: {**entry, "alpha": 0.0, "distance": 0.0} for name, entry in entries.items()}
            records.append(make_record(float(epoch), entries, kind))
        return records

    return make


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Factory of a diagnosis record."""

    def make(epoch: float | None, modalities: dict[str, Record], kind: str = "point", **changes: Any) -> Record:
        record = {
            "step": None if epoch is None else int(30 * epoch),
            "epoch": epoch,
            "kind": kind,
            "seconds": 1.83,
            "kmeans_seconds": 0.4,
            "train_size": 600,
            "diagnosis_size": 120,
            "num_classes": 6,
            "modalities": modalities,
        }
        return {**record, **changes}

    return make


@pytest.fixture
def make_run(make_entry: Callable[..., Record], make_record: Callable[..., Record]) -> Callable[..., list[Record]]:
    """Factory of a run's records: a point at each epoch given, and a diagnosis at the end."""

    def make(modalities: Sequence[str] = ("audio", "vision"), epochs: Sequence[float] = (4, 8, 12)) -> list[Record]:
        records = []
        for place, epoch in enumerate([*epochs, max(epochs, default=0) + 4]):
            kind = "point" if place < len(epochs) else "end"
            entries = {}
            for rank, name in enumerate(modalities):
                train = 0.5 + 0.4 * (1 - 0.8 ** (place + 1)) - 0.05 * rank
                entries[name] = make_entry(train, train - 0.2 / (rank + 1))
                if kind == "end":
                    entries[name] |= {"alpha": 0.0, "distance": 0.0}
            records.append(make_record(float(epoch), entries, kind))
        return records

    return make


@pytest.fixture
def make_log() -> Callable[..., list[Record]]:
    """Factory of a log history: a training and an evaluation entry for each epoch."""

    def make(modalities: Sequence[str] = ("audio", "vision"), epochs: int = 16, best: float = 0.8) -> list[Record]:
        log: list[Record] = []
        for epoch in range(1, epochs + 1):
            log.append({"step": 30 * epoch, "epoch": float(epoch), "loss": 1.0 / epoch})
            evaluation = {"step": 30 * epoch, "epoch": float(epoch), "eval_loss": 1.0 / epoch}
            evaluation["eval_accuracy"] = best * (1 - 0.8**epoch)
            for rank, name in enumerate(modalities):
                evaluation[f"eval_unimodal_{name}_accuracy"] = (best - 0.1 * (rank + 1)) * (1 - 0.85**epoch)
            log.append(evaluation)
        return log

    return make


@pytest.fixture
def make_features() -> Callable[..., Any]:
    """Factory of the features of both parts: one cloud for each class."""

    def make(
        modalities: Sequence[str] = ("audio", "vision"), classes: int = 3, samples: int = 45, width: int = 5
    ) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
        generator = np.random.default_rng(0)
        centres = {name: 3 * generator.normal(size=(classes, width)) for name in modalities}
        parts = {}
        for part, size in (("train", samples), ("held-out", samples // 3)):
            labels = np.arange(size) % classes
            parts[part] = (
                {name: centres[name][labels] + generator.normal(size=(size, width)) for name in modalities},
                labels,
            )
        return parts

    return make
