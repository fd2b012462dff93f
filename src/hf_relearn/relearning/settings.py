"""The settings of diagnosing and re-learning."""

import math
from dataclasses import dataclass, field

_CHOICES = {
    "relearn_strategy": ("no", "epoch", "steps"),
    "relearn_optimizer_state": ("keep", "reset"),
    "relearn_buffers": ("keep", "interpolate"),
    "diagnosis_source": ("holdout", "eval"),
    "diagnosis_sampling": ("all", "matched"),
}


@dataclass
class RelearnSettings:
    """When to diagnose, on what, and how far to move back. Every field is a flag of the recipes.

    Raises:
        ValueError: for a value outside its range; the message names the flag.
    """

    relearn_strategy: str = field(
        default="epoch",
        metadata={
            "help": "Whether re-learning points come every `relearn_interval` epochs ('epoch'), every so many "
            "optimizer steps ('steps'), or never ('no': joint training by the same code).",
            "choices": _CHOICES["relearn_strategy"],
        },
    )
    relearn_interval: int | None = field(
        default=None,
        metadata={
            "help": "Epochs or steps between points (the paper: 20 epochs of 90). Unset, the points that "
            "`relearn_max_times` allows are spread evenly over the run."
        },
    )
    relearn_max_times: int = field(default=3, metadata={"help": "Points at most in one run (the paper: 3)."})
    relearn_lambda: float = field(
        default=3.0, metadata={"help": "λ of α = tanh(λ·gap): how strongly a purity gap moves an encoder back."}
    )
    relearn_alpha: str | None = field(
        default=None,
        metadata={
            "help": "A constant strength in place of the diagnosed one: a number in [0, 1], or one per modality as "
            "'audio=0.9,vision=0.5'. Needs no diagnosing part; the diagnosis is still recorded where there is one."
        },
    )
    relearn_modalities: list[str] | None = field(
        default=None, metadata={"help": "The modalities that are diagnosed and re-learnt; unset, all of them."}
    )
    relearn_optimizer_state: str = field(
        default="keep",
        metadata={
            "help": "What becomes of the optimizer's state (momentum) of moved parameters: 'keep' (the paper) or "
            "'reset'.",
            "choices": _CHOICES["relearn_optimizer_state"],
        },
    )
    relearn_buffers: str = field(
        default="keep",
        metadata={
            "help": "What becomes of buffers such as BatchNorm statistics: 'keep' (the paper) or 'interpolate'.",
            "choices": _CHOICES["relearn_buffers"],
        },
    )
    diagnosis_source: str = field(
        default="holdout",
        metadata={
            "help": "Where the diagnosing part comes from: 'holdout' takes `diagnosis_fraction` out of the training "
            "set (the paper), 'eval' is the evaluation set, which costs no training data. Never the test set.",
            "choices": _CHOICES["diagnosis_source"],
        },
    )
    diagnosis_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Share of the training set held out by 'holdout', stratified by label and seeded by --seed. It "
            "is held out under relearn_strategy 'no' too, so that both train on the same samples. 0 holds out none."
        },
    )
    diagnosis_sampling: str = field(
        default="matched",
        metadata={
            "help": "How much of the training part is diagnosed: 'all' of it (the paper), or a stratified sample of "
            "the diagnosing part's size ('matched'), which is cheaper and free of the bias that purity has for "
            "small parts with many classes.",
            "choices": _CHOICES["diagnosis_sampling"],
        },
    )
    diagnosis_max_samples: int | None = field(
        default=None,
        metadata={
            "help": "Samples of each part at most, stratified; unset, no bound. Of a part that is a stream, the first "
            "so many samples (unset, 2048), which are kept in memory."
        },
    )
    diagnosis_n_init: int = field(
        default=1, metadata={"help": "K-means starts of a clustering, of which the best counts (the paper: 1)."}
    )
    diagnosis_interval: int = field(
        default=0,
        metadata={
            "help": "Diagnose every so many epochs and at the end too, for the record and the figures only (0: at "
            "the points only)."
        },
    )
    diagnosis_return: bool = field(
        default=False,
        metadata={
            "help": "After the last point let the held-out diagnosing part join training: from then on each epoch "
            "draws as many samples as before from both parts, and a diagnosis for the record (`diagnosis_interval`) "
            "looks at samples that were trained on."
        },
    )

    def check(self) -> None:
        """Raise `ValueError` for a value outside its range."""
        from hf_relearn.method.alpha import parse_alpha  # takes a second, which `--help` does not have

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
        if not 0 <= self.relearn_lambda < math.inf:
            raise ValueError(f"--relearn_lambda is {self.relearn_lambda}, but it is a finite number of at least 0")
        if not 0 <= self.diagnosis_fraction < 1:
            raise ValueError(f"--diagnosis_fraction is {self.diagnosis_fraction}, but it is a share in [0, 1)")
        if self.diagnosis_return and self.diagnosis_source == "eval":
            raise ValueError(
                "--diagnosis_return cannot give the evaluation set to training: use --diagnosis_source holdout"
            )
        parse_alpha(self.relearn_alpha)
