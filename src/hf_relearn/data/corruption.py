"""Experiments with spoilt data: a modality with noise, a modality that is missing, wrong labels."""

import io
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import soundfile
from datasets import ClassLabel, Dataset, Value
from PIL import Image

from hf_relearn.models.processing_features import FeaturesInput
from hf_relearn.models.processing_media import decode_audio, describe, encoded, load_image

LABELS = "labels"
_FORMS = "MODALITY=noise:AMOUNT, MODALITY=missing:SHARE or labels:SHARE"
_LISTS = (datasets.List, datasets.LargeList)


@dataclass(frozen=True)
class Corruption:
    """Say what is spoilt, and how much of it.

    Attributes:
        target: a modality, or `"labels"`.
        kind: `"noise"`, `"missing"` or `"labels"`.
        amount: of noise, or the share of samples.
    """

    target: str
    kind: str
    amount: float

    def __str__(self) -> str:
        if self.kind == LABELS:
            return f"a share of {self.amount:g} of the training labels is wrong"
        what = f"noise of {self.amount:g}" if self.kind == "noise" else f"a share of {self.amount:g} missing"
        return f"{self.target} has {what} in all parts"


def parse_corruptions(values: Sequence[str] | None, modalities: Collection[str]) -> list[Corruption]:
    """Read `vision=noise:1.0`, `vision=missing:0.3` and `labels:0.2`.

    Raises:
        ValueError: for another form, an unknown modality, or an amount out of its range.
    """
    parsed = []
    for value in values or ():
        target, _, rest = value.rpartition("=")
        kind, _, number = rest.partition(":")
        target = target or (LABELS if kind == LABELS else "")
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        fits = kind == LABELS if target == LABELS else kind in ("noise", "missing")
        if not target or not fits or not 0 <= amount < float("inf"):
            raise ValueError(f"--corrupt holds {value!r}: give {_FORMS}, with a number of at least 0")
        if target != LABELS and target not in modalities:
            raise ValueError(f"--corrupt names {target!r}, but the modalities are {', '.join(modalities)}")
        if kind != "noise" and amount > 1:
            raise ValueError(f"--corrupt holds {value!r}, but {kind} takes a share of at most 1")
        parsed.append(Corruption(target, kind, amount))
    return parsed


def corrupt_splits(
    splits: Mapping[str, Dataset],
    corruptions: Sequence[Corruption],
    *,
    columns: Mapping[str, str | Sequence[str]],
    kinds: Mapping[str, str],
    label_column: str,
    seed: int,
) -> dict[str, Dataset]:
    """Spoil a modality in all splits alike, or the labels of the training split.

    The draw for a row follows from the seed, the split and the row, so that it is the same in every epoch and
    run. Noise of amount a is

    - of a picture or a sound: a times its own standard deviation, normal, and clipped to what the medium can hold;
    - of features: a times each dimension's standard deviation in the training split, normal;
    - of a text: a share of its words, replaced by words drawn from the training split.

    Spoilt pictures go into the cache of `datasets` as PNG, three bytes a pixel, and sounds as WAV.

    A missing modality is an empty cell. A wrong label is another class, each as likely. Only training has wrong
    labels; a part that is held out of training has them, too.

    Args:
        splits: `train` and others.
        corruptions: one after the other.
        columns: modality -> column, or several columns with one number each.
        kinds: modality -> kind.
        label_column: column of a `ClassLabel`.
        seed: of all draws.

    Raises:
        ValueError: for noise in a text above 1, noise in an encoded video or a table, or labels that are not
            `ClassLabel`.
    """
    output = dict(splits)
    for corruption in corruptions:
        if corruption.kind == LABELS:
            output["train"] = _with_wrong_labels(output["train"], label_column, corruption.amount, seed)
            continue
        given = columns[corruption.target]
        several = [given] if isinstance(given, str) else list(given)
        kind = kinds[corruption.target]
        for number, (split, dataset) in enumerate(output.items()):
            entropy = (seed, zlib.crc32(corruption.target.encode()), number)
            if corruption.kind == "missing":
                count = round(corruption.amount * len(dataset))
                rows = np.random.default_rng(entropy).permutation(len(dataset))[:count]
                nothing = partial(_nothing, rows=frozenset(rows.tolist()))
                changes: dict[str, Callable] = dict.fromkeys(several, nothing)
            else:
                changes = {column: _noise(corruption, kind, splits["train"], column) for column in several}
                dataset = _with_floats(dataset, several) if kind == "features" else dataset
            # Tables of arrow, since `datasets` would encode every sound and picture again.
            changed = dataset.with_format("arrow").map(
                partial(_changed, changes=changes, entropy=entropy),
                with_indices=True,
                batched=True,
                batch_size=64,
                features=dataset.features,
                desc=f"{split}: {corruption.target}",
            )
            output[split] = changed.with_format(None)
    return output


def _noise(corruption: Corruption, kind: str, train: Dataset, column: str) -> Callable:
    """Make the function that adds noise to one value of a column: (value, row, generator) -> value."""
    amount = corruption.amount
    if kind == "text":
        if amount > 1:
            raise ValueError(
                f"--corrupt {corruption.target}=noise:{amount:g}: of a text noise is a share of its words, 1 at most"
            )
        words = [word for text in train[column] if text for word in text.split()]
        return partial(_noisy_text, amount=amount, words=words)
    if kind == "table":
        raise ValueError(
            f"--corrupt {corruption.target}=noise: noise is not for rows of a table: use "
            f"{corruption.target}=missing:0.3"
        )
    if kind == "features":
        spread = FeaturesInput.statistics(train[column])["std"]
        return partial(_noisy_numbers, amount=amount, spread=spread)
    if kind == "audio":
        return partial(_noisy_sound, amount=amount)
    feature = train.features[column]
    if not isinstance(feature.feature if isinstance(feature, _LISTS) else feature, datasets.Image):
        raise ValueError(
            f"--corrupt {corruption.target}=noise: the column {column!r} holds encoded videos, which cannot be "
            "written again: store each as a list of pictures, or use missing"
        )
    return partial(_noisy_pictures, amount=amount)


def _changed(table: pa.Table, rows: list[int], *, changes: Mapping[str, Callable], entropy: tuple) -> pa.Table:
    generators = {row: np.random.default_rng([*entropy, row]) for row in rows}
    for column, change in changes.items():
        values = zip(rows, table[column].to_pylist(), strict=True)
        new = [None if value is None else change(value, row, generators[row]) for row, value in values]
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, pa.array(new, type=table.schema.field(column).type))
    return table


def _nothing(value: Any, row: int, generator: np.random.Generator, *, rows: frozenset[int]) -> Any:
    return None if row in rows else value


def _noisy_pictures(value: Any, row: int, generator: np.random.Generator, *, amount: float) -> Any:
    if isinstance(value, list):
        return [_noisy_pictures(each, row, generator, amount=amount) for each in value]
    pixels = np.asarray(load_image(value), dtype=np.float64)
    pixels = pixels + amount * pixels.std() * generator.standard_normal(pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def _noisy_sound(value: Any, row: int, generator: np.random.Generator, *, amount: float) -> Any:
    samples, rate = decode_audio(encoded(value, "a sound"), describe(value))
    samples = samples + amount * samples.std() * generator.standard_normal(samples.shape)
    file = io.BytesIO()
    soundfile.write(file, samples.T.clip(-1, 1), rate, format="WAV", subtype="PCM_16")
    return {"bytes": file.getvalue(), "path": None}


def _noisy_numbers(
    value: Any, row: int, generator: np.random.Generator, *, amount: float, spread: Sequence[float]
) -> Any:
    numbers = np.asarray(value, dtype=np.float64)
    scale = np.asarray(spread) if numbers.ndim else spread[0]
    return (numbers + amount * scale * generator.standard_normal(numbers.shape)).tolist()


def _noisy_text(value: str, row: int, generator: np.random.Generator, *, amount: float, words: Sequence[str]) -> str:
    given = value.split()
    for place in generator.permutation(len(given))[: round(amount * len(given))]:
        given[place] = words[int(generator.integers(len(words)))]
    return " ".join(given)


def _with_floats(dataset: Dataset, columns: Sequence[str]) -> Dataset:
    """Make room for numbers that are not whole any more."""

    def floats(feature: Any) -> Any:
        if isinstance(feature, _LISTS):
            return type(feature)(floats(feature.feature), length=getattr(feature, "length", -1))
        if isinstance(feature, Value):
            return feature if feature.dtype.startswith("float") else Value("float64")
        return datasets.List(datasets.List(Value("float32")))  # an Array2D

    for column in columns:
        dataset = dataset.cast_column(column, floats(dataset.features[column]))
    return dataset


def _with_wrong_labels(dataset: Dataset, column: str, share: float, seed: int) -> Dataset:
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel) or feature.num_classes < 2:
        raise ValueError(f"--corrupt labels needs one of several classes per sample, but {column!r} holds {feature}")
    labels = np.array(dataset[column][:])
    generator = np.random.default_rng([seed, zlib.crc32(LABELS.encode())])
    known = np.flatnonzero(labels >= 0)
    wrong = generator.permutation(known)[: round(share * len(known))]
    shifts = generator.integers(1, feature.num_classes, len(wrong))
    labels[wrong] = (labels[wrong] + shifts) % feature.num_classes
    return dataset.remove_columns(column).add_column(column, labels.tolist(), feature=feature)
