"""Write `comparison.md`, `comparison.png` and `comparison.json`: the arms of a comparison, and what follows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hf_relearn.files import write_files
from hf_relearn.hub.local_paths import local_roots, scrub_files
from hf_relearn.records import finite
from hf_relearn.report.environment import environment
from hf_relearn.report.forest_figure import forest_figure
from hf_relearn.report.markdown import MISSING, listed, number, prose, table, text
from hf_relearn.report.statistics import LEVEL, Paired, compare_paired, holm, visible_difference
from hf_relearn.report.theme import render_png
from hf_relearn.text_table import text_table

RESULT_FILE = "result.json"
FAILURE_FILE = "failure.txt"
SETTINGS_FILE = "settings.json"
BASELINES = ("joint", "heads")
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


@dataclass(frozen=True)
class Verdict:
    """Hold the comparison of all arms over the seeds, at one choice of the epoch.

    Args:
        values: arm -> seed -> value.
        pairs: baseline -> arm -> paired comparison.
        corrected: baseline -> arm -> p of the paired t test, by Holm over all comparisons of the table.
        conclusion: sentences.
    """

    values: Mapping[str, Mapping[int, float]]
    pairs: Mapping[str, Mapping[str, Paired]]
    corrected: Mapping[str, Mapping[str, float | None]]
    conclusion: Sequence[str]


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


def judge(values: Mapping[str, Mapping[int, float]]) -> Verdict:
    """Compare every arm with joint training and with heads, over the seeds that both have.

    Args:
        values: arm -> seed -> value. If neither baseline is there, the first arm is one.
    """
    baselines = [name for name in BASELINES if name in values] or list(values)[:1]
    pairs: dict[str, dict[str, Paired]] = {}
    for baseline in baselines:
        found = {arm: compare_paired(own, values[baseline]) for arm, own in values.items() if arm != baseline}
        pairs[baseline] = {arm: pair for arm, pair in found.items() if pair is not None}
    # Heads to joint and joint to heads is one comparison.
    tests = {frozenset((base, arm)): pair.p_t for base, found in pairs.items() for arm, pair in found.items()}
    by_test = dict(zip(tests, holm(list(tests.values())), strict=True))
    corrected = {base: {arm: by_test[frozenset((base, arm))] for arm in found} for base, found in pairs.items()}
    return Verdict(values, pairs, corrected, _conclude(values, pairs, corrected))


def _conclude(
    values: Mapping[str, Mapping[int, float]],
    pairs: Mapping[str, Mapping[str, Paired]],
    corrected: Mapping[str, Mapping[str, float | None]],
) -> list[str]:
    sentences = []
    for place, (baseline, found) in enumerate(pairs.items()):
        if not found:
            continue
        told = {arm for arm, p in corrected[baseline].items() if p is not None and p < LEVEL}
        compared = [arm for arm in found if place == 0 or arm not in list(pairs)[:place]]
        gains = sorted((arm for arm in told if found[arm].mean > 0), key=lambda arm: -found[arm].mean)
        losses = sorted((arm for arm in told if found[arm].mean < 0), key=lambda arm: found[arm].mean)
        if gains:
            parts = [f"{arm} gains {_plus_minus(found[arm])}" for arm in gains]
            sentences.append(f"Over {baseline}, {listed(parts)} points.")
        elif compared:
            sentences.append(f"Nothing gains over {baseline} beyond chance.")
        losses = [arm for arm in losses if arm in compared]
        if losses:
            parts = [f"{arm} loses {_plus_minus(found[arm])}" for arm in losses]
            sentences.append(f"Against {baseline}, {listed(parts)} points.")
    counts = sorted({len(own) for own in values.values()})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed" + "s" * (counts[0] != 1)
    if counts[-1] < 2:
        return [f"With {seeds}, no difference can be told from chance: give --compare_seeds 3 or more."]
    seen = visible_difference([pair for found in pairs.values() for pair in found.values()])
    if seen is not None:
        sentences.append(f"With {seeds}, differences below {100 * seen:.1f} points cannot be seen.")
    return sentences


def _plus_minus(pair: Paired) -> str:
    return f"{100 * abs(pair.mean):.1f} ± {100 * (pair.se or 0):.1f}"


def write_comparison(
    output_dir: str | Path, folders: Sequence[str | Path] | None = None, *, metric: str = "accuracy"
) -> Path:
    """Write `comparison.md`, `comparison.png` and `comparison.json` into a folder.

    Args:
        output_dir: Folder, created if it is missing.
        folders: Output directories of comparisons, which are joined; by default `output_dir` itself.
        metric: What is compared on the test set.

    Returns:
        Path of `comparison.md`.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: No run is finished, the folders do not fit together, or the runs lack the metric.
    """
    runs = read_runs(folders or [output_dir])
    by_epoch = {epoch: runs.values(epoch, metric) for epoch in EPOCHS}
    if runs.results and not by_epoch["last"]:
        known = sorted({name for own in runs.results.values() for result in own.values()
                        for name in result["results"]["last"].get("test", {})})  # fmt: skip
        raise ValueError(f"no run has the metric {metric!r} on the test set; there are {listed(known)}")
    verdicts = {epoch: judge(values) for epoch, values in by_epoch.items() if values}
    contents = {
        "comparison.json": (
            json.dumps(_as_json(runs, metric, verdicts), indent=2, ensure_ascii=False) + "\n"
        ).encode(),
        "comparison.md": (_as_markdown(runs, metric, verdicts) + "\n").encode(),
    }
    if "last" in verdicts:
        verdict = verdicts["last"]
        figure = forest_figure(verdict.values, verdict.pairs, verdict.corrected, metric.replace("_", " "))
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
    header = ["arm", "seeds", f"test {comparison['metric'].replace('_', ' ')}"]
    header += [] if baseline is None else [f"over {baseline}", "p (Holm)"]
    rows = []
    for name, arm in last["arms"].items():
        row = [name, str(arm["n"]), f"{100 * arm['mean']:.1f}{_spread(arm['sd'])}"]
        if baseline is not None:
            pair = arm["to"].get(baseline)
            row.append(f"{100 * pair['mean']:+.1f}{_spread(pair['se'])}" if pair else "")
            row.append(f"{pair['p_holm']:.3f}" if pair and pair["p_holm"] is not None else "")
        rows.append(row)
    return "\n".join([*last["conclusion"], "", text_table(header, rows)])


def _spread(value: float | None) -> str:
    return "" if value is None else f" ± {100 * value:.1f}"


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
    label = text(metric.replace("_", " "))
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
        "Values are percent, differences are points. A value stands with its standard deviation over seeds, a "
        "difference with its standard error. Differences are paired: arms of a seed start from the same weights and "
        "see the same batches, and all arms train on the same samples. Wins count the seeds in which the arm is "
        "above. p is that of the paired t test, then of Wilcoxon's test; Holm corrects the first over all "
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
        row = [text(arm), str(moments["n"]), f"{100 * moments['mean']:.1f}{_spread(moments['sd'])}"]
        for baseline, found in verdict.pairs.items():
            row += _pair_cells(found[arm], verdict.corrected[baseline][arm]) if arm in found else [MISSING] * 5
        cost = costs[arm]
        ratio, memory = cost["time_ratio"], cost["peak_memory"]
        row.append(MISSING if ratio is None else f"{ratio:.2f} ×")
        row.append(MISSING if memory is None else f"{memory / 2**30:.1f} GiB")
        rows.append(row)
    return table(header, rows)


def _pair_cells(pair: Paired, corrected: float | None) -> list[str]:
    # Adding 0 turns a negative zero, which rounding may leave, into a positive one.
    error = "" if pair.se is None else f" ± {100 * pair.se:.1f}"
    difference = f"{round(100 * pair.mean, 1) + 0.0:+.1f}{error}"
    return [difference, f"{pair.wins} of {pair.n}", number(pair.p_t), number(pair.p_wilcoxon), number(corrected)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: give the output directory of a comparison") from None
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}): start the comparison again, which writes it anew") from error
