"""Tiny tokenizers that the tests share."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("a", "red", "green", "blue", "cat", "dog", "sits", "runs")


def bert_like(**changes) -> PreTrainedTokenizerFast:
    """[PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, then `WORDS`: a text of n words gives n + 2 tokens."""
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    backend = _of_words((*specials, *WORDS), "[UNK]")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**names, **changes})


def gpt_like(**changes) -> PreTrainedTokenizerFast:
    """<end> 0, then `WORDS`; no padding token, and no tokens around a text."""
    backend = _of_words(("<end>", *WORDS), "<end>")
    names = {"eos_token": "<end>", "bos_token": "<end>", "unk_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**names, **changes})


def _of_words(words, unknown: str) -> Tokenizer:
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend
