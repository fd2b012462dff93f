"""Write a run's `report.md` and its figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hf_relearn.files import file_stem, write_files
from hf_relearn.hub.local_paths import local_roots, scrub_files, scrub_json
from hf_relearn.records import Record, epoch_of, finite, modality_entry, modality_order
from hf_relearn.report.by_class import MOST_CLASSES, ClassResults
from hf_relearn.report.diagnosis_figures import (
    PURITY,
    R_SQUARED,
    alpha_figure,
    measure_of,
    memorised_figure,
    separability_figure,
)
from hf_relearn.report.environment import environment
from hf_relearn.report.markdown import MISSING, code, metric_label, number, percent, prose, shown_metrics, table, text
from hf_relearn.report.projection import Part, features_figure
from hf_relearn.report.reading import Gate, main_metric, read_modality, read_run
from hf_relearn.report.theme import NothingToDraw, render_png
from hf_relearn.report.training_figures import accuracy_figure
from hf_relearn.report.verdict import Samples, describe_samples, read_verdict

REPORT_FACTS_FILE = "report.json"
LONGEST_OPEN_TABLE = 24  # rows; a longer table of points is folded

DIAGNOSIS_COLUMNS = {
    "train_separability": "separability train",
    "val_separability": "held out",
    "chance": "chance",
    "train_purity": "purity train",
    "val_purity": "purity held out",
    "train_chance_purity": "chance train",
    "val_chance_purity": "chance held out",
    "gap": "gap",
    "standard_error": "± gap",
    "memorised": "memorised",
    "memorised_error": "± memorised",
    "train_head_accuracy": "head train",
    "val_head_accuracy": "head held out",
    "train_head_r2": "head R² train",
    "val_head_r2": "head R² held out",
    "diagnosed_alpha": "α diagnosed",
}
# Those that are shares of something and read best as per cent.
_SHARES = ("memorised", "memorised_error")


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
    samples: Samples | None = None,
    by_class: ClassResults | None = None,
    versions: Mapping[str, str] | None = None,
    keep_feature_figures: bool = False,
) -> Path:
    """Write `report.md` and `figures/*.png` of a run into its output directory, and `report.json`.

    Everything is drawn before the first file is written. The report begins with the verdict in words. A figure that
    has nothing to show is left out. No absolute local path gets into the text. `report.json` holds what no other file
    of a run does (title, settings, notes, results, samples, versions), so that a report can be made anew.

    Args:
        output_dir: Folder of the run, created if it is missing.
        title: Heading.
        records: Diagnosis records, one for each line of `relearn_history.jsonl`; may be empty.
        log_history: The Trainer's `state.log_history`; may be empty.
        results: Split -> metric -> value.
        settings: Name -> value of every setting worth telling.
        features: Part (`train`, `held-out`) -> ({modality: (n, d) array}, (n,) integer labels) of the final model.
        class_names: Names by label, as a mapping or a sequence.
        notes: Sentences in Markdown that a reader must know, such as where the data come from.
        samples: Split -> `samples`, their number, and under `missing` modality -> how many of them lack it.
        by_class: Results of each class, of the split that counts.
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
    gate = Gate.from_settings(settings)
    figures, left_out = draw_figures(records, log_history, modalities, features, class_names, gate)
    confusion = by_class.figure() if by_class else None
    kept = _earlier_feature_figures(Path(output_dir), modalities) if keep_feature_figures else []
    versions = environment() if versions is None else versions
    roots = local_roots(output_dir)
    settings = scrub_json(settings, roots)
    epochs = [epoch for entry in [*log_history, *records] if (epoch := epoch_of(entry)) is not None]
    steps = [int(step) for entry in [*log_history, *records] if (step := finite(entry.get("step"))) is not None]
    sections = [
        f"# {text(title)}",
        read_verdict(records, log_history, results, modalities, samples=samples, settings=settings),
        read_run(records, modalities, epochs=max(epochs, default=None), steps=max(steps, default=None)),
        "## Results",
        results_table(results),
        *(["\n".join(f"- {sentence}" for sentence in describe_samples(samples, results))] if samples else []),
        *(["\n".join(f"- {prose(note)}" for note in notes)] if notes else []),
        *(_class_sections(by_class, confusion is not None) if by_class else []),
        "## What the diagnosis says",
        _diagnosis_text(records, modalities, gate),
        "## Figures",
        *[f"![Figure of {subject}](figures/{name})\n\n{caption}" for name, (subject, caption, _) in figures.items()],
        *kept,
        *(
            ["Left out: " + "; ".join(f"{subject} ({why})" for subject, why in left_out.items()) + "."]
            if left_out
            else []
        ),
        "## Every diagnosis",
        points_table(records, modalities),
        "## Settings",
        settings_table(settings),
        "## Versions and machine",
        table(("", ""), [(name, text(value)) for name, value in versions.items()], numeric_from=2),
    ]
    facts = {
        "title": title,
        "settings": settings,
        "notes": notes,
        "results": results,
        "samples": samples or {},
        "by_class": by_class and asdict(by_class),
        "versions": versions,
    }
    contents = {f"figures/{name}": render_png(figure) for name, (_, _, figure) in figures.items()}
    if confusion is not None:
        contents["figures/confusion.png"] = render_png(confusion)
    contents["report.md"] = ("\n\n".join(sections) + "\n").encode()
    contents[REPORT_FACTS_FILE] = (json.dumps(scrub_json(facts, roots), indent=2, ensure_ascii=False) + "\n").encode()
    write_files(Path(output_dir), scrub_files(contents, roots))
    return Path(output_dir) / "report.md"


def _class_sections(by_class: ClassResults, drawn: bool) -> list[str]:
    if len(by_class.per_class) > MOST_CLASSES:
        return []
    figure = "![Figure of the confusion matrix](figures/confusion.png)\n\nHow often samples of each class (rows) are "
    figure += f"taken for each class (columns) on {text(by_class.split)}."
    return [f"## Classes on {text(by_class.split)}", by_class.table(), *([figure] if drawn else [])]


def _earlier_feature_figures(output_dir: Path, modalities: Sequence[str]) -> list[str]:
    """Return Markdown of the figures of features that are in a run's folder already."""
    names = {name: f"figures/features_{file_stem(name)}.png" for name in modalities}
    return [
        f"![Figure of the {text(name)} features]({file})\n\nFeatures of {text(name)}, as drawn by an earlier report."
        for name, file in names.items()
        if (output_dir / file).is_file()
    ]


_SEPARABILITY_CAPTION = (
    "{} each modality's features: of training samples (solid), each left out of its own prediction, and of held-out "
    "samples (dashed, with a band of two standard errors of the gap). A solid curve above the band is over-fitted. "
    "Full vertical lines are re-learning points at which the modality was moved, with the strength α; short dotted "
    "ones those at which it was kept. Dotted: chance."
)
_MEASURED = ("Separability of the classes in", "R² of the number by")
_PURITY_CAPTION = (
    "Purity of the training part (solid) and the held-out part (dashed): the strength that the diagnosis asks for "
    "follows from the shaded gap. Vertical lines are re-learning points, with the strength α applied. Dotted: purity "
    "of the same clusters under shuffled labels, for each part."
)


def draw_figures(
    records: Sequence[Record],
    log_history: Sequence[Record],
    modalities: Sequence[str],
    features: Mapping[str, Part] | None,
    class_names: Mapping[int, str] | Sequence[str] | None,
    gate: Gate | None = None,
) -> tuple[dict[str, tuple[str, str, Figure]], dict[str, str]]:
    """Draw what there is to show.

    Args:
        records: Diagnosis records; may be empty.
        log_history: The Trainer's log; may be empty.
        modalities: Names, in the order of their colours.
        features: Part (`train`, `held-out`) -> ({modality: (n, d) array}, (n,) labels).
        class_names: Names by label.
        gate: When a modality counts as memorised; None takes the default settings.

    Returns:
        File name -> (subject, caption, figure), and for each figure left out its subject -> the reason.
    """
    measure, metric = measure_of(records, modalities), metric_label(main_metric(log_history))
    of_numbers, measured = measure is R_SQUARED, "separability" if measure is None else measure.label
    wanted: list[tuple[str, str, str, Callable[[], Figure]]] = [
        (
            "purity.png" if measure is PURITY else "separability.png",
            "the purities" if measure is PURITY else f"the {'R² of the features' if of_numbers else measured}",
            _PURITY_CAPTION if measure is PURITY else _SEPARABILITY_CAPTION.format(_MEASURED[of_numbers]),
            partial(separability_figure, records, modalities),
        ),
        (
            "memorised.png",
            "the memorised share",
            f"Share of the training {measured} that held-out samples lack, with the band of the standard errors that "
            "the gate asks for: if it is above the dashed threshold, a modality is re-learnt, unless it still learns.",
            partial(memorised_figure, records, modalities, gate),
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
            f"the validation {metric}",
            f"Validation {metric} of the fused model and of each modality by itself, with the re-learning points.",
            partial(accuracy_figure, records, log_history, modalities),
        ),
    ]
    shown = modality_order([], extra=[name for part in (features or {}).values() for name in part[0]])
    for name in shown:
        wanted.append(
            (
                f"features_{file_stem(name)}.png",
                f"the {text(name)} features",
                f"Features of {text(name)}, in one projection of both parts.",
                partial(
                    features_figure,
                    name,
                    features or {},
                    class_names=class_names,
                    scores=_final_scores(records, name),
                ),
            )
        )
    figures, left_out = {}, {}
    for file_name, subject, caption, draw in wanted:
        try:
            figures[file_name] = (subject, caption, draw())
        except NothingToDraw as reason:
            left_out[subject] = str(reason)
    if measure is None or measure is PURITY:
        left_out.pop("the memorised share", None)  # it says no more than that purity was measured, or nothing
    return figures, left_out


def _final_scores(records: Sequence[Record], modality: str) -> dict[str, str]:
    """Return the scores of the final weights by part: those of the diagnosis at the end, if there was one."""
    entry = modality_entry(records[-1], modality) if records and records[-1].get("kind") == "end" else {}
    measure = measure_of(records, [modality])
    keys = {} if measure is None else {"train": measure.train, "held-out": measure.val}
    scores = {part: finite(entry.get(key)) for part, key in keys.items()}
    return {part: f"{measure.label} {value:.2f}" for part, value in scores.items() if measure and value is not None}


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the metrics as rows, splits as columns; a sentence if there is no result."""
    splits = [split for split, metrics in results.items() if metrics]
    metrics = shown_metrics(metric for split in splits for metric in results[split])
    if not metrics:
        return "No results were recorded."
    rows = [[metric_label(metric), *(number(results[split].get(metric)) for split in splits)] for metric in metrics]
    return table(["metric", *(text(split) for split in splits)], rows)


def _diagnosis_text(records: Sequence[Record], modalities: Sequence[str], gate: Gate) -> str:
    if not records:
        return "This run was not diagnosed, so nothing can be said of its modalities' learning states."
    lines = [f"- {read_modality(records, name, gate)}" for name in modalities]
    sizes = [record for record in records if record.get("diagnosis_size")]
    if sizes:
        last = sizes[-1]
        classes = f" in {number(last.get('num_classes'))} classes" if last.get("num_classes") != 0 else ""
        parts = [number(last.get(f"{part}_size")) for part in ("train", "diagnosis")]
        looked = f"{parts[0]} training samples and {parts[1]} held-out ones{classes}"
        lines.append(f"\nA diagnosis looks at {looked}.{_cost(last)}")
    return "\n".join(lines)


def _cost(record: Record) -> str:
    seconds, share = finite(record.get("seconds")), finite(record.get("share_of_epoch"))
    if seconds is None:
        return ""
    of_epoch = "" if share is None else f", {percent(share)} of an epoch's time"
    estimator = finite(record.get("estimator_seconds", record.get("kmeans_seconds")))
    parts = "" if estimator is None else f" ({estimator:.1f} s of it without the features)"
    return f" The last one took {seconds:.1f} s{parts}{of_epoch}."


def points_table(records: Sequence[Record], modalities: Sequence[str]) -> str:
    """Return one row for each diagnosis and modality, folded if there are many; a sentence if there is none.

    Columns without any value are left out.
    """
    rows: list[dict[str, str]] = []
    measured = "R²" if measure_of(records, modalities) is R_SQUARED else "separability"
    columns = {**DIAGNOSIS_COLUMNS, "train_separability": f"{measured} train"}
    for record in records:
        is_point = record.get("kind") == "point"
        epoch = epoch_of(record)
        for name in modalities:
            entry = modality_entry(record, name)
            if entry:
                values = {key: (percent if key in _SHARES else number)(entry.get(key)) for key in columns}
                rows.append(
                    {
                        "epoch": MISSING if epoch is None else f"{round(epoch, 2):g}",
                        "step": number(record.get("step")),
                        "kind": text(record.get("kind", MISSING)),
                        "modality": text(name),
                        **{title: values[key] for key, title in columns.items()},
                        "α applied": number(entry.get("alpha") if is_point else None),
                        "change of weights": percent(entry.get("distance") if is_point else None),
                        "seconds": number(record.get("seconds"), 1),
                    }
                )
    if not rows:
        return "No diagnosis was recorded."
    header = [title for place, title in enumerate(rows[0]) if place < 4 or any(row[title] != MISSING for row in rows)]
    whole = table(header, [[row[title] for title in header] for row in rows], numeric_from=4)
    if len(rows) > LONGEST_OPEN_TABLE:
        return f"<details>\n<summary>{len(rows)} rows</summary>\n\n{whole}\n\n</details>"
    return whole


def settings_table(settings: Mapping[str, Any]) -> str:
    """Return the names and values as two columns; a sentence if there is none."""
    if not settings:
        return "No settings were recorded."
    return table(("setting", "value"), [(code(name), code(value)) for name, value in settings.items()], numeric_from=2)
