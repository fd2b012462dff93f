"""Texts: what tokenizers make of them, what the backbone is given, and how tokenizers are saved."""

import json
from types import SimpleNamespace

import pytest
import torch
from tiny import vit_config
from tokenizers_of_words import WORDS, bert_like, gpt_like
from transformers import (
    AutoProcessor,
    BertConfig,
    BertModel,
    DistilBertConfig,
    FNetConfig,
    GPT2Config,
    RobertaConfig,
    T5Config,
)

from hf_relearn import MultimodalConfig, MultimodalProcessor
from hf_relearn.models import ModalityConfig
from hf_relearn.models.processing_sources import RawValueError
from hf_relearn.models.processing_text import TextInput

VOCAB = len(WORDS) + 4
BERT = BertConfig(
    vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=12
)


def config_of(**backbones) -> MultimodalConfig:
    modalities = {
        name: ModalityConfig(backbone, "vision" if name == "image" else "text", feature_size=16, token_size=16)
        for name, backbone in backbones.items()
    }
    return MultimodalConfig(modalities=modalities)


def from_model(backbone, tokenizer, **options) -> TextInput:
    processor = MultimodalProcessor.from_model(
        config_of(caption=backbone), options={"caption": {"tokenizer": tokenizer, **options}}
    )
    return processor.inputs["caption"]


@pytest.mark.parametrize(
    ("backbone", "taken"),
    [
        (BERT, ["input_ids", "token_type_ids", "attention_mask"]),
        (DistilBertConfig(vocab_size=VOCAB), ["input_ids", "attention_mask"]),
        (T5Config(vocab_size=VOCAB), ["input_ids", "attention_mask"]),
        (FNetConfig(vocab_size=VOCAB), ["input_ids", "token_type_ids", "attention_mask"]),  # the mask is for pooling
    ],
    ids=["bert", "distilbert", "t5", "fnet"],
)
def test_a_backbone_is_given_only_what_its_forward_takes(backbone, taken):
    inputs = from_model(backbone, bert_like())(["a cat", "a red dog runs"])

    assert sorted(inputs) == sorted(taken)
    assert inputs["input_ids"].tolist() == [[2, 4, 8, 3, 0, 0], [2, 4, 5, 9, 11, 3]]
    if "attention_mask" in taken:
        assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_without_padding_token_pads_with_its_end_on_its_own_side(side):
    tokenizer = gpt_like(padding_side=side)

    inputs = from_model(GPT2Config(vocab_size=VOCAB), tokenizer)(["red", "a cat"])

    assert inputs["input_ids"].tolist() == ([[0, 2], [1, 5]] if side == "left" else [[2, 0], [1, 5]])
    assert inputs["attention_mask"].tolist() == ([[0, 1], [1, 1]] if side == "left" else [[1, 0], [1, 1]])
    assert tokenizer.pad_token is None  # the user's own object stays as it was


def test_an_empty_text_is_there_and_gives_a_token():
    inputs = TextInput(gpt_like())(["", "a cat"])
    assert inputs["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert TextInput(gpt_like())([""])["input_ids"].tolist() == [[0]]
    assert TextInput(bert_like())(["", "a"])["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]

    batch = MultimodalProcessor({"t": {"type": "text", "tokenizer": bert_like()}})({"t": ["", "a"]})
    assert "t_present" not in batch


@pytest.mark.parametrize(
    ("backbone", "tokenizer", "longest"),
    [
        (BERT, bert_like(), 11),  # 12 positions, of which one may be the padding token's
        (BERT, bert_like(model_max_length=12), 12),
        (BERT, bert_like(model_max_length=9), 9),
        (RobertaConfig(vocab_size=VOCAB, max_position_embeddings=14), bert_like(), 12),
        (T5Config(vocab_size=VOCAB), bert_like(), 512),
    ],
    ids=["positions", "both", "tokenizer", "roberta", "unlimited"],
)
def test_long_texts_are_cut_to_what_tokenizer_and_backbone_take(backbone, tokenizer, longest):
    text_input = from_model(backbone, tokenizer)

    assert text_input.max_length == longest
    assert text_input([" ".join(["cat"] * 600)])["input_ids"].shape == (1, longest)
    assert from_model(backbone, tokenizer, max_length=5)(["a cat sits a cat"])["input_ids"].shape == (1, 5)


@pytest.mark.parametrize("value", [3, 2.5, b"cat", ["a", "cat"], float("nan")])
def test_what_is_no_string_is_refused(value):
    processor = MultimodalProcessor({"caption": {"type": "text", "tokenizer": bert_like()}})

    with pytest.raises(RawValueError, match=f"modality 'caption': row 1 of the batch holds {type(value).__name__}"):
        processor({"caption": ["a cat", value]})


def test_a_text_backbone_needs_a_tokenizer(tmp_path):
    for backbones in ({}, {"caption": BERT}, {"caption": BertModel(BERT)}):
        with pytest.raises(ValueError, match="modality 'caption': texts need a tokenizer.*option {\"tokenizer\""):
            MultimodalProcessor.from_model(config_of(caption=BERT), backbones)
    BERT.save_pretrained(tmp_path)  # transformers makes an empty tokenizer of it
    with pytest.raises(ValueError, match="modality 'caption': .* has no tokenizer"):
        MultimodalProcessor.from_model(config_of(caption=BERT), {"caption": tmp_path})
    with pytest.raises(ValueError, match="modality 'caption': the tokenizer has 12 tokens, but the backbone knows 7"):
        from_model(BertConfig(vocab_size=7), bert_like())
    with pytest.raises(ValueError, match="neither a pad_token nor an eos_token"):
        from_model(BERT, bert_like(pad_token=None))
    with pytest.raises(ValueError, match="modality 'caption': a text modality needs a tokenizer"):
        MultimodalProcessor({"caption": {"type": "text"}})
    with pytest.raises(ValueError, match="modality '_caption': .*not uploaded to the Hub"):
        MultimodalProcessor({"_caption": {"type": "text", "tokenizer": bert_like()}})


def test_the_tokenizer_of_a_pretrained_folder_is_taken(tmp_path):
    BertModel(BERT).save_pretrained(tmp_path)
    bert_like(model_max_length=10).save_pretrained(tmp_path)

    processor = MultimodalProcessor.from_model(config_of(caption=BERT), {"caption": str(tmp_path)})

    assert processor({"caption": ["a cat"]})["caption_input_ids"].tolist() == [[2, 4, 8, 3]]
    assert processor.modalities["caption"]["max_length"] == 10


def saved(folder) -> MultimodalProcessor:
    processor = MultimodalProcessor.from_model(
        config_of(question=BERT, image=vit_config(), answer=GPT2Config(vocab_size=VOCAB)),
        options={"question": {"tokenizer": bert_like()}, "answer": {"tokenizer": gpt_like(padding_side="left")}},
    )
    processor.save_pretrained(folder)
    return processor


def assert_same_inputs(first: MultimodalProcessor, second: MultimodalProcessor) -> None:
    texts = ["a cat", "", "a red dog runs"]
    images = [torch.zeros(9, 9, dtype=torch.uint8).numpy()] * 3
    values = {"question": texts, "image": images, "answer": texts}
    one, other = first(values), second(values)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_tokenizer_is_saved_in_a_folder_of_its_own_and_comes_back(tmp_path):
    processor = saved(tmp_path / "a")

    again = MultimodalProcessor.from_pretrained(tmp_path / "a")

    again.save_pretrained(tmp_path / "b")
    assert_same_inputs(processor, again)
    settings = json.loads((tmp_path / "a" / "processor_config.json").read_text(encoding="utf-8"))
    assert settings["modalities"] == processor.modalities == again.modalities
    assert "tokenizer" not in settings["modalities"]["question"]
    for file in ("question/tokenizer.json", "answer/tokenizer.json", "processor_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert type(again.tokenizer) is SimpleNamespace  # what a Trainer reads special tokens from


def test_a_trainers_copy_of_the_processor_is_found_by_the_auto_class(tmp_path):
    processor = saved(tmp_path)
    config_of(question=BERT).save_pretrained(tmp_path)

    assert_same_inputs(processor, AutoProcessor.from_pretrained(tmp_path))


def test_tokenizers_come_from_a_hub_repository_and_from_a_subfolder_of_one(tmp_path):
    snapshot = tmp_path / "models--me--fused" / "snapshots" / ("0" * 40)
    processor = saved(snapshot)
    saved(snapshot / "best")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)

    for subfolder in ({}, {"subfolder": "best"}):
        again = MultimodalProcessor.from_pretrained("me/fused", cache_dir=tmp_path, local_files_only=True, **subfolder)
        assert_same_inputs(processor, again)


def test_a_folder_that_lost_its_tokenizer_is_named(tmp_path):
    saved(tmp_path)
    for file in (tmp_path / "answer").iterdir():
        file.unlink()

    with pytest.raises(OSError, match="modality 'answer': the subfolder answer of .* holds no tokenizer"):
        MultimodalProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("while_saving", [True, False])
def test_pushing_carries_the_tokenizers(tmp_path, monkeypatch, while_saving):
    uploaded = []

    class Hub:
        def create_repo(self, repo_id, **kwargs):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, repo_id, operations, **kwargs):
            uploaded.extend((repo_id, operation.path_in_repo) for operation in operations)

    monkeypatch.setattr("transformers.utils.hub.hf_api", Hub)
    monkeypatch.setattr("transformers.processing_utils.hf_api", Hub)
    processor = saved(tmp_path)
    if while_saving:
        processor.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/fused")
    else:
        processor.push_to_hub("me/fused")

    assert {"processor_config.json", "question/tokenizer.json", "answer/tokenizer_config.json"} <= {
        path for repo_id, path in uploaded if repo_id == "me/fused"
    }
