"""Tables of the evidence: one per task, arms paired by seed."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from hf_relearn.report.judging import Measure
from hf_relearn.report.markdown import table
from hf_relearn.report.statistics import LEVEL, Paired, compare_paired, holm

# Arm -> seed -> result.
Runs = dict[str, dict[int, dict[str, Any]]]

ACCURACY = Measure("accuracy")
_BASELINES = ("joint", "heads")
_COLUMNS = (
    "arm",
    "seeds",
    "accuracy ± sd",
    "− joint ± se",
    "− heads ± se",
    "wins over heads",
    "p (heads)",
    "runs that moved",
    "seconds",
)


def write_tables(results: Sequence[dict[str, Any]], page: Path) -> None:
    """Replace what stands between the markers of a page: an overview, and where it has a place, a table per task."""
    text = page.read_text()
    text = _between(text, "<!-- overview -->\n", "<!-- end of overview -->\n", overview(results))
    text = _between(text, "<!-- tables -->\n", "<!-- end of tables -->\n", tables(results))
    page.write_text(text)


def _between(text: str, begin: str, end: str, content: str) -> str:
    if begin not in text:
        return text
    before, _, rest = text.partition(begin)
    return before + begin + "\n" + content + "\n" + end + rest.partition(end)[2]


def overview(results: Sequence[dict[str, Any]]) -> str:
    """Markdown with one row per task: heads, and the differences of other arms, bold if Holm's p < .05."""
    arms = [arm for arm in dict.fromkeys(result["arm"] for result in results) if arm != "heads"]
    rows, tests = [], []
    for task in dict.fromkeys(result["task"] for result in results):
        runs = _runs(results, task)
        cells = [f"`{task}`", _mean(runs.get("heads", {}))]
        for arm in arms:
            paired = _paired(runs, arm, "heads")
            cells.append(_difference(paired))
            tests.append((cells, len(cells) - 1, paired.p_t if paired else None))
        rows.append(cells)
    for (cells, index, _), corrected in zip(tests, holm([p for *_, p in tests]), strict=True):
        if corrected is not None and corrected < LEVEL:
            cells[index] = f"**{cells[index]}**"
    header = ["task", "heads", *(f"{arm} − heads" for arm in arms)]
    return table(header, rows) + "\n"


def tables(results: Sequence[dict[str, Any]]) -> str:
    """Markdown with one table per task, in points of test accuracy."""
    sections = []
    for task in dict.fromkeys(result["task"] for result in results):
        runs = _runs(results, task)
        sections.append(f"### {task}\n\n{table(_COLUMNS, [_row(arm, runs) for arm in runs])}")
    return "\n\n".join(sections) + "\n"


def _runs(results: Sequence[dict[str, Any]], task: str) -> Runs:
    """The runs of a task: arm -> seed -> result, for arms of two seeds and more."""
    of_task = [result for result in results if result["task"] == task]
    runs = {
        arm: {each["seed"]: each for each in of_task if each["arm"] == arm}
        for arm in dict.fromkeys(result["arm"] for result in of_task)
    }
    return {arm: own for arm, own in runs.items() if len(own) > 1}  # one seed says nothing


def _paired(runs: Runs, arm: str, baseline: str) -> Paired | None:
    """The differences of two arms, over the seeds that both have."""
    if arm == baseline:
        return None
    accuracies = [{seed: run["accuracy"] for seed, run in runs.get(each, {}).items()} for each in (arm, baseline)]
    paired = compare_paired(*accuracies)
    return paired if paired and paired.n > 1 else None


def _are_same(paired: Paired) -> bool:
    return not paired.mean and not paired.sd


def _difference(paired: Paired | None) -> str:
    if paired is None:
        return ""
    return "same runs" if _are_same(paired) else ACCURACY.difference(paired.mean, paired.se)


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _mean(own: dict[int, Any]) -> str:
    values = [run["accuracy"] for run in own.values()]
    return ACCURACY.value(fmean(values), stdev(values)) if values else ""


def _row(arm: str, runs: Runs) -> list[str]:
    own = runs[arm]
    cells = [arm, str(len(own)), _mean(own)]
    wins = p = ""
    for baseline in _BASELINES:
        paired = _paired(runs, arm, baseline)
        cells.append(_difference(paired))
        if baseline == "heads" and paired:
            wins = f"{paired.wins} of {paired.n}"
            p = "same runs" if _are_same(paired) else _p(paired.p_t)
    moved = [
        any(alpha > 0 for point in run["moved"] for alpha in point.values())
        for run in own.values()
        if run.get("moved")
    ]
    seconds = median(run["seconds"] for run in own.values())
    return [*cells, wins, p, str(sum(moved)) if moved else "", f"{seconds:.0f}"]
