"""The metadata of a card, read back as the Hub reads it."""

import pytest
from huggingface_hub import ModelCard, metadata_load

from hf_relearn.cards import CardInfo, DatasetFacts, EncoderFacts, write_card
from hf_relearn.cards.card import pipeline_tag
from hf_relearn.cards.facts import is_hub_id


def test_metadata_as_written(make_facts, tmp_path):
    path = write_card(tmp_path, make_facts())
    metadata = metadata_load(path)
    index = metadata.pop("model-index")
    assert metadata == {
        "language": ["en", "de"],
        "license": "apache-2.0",
        "library_name": "hf_relearn",
        "pipeline_tag": "image-classification",
        "tags": [
            *("multimodal", "multimodal-classification", "diagnosing-and-relearning", "arxiv:2407.09705"),
            *("audio", "vision", "gaze", "emotion"),
        ],
        "base_model": ["me/wav2vec2", "you/vit"],
        "base_model_relation": "finetune",
        "base_model_revision": {"me/wav2vec2": "a" * 40, "you/vit": "b" * 40},
        "datasets": ["me/pets"],
        "metrics": ["accuracy", "f1"],
    }
    assert [model["name"] for model in index] == ["clips"]
    test = next(result for result in index[0]["results"] if result["dataset"]["split"] == "test")
    assert test["dataset"] == {
        **{"name": "me/pets", "type": "me/pets", "config": "large", "split": "test", "revision": "c" * 40}
    }
    assert {metric["name"]: (metric["type"], metric["value"]) for metric in test["metrics"]} == {
        "accuracy": ("accuracy", 0.9),
        "f1 macro": ("f1", 0.88),
        "audio alone: accuracy": ("accuracy", 0.8),
        "vision alone: accuracy": ("accuracy", 0.51),
        "gaze alone: accuracy": ("accuracy", 0.7),
    }


def test_card_survives_huggingface_hubs_own_reading_and_writing(make_facts, tmp_path):
    path = write_card(tmp_path, make_facts())
    card = ModelCard.load(path)
    assert len(card.data.eval_results) == 6
    card.save(tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text() == path.read_text()


def test_nothing_known_is_left_out_and_not_null(make_facts, tmp_path):
    scratch = [EncoderFacts("audio", "audio", "resnet", 64, pretrained=False)]
    bare = make_facts(encoders=scratch, info=CardInfo(), datasets=[], results={}, records=[])
    metadata = metadata_load(write_card(tmp_path, bare))
    assert set(metadata) == {"library_name", "pipeline_tag", "tags"}


def test_results_without_a_repository_of_data_have_a_type_and_a_name(make_facts, tmp_path):
    facts = make_facts(datasets=[DatasetFacts("My clips")])
    metadata = metadata_load(write_card(tmp_path, facts))
    assert "datasets" not in metadata
    data = metadata["model-index"][0]["results"][0]["dataset"]
    assert (data["type"], data["name"]) == ("my-clips", "My clips")


def test_task_is_that_of_the_richest_modality():
    images, frames = EncoderFacts("v", "vision", "vit", 8), EncoderFacts("v", "vision", "vit", 8, num_frames=2)
    sound, words = EncoderFacts("a", "audio", "ast", 8), EncoderFacts("t", "text", "bert", 8)
    assert pipeline_tag([sound, frames]) == "video-classification"
    assert pipeline_tag([words, images]) == "image-classification"
    assert pipeline_tag([words, sound]) == "audio-classification"
    assert pipeline_tag([words]) == "text-classification"


@pytest.mark.parametrize("wrong", ["English", "EN", "en-US", "e"])
def test_language_that_the_hub_would_refuse(wrong):
    with pytest.raises(ValueError, match="no ISO 639 code"):
        CardInfo(language=[wrong])


def test_what_can_be_a_repository():
    assert is_hub_id("me/model") and is_hub_id("gpt2")
    assert not any(is_hub_id(name) for name in ("/home/me/model", "a/b/c", "../model", "~/model", "", None))
