"""Prepare the facts of a card for its template: cells of tables, links, and the modalities that hardly count."""

from typing import Any

from hf_relearn.cards.facts import CardFacts, DatasetFacts, EncoderFacts
from hf_relearn.records import finite
from hf_relearn.report.markdown import MISSING, code, listed, number, prose, table, text
from hf_relearn.report.reading import read_modality, read_run, was_moved
from hf_relearn.report.run_report import points_table, results_table, settings_table
from hf_relearn.report.verdict import chosen_split, read_verdict

WEAK_SHARE = 1.25  # a modality whose accuracy is less than so many times that of guessing is called weak

_KINDS = {
    "audio": "a sound",
    "vision": "an image",
    "video": "a video",
    "text": "text",
    "features": "numbers",
    "table": "a row of a table",
}
_ABLATIONS = {
    "alone": "unimodal_{}_{}",
    "only this one given": "only_{}_{}",
    "all but this one": "without_{}_{}",
}


def template_values(facts: CardFacts) -> dict[str, Any]:
    """Collect the names that `model_cards/template.md` uses, but for its metadata, code and figures."""
    split = chosen_split(facts.results)
    sized = [record for record in facts.records if record.get("diagnosis_size")]
    return {
        "facts": facts,
        "inputs": [f"**{text(encoder.modality)}** ({_input(encoder)})" for encoder in facts.encoders],
        "classes": [text(name) for name in facts.class_names],
        "datasets": [_dataset(dataset) for dataset in facts.datasets],
        "names_of_data": [text(dataset.name) for dataset in facts.datasets],
        "relearnt": [
            text(name) for name in facts.modalities if any(was_moved(record, name) for record in facts.records)
        ],
        "verdict": read_verdict(
            facts.records, facts.log_history, facts.results, facts.modalities, settings=facts.settings
        ),
        "encoders": [
            [text(e.modality), _input(e), text(e.architecture), _start(e), number(e.feature_size)]
            for e in facts.encoders
        ],
        "results": results_table(facts.results),
        "split": split,
        "ablations": _ablations(facts, split),
        "weak": _weak_modalities(facts, split),
        "sizes": sized[-1] if sized else None,
        "environment": [(text(name), text(value)) for name, value in facts.environment.items()],
        "duration": _duration,
        **{
            function.__name__: function
            for function in (text, prose, code, number, listed, table)
            + (read_modality, read_run, points_table, settings_table)
        },
    }


def _ablations(facts: CardFacts, split: str | None) -> list[list[str]]:
    """Make rows of accuracies, or R², by modality below their header; empty if none was measured."""
    measured = facts.results.get(split, {}) if split else {}
    metric = "r2" if facts.regression else "accuracy"
    shown = {
        title: key
        for title, key in _ABLATIONS.items()
        if any(key.format(name, metric) in measured for name in facts.modalities)
    }
    rows = [
        [text(name), *(number(measured.get(key.format(name, metric))) for key in shown.values())]
        for name in facts.modalities
    ]
    together = ["*all together*", *([number(measured.get(metric))] * len(shown))]
    return [["modality", *shown], *rows, together] if shown else []


def _weak_modalities(facts: CardFacts, split: str | None) -> dict[str, float]:
    """Find the accuracies of the modalities that hardly beat guessing."""
    if split is None or not facts.class_names or facts.regression:
        return {}
    found = {name: finite(facts.results[split].get(f"unimodal_{name}_accuracy")) for name in facts.modalities}
    chance = 1 / len(facts.class_names)
    return {name: value for name, value in found.items() if value is not None and value < WEAK_SHARE * chance}


def _input(encoder: EncoderFacts) -> str:
    if encoder.kind == "vision" and encoder.num_frames > 1:
        return f"{encoder.num_frames} images"
    return _KINDS[encoder.kind]


def _start(encoder: EncoderFacts) -> str:
    if encoder.base_model:
        link = f"[{text(encoder.base_model)}](https://huggingface.co/{encoder.base_model})"
        revision = encoder.base_model_revision
        return f"{link} at `{revision[:12]}`" if revision else link
    if encoder.pretrained is None:
        return MISSING
    return "pretrained weights that are not on the Hub" if encoder.pretrained else "random weights"


def _dataset(dataset: DatasetFacts) -> str:
    name = text(dataset.name)
    if dataset.hub_id:
        name = f"[{name}](https://huggingface.co/datasets/{dataset.hub_id})"
    return name + (f", configuration {text(dataset.config)}" if dataset.config else "")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
