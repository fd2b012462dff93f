"""A tokenizer for a text backbone that is trained from scratch."""

from collections import Counter
from collections.abc import Iterable

from transformers import BertTokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_word_tokenizer(texts: Iterable[str | None], vocab_size: int, max_length: int) -> BertTokenizer:
    """A BERT tokenizer whose vocabulary is the most frequent words of some texts.

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
