"""Diagnose each modality's learning state from the separability of its own features."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from hf_relearn.method.alpha import learning_state_alpha
from hf_relearn.method.parts import Part, class_messages, few_samples_messages, spread_messages
from hf_relearn.method.purity import cluster_purity
from hf_relearn.method.regression import measure_numbers, numbers_rows
from hf_relearn.method.samples import Estimator, NonFiniteFeaturesError, Sampling, diagnosed_rows, measure_spread
from hf_relearn.method.separability import Separability, measure_separability

# A gap below this many purity points gives an alpha below 0.06 (lambda 3): not worth a warning.
_NEGLIGIBLE_GAP = 0.02
# With a larger standard error, much over-fitting cannot be told from chance.
_LARGE_ERROR = 0.05
_CHOICES = {
    "estimator": ("purity", "separability"),
    "sampling": ("all", "matched"),
    "nonfinite": ("raise", "skip"),
    "targets": ("classes", "numbers"),
}


class DiagnosisWarning(UserWarning):
    """A diagnosis was made, but its numbers mean less than they seem to."""


@dataclass(frozen=True)
class ModalityDiagnosis:
    """Hold the diagnosis of one modality, as plain Python numbers and text.

    Values of the estimator that was not used are None.

    Attributes:
        modality: its name.
        train_purity: P_D, the purity of the training part's clusters.
        val_purity: P_V, the purity of the held-out part's clusters.
        gap: g = |P_D - P_V|, or the signed difference of the separabilities.
        alpha: strength of the re-learning in [0, 1]: tanh(lambda * g), or tanh(lambda * (gap - standard error)), 0 if
            the gap is smaller than its error.
        train_chance_purity: purity of the training part's clusters with permuted labels.
        val_chance_purity: the same for the held-out part.
        train_size: number of training samples looked at.
        val_size: number of held-out samples looked at.
        estimator: "purity" or "separability".
        train_separability: s_D, the mean leave-one-out probability of the own class on the training part; of numbers
            the leave-one-out R².
        val_separability: s_V, the same on the held-out part.
        standard_error: of the gap of the separabilities.
        chance: separability of features without information about the classes; of numbers 0.
        separator: what tells the classes apart best, "centres" or "ridge PENALTY"; of numbers also "mean".
        memorised: share of what was learnt that does not hold on the held-out part.
        memorised_error: its standard error.
    """

    modality: str
    train_purity: float | None
    val_purity: float | None
    gap: float
    alpha: float
    train_chance_purity: float | None
    val_chance_purity: float | None
    train_size: int
    val_size: int
    estimator: Estimator = "purity"
    train_separability: float | None = None
    val_separability: float | None = None
    standard_error: float | None = None
    chance: float | None = None
    separator: str | None = None
    memorised: float | None = None
    memorised_error: float | None = None


def diagnose(
    train_features: Mapping[str, Any],
    train_labels: Any,
    val_features: Mapping[str, Any],
    val_labels: Any,
    num_classes: int | None = None,
    *,
    relearn_lambda: float = 3.0,
    seed: int = 0,
    estimator: Estimator = "purity",
    sampling: Sampling = "all",
    n_init: int = 1,
    max_samples: int | None = None,
    nonfinite: Literal["raise", "skip"] = "raise",
    targets: Literal["classes", "numbers"] = "classes",
) -> dict[str, ModalityDiagnosis]:
    """Diagnose the learning state of every modality (section 3.2 of arXiv 2407.09705).

    With the purity, as published, the training part and the held-out part of each modality are scaled to [-1, 1] by
    their own minimum and maximum and clustered with K-means; the gap of the two purities gives the strength of the
    re-learning. The defaults are the reference settings. float32 and float64 features are clustered as they are,
    16-bit floats in float32. With the separability, the gap and its standard error come from `separability`, and the
    gap less its error gives the strength.

    All is computed on one thread, so that the result does not depend on how many there are; neither does it depend on
    the order of the modalities or on any global random generator. Samples with the label -100 are unlabelled and are
    left out.

    Args:
        train_features: modality -> features of the training part, shape (n_train, d_m): tensors or arrays.
        train_labels: classes of the training part, any integers, shape (n_train,); or numbers, NaN for none.
        val_features: modality -> features of the held-out part, shape (n_val, d_m); the same modalities.
        val_labels: classes of the held-out part, shape (n_val,); or numbers.
        num_classes: number of clusters, >= 1, which the purity needs. The separability counts the classes that occur.
        relearn_lambda: lambda in alpha = tanh(lambda * gap), >= 0.
        seed: of K-means, of the sampling and of the permutations behind the chance purity, 0 to 2**32 - 1.
        estimator: "purity" or "separability".
        sampling: of the purity; "all" clusters every sample, "matched" first draws a stratified part of the training
            samples, as large as the held-out part, so that chance lifts both purities alike.
        n_init: number of K-means starts, the best of which counts, >= 1.
        max_samples: if given, at most so many samples (stratified) of each part are looked at, >= 1. The separability
            keeps at least 20 training samples of each class, and twice as many as diagnosing ones.
        nonfinite: with "skip", a modality with NaN or infinity is left out of the result, with a warning.
        targets: "classes", or "numbers" for a regression: the separability is then the R² of `numbers_separability`.

    Returns:
        modality -> diagnosis, in the order of `train_features`.

    Raises:
        NonFiniteFeaturesError: NaN or infinity, unless skipped; names the modality, the part and the share of samples.
        ValueError: different modalities in the two parts, features that do not fit the labels, a part without labels,
            wrong settings, purity of numbers; with the separability, no class that has two training samples and a
            diagnosing one, or training targets that are all the same.

    Warns:
        DiagnosisWarning: all features of a modality are the same; a few outliers decide the scale of a dimension.
            With the purity: a part has fewer samples than classes (it is then clustered into as many clusters as it
            has samples); classes are absent from the held-out part; chance alone explains most of a gap. With the
            separability: a standard error above 0.05; fewer than 5 training samples in a third of the classes.
    """
    choices = {"sampling": sampling, "estimator": estimator, "nonfinite": nonfinite, "targets": targets}
    _check_settings(num_classes, n_init, max_samples, **choices)
    learning_state_alpha(0.0, relearn_lambda)
    if not train_features or set(train_features) != set(val_features):
        raise ValueError(
            "the training part and the diagnosing part must hold features of the same modalities, at least one, but "
            f"hold {sorted(train_features)} and {sorted(val_features)}"
        )
    messages: list[str] = []
    numbers = targets == "numbers"
    train = Part("training", train_features, train_labels, numbers=numbers)
    val = Part("diagnosing", val_features, val_labels, numbers=numbers)
    modalities = []
    for modality in train_features:
        try:
            for part in (train, val):
                part.read(modality)
            modalities.append(modality)
        except NonFiniteFeaturesError as error:
            if nonfinite == "raise":
                raise
            messages.append(f"{error}; the modality is left out of this diagnosis")
    if numbers:
        train.rows, val.rows = numbers_rows(train.labels, val.labels, max_samples=max_samples, seed=seed)
    else:
        train.rows, val.rows = diagnosed_rows(
            train.labels, val.labels, estimator=estimator, sampling=sampling, max_samples=max_samples, seed=seed
        )
    for modality in modalities:
        for part in (train, val):
            part.spreads[modality] = measure_spread(part.features[modality], part.rows)
            messages += spread_messages(modality, part)
    if estimator == "purity":
        assert num_classes is not None
        messages += class_messages(train, val, num_classes)
        with threadpool_limits(limits=1):
            diagnoses = {
                modality: _by_purity(modality, train, val, num_classes, seed, n_init, relearn_lambda)
                for modality in modalities
            }
        messages += _chance_gap_messages(diagnoses)
    else:
        messages += [] if numbers else few_samples_messages(train, val)
        measure = measure_numbers if numbers else measure_separability
        diagnoses = {
            modality: _by_separability(modality, train, val, relearn_lambda, measure) for modality in modalities
        }
        messages += [
            f"modality {modality!r}: the standard error of the gap is {found.standard_error:.3f}, so that "
            f"over-fitting below {2 * found.standard_error:.2f} cannot be told from chance; give more than "
            f"{found.val_size} diagnosing samples"
            for modality, found in diagnoses.items()
            if found.standard_error is not None and found.standard_error > _LARGE_ERROR
        ]
    for message in messages:
        warnings.warn(message, DiagnosisWarning, stacklevel=2)
    return diagnoses


def _check_settings(num_classes: int | None, n_init: int, max_samples: int | None, **choices: str) -> None:
    for name, value in (("num_classes", num_classes), ("n_init", n_init), ("max_samples", max_samples)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}")
    for name, choice in choices.items():
        if choice not in _CHOICES[name]:
            raise ValueError(f"{name} must be {' or '.join(map(repr, _CHOICES[name]))}, but is {choice!r}")
    if choices["estimator"] == "purity":
        if choices["targets"] == "numbers":
            raise ValueError('the purity needs classes, and the targets are numbers: use estimator="separability"')
        if num_classes is None:
            raise ValueError("the purity needs num_classes, the number of its clusters: give it")


def _by_purity(
    modality: str, train: Part, val: Part, num_classes: int, seed: int, n_init: int, relearn_lambda: float
) -> ModalityDiagnosis:
    (train_purity, train_chance), (val_purity, val_chance) = (
        cluster_purity(part.taken(part.features[modality]), part.taken(part.labels), num_classes, seed, n_init)
        for part in (train, val)
    )
    gap = abs(train_purity - val_purity)
    return ModalityDiagnosis(
        modality=modality,
        train_purity=train_purity,
        val_purity=val_purity,
        gap=gap,
        alpha=learning_state_alpha(gap, relearn_lambda),
        train_chance_purity=train_chance,
        val_chance_purity=val_chance,
        train_size=len(train.rows),
        val_size=len(val.rows),
    )


def _by_separability(
    modality: str, train: Part, val: Part, relearn_lambda: float, measure: Callable[..., Separability]
) -> ModalityDiagnosis:
    matrices = train.features[modality], train.labels, val.features[modality], val.labels
    try:
        found = measure(*matrices, train.rows, val.rows, train.spreads[modality])
    except ValueError as error:
        raise ValueError(f"modality {modality!r}: {error}") from error
    return ModalityDiagnosis(
        modality=modality,
        train_purity=None,
        val_purity=None,
        gap=found.gap,
        alpha=learning_state_alpha(max(0.0, found.gap - found.standard_error), relearn_lambda),
        train_chance_purity=None,
        val_chance_purity=None,
        train_size=found.train_size,
        val_size=found.val_size,
        estimator="separability",
        train_separability=found.train,
        val_separability=found.val,
        standard_error=found.standard_error,
        chance=found.chance,
        separator=found.separator,
        memorised=found.memorised,
        memorised_error=found.memorised_error,
    )


def _chance_gap_messages(diagnoses: Mapping[str, ModalityDiagnosis]) -> list[str]:
    """Name the gaps at least half of which chance gives as well, with the same sign.

    Chance lifts only what the features do not separate: of purity P over a floor c, the share (P - c) / (1 - c) is
    separability, and the rest of a difference between two floors remains in the gap.
    """
    by_chance = {}
    for modality, found in diagnoses.items():
        floor, val_floor = found.train_chance_purity, found.val_chance_purity
        purity, val_purity = found.train_purity, found.val_purity
        assert floor is not None and val_floor is not None and purity is not None and val_purity is not None
        separability = (purity - floor) / (1 - floor) if floor < 1 else 0.0
        sign = math.copysign(1.0, purity - val_purity)
        chance_gap = sign * (floor - val_floor) * (1 - max(0.0, separability))
        if found.gap >= _NEGLIGIBLE_GAP and chance_gap >= found.gap / 2:
            by_chance[modality] = f"{modality!r} (gap {found.gap:.3f}, by chance {chance_gap:.3f})"
    if not by_chance:
        return []
    if any(found.train_size > found.val_size for found in diagnoses.values()):
        remedy = 'use sampling="matched", which clusters as many training samples as diagnosing ones'
    else:
        remedy = "use a larger diagnosing part"
    return [f"chance alone explains most of the purity gap of {', '.join(by_chance.values())}; {remedy}"]
