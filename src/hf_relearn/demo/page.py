"""The page of a model: an input for each modality, its labels and scores, and what each modality contributed."""

import csv
import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio

from hf_relearn.models import MultimodalClassificationPipeline
from hf_relearn.models.processing_table import read_row
from hf_relearn.report.markdown import text

CLEANING = (600, 3600)  # every ten minutes, uploads that are older than an hour are deleted; all of them at the end
STYLE = """
.shares { display: grid; margin-top: 34px; gap: 10px 14px; align-items: center; }
.shares { grid-template-columns: max-content 1fr max-content; }
.shares .bar { position: relative; height: 14px; border-radius: 3px; background: var(--background-fill-secondary); }
.shares .bar i { position: absolute; top: 0; bottom: 0; border-radius: 3px; }
.shares .bar b { position: absolute; top: -3px; bottom: -3px; left: 50%; width: 1px; }
.shares .bar b { background: var(--body-text-color); }
.shares .for { background: var(--primary-500); }
.shares .against { background: var(--neutral-400); }
.shares .number { font-variant-numeric: tabular-nums; text-align: right; }
#scores { max-height: 70vh; overflow-y: auto; }
.shares-note { margin-top: 18px; font-size: var(--text-sm); }
"""
THEME = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build_page(
    classify: MultimodalClassificationPipeline,
    title: str,
    description: str = "",
    examples: tuple[list[list[Any]], list[str]] | None = None,
) -> gradio.Blocks:
    """Return the page of a pipeline's model.

    A field left empty is a missing modality. Files reach the pipeline as they were uploaded.

    Args:
        classify: the pipeline.
        title: heading, in plain text.
        description: what the model is, in plain text; may be empty.
        examples: samples, a value for each modality, and what each is called.
    """
    kinds = {name: modality.kind for name, modality in classify.model.config.modalities.items()}

    number = classify.model.config.problem_type == "regression"

    def answer(*given: Any) -> tuple[dict[str, float] | float, str]:
        try:
            sample = {name: _raw_value(name, kinds[name], value) for name, value in zip(kinds, given, strict=True)}
            entries = classify(sample, top_k=None, return_contributions=len(kinds) > 1)
        except (ValueError, TypeError, OSError) as error:
            raise gradio.Error(html.escape(_without_folders(str(error), given)), print_exception=False) from error
        scores = {str(entry["label"]): entry["score"] for entry in entries}
        shares = _shares(entries[0], [name for name, value in sample.items() if value is None])
        return (entries[0]["score"] if number else scores), shares

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=CLEANING) as page:
        about = f"{text(description)}\n\n" if description else ""
        gradio.Markdown(f"# {html.escape(title)}\n\n{about}A modality that is left empty is missing.")
        with gradio.Row():
            with gradio.Column():
                inputs = [
                    _input(name, modality, classify.processor)
                    for name, modality in classify.model.config.modalities.items()
                ]
                button = gradio.Button("Predict" if number else "Classify", variant="primary", elem_id="classify")
                if examples and examples[0]:
                    gradio.Examples(examples[0], inputs, example_labels=examples[1], elem_id="examples")
            with gradio.Column():
                labels = classify.model.config.id2label
                scores = (
                    gradio.Number(label=labels[0], interactive=False, elem_id="scores")
                    if number
                    else gradio.Label(label="Scores", num_top_classes=len(labels), elem_id="scores")
                )
                shares = gradio.HTML(
                    label="Contributions", show_label=True, container=True, padding=True, elem_id="contributions"
                )
        button.click(answer, inputs, [scores, shares], api_name="classify")
    return page


def _input(name: str, modality: Any, processor: Any) -> gradio.components.Component:
    """Return the component of a modality, by its kind."""
    place: dict[str, Any] = {"label": name, "elem_id": f"input-{name}"}
    if modality.kind == "audio":
        return gradio.Audio(sources=["upload", "microphone"], type="filepath", buttons=[], **place)
    if modality.kind == "video":
        return gradio.Video(sources=["upload"], include_audio=True, **place)
    if modality.kind == "vision" and (modality.num_frames or 1) > 1:
        place["label"] = f"{name} ({modality.num_frames} pictures)"
        return gradio.File(file_count="multiple", file_types=["image"], type="filepath", **place)
    if modality.kind == "vision":
        return gradio.Image(
            sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None, height=280, **place
        )
    if modality.kind == "features":
        hint = f"{modality.backbone_config.input_size} numbers, or several such rows, as JSON or separated by commas"
        return gradio.Textbox(lines=3, placeholder=hint, **place)
    if modality.kind == "table":
        columns = ", ".join(f"{column}=..." for column in processor.inputs[name].columns)
        return gradio.Textbox(lines=3, placeholder=f"{columns}; cells may be left out", **place)
    return gradio.Textbox(lines=3, **place)


def _raw_value(name: str, kind: str, value: Any) -> Any:
    """Return a component's value as the pipeline takes it; None if it is empty."""
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        return None
    if kind == "table":
        return read_row(name, value)
    return read_numbers(name, value) if kind == "features" else value


def read_numbers(name: str, text: str) -> list[float] | list[list[float]]:
    """Return one row of numbers or several, of JSON or of lines with commas (or semicolons, tabs or spaces) between.

    Raises:
        ValueError: for anything else; the message names the modality.
    """
    try:
        found = json.loads(text)
        rows = found if found and isinstance(found[0], list) else [found]
    except (ValueError, TypeError, KeyError, RecursionError):
        lines = text.translate(str.maketrans(";\t", ",,")).strip().splitlines()
        split = csv.reader(lines) if "," in text or ";" in text or "\t" in text else (line.split() for line in lines)
        try:
            rows = [row for row in split if row]
        except csv.Error:  # a field longer than the csv module reads
            rows = [[text]]
    try:
        numbers = [[float(value) for value in row] for row in rows]
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"modality {name!r}: {text[:60]!r} are no numbers: give 1.5, 2 or [1.5, 2]") from None
    lengths = {len(row) for row in numbers}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"modality {name!r}: rows of numbers must be of one length, but have {sorted(lengths)}")
    return numbers if len(numbers) > 1 else numbers[0]


def _shares(entry: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Return each modality's contribution to the best label's score, as bars to both sides of zero."""
    shares = entry.get("contributions")
    if not shares:
        return "<p class='shares-note'>The model has one modality, which decides alone.</p>"
    widest = max(map(abs, shares.values())) or 1.0
    cells = []
    for name, share in shares.items():
        width = 50 * abs(share) / widest
        side = f"left:50%;width:{width:.1f}%" if share >= 0 else f"right:50%;width:{width:.1f}%"
        number = "not given" if name in missing else f"{share:+.3f}"
        bar = f"<i class='{'for' if share >= 0 else 'against'}' style='{side}'></i><b></b>"
        cells.append(
            f"<span>{html.escape(name)}</span><span class='bar'>{bar}</span><span class='number'>{number}</span>"
        )
    note = f"How much the score of <em>{html.escape(str(entry['label']))}</em> falls when a modality is left out."
    return f"<div class='shares'>{''.join(cells)}</div><p class='shares-note'>{note}</p>"


def _without_folders(message: str, given: Sequence[Any]) -> str:
    """Return a message in which uploaded files go by their names alone."""
    for value in given:
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str) and os.path.isabs(path):
                message = message.replace(path, Path(path).name)
    return message
