"""Prepare texts as a backbone's inputs."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .processing_augmentation import Augmentation
from .processing_sources import RawValueError


class TextInput:
    """Texts through a tokenizer of transformers, padded to the longest of the batch on the tokenizer's own side.

    A tokenizer without a padding token (GPT-2, Llama) pads with its end-of-text token; the mask tells them apart. A
    text that gives no token at all, as the empty one may, becomes one begin- or end-of-text token.

    Args:
        tokenizer: any tokenizer of transformers; it is not part of `settings`, since it is files.
        max_length: longer texts are cut after this many tokens; None does not cut.
        input_names: which of the tokenizer's outputs the backbone takes.

    Raises:
        ValueError: for no tokenizer, or one that has neither a padding nor an end-of-text token.
    """

    type: ClassVar[str] = "text"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        input_names: Sequence[str] = ("input_ids", "attention_mask"),
    ):
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise ValueError(
                f"a text modality needs a tokenizer of transformers in its settings, but has {tokenizer!r}"
            )
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError("the tokenizer has neither a pad_token nor an eos_token: set one of them")
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.input_names = list(input_names)
        self.settings = {"max_length": max_length, "input_names": self.input_names}

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return `input_ids` and what else the backbone takes, each (batch, tokens), int64. Nothing is augmented.

        Raises:
            RawValueError: for a value that is not a string.
        """
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise RawValueError(
                    f"row {row} of the batch holds {type(value).__name__} ({str(value)[:40]}), but a text is a string "
                    "(or None, where a sample has no text)"
                )
        encoding = self._encode(list(values))
        if not encoding["attention_mask"].any(dim=1).all():
            token = self.tokenizer.bos_token or self.tokenizer.eos_token or self.tokenizer.pad_token
            rows = zip(values, encoding["attention_mask"].any(dim=1).tolist(), strict=True)
            encoding = self._encode([value if filled else token for value, filled in rows])
        return {name: encoding[name] for name in self.input_names if name in encoding}

    def _encode(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            padding=True,
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_attention_mask=True,
            return_tensors="pt",
        )
