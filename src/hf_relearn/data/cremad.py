"""CREMA-D as a `datasets` data set: prepared once from the files of a clone, then memory-mapped from a cache."""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import datasets
from filelock import FileLock
from tqdm.auto import tqdm

from hf_relearn.data.cremad_clips import (
    ClipScan,
    CremadDataError,
    Defect,
    check_unreadable,
    clips_fingerprint,
    scan_clips,
)
from hf_relearn.data.cremad_shards import Shard, shard_defects, write_shard
from hf_relearn.data.media import JPEG_QUALITY
from hf_relearn.data.parallel import available_cores, map_unordered

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # raise it whenever the same clips would give other rows
CLIPS_PER_SHARD = 64
UNREADABLE_LIST = "unreadable.csv"
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
    prepared anew. A valid cache is used without decoding; an interrupted preparation goes on with the shards that are
    missing. Several processes may call this at once: one prepares, the others wait.

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
    scan = scan_clips(data_dir)
    settings = {
        "format": FORMAT_VERSION,
        "frames_per_second": float(frames_per_second),
        "max_side": max_side,
        "jpeg_quality": JPEG_QUALITY,
        "clips_per_shard": CLIPS_PER_SHARD,
    }
    parent = Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "cremad"
    folder = parent / f"cremad-{clips_fingerprint(data_dir, scan, settings)}"
    shards = _plan_shards(folder, scan, frames_per_second, max_side)
    defects = _all_defects(scan, shards)
    if defects is None or not (folder / UNREADABLE_LIST).is_file():
        defects = _prepare(folder, scan, shards, num_proc, max_unreadable_share)
    note = check_unreadable(defects, scan.num_names, max_unreadable_share, folder / UNREADABLE_LIST)
    if note:
        logger.warning(note)
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(shard.path)) for shard in shards])


def read_unreadable(dataset: datasets.Dataset) -> dict[str, str]:
    """Names of the clips that were left out when `dataset` was prepared, with the reason of each.

    Args:
        dataset: What `prepare_cremad` returned, or a selection of its rows.

    Returns:
        Name -> reason; empty when nothing was left out or the data set does not come from a prepared folder.
    """
    for folder in {Path(file["filename"]).parent for file in dataset.cache_files}:
        list_file = folder / UNREADABLE_LIST
        if list_file.is_file():
            with list_file.open(encoding="utf-8", newline="") as file:
                return {row["name"]: row["reason"] for row in csv.DictReader(file)}
    return {}


def _plan_shards(folder: Path, scan: ClipScan, frames_per_second: float, max_side: int) -> list[Shard]:
    chunks = [scan.clips[start : start + CLIPS_PER_SHARD] for start in range(0, len(scan.clips), CLIPS_PER_SHARD)]
    return [
        Shard(folder / f"clips-{index:05d}-of-{len(chunks):05d}.arrow", chunk, frames_per_second, max_side)
        for index, chunk in enumerate(chunks)
    ]


def _all_defects(scan: ClipScan, shards: Sequence[Shard]) -> list[Defect] | None:
    """Every defect, or `None` as long as a shard is missing."""
    defects = list(scan.defects)
    for shard in shards:
        found = shard_defects(shard)
        if found is None:
            return None
        defects.extend(found)
    return sorted(defects, key=lambda defect: (defect.name, defect.file))


def _prepare(
    folder: Path, scan: ClipScan, shards: Sequence[Shard], num_proc: int | None, max_unreadable_share: float
) -> list[Defect]:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        for leftover in folder.glob("*.partial*"):  # of killed processes: nobody else writes while we hold the lock
            leftover.unlink(missing_ok=True)
        missing = [shard for shard in shards if shard_defects(shard) is None]
        if missing or not shards:
            # What the scan alone finds (above all a clone without its git-lfs files) stops this before any decoding.
            _write_list(folder, scan.defects)
            check_unreadable(scan.defects, scan.num_names, max_unreadable_share, folder / UNREADABLE_LIST)
            (folder / UNREADABLE_LIST).unlink()  # it comes back complete, after the last shard
        if missing:
            num_proc = num_proc if num_proc is not None else _default_num_proc(missing)
            logger.info("preparing CREMA-D in %s: %d of %d shards to do", folder, len(missing), len(shards))
            num_clips = sum(len(shard.clips) for shard in shards)
            done = num_clips - sum(len(shard.clips) for shard in missing)
            with tqdm(total=num_clips, initial=done, desc="Preparing CREMA-D", unit="clip") as bar:
                for count in map_unordered(write_shard, missing, num_proc):
                    bar.update(count)
        defects = _all_defects(scan, shards)
        if defects is None:
            raise CremadDataError(
                f"the prepared shards in {folder} vanish or change while they are written; "
                "choose a cache_dir that no other program changes"
            )
        _write_list(folder, defects)
        return defects


def _default_num_proc(shards: Sequence[Shard]) -> int:
    size = sum(clip.audio.stat().st_size + clip.video.stat().st_size for shard in shards for clip in shard.clips)
    return min(available_cores(), 1 + size // _BYTES_PER_PROCESS)


def _write_list(folder: Path, defects: Sequence[Defect]) -> None:
    partial = folder / f"{UNREADABLE_LIST}.partial"
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "file", "reason"))
        writer.writerows((defect.name, defect.file, defect.reason) for defect in defects)
    os.replace(partial, folder / UNREADABLE_LIST)
