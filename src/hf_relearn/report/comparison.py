"""Writes `comparison.md`: several runs (arms) side by side, with a figure and the differences in points."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_relearn.files import write_files
from hf_relearn.hub.local_paths import local_roots, scrub_files
from hf_relearn.records import finite, relearning_points
from hf_relearn.report.environment import environment
from hf_relearn.report.markdown import MISSING, listed, metric_label, number, prose, table, text
from hf_relearn.report.theme import NothingToDraw, render_png
from hf_relearn.report.training_figures import Arm, comparison_figure

# What these measure is no share, so a difference in points means nothing.
_NO_SHARE = ("loss", "runtime", "per_second", "seconds", "epoch")


def write_comparison(
    output_dir: str | Path,
    arms: Mapping[str, Arm],
    *,
    title: str,
    metric: str = "accuracy",
    notes: Sequence[str] = (),
) -> Path:
    """Write `comparison.md` and `figures/comparison.png` into a folder.

    Args:
        output_dir: Folder, created where it is missing.
        arms: Arm name -> `description`, `results` (split -> metric -> value), `log_history`, `records`, `train_size`
            and `seconds`, each of which may be missing. The first arm is the one the others are compared with.
        title: Heading.
        metric: Metric of the figure and of the summary, without `eval_`.
        notes: Sentences in Markdown that a reader must know.

    Returns:
        Path of `comparison.md`.

    Raises:
        ValueError: There is no arm, or the arms hold metrics but not `metric`; the message names those there are.
        OSError: A file cannot be written.
    """
    if not arms:
        raise ValueError("there are no arms to compare: give a mapping arm name -> results, at least one")
    try:
        figure = comparison_figure(arms, metric)
    except NothingToDraw as reason:
        found = _metrics_of(arms)
        if found:
            raise ValueError(f"no arm has the metric {metric!r}; there are {listed(found)}") from None
        picture, contents = f"No figure: {reason}.", {}
    else:
        caption = f"Validation {text(metric.replace('_', ' '))} over training, and the final values"
        picture = f"![{caption}](figures/comparison.png)\n\n*{caption}*"
        contents = {"figures/comparison.png": render_png(figure)}
    sections = [
        f"# {text(title)}",
        _summary(arms, metric),
        "\n".join(f"- **{text(name)}**: {text(arm.get('description') or MISSING)}" for name, arm in arms.items()),
        "## Side by side",
        comparison_table(arms),
        _caution(arms),
        *(["\n".join(f"- {prose(note)}" for note in notes)] if notes else []),
        "## Figure",
        picture,
        "## Versions and machine",
        table(("", ""), [(name, text(value)) for name, value in environment().items()], numeric_from=2),
    ]
    contents["comparison.md"] = ("\n\n".join(sections) + "\n").encode()
    write_files(Path(output_dir), scrub_files(contents, local_roots(output_dir)))
    return Path(output_dir) / "comparison.md"


def comparison_table(arms: Mapping[str, Arm]) -> str:
    """Arms as columns; samples, points, seconds and every metric as rows, with the difference to the first arm."""
    names = list(arms)
    rows = [
        ["training samples", *(number(arm.get("train_size")) for arm in arms.values())],
        ["re-learning points", *(str(len(relearning_points(arm.get("records") or ()))) for arm in arms.values())],
        ["seconds", *(number(arm.get("seconds"), 0) for arm in arms.values())],
    ]
    keys = dict.fromkeys(
        (split, metric)
        for arm in arms.values()
        for split, metrics in (arm.get("results") or {}).items()
        for metric in metrics or {}
    )
    for split, metric in keys:
        values = [_result(arm, split, metric) for arm in arms.values()]
        cells = [number(values[0])]
        cells += [f"{number(value)}{_difference(value, values[0], metric)}" for value in values[1:]]
        rows.append([f"{text(split)}: {metric_label(metric)}", *cells])
    return table(["", *(text(name) for name in names)], rows)


def _result(arm: Arm, split: str, metric: str) -> float | None:
    return finite(((arm.get("results") or {}).get(split) or {}).get(metric))


def _difference(value: float | None, first: float | None, metric: str) -> str:
    if value is None or first is None or any(word in metric for word in _NO_SHARE):
        return ""
    return f" ({_points(value - first)})"


def _points(difference: float) -> str:
    # Adding 0 turns a negative zero, which rounding may leave, into a positive one.
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def _summary(arms: Mapping[str, Arm], metric: str) -> str:
    splits = list(dict.fromkeys(split for arm in arms.values() for split in arm.get("results") or {}))
    split = "test" if "test" in splits else (splits[-1] if splits else None)
    label = text(metric.replace("_", " "))
    (first_name, first), *others = arms.items()
    start = None if split is None else _result(first, split, metric)
    if split is None or start is None:
        return f"{len(arms)} arms; the first has no final {label} to compare with."
    parts = [f"**{text(first_name)}** {start:.3f}"]
    for name, arm in others:
        value = _result(arm, split, metric)
        change = "" if value is None else f" ({_points(value - start)} points)"
        parts.append(f"**{text(name)}** {number(value)}{change}")
    return f"{text(split).capitalize()} {label}: {listed(parts)}."


def _caution(arms: Mapping[str, Arm]) -> str:
    sentence = "In brackets: the difference to the first arm, in points (hundredths)." if len(arms) > 1 else ""
    sentence += " One seed proves nothing: repeat with several before you conclude anything from a difference."
    if any("test" in (arm.get("results") or {}) for arm in arms.values()):
        sentence += " The test set was read once, at the end of each arm."
    return sentence.strip()


def _metrics_of(arms: Mapping[str, Arm]) -> list[str]:
    names: dict[str, Any] = {}
    for arm in arms.values():
        for metrics in (arm.get("results") or {}).values():
            names.update(dict.fromkeys(metrics or {}))
        for entry in arm.get("log_history") or ():
            names.update(dict.fromkeys(key.removeprefix("eval_") for key in entry if key.startswith("eval_")))
    return sorted(names)
