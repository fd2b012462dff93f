"""One modality of a recipe: its column, its backbone, and the options of model and processor that follow."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoConfig, BertTokenizer

from hf_relearn.experiments.model_arguments import InputArguments
from hf_relearn.models import FeaturesConfig, ModalityConfig, TableInput
from hf_relearn.models.processing_features import FeaturesInput
from hf_relearn.models.processing_multimodal import takes_spectrogram
from hf_relearn.training.batches import vector_of

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_word_tokenizer(texts: Iterable[str | None], vocab_size: int, max_length: int) -> BertTokenizer:
    """Return a BERT tokenizer whose vocabulary is the most frequent words of some texts.

    Rarer words are spelt: all characters of the texts are in the vocabulary, too. The same texts give the same
    tokenizer in every process and run, which a trained vocabulary of `tokenizers` does not promise.

    Args:
        texts: of the training part; None is passed over.
        vocab_size: entries at most, as the backbone's embeddings have.
        max_length: tokens that the backbone can take.

    Raises:
        ValueError: if `vocab_size` cannot even hold the special tokens and the characters.
    """
    plain = BertTokenizer().backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        normalized = plain.normalizer.normalize_str(text or "")
        counts.update(word for word, _ in plain.pre_tokenizer.pre_tokenize_str(normalized))
    characters = sorted({character for word in counts for character in word})
    entries = [*_SPECIAL, *characters, *(f"##{character}" for character in characters)]
    if len(entries) > vocab_size:
        raise ValueError(
            f"the texts have {len(characters)} different characters, for which a vocabulary of {vocab_size} is too "
            "small: raise vocab_size in the text backbone's configuration, or name a pretrained text backbone"
        )
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    entries += words[: vocab_size - len(entries)]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)}, model_max_length=max_length)


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "tokenizer.model")


@dataclass(frozen=True)
class Modality:
    """Describe one modality by a recipe's flags.

    Args:
        kind: `"audio"`, `"vision"`, `"video"`, `"text"`, `"features"` or `"table"`.
        column: of the data set; for features also a list of columns with one number each, for a table a list.
        backbone: Hub id or folder. None is possible for features and tables: a new encoder that fits the data.
        categories: columns of a table whose numbers are categories.
        flag: of the recipe that names the column, for messages; unset, `--columns`.
    """

    kind: str
    column: str | list[str]
    backbone: str | None
    categories: tuple[str, ...] = ()
    flag: str = ""

    def build_backbone(self, name: str, train: Dataset) -> Any:
        """Build what `from_backbones` takes.

        Raises:
            ValueError: if there is no backbone, and none can be made from the training part.
        """
        if self.backbone is not None:
            return self.backbone
        if self.kind == "table":
            return self._fitted(name, train).backbone_config()
        first = next((value for value in self._values(name, train) if value is not None), None)
        if self.kind != "features" or first is None:
            raise ValueError(f"the modality {name!r} has no model: give one (a Hub id or a folder)")
        shape = np.shape(first)
        return FeaturesConfig(input_size=shape[-1], architecture="transformer" if len(shape) == 2 else "mlp")

    def model_options(self, inputs: InputArguments) -> dict[str, Any]:
        """Return the modality's options for `from_backbones`."""
        frames = {"num_frames": inputs.num_frames} if self.kind == "vision" and inputs.num_frames > 1 else {}
        return {"kind": self.kind, **frames}

    def processor_options(
        self, name: str, config: ModalityConfig, inputs: InputArguments, train: Dataset
    ) -> dict[str, Any]:
        """Return the modality's options for `MultimodalProcessor.from_model`.

        A text backbone without a tokenizer of its own gets one with the words of the training part; features are
        standardised by the training part's mean and deviation, and rows of a table are fitted on it.
        """
        options: dict[str, Any] = {}
        if self.kind == "audio" and takes_spectrogram(config):
            options = {"seconds": inputs.audio_seconds, "sampling_rate": inputs.spectrogram_rate}
            options |= {"size": inputs.spectrogram_size} if inputs.spectrogram_size else {}
        elif self.kind == "audio":
            options = {"max_seconds": inputs.audio_seconds}
        elif self.kind in ("vision", "video") and inputs.image_size:
            options = {"image_size": inputs.image_size}
        elif self.kind == "text":
            options = {"max_length": inputs.max_text_length} if inputs.max_text_length else {}
            if self.backbone is not None and _lacks_tokenizer(Path(self.backbone)):
                backbone = AutoConfig.from_pretrained(self.backbone, trust_remote_code=False)
                options["tokenizer"] = build_word_tokenizer(
                    self._values(name, train), backbone.vocab_size, backbone.max_position_embeddings
                )
        elif self.kind == "features":
            options = dict(FeaturesInput.statistics(self._values(name, train)))
            options |= {"max_steps": inputs.max_feature_steps} if inputs.max_feature_steps else {}
        elif self.kind == "table":
            options = self._fitted(name, train).settings
        return options

    def _fitted(self, name: str, train: Dataset) -> TableInput:
        try:
            return TableInput.fit(train, self.column, self.categories)
        except ValueError as error:
            raise ValueError(f"modality {name!r}: {error}") from error

    def _values(self, name: str, train: Dataset) -> Iterator[Any]:
        """Return the raw values of the modality in the training part, one at a time."""
        if isinstance(self.column, str):
            return iter(train[self.column])
        return (vector_of(row, self.column, name) for row in train.select_columns(self.column))


def _lacks_tokenizer(folder: Path) -> bool:
    return folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES)


def columns_of(modalities: Mapping[str, Modality]) -> dict[str, str | list[str]]:
    """Modality -> column, as the collator takes it."""
    return {name: modality.column for name, modality in modalities.items()}
