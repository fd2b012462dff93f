"""Writes a run's `report.md` and its figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hf_relearn.files import file_stem, write_files
from hf_relearn.hub.local_paths import local_roots, scrub_files, scrub_json
from hf_relearn.records import Record, epoch_of, finite, modality_entry, modality_order
from hf_relearn.report.diagnosis_figures import alpha_figure, purity_figure
from hf_relearn.report.environment import environment
from hf_relearn.report.markdown import code, metric_label, number, percent, prose, table, text
from hf_relearn.report.projection import Part, features_figure
from hf_relearn.report.reading import read_modality, read_run
from hf_relearn.report.theme import NothingToDraw, render_png
from hf_relearn.report.training_figures import accuracy_figure

REPORT_FACTS_FILE = "report.json"
LONGEST_OPEN_TABLE = 24  # rows; a longer table of points is folded

DIAGNOSIS_COLUMNS = {
    "train_purity": "purity train",
    "val_purity": "purity held out",
    "train_chance_purity": "chance train",
    "val_chance_purity": "chance held out",
    "gap": "gap",
    "diagnosed_alpha": "α diagnosed",
}


def write_report(
    output_dir: str | Path,
    *,
    title: str,
    records: Sequence[Record],
    log_history: Sequence[Record],
    results: Mapping[str, Mapping[str, float]],
    settings: Mapping[str, Any],
    features: Mapping[str, Part] | None = None,
    class_names: Mapping[int, str] | Sequence[str] | None = None,
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    keep_feature_figures: bool = False,
) -> Path:
    """Write `report.md` and `figures/*.png` of a run into its output directory, and `report.json`.

    Everything is drawn before the first file is written. A figure that has nothing to show is left out, and the
    report says why. No absolute local path gets into the text. `report.json` holds what no other file of a run does
    (title, settings, notes, results, versions), so that a report can be made anew.

    Args:
        output_dir: Folder of the run, created where it is missing.
        title: Heading.
        records: Diagnosis records, one for each line of `relearn_history.jsonl`; may be empty.
        log_history: The Trainer's `state.log_history`; may be empty.
        results: Split -> metric -> value.
        settings: Name -> value of every setting worth telling.
        features: Part (`train`, `held-out`) -> ({modality: (n, d) array}, (n,) integer labels) of the final model.
        class_names: Names by label, as a mapping or a sequence.
        notes: Sentences in Markdown that a reader must know, such as where the data come from.
        versions: Versions and machine of the run; None takes those of this process.
        keep_feature_figures: Whether to show figures of features that an earlier report left in the folder.

    Returns:
        Path of `report.md`.

    Raises:
        ValueError: Features and labels do not fit together.
        OSError: A file cannot be written.
    """
    modalities = modality_order(
        records, log_history, results, [name for part in (features or {}).values() for name in part[0]]
    )
    figures, left_out = draw_figures(records, log_history, modalities, features, class_names)
    kept: list[str] = []
    if keep_feature_figures and (kept := _earlier_feature_figures(Path(output_dir), modalities)):
        left_out.pop("the features", None)
    versions = environment() if versions is None else versions
    roots = local_roots(output_dir)
    settings = scrub_json(settings, roots)
    epochs = [epoch for entry in [*log_history, *records] if (epoch := epoch_of(entry)) is not None]
    steps = [int(step) for entry in [*log_history, *records] if (step := finite(entry.get("step"))) is not None]
    sections = [
        f"# {text(title)}",
        read_run(records, modalities, epochs=max(epochs, default=None), steps=max(steps, default=None)),
        "## Results",
        results_table(results),
        *(["\n".join(f"- {prose(note)}" for note in notes)] if notes else []),
        "## What the diagnosis says",
        _diagnosis_text(records, modalities),
        "## Figures",
        *[f"![Figure of {subject}](figures/{name})\n\n{caption}" for name, (subject, caption, _) in figures.items()],
        *kept,
        *[f"No figure of {subject}: {reason}." for subject, reason in left_out.items()],
        "## Every diagnosis",
        points_table(records, modalities),
        "## Settings",
        settings_table(settings),
        "## Versions and machine",
        table(("", ""), [(name, text(value)) for name, value in versions.items()], numeric_from=2),
    ]
    facts = {"title": title, "settings": settings, "notes": notes, "results": results, "versions": versions}
    contents = {f"figures/{name}": render_png(figure) for name, (_, _, figure) in figures.items()}
    contents["report.md"] = ("\n\n".join(sections) + "\n").encode()
    contents[REPORT_FACTS_FILE] = (json.dumps(scrub_json(facts, roots), indent=2, ensure_ascii=False) + "\n").encode()
    write_files(Path(output_dir), scrub_files(contents, roots))
    return Path(output_dir) / "report.md"


def _earlier_feature_figures(output_dir: Path, modalities: Sequence[str]) -> list[str]:
    """Markdown of the figures of features that are in a run's folder already."""
    names = {name: f"figures/features_{file_stem(name)}.png" for name in modalities}
    return [
        f"![Figure of the {text(name)} features]({file})\n\nFeatures of {text(name)} by class, as drawn by an earlier "
        "report."
        for name, file in names.items()
        if (output_dir / file).is_file()
    ]


def draw_figures(
    records: Sequence[Record],
    log_history: Sequence[Record],
    modalities: Sequence[str],
    features: Mapping[str, Part] | None,
    class_names: Mapping[int, str] | Sequence[str] | None,
) -> tuple[dict[str, tuple[str, str, Figure]], dict[str, str]]:
    """Draw what there is to show.

    Args:
        records: Diagnosis records; may be empty.
        log_history: The Trainer's log; may be empty.
        modalities: Names, in the order of their colours.
        features: Part (`train`, `held-out`) -> ({modality: (n, d) array}, (n,) labels).
        class_names: Names by label.

    Returns:
        File name -> (subject, caption, figure), and for each figure left out its subject -> the reason.
    """
    wanted: list[tuple[str, str, str, Callable[[], Figure]]] = [
        (
            "purity.png",
            "the purities",
            "Purity of the training part (solid) and the held-out part (dashed): the strength that the diagnosis asks "
            "for follows from the shaded gap. Vertical lines are re-learning points, with the strength α applied. "
            "Dotted: purity of the same clusters under shuffled labels, for each part.",
            partial(purity_figure, records, modalities),
        ),
        (
            "alpha.png",
            "the strengths",
            "How far each encoder was moved back at every point: 0 leaves it, 1 restores its initial weights. "
            "Δθ: the change relative to the norm of the weights.",
            partial(alpha_figure, records, modalities),
        ),
        (
            "accuracy.png",
            "the validation accuracy",
            "Validation accuracy of the fused model and of each modality by itself, with the re-learning points.",
            partial(accuracy_figure, records, log_history, modalities),
        ),
    ]
    shown = modality_order([], extra=[name for part in (features or {}).values() for name in part[0]])
    for name in shown:
        wanted.append(
            (
                f"features_{file_stem(name)}.png",
                f"the {text(name)} features",
                f"Features of {text(name)} by class, in one projection of both parts.",
                partial(
                    features_figure,
                    name,
                    features or {},
                    class_names=class_names,
                    purity=_final_purity(records, name),
                ),
            )
        )
    figures, left_out = {}, {}
    for file_name, subject, caption, draw in wanted:
        try:
            figures[file_name] = (subject, caption, draw())
        except NothingToDraw as reason:
            left_out[subject] = str(reason)
    if not features:
        left_out["the features"] = "none were given"
    return figures, left_out


def _final_purity(records: Sequence[Record], modality: str) -> dict[str, float | None]:
    """Purities that belong to the final weights: those of the diagnosis at the end, if there was one."""
    if not records or records[-1].get("kind") != "end":
        return {}
    entry = modality_entry(records[-1], modality)
    return {"train": finite(entry.get("train_purity")), "held-out": finite(entry.get("val_purity"))}


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Metrics as rows, splits as columns; a sentence where there is no result."""
    splits = [split for split, metrics in results.items() if metrics]
    metrics = list(dict.fromkeys(metric for split in splits for metric in results[split]))
    if not metrics:
        return "No results were recorded."
    rows = [[metric_label(metric), *(number(results[split].get(metric)) for split in splits)] for metric in metrics]
    return table(["metric", *(text(split) for split in splits)], rows)


def _diagnosis_text(records: Sequence[Record], modalities: Sequence[str]) -> str:
    if not records:
        return "This run was not diagnosed, so nothing can be said of its modalities' learning states."
    lines = [f"- {read_modality(records, name)}" for name in modalities]
    sizes = [record for record in records if record.get("diagnosis_size")]
    if sizes:
        last = sizes[-1]
        cost = finite(last.get("seconds"))
        spent = "" if cost is None else f" A diagnosis took {cost:.1f} s"
        clustering = finite(last.get("kmeans_seconds"))
        spent += f", {clustering:.1f} s of it K-means." if spent and clustering is not None else "." if spent else ""
        lines.append(
            f"\nThe diagnosing part holds {number(last.get('diagnosis_size'))} samples beside "
            f"{number(last.get('train_size'))} for training, in {number(last.get('num_classes'))} classes.{spent}"
        )
    return "\n".join(lines)


def points_table(records: Sequence[Record], modalities: Sequence[str]) -> str:
    """One row for each diagnosis and modality, folded where there are many; a sentence where there is none."""
    rows = []
    for record in records:
        moved = record.get("kind") == "point"
        for name in modalities:
            entry = modality_entry(record, name)
            if entry:
                epoch = epoch_of(record)
                rows.append(
                    [
                        "–" if epoch is None else f"{round(epoch, 2):g}",
                        number(record.get("step")),
                        text(record.get("kind", "–")),
                        text(name),
                        *(number(entry.get(key)) for key in DIAGNOSIS_COLUMNS),
                        number(entry.get("alpha") if moved else None),
                        percent(entry.get("distance") if moved else None),
                        number(record.get("seconds"), 1),
                    ]
                )
    if not rows:
        return "No diagnosis was recorded."
    header = [
        "epoch",
        "step",
        "kind",
        "modality",
        *DIAGNOSIS_COLUMNS.values(),
        "α applied",
        "change of weights",
        "seconds",
    ]
    whole = table(header, rows, numeric_from=4)
    if len(rows) > LONGEST_OPEN_TABLE:
        return f"<details>\n<summary>{len(rows)} rows</summary>\n\n{whole}\n\n</details>"
    return whole


def settings_table(settings: Mapping[str, Any]) -> str:
    """Names and values as two columns; a sentence where there is none."""
    if not settings:
        return "No settings were recorded."
    return table(("setting", "value"), [(code(name), code(value)) for name, value in settings.items()], numeric_from=2)
