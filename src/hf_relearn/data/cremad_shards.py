"""One shard of the prepared CREMA-D data set: written whole or not at all, and checked without decoding."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.arrow_writer import ArrowWriter

from hf_relearn.data.cremad_clips import EMOTION_NAMES, Clip, Defect
from hf_relearn.data.media import UnreadableMediaError, check_wav, sample_frames

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


@dataclass(frozen=True)
class Shard:
    """What a shard is made of: its Arrow file (the notes lie beside it), its clips, and how frames are taken."""

    path: Path
    clips: tuple[Clip, ...]
    frames_per_second: float
    max_side: int

    @property
    def notes_path(self) -> Path:
        """JSON file with the shard's number of rows, its size in bytes and the defects that decoding found."""
        return self.path.with_suffix(".json")


def shard_defects(shard: Shard) -> list[Defect] | None:
    """The defects that were found when the shard was written, or `None` when it is not there as it was written."""
    try:
        notes = json.loads(shard.notes_path.read_text(encoding="utf-8"))
        if shard.path.stat().st_size != notes["bytes"]:
            return None
        return [Defect(**defect) for defect in notes["defects"]]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def write_shard(shard: Shard) -> int:
    """Decode a shard's clips into its Arrow file; unreadable ones go into its notes instead.

    Args:
        shard: The shard; its folder exists.

    Returns:
        Number of clips that were looked at, readable or not.
    """
    partial = shard.path.with_suffix(f".{os.getpid()}.partial")
    partial_notes = partial.with_suffix(".partial-notes")
    defects: list[Defect] = []
    try:
        with ArrowWriter(features=FEATURES, path=str(partial)) as writer:
            for clip in shard.clips:
                found: list[Defect] = []
                row = _read_clip(clip, shard, found)
                defects.extend(found)
                if row is not None:
                    writer.write(row)
            writer.finalize()
        notes = {"bytes": partial.stat().st_size, "defects": [asdict(defect) for defect in defects]}
        partial_notes.write_text(json.dumps(notes), encoding="utf-8")
        # The Arrow file comes last: notes without it do not count.
        os.replace(partial_notes, shard.notes_path)
        os.replace(partial, shard.path)
    finally:
        partial.unlink(missing_ok=True)
        partial_notes.unlink(missing_ok=True)
    return len(shard.clips)


def _read_clip(clip: Clip, shard: Shard, found: list[Defect]) -> dict[str, Any] | None:
    audio = clip.audio.read_bytes()
    try:
        check_wav(audio)
    except UnreadableMediaError as error:
        found.append(_defect(clip, clip.audio, error))
    try:
        frames = sample_frames(clip.video.read_bytes(), shard.frames_per_second, shard.max_side)
    except UnreadableMediaError as error:
        found.append(_defect(clip, clip.video, error))
    if found:
        return None
    return {
        "name": str(clip.name),
        "actor": clip.name.actor,
        "sentence": clip.name.sentence,
        "level": clip.name.level,
        "audio": {"bytes": audio, "path": clip.audio.name},
        "frames": [{"bytes": frame, "path": None} for frame in frames],
        "label": clip.name.label,
    }


def _defect(clip: Clip, path: Path, error: UnreadableMediaError) -> Defect:
    return Defect(str(clip.name), f"{path.parent.name}/{path.name}", str(error))
