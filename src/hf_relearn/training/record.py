"""One diagnosis as a line of the history, as values to log, and as a sentence to read."""

from collections.abc import Iterator, Mapping
from typing import Any

from hf_relearn.method import ModalityDiagnosis
from hf_relearn.training.diagnoser import Diagnoser, Verdict

_DIAGNOSED = ("train_purity", "val_purity", "train_chance_purity", "val_chance_purity", "gap")


def make_record(
    step: int,
    epoch: float | None,
    kind: str,
    verdict: Verdict | None,
    diagnosed: Mapping[str, ModalityDiagnosis],
    alphas: Mapping[str, float],
    moved: Mapping[str, float],
    diagnoser: Diagnoser | None,
) -> dict[str, Any]:
    """Build a record; `read_history` says what its fields are."""
    modalities = {}
    for name, alpha in alphas.items():
        diagnosis = diagnosed.get(name)
        modalities[name] = {
            **{field: getattr(diagnosis, field, None) for field in _DIAGNOSED},
            "train_size": diagnosis.train_size if diagnosis else 0,
            "diagnosis_size": diagnosis.val_size if diagnosis else 0,
            "diagnosed_alpha": getattr(diagnosis, "alpha", None),
            "alpha": alpha,
            "distance": moved[name],
        }
    return {
        "step": step,
        "epoch": epoch,
        "kind": kind,
        "seconds": round(verdict.seconds, 3) if verdict else 0.0,
        "kmeans_seconds": round(verdict.kmeans_seconds, 3) if verdict else 0.0,
        "train_size": max((diagnosis.train_size for diagnosis in diagnosed.values()), default=0),
        "diagnosis_size": max((diagnosis.val_size for diagnosis in diagnosed.values()), default=0),
        "num_classes": diagnoser.num_classes if diagnoser else None,
        "streamed": diagnoser.streamed if diagnoser else {},
        "modalities": modalities,
    }


def make_settings_record(step: int, epoch: float | None, changed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Build the record of a run that is resumed with other settings."""
    return {"step": step, "epoch": epoch, "kind": "settings", "changed": dict(changed), "modalities": {}}


def log_values(record: Mapping[str, Any]) -> dict[str, float]:
    """The record as flat values for `log_history` and trackers: `relearn/<modality>/<value>`."""
    return {
        f"relearn/{name}/{field}": value
        for name, values in record["modalities"].items()
        for field, value in values.items()
        if value is not None
    }


def describe_record(record: Mapping[str, Any]) -> Iterator[str]:
    """One readable line per modality."""
    for name, values in record["modalities"].items():
        line = f"[epoch {record['epoch']:g}, step {record['step']}] {name}: "
        if values["train_purity"] is not None:
            line += (
                f"purity {values['train_purity']:.3f} training / {values['val_purity']:.3f} held out "
                f"(chance {values['train_chance_purity']:.3f} / {values['val_chance_purity']:.3f}), "
                f"gap {values['gap']:.3f}, diagnosed α {values['diagnosed_alpha']:.3f}"
            )
        else:
            line += "not diagnosed"
        if record["kind"] == "point":
            line += f"; re-learnt with α {values['alpha']:.3f}, moved by {values['distance']:.1%} of its norm"
        yield line
