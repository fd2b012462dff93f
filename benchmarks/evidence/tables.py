"""Tables of the evidence: one per task, arms paired by seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

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


def write_tables(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Replace what stands between the markers of a page, or the whole page without them."""
    text = tables(results)
    begin, end = "<!-- tables -->\n", "<!-- end of tables -->\n"
    page = path.read_text() if path.is_file() else begin + end
    before, _, rest = page.partition(begin)
    path.write_text(before + begin + "\n" + text + "\n" + end + rest.partition(end)[2])


def tables(results: Sequence[dict[str, Any]]) -> str:
    """Markdown with one table per task, in points of test accuracy."""
    sections = []
    for task in dict.fromkeys(result["task"] for result in results):
        of_task = [result for result in results if result["task"] == task]
        arms = {
            arm: {each["seed"]: each for each in of_task if each["arm"] == arm}
            for arm in dict.fromkeys(result["arm"] for result in of_task)
        }
        arms = {arm: runs for arm, runs in arms.items() if len(runs) > 1}  # one seed says nothing
        lines = [
            f"### {task}",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "| --- " * len(_COLUMNS) + "|",
            *[_row(arm, runs, arms) for arm, runs in arms.items()],
        ]
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def _row(arm: str, runs: dict[int, Any], arms: dict[str, dict[int, Any]]) -> str:
    values = 100 * np.array([run["accuracy"] for run in runs.values()])
    cells = [arm, str(len(values)), f"{values.mean():.1f} ± {values.std(ddof=1) if len(values) > 1 else 0:.1f}"]
    wins = p = ""
    for baseline in _BASELINES:
        seeds = sorted(set(runs) & set(arms.get(baseline, {})))
        if arm == baseline or len(seeds) < 2:
            cells.append("")
            continue
        ours, theirs = (100 * np.array([each[seed]["accuracy"] for seed in seeds]) for each in (runs, arms[baseline]))
        differences = ours - theirs
        cells.append(f"{differences.mean():+.1f} ± {differences.std(ddof=1) / len(seeds) ** 0.5:.1f}")
        if baseline == "heads":
            wins = f"{int((differences > 0).sum())} of {len(seeds)}"
            p = f"{ttest_rel(ours, theirs).pvalue:.3f}" if differences.any() else "same runs"
    moved = [
        any(alpha > 0 for point in run["moved"] for alpha in point.values()) for run in runs.values() if "moved" in run
    ]
    seconds = float(np.median([run["seconds"] for run in runs.values()]))
    return f"| {' | '.join([*cells, wins, p, f'{sum(moved)}' if any(moved) else '', f'{seconds:.0f}'])} |"
