"""Facts made up for the tests of the card."""

from collections.abc import Callable

import pytest

from hf_relearn.cards import CardFacts, CardInfo, DatasetFacts, EncoderFacts

ENTRY = {
    "train_purity": 0.9,
    "val_purity": 0.6,
    "train_chance_purity": 0.21,
    "val_chance_purity": 0.24,
    "gap": 0.3,
    "diagnosed_alpha": 0.716,
    "alpha": 0.716,
    "distance": 0.12,
}
ENCODERS = (
    EncoderFacts("audio", "audio", "wav2vec2", 768, 1, None, True, "me/wav2vec2", "a" * 40),
    EncoderFacts("vision", "vision", "vit", 768, 1, None, True, "you/vit", "b" * 40),
    EncoderFacts("gaze", "features", "hf_relearn_features", 64, 1, 4, False),
)
RESULTS = {
    "validation": {"loss": 0.41, "accuracy": 0.93},
    "test": {
        "loss": 0.51,
        "accuracy": 0.9,
        "f1_macro": 0.88,
        "unimodal_audio_accuracy": 0.8,
        "only_audio_accuracy": 0.75,
        "without_audio_accuracy": 0.55,
        "unimodal_vision_accuracy": 0.51,
        "unimodal_gaze_accuracy": 0.7,
    },
}


def record(epoch: int, kind: str = "point") -> dict:
    entries = {encoder.modality: {**ENTRY, "alpha": 0.9 - epoch / 20} for encoder in ENCODERS}
    sizes = {"train_size": 600, "diagnosis_size": 120, "num_classes": 2}
    return {"step": 30 * epoch, "epoch": epoch, "kind": kind, "seconds": 1.8, **sizes, "modalities": entries}


@pytest.fixture
def make_facts() -> Callable[..., CardFacts]:
    """Factory of the facts of a three-modality model; keywords replace fields."""

    def make(**changes) -> CardFacts:
        facts = {
            "name": "clips",
            "repository": "me/clips",
            "info": CardInfo(license="apache-2.0", language=["en", "de"], tags=["emotion"], notes=["Made up."]),
            "encoders": ENCODERS,
            "fusion": "concat",
            "class_names": ["cat", "dog"],
            "datasets": [DatasetFacts("me/pets", "me/pets", "large", "c" * 40)],
            "results": RESULTS,
            "records": [record(2), record(4), record(6, "end")],
            "settings": {"learning_rate": 0.01},
            "environment": {"python": "3.11.7", "torch": "2.13.0", "machine": "Linux, x86_64, 2 cores"},
            "steps": 180,
            "epochs": 6.0,
            "seconds": 71.0,
        }
        return CardFacts(**{**facts, **changes})

    return make
