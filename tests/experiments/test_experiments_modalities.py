"""The recipes' flags of modalities, and what follows from them for model and processor."""

import runpy
from pathlib import Path

import pytest
from transformers import BertTokenizer

from hf_relearn.experiments import ModelArguments
from hf_relearn.experiments.modalities import build_word_tokenizer
from hf_relearn.pairs import read_pairs

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def modality_arguments():
    return runpy.run_path(str(RECIPES / "train_multimodal.py"))["ModalityArguments"]


def test_any_mix_of_modalities_is_given_by_flags(modality_arguments):
    mix = modality_arguments(
        ["rgb:vision", "flow:vision", "text", "gaze:features"],
        columns=["rgb=frames", "flow=flow_frames", "gaze=x,y"],
        models=["rgb=google/vit-base-patch16-224-in21k"],
        from_scratch=True,
    )
    modalities = mix.parse(RECIPES)
    assert list(modalities) == ["rgb", "flow", "text", "gaze"]
    assert [modality.kind for modality in modalities.values()] == ["vision", "vision", "text", "features"]
    assert [modality.column for modality in modalities.values()] == ["frames", "flow_frames", "text", ["x", "y"]]
    assert modalities["rgb"].backbone == "google/vit-base-patch16-224-in21k"
    assert Path(modalities["flow"].backbone) == RECIPES / "backbones" / "resnet-tiny"
    assert Path(modalities["text"].backbone) == RECIPES / "backbones" / "bert-tiny"
    assert modalities["gaze"].backbone is None


def test_without_flags_there_are_audio_and_image(modality_arguments):
    modalities = modality_arguments(from_scratch=True).parse(RECIPES)
    assert {name: modality.column for name, modality in modalities.items()} == {"audio": "audio", "vision": "image"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"modalities": ["rgb"]}, "'rgb' needs a kind, as 'rgb:vision'; one of audio, vision"),
        ({"modalities": ["audio", "text"], "columns": ["words=transcript"]}, "--columns names 'words', but the modal"),
        ({"modalities": ["audio", "text"], "models": ["bert-base"]}, "--models takes NAME=VALUE, but got 'bert-base'"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(modality_arguments, flags, message):
    with pytest.raises(ValueError, match=message):
        modality_arguments(**flags).parse(RECIPES)


def test_pairs_are_read_once_each():
    assert read_pairs("--columns", ["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    assert read_pairs("--columns", None) == {}
    with pytest.raises(ValueError, match="--columns names 'a' twice"):
        read_pairs("--columns", ["a=b", "a=c"])


def test_model_flags_become_arguments_of_from_backbones():
    flags = ModelArguments(fusion="sum", fusion_options=["hidden_size=32", "dropout=0.1"], pooling=["text=cls"])
    kwargs = flags.build_kwargs(["vision", "text"])
    assert kwargs["fusion"] == "sum" and kwargs["fusion_kwargs"] == {"hidden_size": 32, "dropout": 0.1}
    assert kwargs["modality_options"] == {"text": {"pooling": "cls"}}
    assert kwargs["backbone_kwargs"] == {"dtype": "float32"}
    with pytest.raises(ValueError, match="--pooling names 'audio', but the modalities are vision, text"):
        ModelArguments(pooling=["audio=mean"]).build_kwargs(["vision", "text"])


def test_word_tokenizer_knows_the_frequent_words_and_spells_the_others(tmp_path):
    texts = ["The cat sat.", "the cat ran", None, "a cab, the end"]
    tokenizer = build_word_tokenizer(texts, vocab_size=35, max_length=16)
    assert len(tokenizer) == 35
    assert tokenizer.tokenize("The cat") == ["the", "cat"]
    assert tokenizer.tokenize("bed") == ["b", "##e", "##d"]
    assert tokenizer.model_max_length == 16
    assert build_word_tokenizer(texts, vocab_size=35, max_length=16).get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    again = BertTokenizer.from_pretrained(tmp_path)
    assert again("the cat ran bed")["input_ids"] == tokenizer("the cat ran bed")["input_ids"]


def test_a_vocabulary_too_small_for_the_characters_is_refused():
    with pytest.raises(ValueError, match="26 different characters, for which a vocabulary of 40 is too small"):
        build_word_tokenizer(["abcdefghijklmnopqrstuvwxyz"], vocab_size=40, max_length=16)
