"""Diagnose a saved model on any data, without training it."""

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_relearn.method import DiagnosisWarning, ModalityDiagnosis, linear_probe_accuracy
from hf_relearn.relearning.diagnoser import Diagnoser
from hf_relearn.relearning.features import PartFeatures, multimodal_features
from hf_relearn.training.arguments import RelearnTrainingArguments
from hf_relearn.training.batches import MultimodalCollator
from hf_relearn.training.targets import collator_for, is_regression


@dataclass(frozen=True)
class SavedModelDiagnosis:
    """Hold the diagnosis of a saved model.

    Attributes:
        modalities: modality -> its diagnosis.
        probe_accuracies: modality -> accuracy in [0, 1], on the held-out part, of a linear probe that was fitted on
            the training part's features; empty if the model predicts a number.
        num_classes: number of classes, and so of clusters; 0 for numbers.
        notes: what makes the numbers mean less than they seem to.
    """

    modalities: Mapping[str, ModalityDiagnosis]
    probe_accuracies: Mapping[str, float]
    num_classes: int
    notes: tuple[str, ...] = ()


def diagnose_saved_model(
    model: nn.Module,
    collator: MultimodalCollator,
    train_dataset: Any,
    held_out_dataset: Any,
    *,
    estimator: str = "separability",
    sampling: str = "matched",
    max_samples: int | None = None,
    n_init: int = 1,
    relearn_lambda: float = 3.0,
    batch_size: int = 32,
    seed: int = 0,
    use_cpu: bool = False,
    progress: bool = True,
) -> SavedModelDiagnosis:
    """Measure how well each modality's features separate the classes, and how much of that it memorised.

    A linear probe on held-out samples is fitted too.

    The model is moved to the accelerator, if there is one, and otherwise left as it is.

    Args:
        model: a fusion model.
        collator: makes batches of rows; its `label_column` tells the classes.
        train_dataset: samples that the model was trained on, map-style.
        held_out_dataset: samples that it was not trained on.
        estimator: `"separability"`, which has a standard error and a memorised share, or K-means `"purity"`.
        sampling: training samples that a purity looks at: `"matched"`, as many as are held out, or `"all"`.
        max_samples: bound on the samples of each part; None for all.
        n_init: K-means starts of a purity.
        relearn_lambda: lambda of the strength alpha = tanh(lambda * gap) that re-learning would take.
        batch_size: samples per forward pass.
        seed: of the samples drawn and the clustering.
        use_cpu: leave accelerators alone.
        progress: whether to show progress bars.

    Raises:
        NonFiniteFeaturesError: if features are NaN or infinite.
        ValueError: for data without one class per sample, or with a modality that no sample has.
    """
    with tempfile.TemporaryDirectory() as folder:  # training arguments want one; nothing is written
        args = RelearnTrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=batch_size,
            seed=seed,
            use_cpu=use_cpu,
            disable_tqdm=not progress,
            relearn_strength="gap",
            diagnosis_estimator=estimator,
            diagnosis_sampling=sampling,
            diagnosis_max_samples=max_samples,
            diagnosis_n_init=n_init,
            relearn_lambda=relearn_lambda,
        )
    settings, numbers = args.relearn_settings(), is_regression(model)
    collator = collator_for(model, collator)
    diagnoser = Diagnoser(
        multimodal_features, train_dataset, held_out_dataset, collator, settings, args, numbers=numbers
    )
    parts = diagnoser.features(model.to(args.device))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DiagnosisWarning)
        modalities = diagnoser.judge(parts)
    for warning in caught:
        if not issubclass(warning.category, DiagnosisWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return SavedModelDiagnosis(
        modalities=modalities,
        probe_accuracies={} if numbers else {name: _probe(name, parts, seed) for name in modalities},
        num_classes=diagnoser.num_classes,
        notes=tuple(str(item.message) for item in caught if issubclass(item.category, DiagnosisWarning)),
    )


def _probe(modality: str, parts: Mapping[str, PartFeatures], seed: int) -> float:
    """Return the accuracy of a probe on one modality's features, by the samples that have it."""
    values = []
    for part in (parts["training"], parts["diagnosing"]):
        rows = part.having(modality)
        values += [part.features[modality][rows], part.labels[rows]]
    return linear_probe_accuracy(*values, seed=seed)
