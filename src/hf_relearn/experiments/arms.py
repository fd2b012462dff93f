"""The arms of a comparison: what each changes in a recipe's flags, and the runs that they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_relearn.training import RelearnTrainingArguments

_HEADS = {"preset": "heads"}
_JOINT = {**_HEADS, "unimodal_loss_weight": 0.0}

# Flags of every run. All arms train on all training samples: a diagnosis looks at the evaluation set.
_COMMON: dict[str, Any] = {
    "compare": False,
    "save_predictions": True,
    "diagnosis_source": "eval",
    "diagnosis_interval": 0,
    "load_best_model_at_end": False,
    "push_to_hub": False,
}


@dataclass(frozen=True)
class Arm:
    """One row of a comparison.

    Args:
        description: for the reader of the comparison.
        flags: of the recipe; None for an arm that is made from other arms' predictions.
        ensemble: `"mean"` or `"weighted"` average over one run for each modality, or over the `"heads"` of one run.
        encoders: `"frozen"` or `"finetuned"`, for encoders that are trained by themselves first.
        needs_classes: whether it has no meaning if numbers are predicted.
    """

    description: str
    flags: Mapping[str, Any] | None = None
    ensemble: str | None = None
    encoders: str | None = None
    needs_classes: bool = False


ARMS: dict[str, Arm] = {
    "joint": Arm("one loss, of the fused prediction", _JOINT),
    "heads": Arm("the fused loss and that of a linear head for each modality", _HEADS),
    "heads_ensemble": Arm("the mean prediction of the heads of `heads`", ensemble="heads"),
    "balanced": Arm("heads and re-learning by the preset `balanced`", {"preset": "balanced"}),
    "paper": Arm(
        "re-learning as published, diagnosed on the validation set",
        {"preset": "paper", "unimodal_loss_weight": 0.0},
        needs_classes=True,
    ),
    "detached": Arm("heads and detached fusion", {**_HEADS, "balancing": "detached"}),
    "ogm_ge": Arm("heads and OGM-GE", {**_HEADS, "balancing": "ogm_ge"}, needs_classes=True),
    "mlb": Arm("heads and MLB", {**_HEADS, "balancing": "mlb"}, needs_classes=True),
    "modality_dropout": Arm(
        "heads and adaptive modality dropout", {**_HEADS, "balancing": "modality_dropout"}, needs_classes=True
    ),
    "mmpareto": Arm("heads and MMPareto", {**_HEADS, "balancing": "mmpareto"}),
    "ensemble": Arm("the mean prediction of one model for each modality", ensemble="mean"),
    "ensemble_weighted": Arm("the same, with weights chosen on validation", ensemble="weighted"),
    "pretrained_frozen": Arm(
        "encoders trained by themselves for half of the epochs, then the fusion on frozen ones",
        _JOINT,
        encoders="frozen",
    ),
    "pretrained_finetuned": Arm(
        "encoders trained by themselves for half of the epochs, then all of the model", _JOINT, encoders="finetuned"
    ),
}
DEFAULT_ARMS = ("joint", "heads", "heads_ensemble", "balanced")


@dataclass(frozen=True)
class Run:
    """One model of a comparison, or one ensemble.

    Args:
        name: of the arm and its seed, for messages.
        folder: below the comparison's folder.
        flags: of the recipe, beside those of the comparison.
        needs: folders of the runs that come before.
        ensemble: see `Arm`; nothing is trained then.
        encoders: modality -> folder below the comparison's folder of the model that its encoder starts from.
    """

    name: str
    folder: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    ensemble: str | None = None
    encoders: Mapping[str, str] = field(default_factory=dict)


def known_arms(modalities: Sequence[str]) -> dict[str, Arm]:
    """Return all arms by name, with one for each modality alone."""
    alone = {f"only_{name}": Arm(f"{name} alone", {**_JOINT, "use_modalities": [name]}) for name in modalities}
    return {**ARMS, **alone}


def plan_runs(
    names: Sequence[str],
    seeds: Sequence[int],
    modalities: Sequence[str],
    args: "RelearnTrainingArguments",
    *,
    numbers: bool = False,
) -> list[Run]:
    """Plan a comparison seed by seed, each run after those that it needs. Arms that others need become rows too.

    Args:
        names: of arms.
        seeds: each arm has one run with each.
        modalities: of the data.
        args: `num_train_epochs`, `max_steps` and `freeze` are used.
        numbers: whether numbers are predicted.

    Raises:
        ValueError: for an arm that is not known, that needs two modalities if there is one, or classes if numbers are
            predicted.
    """
    from hf_relearn.quality import main_metric  # which imports torch, and flags need not

    known = known_arms(modalities)
    common = {**_COMMON, "metric_for_best_model": main_metric(numbers)}
    for name in names:
        if name not in known:
            raise ValueError(f"--compare_arms names {name!r}; the arms are {', '.join(known)}")
        if len(modalities) < 2 and (known[name].ensemble or known[name].encoders):
            raise ValueError(
                f"--compare_arms names {name!r}, which needs two modalities, but there is {modalities[0]}"
            )
        if numbers and known[name].needs_classes:
            possible = ", ".join(arm for arm, found in known.items() if not found.needs_classes)
            raise ValueError(
                f"--compare_arms names {name!r}, which needs classes, but the model predicts a number; the arms of "
                f"numbers are {possible}"
            )
    runs: dict[str, Run] = {}
    for seed in seeds:
        for name in names:
            for run in _runs_of(name, known, seed, modalities, args, common):
                runs.setdefault(run.folder, run)
    return list(runs.values())


def _runs_of(
    name: str,
    known: Mapping[str, Arm],
    seed: int,
    modalities: Sequence[str],
    args: "RelearnTrainingArguments",
    common: Mapping[str, Any],
) -> list[Run]:
    arm, folder, title = known[name], f"{name}/seed-{seed}", f"{name}, seed {seed}"
    if arm.ensemble:
        members = ["heads"] if arm.ensemble == "heads" else [f"only_{modality}" for modality in modalities]
        before = [run for member in members for run in _runs_of(member, known, seed, modalities, args, common)]
        return [*before, Run(title, folder, needs=tuple(run.folder for run in before), ensemble=arm.ensemble)]
    flags = {**common, **(arm.flags or {}), "seed": seed}
    if not arm.encoders:
        return [Run(title, folder, flags)]
    # Half of the run is for the encoders by themselves, so that each is trained for as long as in other arms.
    half = (
        {"max_steps": max(1, args.max_steps // 2)}
        if args.max_steps > 0
        else {"num_train_epochs": args.num_train_epochs / 2}
    )
    rest = {"max_steps": args.max_steps - half["max_steps"]} if args.max_steps > 0 else half
    encoders = {modality: f"stages/only_{modality}/seed-{seed}" for modality in modalities}
    before = [
        Run(f"first stage of {modality}, seed {seed}", path, {**flags, **half, "use_modalities": [modality]})
        for modality, path in encoders.items()
    ]
    if arm.encoders == "frozen":
        flags["freeze"] = [*(args.freeze or ()), *modalities]
    return [*before, Run(title, folder, {**flags, **rest}, tuple(encoders.values()), encoders=encoders)]
