"""The verdict on a run in words: what each modality is worth, which one memorised, and what to try."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_relearn.records import Record, evaluation_series, finite, modality_entry
from hf_relearn.report.markdown import listed, percent, text
from hf_relearn.report.reading import Gate, LearningState, at, at_all, learning_state, main_metric, memorised_share

TOO_FEW_SAMPLES = 20  # an accuracy of fewer has a standard error of about 10 points and more
FEW_SAMPLES = 50  # a share of fewer samples has a standard error of up to 7 points and more
LEAST_DIFFERENCE = 0.005  # of two accuracies without a known number of samples

Results = Mapping[str, Mapping[str, Any]]
# Split -> `samples`, and under `missing` modality -> number of samples that lack it.
Samples = Mapping[str, Mapping[str, Any]]


def chosen_split(results: Results) -> str | None:
    """Name the split whose accuracies tell most: the test set, else the last one that was evaluated."""
    splits = [split for split, metrics in results.items() if metrics]
    return next((split for split in splits if "test" in split), splits[-1] if splits else None)


def read_verdict(
    records: Sequence[Record],
    log_history: Sequence[Record],
    results: Results,
    modalities: Sequence[str],
    *,
    samples: Samples | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Say in one paragraph what a run came to and what to try next.

    Args:
        records: diagnosis records.
        log_history: the Trainer's `state.log_history`.
        results: split -> metric -> value.
        modalities: names in the order of the model.
        samples: split -> number of its samples, for the error of an accuracy.
        settings: of the run; the gate's are read.

    Returns:
        A few sentences in Markdown.
    """
    gate = Gate.from_settings(settings or {})
    states = {name: learning_state(records, name, gate) for name in modalities}
    split = chosen_split(results)
    metrics = results.get(split, {}) if split is not None else {}
    size = _size(samples, split)
    metric = main_metric(log_history, results)
    worth, balance = _worth(split, metrics, log_history, modalities, size, metric)
    course, advice = _course(log_history, results, metric)
    sentences = [*worth, *course]
    sentences += [sentence for name, state in states.items() for sentence in _of_modality(name, state)]
    if records and not any(state.memorised or state.uninformative for state in states.values()):
        diagnosed = [state for state in states.values() if state.worst is not None]
        if diagnosed:
            sentences.append("No modality memorised.")
    if not sentences:
        return "Nothing was evaluated or diagnosed, so nothing can be said of this run."
    tried = [*(_advice(name, state) for name, state in states.items()), _balance_advice(balance, states), advice]
    if size is not None and size < FEW_SAMPLES:
        tried.append("evaluate on more samples")
    if wanted := list(dict.fromkeys(item for item in tried if item)):
        sentences.append(f"To try: {'; '.join(wanted)}.")
    return " ".join(sentences)


def describe_samples(
    samples: Samples | None, results: Results | None = None, *, numbers: bool = False, together: bool = False
) -> list[str]:
    """Return one sentence or two for each split: how many samples it holds, how many lack which modality, and whether
    they are too few to evaluate on.

    Args:
        samples: split -> counts.
        results: split -> metric -> value, for the error of an accuracy; None takes that of 0.5.
        numbers: whether numbers are predicted, so that there is no accuracy.
        together: whether splits of which there is no more to say than their size share the first sentence.
    """
    sentences, sizes = [], []
    for split, counts in (samples or {}).items():
        size = int(counts["samples"])
        lacking = [
            f"{count:,} ({percent(count / size)}) lack {text(name)}"
            for name, count in (counts.get("missing") or {}).items()
            if count
        ]
        sentence = f"*{text(split)}*: {size:,} samples" + (f", of which {listed(lacking)}" if lacking else "") + "."
        if 0 < size < FEW_SAMPLES and split not in ("train", "held-out"):
            found = (results or {}).get(split, {})
            accuracy = finite(found.get("accuracy"))
            error = 100 * _error(0.5 if accuracy is None else accuracy, size)
            known = "." if numbers or "r2" in found else f": the standard error of an accuracy is {error:.0f} points."
            sentence += f" So few say {_says(size)}{known}"
        elif together and not lacking:
            sizes.append(f"{text(split)} {size:,}")
            continue
        sentences.append(sentence)
    return [f"samples: {', '.join(sizes)}", *sentences] if sizes else sentences


def _says(size: int) -> str:
    return "nothing" if size < TOO_FEW_SAMPLES else "little"


def _size(samples: Samples | None, split: str | None) -> int | None:
    counts = (samples or {}).get(split or "")
    return int(counts["samples"]) if counts and counts.get("samples") else None


def _error(accuracy: float, size: int) -> float:
    """Return the standard error of an accuracy."""
    # Of one or two wrong samples the binomial error would be nearly 0, so a half is added to both sides.
    smoothed = (accuracy * size + 0.5) / (size + 1)
    return math.sqrt(smoothed * (1 - smoothed) / size)


def _worth(
    split: str | None,
    metrics: Mapping[str, Any],
    log_history: Sequence[Record],
    modalities: Sequence[str],
    size: int | None,
    metric: str,
) -> tuple[list[str], str]:
    """Say what the model and each modality reach; and `below` if the fusion is worse than its best modality."""
    where = f"On *{text(split)}*" if split is not None else "In the last evaluation"
    fused = finite(metrics.get(metric))
    alone = {name: finite(metrics.get(f"unimodal_{name}_{metric}")) for name in modalities}
    if split is None:
        curves = {name: evaluation_series(log_history, f"eval_unimodal_{name}_{metric}")[1] for name in modalities}
        alone = {name: float(values[-1]) if values.size else None for name, values in curves.items()}
        values = evaluation_series(log_history, f"eval_{metric}")[1]
        fused = float(values[-1]) if values.size else None
    known = {name: value for name, value in alone.items() if value is not None}
    ordered = sorted(known, key=lambda name: -known[name])
    said = _points if metric == "accuracy" else _decimals
    by_itself = listed([f"**{text(name)}** {said(known[name])}" for name in ordered])
    if fused is None:
        return ([f"{where} each modality by itself reaches {by_itself}."] if known else []), ""
    error = None if size is None or metric != "accuracy" else _error(fused, size)
    counted = "" if size is None else f" ({size:,} samples)"
    counted = counted if error is None else f" ± {100 * error:.1f} %{counted}"
    few = "" if size is None or size >= FEW_SAMPLES else f", which says {_says(size)}"
    mistake = finite(metrics.get("mae"))
    counted += "" if mistake is None or metric == "accuracy" else f" and a mean absolute error of {mistake:.3g}"
    kind = "an accuracy" if metric == "accuracy" else "an R²"
    sentence = f"{where} the model reaches {kind} of {said(fused)}{counted}{few}"
    if not known:
        return [f"{sentence}."], ""
    best, difference = ordered[0], fused - known[ordered[0]]
    margin = max(LEAST_DIFFERENCE, error or 0.0)
    if len(known) == 1:
        return [f"{sentence}; by itself {by_itself}."], ""
    if difference < -margin:
        verdict, balance = f"{_difference(-difference, metric)} **below** its best modality, {text(best)}", "below"
    elif difference > margin:
        verdict, balance = f"{_difference(difference, metric)} above its best modality, {text(best)}", ""
    else:
        verdict, balance = f"about as good as its best modality, {text(best)}, alone", "level"
    return [f"{sentence}; by itself {by_itself}.", f"The fusion is {verdict}."], balance


def _course(log_history: Sequence[Record], results: Results, metric: str) -> tuple[list[str], str]:
    """Read the curve of the validation accuracy, or R², and say what follows."""
    epochs, values = evaluation_series(log_history, f"eval_{metric}")
    label, said = ("accuracy", _points) if metric == "accuracy" else ("R²", _decimals)
    if values.size < 4:
        return [], ""
    best = int(values.argmax())
    # A curve scatters from one evaluation to the next; only what exceeds this says anything.
    scatter = max(0.02, 2 * float(np.median(np.abs(np.diff(values)))))
    end = float(np.mean(values[-max(1, values.size // 8) :]))
    if values[best] - end > scatter:
        kept = any(finite(metrics.get(metric)) == values[best] for metrics in results.values())
        sentence = (
            f"Validation {label} was highest at epoch {epochs[best]:g} ({said(values[best])}) and fell to "
            f"{said(values[-1])}."
        )
        return [
            sentence
        ], "" if kept else "keep the best checkpoint (`--load_best_model_at_end`) or train for fewer epochs"
    quarter = values[-max(2, values.size // 4) :]
    if best >= values.size - quarter.size and quarter.max() - values[: -quarter.size].max() > scatter:
        return [f"Validation {label} was still rising at the end."], "train for more epochs"
    return [], ""


def _of_modality(name: str, state: LearningState) -> list[str]:
    sentences = []
    entry = modality_entry(state.worst, name) if state.worst is not None else {}
    if state.memorised and state.worst is not None:
        when = at(state.worst)
        if finite(entry.get("memorised")) is not None:
            sentence = (
                f"**{text(name)}** memorised (held-out samples lack {memorised_share(entry)} of what was learnt{when})"
            )
        else:
            both = f"{entry['train_purity']:.2f} in training, {entry['val_purity']:.2f} held out"
            sentence = f"**{text(name)}** is over-trained (purity {both}{when})"
        if state.moves:
            when = at_all([point for point, _ in state.moves])
            sentence += f"; it was re-learnt{when}" + (", and memorised again later" if state.memorised_last else "")
        else:
            sentence += " and was not re-learnt"
            if any(modality_entry(point, name).get("kept") for point in state.points):
                sentence += ", since it still learnt what holds on unseen samples"
        sentences.append(f"{sentence}.")
    if state.uninformative:
        sentences.append(
            f"**{text(name)}** is uninformative: on held-out samples its features are within two standard errors of "
            "chance."
        )
    return sentences


def _advice(name: str, state: LearningState) -> str:
    if state.uninformative:
        return f"check that the input of {text(name)} belongs to the sample, or train without it"
    if state.memorised and not state.points:
        return "re-learn what has memorised (`--preset balanced`)"
    if state.memorised_last and not modality_entry(state.last or {}, name).get("kept"):
        return f"stronger augmentation, weight decay or a smaller backbone for {text(name)}"
    return ""


def _balance_advice(balance: str, states: Mapping[str, LearningState]) -> str:
    if balance != "below" or any(state.uninformative for state in states.values()):
        return ""
    return "a loss for each modality (`--unimodal_loss_weight 1`) or another `--fusion`"


def _points(value: float) -> str:
    return f"{100 * value:.1f} %"


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _difference(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points" if metric == "accuracy" else f"{value:.3f}"
