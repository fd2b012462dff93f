"""The metadata of a model card, through the classes of huggingface_hub."""

import re
from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from hf_relearn.cards.facts import CardFacts, EncoderFacts
from hf_relearn.report.markdown import metric_label, prose

LIBRARY = "hf_relearn"
TAGS = ("multimodal", "multimodal-classification", "diagnosing-and-relearning", "arxiv:2407.09705")

_TASKS = {
    "video": "video-classification",
    "vision": "image-classification",
    "audio": "audio-classification",
    "text": "text-classification",
    "features": "tabular-classification",
}


def card_data(facts: CardFacts) -> ModelCardData:
    """Metadata with all base models, data sets, and every metric in the model index.

    Backbones that did not come from the Hub are no base models. Which commits the base models are of stands under
    `base_model_revision`, which is no key of the Hub's own and which it leaves alone.
    """
    bases = {encoder.base_model: encoder for encoder in facts.encoders if encoder.base_model}
    revisions = {name: encoder.base_model_revision for name, encoder in bases.items() if encoder.base_model_revision}
    results = eval_results(facts)
    return ModelCardData(
        language=list(facts.info.language) or None,
        license=facts.info.license,
        library_name=LIBRARY,
        pipeline_tag=pipeline_tag(facts.encoders),
        tags=[*TAGS, *(encoder.modality for encoder in facts.encoders), *facts.info.tags],
        base_model=list(bases) or None,
        base_model_relation="finetune" if bases else None,
        base_model_revision=revisions or None,
        datasets=list(dict.fromkeys(dataset.hub_id for dataset in facts.datasets if dataset.hub_id)) or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results if result.metric_type != "loss")) or None,
        eval_results=results or None,
        model_name=prose(facts.name) if results else None,  # a key of the model index, not one of its own
    )


def pipeline_tag(encoders: Sequence[EncoderFacts]) -> str:
    """The Hub's task that comes nearest: it has none for several modalities, so that of the richest one counts."""
    kinds = {encoder.kind for encoder in encoders}
    if any(encoder.num_frames > 1 for encoder in encoders if encoder.kind == "vision"):
        return _TASKS["video"]
    return next(task for kind, task in _TASKS.items() if kind in kinds)


def eval_results(facts: CardFacts) -> list[EvalResult]:
    """One entry for each split and metric."""
    first = facts.datasets[0] if facts.datasets else None
    name = prose(first.name) if first else "the held-out data"
    task = pipeline_tag(facts.encoders)
    return [
        EvalResult(
            task_type=task,
            task_name="Multimodal classification",
            dataset_type=(first.hub_id if first and first.hub_id else _slug(name)),
            dataset_name=name,
            dataset_config=first.config if first else None,
            dataset_revision=first.revision if first else None,
            dataset_split=split,
            metric_type=metric_type(metric),
            metric_name=metric_label(metric),
            metric_value=round(float(value), 6),
        )
        for split, metrics in facts.results.items()
        for metric, value in metrics.items()
    ]


def metric_type(metric: str) -> str:
    """The Hub's name of a metric: that of `unimodal_audio_accuracy` is `accuracy`."""
    for known in ("accuracy", "f1", "loss"):
        if re.search(rf"(^|_){known}(_|$)", metric):
            return known
    return metric


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.").lower() or "unknown"
