"""Media files that cannot be read, found before training: an error, rows to skip, or missing values."""

import csv
import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import joblib
import pyarrow
from datasets import Dataset, DatasetDict, Features, Value

from hf_relearn import __version__
from hf_relearn.data.table_files import TableError
from hf_relearn.files import file_stem, whole_file
from hf_relearn.models.configuration_limits import LIMITS_VARIABLE
from hf_relearn.models.processing_images import load_frames
from hf_relearn.models.processing_media import load_audio, load_image
from hf_relearn.models.processing_sources import MediaError

logger = logging.getLogger(__name__)

UNREADABLE = ("error", "skip", "missing")
_SECONDS = 60.0  # of a sound that are decoded to see that it can be
_BYTES_PER_PROCESS = 64 * 1024**2  # starting a further process takes seconds
_SHOWN = 5


def handle_unreadable(
    splits: DatasetDict, media: Mapping[str, str], name: str, unreadable: str, max_unreadable_share: float
) -> DatasetDict:
    """Decode the media of all splits once, and deal with what cannot be read.

    Args:
        splits: with undecoded media.
        media: column -> kind of modality.
        name: of the data set, for messages.
        unreadable: one of `UNREADABLE`.
        max_unreadable_share: share of a split's rows that may be skipped or have missing values.

    Raises:
        TableError: if there are unreadable files and `unreadable` is `"error"`, or more of them than may be; the
            message names the first ones and the list of all.
        ValueError: for a share outside 0 to 1.
    """
    if not 0 <= max_unreadable_share <= 1:
        raise ValueError(f"max_unreadable_share is {max_unreadable_share}, but it is a share, from 0 to 1")
    if not media:
        return splits
    found = {part: find_unreadable(split, media, f"the {part} split of {name}") for part, split in splits.items()}
    if not any(found.values()):
        return splits
    listed = _write_list(found, name)
    for part, rows in found.items():
        share = len(rows) / len(splits[part])
        if rows and (unreadable == "error" or share > max_unreadable_share or len(rows) == len(splits[part])):
            _refuse(part, rows, splits[part], name, listed, unreadable, max_unreadable_share)
    deal = {"skip": _without_rows, "missing": _with_gaps}[unreadable]
    done = {"skip": "their rows are left out", "missing": "their values count as missing"}[unreadable]
    for part, rows in found.items():
        if rows:
            logger.warning(
                "%d of %d rows of the %s split of %s hold media that cannot be read; %s. Each one and its reason: %s",
                *(len(rows), len(splits[part]), part, name, done, listed),
            )
    return DatasetDict({part: deal(split, found[part]) if found[part] else split for part, split in splits.items()})


def find_unreadable(
    dataset: Dataset, media: Mapping[str, str], origin: str, num_proc: int | None = None
) -> dict[int, dict[str, str]]:
    """Decode every sound (its first minute), image and video (three of its frames).

    `datasets` caches the result until a file changes its size or time.

    Args:
        dataset: one split, with undecoded media.
        media: column -> kind of modality.
        origin: to call the split in the progress bar.
        num_proc: number of processes; by default one for every 64 MiB of media, at most the available cores.

    Returns:
        Row -> column -> reason, for the rows that cannot be read.
    """
    stamp, size = _stamp(dataset, media)
    num_proc = num_proc or min(joblib.cpu_count(), 1 + size // _BYTES_PER_PROCESS, len(dataset))
    reasons = dataset.select_columns(list(media)).map(
        _reasons,
        batched=True,
        batch_size=16,
        remove_columns=list(media),
        fn_kwargs={"media": dict(media), "stamp": stamp},
        features=Features({column: Value("string") for column in media}),
        num_proc=num_proc if num_proc > 1 else None,
        desc=f"Checking the media of {origin}",
    )
    found: dict[int, dict[str, str]] = {}
    for column in media:
        for row, reason in enumerate(reasons[column]):
            if reason is not None:
                found.setdefault(row, {})[column] = reason
    return dict(sorted(found.items()))


def _reasons(batch: Mapping[str, list[Any]], media: Mapping[str, str], stamp: str) -> dict[str, list[str | None]]:
    return {column: [_reason(value, kind) for value in batch[column]] for column, kind in media.items()}


def _reason(value: Any, kind: str) -> str | None:
    if value is None:
        return None
    try:
        if kind == "audio":
            load_audio(value, 16000, _SECONDS)
        elif kind == "video" or isinstance(value, list):
            load_frames(value, _three_of)
        else:
            _load_image_or_video(value)
    except MediaError as error:
        return str(error)
    return None


def _load_image_or_video(value: Any) -> None:
    """An image; or a video, of which an image backbone may be given several frames."""
    try:
        load_image(value)
    except MediaError as error:
        try:
            load_frames(value, _three_of)
        except MediaError:
            raise error from None


def _three_of(count: int) -> list[int]:
    return [0, count // 2, count - 1]


def _stamp(dataset: Dataset, media: Mapping[str, str]) -> tuple[str, int]:
    """Return a stamp that changes if a file does, and the number of bytes to read."""
    digest = hashlib.sha256(json.dumps([__version__, os.environ.get(LIMITS_VARIABLE), _SECONDS]).encode())
    size = 0
    for batch in dataset.select_columns(list(media)).with_format("arrow").iter(batch_size=1000):
        for column in media:
            values: Any = batch[column].combine_chunks()
            if pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type):
                values = values.flatten()
            contents, paths = values.field("bytes"), values.field("path")
            size += contents.nbytes
            for path, held in zip(paths.to_pylist(), contents.is_valid().to_pylist(), strict=True):
                if path is not None and not held:
                    status = os.stat(path) if os.path.isfile(path) else None
                    digest.update(repr(status and (status.st_size, status.st_mtime_ns)).encode())
                    size += status.st_size if status else 0
    return digest.hexdigest(), size


def _without_rows(dataset: Dataset, found: Mapping[int, Any]) -> Dataset:
    return dataset.select([row for row in range(len(dataset)) if row not in found])


def _with_gaps(dataset: Dataset, found: Mapping[int, Mapping[str, str]]) -> Dataset:
    options = {"with_indices": True, "batched": True, "features": dataset.features, "desc": "Leaving gaps"}
    return dataset.map(_blank, fn_kwargs={"found": found}, **options)


def _blank(batch: Mapping[str, list[Any]], rows: list[int], found: Mapping[int, Mapping[str, str]]) -> dict[str, Any]:
    columns = {column for reasons in found.values() for column in reasons}
    pairs = {column: zip(rows, batch[column], strict=True) for column in columns}
    return {
        column: [None if column in found.get(row, ()) else value for row, value in each]
        for column, each in pairs.items()
    }


def _refuse(
    part: str,
    found: Mapping[int, Mapping[str, str]],
    split: Dataset,
    origin: str,
    listed: Path,
    unreadable: str,
    max_unreadable_share: float,
) -> None:
    reasons = [f"row {row}, column {name!r}: {why}" for row, each in found.items() for name, why in each.items()]
    more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    remedy = (
        "replace these files, or go on without their rows (unreadable='skip') or values (unreadable='missing')"
        if unreadable == "error"
        else f"at most {max_unreadable_share:.1%} may be unreadable (max_unreadable_share), and not all rows"
    )
    raise TableError(
        f"the {part} split of {origin}: {len(found)} of {len(split)} rows hold media that cannot be read: "
        f"{'; '.join(reasons[:_SHOWN])}{more}. All are listed in {listed}: {remedy}"
    )


def _write_list(found: Mapping[str, Mapping[int, Mapping[str, str]]], name: str) -> Path:
    path = Path(datasets.config.HF_DATASETS_CACHE) / "unreadable" / f"{file_stem(name)[-100:]}.csv"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("split", "row", "column", "reason"))
    for part, rows in found.items():
        for row, reasons in rows.items():
            writer.writerows((part, row, column, reason) for column, reason in reasons.items())
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
    return path
