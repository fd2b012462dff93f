"""Set when and how to diagnose and re-learn."""

import math
from dataclasses import dataclass, field
from typing import Any

from hf_relearn.pairs import as_words

# Rules by which strengths follow from diagnoses.
STRENGTH_RULES = ("gate", "gap")
_CHOICES = {
    "relearn_strategy": ("no", "epoch", "steps"),
    "relearn_optimizer_state": ("keep", "reset"),
    "relearn_buffers": ("keep", "interpolate"),
    "diagnosis_estimator": ("separability", "purity"),
    "diagnosis_sampling": ("all", "matched"),
}
# Sources of the held-out samples beside the names of evaluation sets.
SOURCES = ("auto", "eval", "holdout")
# Dropped settings -> what to use in their place.
REPLACED = {"diagnosis_return": "--diagnosis_source eval, which costs no training samples"}


@dataclass
class RelearnSettings:
    """Choose when to diagnose, on what, and how far to move back. Every field is a flag of the recipes.

    In Python `relearn_alpha` and `relearn_modalities` take a string, a list or a mapping, such as
    `relearn_alpha={"image": 0.9}`.

    Raises:
        ValueError: for a value outside its range; the message names the flag.
        TypeError: for a dropped field; the message names what to use in its place.
    """

    relearn_strategy: str = field(
        default="epoch",
        metadata={
            "help": "Whether re-learning steps come at the start of an epoch ('epoch'), at any optimizer step "
            "('steps'), or not at all ('no').",
            "choices": _CHOICES["relearn_strategy"],
        },
    )
    relearn_points: list[float] | None = field(
        default=None,
        metadata={
            "help": "Shares of the planned optimizer steps at which to diagnose and re-learn; unset, 0.25 0.5. "
            "Give later ones only if enough training follows."
        },
    )
    relearn_interval: int | None = field(
        default=None,
        metadata={"help": "Epochs or steps between re-learning steps, in place of --relearn_points (the paper: 20)."},
    )
    relearn_max_times: int = field(
        default=3, metadata={"help": "Re-learning steps at most, with --relearn_interval (the paper: 3)."}
    )
    relearn_strength: str = field(
        default="gate",
        metadata={
            "help": "Distance that an encoder moves back: 'gate' moves a modality that has memorised by "
            "--relearn_gate_alpha and leaves the others alone, 'gap' moves each by tanh(λ·gap) (the paper), and a "
            "number in [0, 1] moves each by this share."
        },
    )
    relearn_gate_threshold: float = field(
        default=0.3, metadata={"help": "Memorised share above which the gate re-learns a modality."}
    )
    relearn_gate_errors: float = field(
        default=2.0, metadata={"help": "Standard errors by which the memorised share has to exceed the threshold."}
    )
    relearn_gate_rise: float = field(
        default=2.0,
        metadata={
            "help": "Standard errors by which the held-out separability may have risen since the re-learning step "
            "before, or the start; a modality that rose by more still learns, and the gate keeps it."
        },
    )
    relearn_gate_alpha: float = field(
        default=0.9, metadata={"help": "Strength α with which the gate moves a modality that has memorised."}
    )
    relearn_lambda: float = field(default=3.0, metadata={"help": "λ of α = tanh(λ·gap), the strength 'gap'."})
    relearn_alpha: str | None = field(
        default=None,
        metadata={
            "help": "A constant strength per modality in place of --relearn_strength, as 'audio=0.9,vision=0.5' (one "
            "that is not named stays), or one number for all. A diagnosis is recorded if there are held-out samples."
        },
    )
    relearn_modalities: list[str] | None = field(
        default=None, metadata={"help": "The modalities that are diagnosed and re-learnt; unset, all of them."}
    )
    relearn_optimizer_state: str = field(
        default="keep",
        metadata={
            "help": "Whether moved parameters keep the optimizer's state (momentum): 'keep' (the paper) or 'reset'.",
            "choices": _CHOICES["relearn_optimizer_state"],
        },
    )
    relearn_buffers: str = field(
        default="keep",
        metadata={
            "help": "Whether buffers such as BatchNorm statistics stay: 'keep' (the paper) or 'interpolate'.",
            "choices": _CHOICES["relearn_buffers"],
        },
    )
    relearn_final: bool = field(
        default=False,
        metadata={
            "help": "After training, move each encoder as far back towards its initial weights as the evaluation set "
            "likes best, 0 included; for pretrained encoders. One evaluation per tried strength."
        },
    )
    diagnosis_estimator: str = field(
        default="separability",
        metadata={
            "help": "Measure of how far the classes lie apart in a modality's features: leave-one-out 'separability' "
            "with a standard error, or K-means 'purity' (the paper).",
            "choices": _CHOICES["diagnosis_estimator"],
        },
    )
    diagnosis_source: str = field(
        default="auto",
        metadata={
            "help": "The held-out samples of a diagnosis: 'eval' is the evaluation set, 'holdout' takes "
            "`diagnosis_fraction` out of the training set (the paper), 'auto' is the evaluation set if there is one, "
            "else a part held out if a strength needs it; or the name of one of several evaluation sets. Not the "
            "test set."
        },
    )
    diagnosis_fraction: float = field(
        default=0.1,
        metadata={"help": "Share of the training set that is held out, stratified by label and seeded by --seed."},
    )
    diagnosis_sampling: str = field(
        default="all",
        metadata={
            "help": "Training samples that purity looks at: 'all' (the paper), or as many as are held out "
            "('matched'). Separability chooses by itself.",
            "choices": _CHOICES["diagnosis_sampling"],
        },
    )
    diagnosis_max_samples: int | None = field(
        default=None,
        metadata={
            "help": "Samples of each part at most, stratified; unset, no bound. Of a stream, the first "
            "so many samples (unset, 2048), which are kept in memory."
        },
    )
    diagnosis_n_init: int = field(
        default=1, metadata={"help": "K-means starts of a purity, of which the best counts (the paper: 1)."}
    )
    diagnosis_interval: int = field(
        default=0,
        metadata={
            "help": "Diagnose every so many epochs and at the end too, for the record and the figures only (0: at "
            "the start and at re-learning steps only)."
        },
    )

    def __new__(cls, *args: Any, **fields: Any) -> "RelearnSettings":
        for name in REPLACED.keys() & fields.keys():
            raise TypeError(f"there is no --{name} any more: use {REPLACED[name]}")
        return super().__new__(cls)

    def check(self) -> None:
        """Bring values into the form of their flags; raise `ValueError` for one outside its range."""
        from hf_relearn.method.alpha import parse_alpha  # takes a second, which `--help` does not have

        self.relearn_modalities = as_words(self.relearn_modalities)
        alphas = as_words(self.relearn_alpha)
        self.relearn_alpha = ",".join(alphas) if alphas else None
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"--{name} is {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, lowest in (("relearn_interval", 1), ("relearn_max_times", 0), ("diagnosis_max_samples", 2)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"--{name} is {value}, but it is at least {lowest}")
        for name, lowest in (("diagnosis_n_init", 1), ("diagnosis_interval", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"--{name} is {getattr(self, name)}, but it is at least {lowest}")
        for name in ("relearn_lambda", "relearn_gate_errors", "relearn_gate_rise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} is {getattr(self, name)}, but it is a finite number of at least 0")
        for name in ("relearn_gate_threshold", "relearn_gate_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is {getattr(self, name)}, but it is a number in [0, 1]")
        if not 0 <= self.diagnosis_fraction < 1:
            raise ValueError(f"--diagnosis_fraction is {self.diagnosis_fraction}, but it is a share in [0, 1)")
        if wrong := [share for share in self.relearn_points or [] if not 0 < share < 1]:
            raise ValueError(f"--relearn_points holds {wrong[0]}, but each is a share of the run between 0 and 1")
        if self.relearn_points and self.relearn_interval is not None:
            raise ValueError("--relearn_points and --relearn_interval both say when to re-learn: give one of them")
        parse_alpha(self.relearn_alpha)
        if self.constant_strength is None and self.relearn_strength not in STRENGTH_RULES:
            raise ValueError(
                f"--relearn_strength is {self.relearn_strength!r}: choose gate or gap, or a number in [0, 1]"
            )
        if self.gated and self.relearn_strategy != "no" and self.diagnosis_estimator != "separability":
            raise ValueError(
                "--relearn_strength gate needs --diagnosis_estimator separability, which has a standard error; with "
                "purity use --relearn_strength gap"
            )

    @property
    def constant_strength(self) -> Any:
        """The strength for `constant_alphas`, or None if strengths follow from diagnoses."""
        if self.relearn_alpha is not None:
            return self.relearn_alpha
        from hf_relearn.method.alpha import parse_alpha

        try:
            return parse_alpha(self.relearn_strength)
        except ValueError:
            return None

    @property
    def gated(self) -> bool:
        """Whether only modalities that have memorised are re-learnt."""
        return self.constant_strength is None and self.relearn_strength == "gate"

    @property
    def needs_diagnosis(self) -> bool:
        """Whether a run by these settings cannot do without held-out samples."""
        return self.relearn_strategy != "no" and self.constant_strength is None

    @property
    def wants_diagnosis(self) -> bool:
        """Whether a run by these settings diagnoses if it has held-out samples."""
        return self.relearn_strategy != "no" or self.diagnosis_interval > 0
