"""Evaluate or diagnose a saved model on any data, without training it."""

import csv
import io
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hf_relearn.experiments.predictions import predict
from hf_relearn.files import whole_file
from hf_relearn.method import DiagnosisWarning, ModalityDiagnosis, linear_probe_accuracy
from hf_relearn.models import MultimodalForClassification
from hf_relearn.quality import quality_metrics
from hf_relearn.relearning.diagnoser import Diagnoser
from hf_relearn.relearning.features import PartFeatures, multimodal_features
from hf_relearn.report.by_class import ClassResults, class_probabilities, class_results
from hf_relearn.report.theme import render_png
from hf_relearn.report.training_figures import confusion_figure
from hf_relearn.training import MultimodalCollator, MultimodalRelearnTrainer, RelearnTrainingArguments
from hf_relearn.training.targets import collator_for, is_regression


@dataclass(frozen=True)
class Evaluation:
    """Hold what a model says of a data set.

    Attributes:
        metrics: those of the run's report, by name.
        by_class: those of each class, and the confusion matrix; None if numbers are predicted.
        names: of the classes, or of the number.
        labels: (n,) integers, -100 without a class, or (n, classes) zeros and ones; or (n,) floats, the numbers.
        scores: (n, classes) probabilities, or (n, 1) predicted numbers.
    """

    metrics: dict[str, float]
    by_class: ClassResults | None
    names: Sequence[str]
    labels: np.ndarray
    scores: np.ndarray

    @property
    def per_class(self) -> Mapping[str, Mapping[str, float]]:
        """Return class -> `precision`, `recall`, `f1` and `support`; empty if numbers are predicted."""
        return self.by_class.per_class if self.by_class is not None else {}

    def write(self, folder: str | Path) -> list[Path]:
        """Write `metrics.json`, `predictions.csv` and, if there is one, `confusion.png`; returns their paths."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        per_class, confusion = self.per_class, self.by_class.confusion if self.by_class else None
        found = {"metrics": self.metrics, "per_class": per_class, "confusion": confusion}
        files = {
            "metrics.json": (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode(),
            "predictions.csv": self._table().encode(),
        }
        if confusion is not None:
            files["confusion.png"] = render_png(confusion_figure(np.asarray(confusion), self.names))
        for name, content in files.items():
            with whole_file(root / name) as file:
                file.write(content)
        return [root / name for name in files]

    def _table(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        if np.issubdtype(self.labels.dtype, np.floating) and self.labels.ndim == 1:
            writer.writerow(["sample", "label", "prediction"])
            pairs = zip(self.labels, self.scores[:, 0], strict=True)
            for number, pair in enumerate(pairs):
                writer.writerow([number, *("" if np.isnan(value) else f"{value:.9g}" for value in pair)])
            return text.getvalue()
        writer.writerow(["sample", "label", "prediction", *self.names])
        for number, (label, scores) in enumerate(zip(self.labels, self.scores, strict=True)):
            true, said = self._named(label), self._named(scores > 0.5 if label.ndim else scores.argmax())
            writer.writerow([number, true, said, *(f"{score:.6f}" for score in scores)])
        return text.getvalue()

    def _named(self, classes: Any) -> str:
        if np.ndim(classes):
            return ";".join(self.names[int(index)] for index in np.flatnonzero(classes))
        return self.names[int(classes)] if classes >= 0 else ""


def class_names(model: MultimodalForClassification) -> list[str]:
    """The classes of a model, in order."""
    config: Any = model.config
    return [config.id2label[index] for index in range(config.num_labels)]


def evaluate_saved_model(
    model: MultimodalForClassification,
    collator: MultimodalCollator,
    dataset: Any,
    *,
    batch_size: int = 32,
    use_cpu: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a model on a data set with labels, as at the end of a run.

    Args:
        model: a fusion model.
        collator: makes batches of rows; its `label_column` tells the classes by the model's numbers.
        dataset: map-style.
        batch_size: samples per forward pass.
        use_cpu: leave accelerators alone.
        progress: whether to show progress bars.

    Raises:
        ValueError: for labels that are not classes of the model.
    """
    with tempfile.TemporaryDirectory() as folder:  # training arguments want one; nothing is written
        args = RelearnTrainingArguments(
            output_dir=folder,
            relearn_strategy="no",
            per_device_eval_batch_size=batch_size,
            use_cpu=use_cpu,
            disable_tqdm=not progress,
        )
        trainer = MultimodalRelearnTrainer(model, args, collator)
        trainer.log = lambda *_args, **_kwargs: None  # type: ignore[method-assign]  # the metrics are returned
        metrics, found = predict(trainer, dataset, "test")
    names = class_names(model)
    if is_regression(model):
        return Evaluation(quality_metrics(metrics, "test"), None, names, found.labels, found.logits)
    by_class = class_results("test", found.labels, found.logits, names)
    return Evaluation(
        metrics=quality_metrics(metrics, "test"),
        by_class=by_class,
        names=names,
        labels=found.labels,
        scores=class_probabilities(found.logits, several=found.labels.ndim == 2),
    )


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
