"""Format small pieces of Markdown: tables, cells, numbers, lists of words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from hf_relearn.records import finite

MISSING = "–"


def text(value: Any) -> str:
    """Format a value as running text on one line, with nothing that Markdown or HTML would take as markup."""
    plain = prose(value)
    for mark in "\\`*|[]$":
        plain = plain.replace(mark, "\\" + mark)
    return plain.replace("<", "&lt;")


def prose(value: Any) -> str:
    """Format a value, or a sentence that may hold Markdown, on one line."""
    if isinstance(value, Mapping):
        value = "{" + ", ".join(f"{key}: {prose(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple | set | frozenset):
        value = "[" + ", ".join(prose(item) for item in value) + "]"
    return " ".join(str(value).split())


def plain(markdown: str) -> str:
    """Running text for a terminal: without the marks of `text` and without emphasis."""
    unmarked = re.sub(r"(?<!\\)(\*\*|\*|`)", "", markdown)
    return re.sub(r"\\([\\`*|\[\]$])", r"\1", unmarked).replace("&lt;", "<")


def code(value: Any) -> str:
    """Format a value as inline code, safe inside a table cell."""
    plain = prose(value).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else ""


def number(value: Any, digits: int = 3) -> str:
    """Format a number for a table: whole ones with thousands separators, others rounded; a dash if there is none."""
    finite_value = finite(value)
    if finite_value is None:
        return MISSING
    if isinstance(value, Integral) or (finite_value.is_integer() and abs(finite_value) >= 100):
        return f"{int(finite_value):,}"
    return f"{finite_value:.{digits}f}"


def percent(value: Any) -> str:
    """Format a share as whole per cent, a dash if there is none."""
    share = finite(value)
    if share is None:
        return MISSING
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric_from: int = 1) -> str:
    """Format a Markdown table of escaped cells. Columns from `numeric_from` on are right-aligned."""
    rule = [":---" if place < numeric_from else "---:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def listed(words: Sequence[str]) -> str:
    """Join words as an enumeration: `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


_OF_A_MODALITY = {"unimodal": "{} alone", "only": "only {} given", "without": "without {}"}
_OF_NUMBERS = {
    "mae": "mean absolute error",
    "r2": "R²",
    "pearson": "Pearson's correlation",
    "sign_accuracy": "accuracy of the sign",
}
_MEASURES = {
    "nll": "negative log likelihood",
    "ece": "expected calibration error",
    "right_alone": "share that one modality alone gets right",
}
_MEASURES_OF_A_MODALITY = {
    "shapley_r2_": "{}: Shapley value of R²",
    "shapley_": "{}: Shapley value of accuracy",
    "rises_without_": "share surer of the true class without {}",
    "right_alone_": "share that only {} alone gets right",
}


def metric_label(key: str) -> str:
    """Name a metric for a reader: `unimodal_audio_accuracy` becomes `audio alone: accuracy`."""
    if key in _MEASURES or key in _OF_NUMBERS:
        return {**_MEASURES, **_OF_NUMBERS}[key]
    for prefix, label in _MEASURES_OF_A_MODALITY.items():
        if key.startswith(prefix):
            return label.format(text(key.removeprefix(prefix)))
    what, _, rest = key.partition("_")
    if what in _OF_A_MODALITY:
        for metric in ("accuracy", "f1_macro", "f1_weighted", "loss", "r2"):
            if rest.endswith(f"_{metric}"):
                modality = text(rest.removesuffix(f"_{metric}"))
                measure = _OF_NUMBERS.get(metric, metric.replace("_", " "))
                return f"{_OF_A_MODALITY[what].format(modality)}: {measure}"
    return text(key.replace("_", " "))


def main_metrics(metrics: Iterable[str]) -> list[str]:
    """Choose the metrics that stand for a model: accuracy, F1 and a user's own, not the loss nor the details."""
    details = ("loss", "f1_weighted", *_MEASURES)
    parts = (*(f"{name}_" for name in _OF_A_MODALITY), *_MEASURES_OF_A_MODALITY)
    return [name for name in metrics if name not in details and not name.startswith(parts)]


def shown_metrics(metrics: Iterable[str]) -> list[str]:
    """Drop the names of metrics that say the same: of two modalities, without one is the other one alone."""
    names = list(dict.fromkeys(metrics))
    only = [name for name in names if name.startswith("only_")]
    without = [name for name in names if name.startswith("without_")]
    if len(only) == len(without) == 2:
        return [name for name in names if name not in without]
    return names
