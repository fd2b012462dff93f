"""Prepare CREMA-D as a `datasets` data set, once from the files of a clone, then memory-mapped from a cache."""

import csv
import errno
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import joblib
import pyarrow

from hf_relearn.data.cremad_clips import (
    EMOTION_NAMES,
    ClipScan,
    CremadDataError,
    Defect,
    check_unreadable,
    clips_fingerprint,
    parse_clip_name,
    scan_clips,
)
from hf_relearn.data.media import JPEG_QUALITY, UnreadableMediaError, check_wav, sample_frames
from hf_relearn.files import write_files

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # raise it whenever the same clips would give other rows
UNREADABLE_LIST = "unreadable.csv"
FEATURES = datasets.Features(
    {
        "name": datasets.Value("string"),
        "actor": datasets.Value("string"),
        "sentence": datasets.Value("string"),
        "level": datasets.Value("string"),
        "audio": datasets.Audio(decode=False),
        "frames": datasets.List(datasets.Image(decode=False)),
        "label": datasets.ClassLabel(names=list(EMOTION_NAMES)),
    }
)
_DEFECTS = "defects"  # column of the prepared rows: file and reason, in turn; empty for a readable clip
# `datasets.Audio` needs torchcodec to write what is sound already, so that bytes are written, and cast when read.
_STORED = datasets.Features(
    {
        **FEATURES,
        "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        _DEFECTS: datasets.List(datasets.Value("string")),
    }
)
# Starting a process takes seconds, so a further one has to have this much to read.
_BYTES_PER_PROCESS = 64 * 1024**2


def prepare_cremad(
    data_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    frames_per_second: float = 2.0,
    max_side: int = 256,
    num_proc: int | None = None,
    max_unreadable_share: float = 0.01,
) -> datasets.Dataset:
    """Prepare a CREMA-D clone once and return it memory-mapped.

    The prepared data lie in `<cache_dir>/cremad-<fingerprint>`. The fingerprint covers the absolute `data_dir`, every
    clip file's name and size, `frames_per_second`, `max_side` and the format's version, so anything that changes is
    prepared anew. A valid cache is used without decoding; an interrupted preparation begins again. Several processes
    may call this at once: one prepares, the others wait.

    Args:
        data_dir: Folder with `AudioWAV/<name>.wav` and `VideoFlash/<name>.flv`, names like `1001_DFA_ANG_XX` (actor,
            sentence, emotion, level).
        cache_dir: Folder for prepared data. Default: `cremad` in the Hugging Face datasets cache
            (`HF_DATASETS_CACHE`).
        frames_per_second: Rate at which frames are kept. Every readable clip gives at least one.
        max_side: Longest side of a kept frame in pixels; smaller frames are not enlarged.
        num_proc: Number of processes. Default: one for every 64 MiB of clips, at most the available cores.
        max_unreadable_share: Share of the clips, 0 to 1, that may be unreadable before this stops. Default 0.01. It is
            no part of the fingerprint: raising it after a failure costs no second preparation.

    Returns:
        One row per readable clip, sorted by name: `name`, `actor`, `sentence`, `level` (strings), `audio`
        (`Audio(decode=False)`: the WAV file's bytes as they are on disk), `frames` (list of `Image(decode=False)`:
        JPEG bytes), `label` (`ClassLabel`: neutral, happy, sad, fear, disgust, anger).

    Raises:
        CremadDataError: When the layout is not CREMA-D's or too many clips are unreadable: git-lfs pointers, truncated
            or undecodable files, sound of zero length, video without frames, unknown names, files without their
            counterpart. `unreadable.csv` (name, file, reason) in the prepared folder lists them. Fewer than the share
            give a warning and are left out.
        ValueError: When a setting is out of its range.
    """
    if not frames_per_second > 0:
        raise ValueError(f"frames_per_second is {frames_per_second}; it must be above 0")
    if max_side < 1:
        raise ValueError(f"max_side is {max_side}; it must be 1 or more pixels")
    if not 0 <= max_unreadable_share <= 1:
        raise ValueError(f"max_unreadable_share is {max_unreadable_share}; it must be a share from 0 to 1")
    if num_proc is not None and num_proc < 1:
        raise ValueError(f"num_proc is {num_proc}; it must be 1 or more")
    scan = scan_clips(data_dir)
    settings = {
        "format": FORMAT_VERSION,
        "frames_per_second": float(frames_per_second),
        "max_side": max_side,
        "jpeg_quality": JPEG_QUALITY,
    }
    parent = Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "cremad"
    folder = parent / f"cremad-{clips_fingerprint(data_dir, scan, settings)}"
    list_file = folder / UNREADABLE_LIST
    try:  # what the scan alone finds (above all a clone without its git-lfs files) stops this before any decoding
        check_unreadable(scan.defects, scan.num_names, max_unreadable_share, list_file)
    except CremadDataError:
        _write_list(list_file, scan.defects)
        raise
    if not list_file.is_file():
        logger.info("preparing CREMA-D in %s: %d clips", folder, len(scan.clips))
    rows = _prepare(folder, scan, frames_per_second, max_side, num_proc)
    found = [
        Defect(name, file, reason)
        for name, defects in zip(rows["name"][:], rows[_DEFECTS][:], strict=True)
        for file, reason in zip(defects[::2], defects[1::2], strict=True)
    ]
    _write_list(list_file, sorted([*scan.defects, *found], key=lambda defect: (defect.name, defect.file)))
    note = check_unreadable([*scan.defects, *found], scan.num_names, max_unreadable_share, list_file)
    if note:
        logger.warning(note)
    if found:
        unreadable = {defect.name for defect in found}
        rows = rows.select([place for place, name in enumerate(rows["name"][:]) if name not in unreadable])
    return rows.remove_columns(_DEFECTS).cast_column("audio", FEATURES["audio"])


def read_unreadable(dataset: datasets.Dataset) -> dict[str, str]:
    """Read which clips were left out when `dataset` was prepared, with the reason of each.

    Args:
        dataset: What `prepare_cremad` returned, or a selection of its rows.

    Returns:
        Name -> reason; empty when nothing was left out or the data set does not come from a prepared folder.
    """
    for folder in {folder for file in dataset.cache_files for folder in Path(file["filename"]).parents[:4]}:
        list_file = folder / UNREADABLE_LIST
        if list_file.is_file():
            with list_file.open(encoding="utf-8", newline="") as file:
                return {row["name"]: row["reason"] for row in csv.DictReader(file)}
    return {}


def _prepare(
    folder: Path, scan: ClipScan, frames_per_second: float, max_side: int, num_proc: int | None
) -> datasets.Dataset:
    clips = [(str(clip.name), str(clip.audio), str(clip.video)) for clip in scan.clips]
    num_proc = min(num_proc if num_proc is not None else _default_num_proc(scan), len(clips))
    try:
        return datasets.Dataset.from_generator(
            _rows,
            features=_STORED,
            cache_dir=str(folder),
            gen_kwargs={"clips": clips, "frames_per_second": frames_per_second, "max_side": max_side},
            num_proc=num_proc if num_proc > 1 else None,
            writer_batch_size=100,  # rows that a process holds in memory
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise error.__cause__ or error from None
    except (pyarrow.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):  # pyarrow gives none for a file that was cut
            raise
        raise CremadDataError(f"the prepared clips in {folder} are damaged ({error}): delete that folder") from error


def _rows(clips: list[tuple[str, str, str]], frames_per_second: float, max_side: int) -> Iterator[dict[str, Any]]:
    """Decode clips of a name, a sound file and a video file; an unreadable one becomes a row with its defects."""
    for text, audio_file, video_file in clips:
        name, audio, video = parse_clip_name(text), Path(audio_file), Path(video_file)
        assert name is not None  # it was read from such a text
        sound, frames, defects = audio.read_bytes(), [], []
        try:
            check_wav(sound)
        except UnreadableMediaError as error:
            defects += [f"{audio.parent.name}/{audio.name}", str(error)]
        try:
            frames = sample_frames(video.read_bytes(), frames_per_second, max_side)
        except UnreadableMediaError as error:
            defects += [f"{video.parent.name}/{video.name}", str(error)]
        yield {
            "name": text,
            "actor": name.actor,
            "sentence": name.sentence,
            "level": name.level,
            "audio": {"bytes": b"" if defects else sound, "path": audio.name},
            "frames": [{"bytes": frame, "path": None} for frame in frames if not defects],
            "label": name.label,
            _DEFECTS: defects,
        }


def _default_num_proc(scan: ClipScan) -> int:
    return min(joblib.cpu_count(), 1 + sum(size for _, size in scan.files) // _BYTES_PER_PROCESS)


def _write_list(list_file: Path, defects: Sequence[Defect]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("name", "file", "reason"))
    writer.writerows((defect.name, defect.file, defect.reason) for defect in defects)
    content = text.getvalue().encode()
    if not list_file.is_file() or list_file.read_bytes() != content:
        write_files(list_file.parent, {list_file.name: content})
