"""Write `comparison.md`, `comparison.png` and `comparison.json`: the arms of a comparison, and what follows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hf_relearn.files import write_files
from hf_relearn.hub.local_paths import local_roots, scrub_files
from hf_relearn.quality import main_metric
from hf_relearn.records import finite
from hf_relearn.report.environment import environment
from hf_relearn.report.forest_figure import forest_figure
from hf_relearn.report.judging import BASELINES, Measure, Verdict, judge
from hf_relearn.report.markdown import MISSING, listed, number, prose, table, text
from hf_relearn.report.statistics import LEVEL
from hf_relearn.report.theme import render_png
from hf_relearn.text_table import text_table

RESULT_FILE = "result.json"
FAILURE_FILE = "failure.txt"
SETTINGS_FILE = "settings.json"
EPOCHS = {"last": "the last epoch", "best": "the epoch that was best on validation"}


@dataclass(frozen=True)
class Runs:
    """The finished and failed runs of one or several comparisons.

    Args:
        title, notes: for the reader.
        descriptions: arm -> what it is.
        results: arm -> seed -> what `result.json` says.
        failures: name of a run -> why it failed.
    """

    title: str
    notes: Sequence[str]
    descriptions: Mapping[str, str]
    results: Mapping[str, Mapping[int, Mapping[str, Any]]]
    failures: Mapping[str, str]

    def values(self, epoch: str, metric: str, split: str = "test") -> dict[str, dict[int, float]]:
        """Arm -> seed -> value of a metric; arms without any are left out."""
        found = {
            arm: {
                seed: value
                for seed, result in runs.items()
                if (value := finite(result["results"].get(epoch, {}).get(split, {}).get(metric))) is not None
            }
            for arm, runs in self.results.items()
        }
        return {arm: values for arm, values in found.items() if values}

    def main_metric(self) -> str:
        """Return the metric by which models are compared: accuracy, or R² if they predict numbers."""
        return main_metric(not self.values("last", "accuracy") and bool(self.values("last", "r2")))


def read_runs(folders: Sequence[str | Path]) -> Runs:
    """Read the runs of comparisons.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if a folder holds no finished run, a file is broken, or the folders compare different things.
    """
    titles: dict[str, Path] = {}
    notes: dict[str, None] = {}
    descriptions: dict[str, str] = {}
    results: dict[str, dict[int, Mapping[str, Any]]] = {}
    failures: dict[str, str] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        settings = _read_json(folder / SETTINGS_FILE)
        titles.setdefault(settings["title"], folder)
        notes |= dict.fromkeys(settings["notes"])
        descriptions |= settings["arms"]
        # In the order in which arms are described, then by number of the seed.
        order = {name: place for place, name in enumerate(descriptions)}
        runs = sorted(folder.glob("*/seed-[0-9]*"), key=lambda run: (order.get(run.parent.name, len(order)), run.name))
        for run in runs:
            arm, seed = run.parent.name, int(run.name.removeprefix("seed-"))
            if (run / RESULT_FILE).is_file():
                result = _read_json(run / RESULT_FILE)
                other = results.setdefault(arm, {}).setdefault(seed, result)
                if other["results"] != result["results"]:
                    raise ValueError(f"{run}: another folder has other results for this arm and seed; leave one out")
            elif (run / FAILURE_FILE).is_file():
                failures[f"{arm}, seed {seed}"] = (run / FAILURE_FILE).read_text(encoding="utf-8")
    if len(titles) > 1:
        named = " and ".join(f"{folder} ({title})" for title, folder in titles.items())
        raise ValueError(f"these folders do not compare the same thing: {named}")
    if not results and not failures:
        raise ValueError(f"{', '.join(map(str, folders))}: no finished run is there")
    known = [arm for arm in descriptions if arm in results]
    ordered = {arm: dict(sorted(results[arm].items())) for arm in [*known, *(set(results) - set(known))]}
    return Runs(next(iter(titles)), list(notes), descriptions, ordered, failures)


def write_comparison(
    output_dir: str | Path, folders: Sequence[str | Path] | None = None, *, metric: str | None = None
) -> Path:
    """Write `comparison.md`, `comparison.png` and `comparison.json` into a folder.

    Args:
        output_dir: Folder, created if it is missing.
        folders: Output directories of comparisons, which are joined; by default `output_dir` itself.
        metric: What is compared on the test set; by default accuracy, or R² if numbers are predicted.

    Returns:
        Path of `comparison.md`.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: No run is finished, the folders do not fit together, or the runs lack the metric.
    """
    runs = read_runs(folders or [output_dir])
    metric = metric or runs.main_metric()
    by_epoch = {epoch: runs.values(epoch, metric) for epoch in EPOCHS}
    if runs.results and not by_epoch["last"]:
        known = sorted({name for own in runs.results.values() for result in own.values()
                        for name in result["results"]["last"].get("test", {})})  # fmt: skip
        raise ValueError(f"no run has the metric {metric!r} on the test set; there are {listed(known)}")
    verdicts = {epoch: judge(values, metric) for epoch, values in by_epoch.items() if values}
    contents = {
        "comparison.json": (
            json.dumps(_as_json(runs, metric, verdicts), indent=2, ensure_ascii=False) + "\n"
        ).encode(),
        "comparison.md": (_as_markdown(runs, metric, verdicts) + "\n").encode(),
    }
    if "last" in verdicts:
        verdict = verdicts["last"]
        figure = forest_figure(verdict.values, verdict.measure, verdict.pairs, verdict.corrected)
        contents = {"comparison.png": render_png(figure), **contents}
    write_files(Path(output_dir), scrub_files(contents, local_roots(output_dir)))
    return Path(output_dir) / "comparison.md"


def comparison_lines(comparison: Mapping[str, Any]) -> str:
    """Return what `comparison.json` holds for the terminal: its conclusion, and the arms of the last epoch as a table.

    Each arm stands beside joint training, or what else the arms are compared with.
    """
    last = comparison["epochs"].get("last")
    if last is None:
        return "no run is finished"
    to = {base for arm in last["arms"].values() for base in arm["to"]}
    baseline = next((base for base in (*BASELINES, *last["arms"]) if base in to), None)
    measure = Measure.of(
        comparison["metric"], (value for arm in last["arms"].values() for value in arm["values"].values())
    )
    header = ["arm", "seeds", f"test {measure.label}"]
    header += [] if baseline is None else [f"over {baseline}", "p (Holm)"]
    rows = []
    for name, arm in last["arms"].items():
        row = [name, str(arm["n"]), measure.value(arm["mean"], arm["sd"])]
        if baseline is not None:
            pair = arm["to"].get(baseline)
            row.append(measure.difference(pair["mean"], pair["se"]) if pair else "")
            row.append(f"{pair['p_holm']:.3f}" if pair and pair["p_holm"] is not None else "")
        rows.append(row)
    return "\n".join([*last["conclusion"], "", text_table(header, rows)])


def _as_json(runs: Runs, metric: str, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    epochs = {}
    for epoch, verdict in verdicts.items():
        arms = {}
        for arm, own in verdict.values.items():
            to = {
                base: {**asdict(verdict.pairs[base][arm]), "p_holm": verdict.corrected[base][arm]}
                for base in verdict.pairs
                if arm in verdict.pairs[base]
            }
            arms[arm] = {"values": {str(seed): value for seed, value in own.items()}, **_moments(own), "to": to}
        epochs[epoch] = {"arms": arms, "conclusion": list(verdict.conclusion)}
    return {
        "title": runs.title,
        "metric": metric,
        "epochs": epochs,
        "failures": dict(runs.failures),
        "cost": _costs(runs),
    }


def _moments(own: Mapping[int, float]) -> dict[str, Any]:
    values = list(own.values())
    return {"n": len(values), "mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def _costs(runs: Runs) -> dict[str, dict[str, float | None]]:
    """Arm -> mean seconds of training, their ratio to joint training over common seeds, and the most memory."""
    seconds = {
        arm: {seed: value for seed, run in own.items() if (value := finite(run.get("seconds"))) is not None}
        for arm, own in runs.results.items()
    }
    costs: dict[str, dict[str, float | None]] = {}
    for arm, own in runs.results.items():
        common = set(seconds[arm]) & set(seconds.get("joint", ()))
        joint = sum(seconds["joint"][seed] for seed in common) if common else 0
        memory = [value for run in own.values() if (value := finite(run.get("peak_memory"))) is not None]
        costs[arm] = {
            "seconds": fmean(seconds[arm].values()) if seconds[arm] else None,
            "time_ratio": sum(seconds[arm][seed] for seed in common) / joint if joint else None,
            "peak_memory": max(memory, default=None),
        }
    return costs


def _as_markdown(runs: Runs, metric: str, verdicts: Mapping[str, Verdict]) -> str:
    measure = verdicts["last"].measure if "last" in verdicts else Measure(metric)
    label = text(measure.label)
    costs = _costs(runs)
    sections = [f"# {text(runs.title)}: comparison"]
    if "last" in verdicts:
        sections += [
            "\n".join(f"- {prose(sentence)}" for sentence in verdicts["last"].conclusion),
            f"![Paired differences of test {label}, with 95 % intervals](comparison.png)",
        ]
    for epoch, verdict in verdicts.items():
        sections += [f"## Test {label} of {EPOCHS[epoch]}", _verdict_table(verdict, costs)]
        if epoch != "last":
            sections.append("\n".join(f"- {prose(sentence)}" for sentence in verdict.conclusion))
    sections += [
        "## Arms",
        "\n".join(f"- **{text(arm)}**: {text(runs.descriptions.get(arm, MISSING))}" for arm in runs.results),
    ]
    if runs.failures:
        sections += [
            "## Runs that failed",
            "\n".join(f"- **{text(name)}**: {text(message)}" for name, message in runs.failures.items()),
        ]
    if runs.notes:
        sections.append("\n".join(f"- {prose(note)}" for note in runs.notes))
    sections += [
        "## Reading the table",
        f"{measure.units} A value stands with its standard deviation over seeds, a "
        "difference with its standard error. Differences are paired: arms of a seed start from the same weights and "
        "see the same batches, and all arms train on the same samples. Wins count the seeds in which the arm is "
        "better. p is that of the paired t test, then of Wilcoxon's test; Holm corrects the first over all "
        "comparisons of the table. The conclusion takes a difference as real if Holm's p is below "
        f"{LEVEL:g}. Validation chooses the best epoch and the weights of an ensemble, and diagnoses re-learnt "
        "arms. The test set chooses nothing. Times are compared fairly only between runs that had the same company.",
        "## Versions and machine",
        table(("", ""), [(name, text(value)) for name, value in environment().items()], numeric_from=2),
    ]
    return "\n\n".join(sections)


def _verdict_table(verdict: Verdict, costs: Mapping[str, Mapping[str, float | None]]) -> str:
    header = ["arm", "seeds", "mean ± sd"]
    for baseline in verdict.pairs:
        header += [f"to {text(baseline)} ± se", "wins", "p (t)", "p (Wilcoxon)", "p (Holm)"]
    header += ["time", "memory"]
    rows = []
    for arm, own in verdict.values.items():
        moments = _moments(own)
        row = [text(arm), str(moments["n"]), verdict.measure.value(moments["mean"], moments["sd"])]
        for baseline, found in verdict.pairs.items():
            row += _pair_cells(verdict, baseline, arm) if arm in found else [MISSING] * 5
        cost = costs[arm]
        ratio, memory = cost["time_ratio"], cost["peak_memory"]
        row.append(MISSING if ratio is None else f"{ratio:.2f} ×")
        row.append(MISSING if memory is None else f"{memory / 2**30:.1f} GiB")
        rows.append(row)
    return table(header, rows)


def _pair_cells(verdict: Verdict, baseline: str, arm: str) -> list[str]:
    pair, corrected = verdict.pairs[baseline][arm], verdict.corrected[baseline][arm]
    difference = verdict.measure.difference(pair.mean, pair.se)
    return [difference, f"{pair.wins} of {pair.n}", number(pair.p_t), number(pair.p_wilcoxon), number(corrected)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: give the output directory of a comparison") from None
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}): start the comparison again, which writes it anew") from error
