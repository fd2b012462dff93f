"""Pair the files of a CREMA-D clone, and find those that cannot be used before anything is decoded."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Code -> displayed name, in the label order of the data set's own list of classes.
EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "anger"}
EMOTION_NAMES = tuple(EMOTIONS.values())
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
AUDIO_FOLDER = "AudioWAV"
VIDEO_FOLDER = "VideoFlash"

LFS_POINTER = "git-lfs pointer"
UNKNOWN_NAME = "unknown name"
NO_AUDIO_FILE = "video without audio file"
NO_VIDEO_FILE = "audio without video file"

_LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/v1"
_LFS_MAX_BYTES = 1024  # the format's own limit on a pointer's size
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(XX?|LO|MD|HI)")


class CremadDataError(ValueError):
    """Report a data set on disk, or a list that splits it, that does not fit; the message says what to do."""


@dataclass(frozen=True)
class ClipName:
    """Hold the parts of a clip's name: `1001_DFA_ANG_XX` is actor, sentence, emotion, level of emotion."""

    actor: str
    sentence: str
    emotion: str
    level: str

    def __str__(self) -> str:
        return f"{self.actor}_{self.sentence}_{self.emotion}_{self.level}"

    @property
    def label(self) -> int:
        """Return the index of the emotion in `EMOTIONS`."""
        return list(EMOTIONS).index(self.emotion)


@dataclass(frozen=True)
class Clip:
    """Hold a pair of files: paths of the `.wav` and the `.flv`, and the name both carry."""

    name: ClipName
    audio: Path
    video: Path


@dataclass(frozen=True)
class Defect:
    """Describe a file that cannot be used: the clip's name, the file relative to the data folder, the reason."""

    name: str
    file: str
    reason: str


@dataclass(frozen=True)
class ClipScan:
    """List the usable pairs of a clone by name, defects found without decoding, and every file with its size."""

    clips: tuple[Clip, ...]
    defects: tuple[Defect, ...]
    files: tuple[tuple[str, int], ...]

    @property
    def num_names(self) -> int:
        """Count the clips, usable or not (a pair of files counts once)."""
        return len({str(clip.name) for clip in self.clips} | {defect.name for defect in self.defects})


def parse_clip_name(stem: str) -> ClipName | None:
    """Read a file name without its suffix; None if it is not a clip's name or its emotion is unknown.

    The level `X`, which one file of the published data set carries, is read as `XX`, as the split lists write it.
    """
    match = _NAME.fullmatch(stem)
    if match is None or match.group(3) not in EMOTIONS:
        return None
    actor, sentence, emotion, level = match.groups()
    return ClipName(actor, sentence, emotion, "XX" if level == "X" else level)


def scan_clips(data_dir: str | os.PathLike[str]) -> ClipScan:
    """List and pair the clips of a clone without decoding anything.

    Args:
        data_dir: Folder that holds `AudioWAV/*.wav` and `VideoFlash/*.flv`.

    Returns:
        The scan. Its defects are git-lfs pointers, unknown names and files without their counterpart.

    Raises:
        CremadDataError: When the folder or one of the two is missing or holds no clip.
    """
    root = Path(data_dir)
    audio = _files_of(root, AUDIO_FOLDER, ".wav")
    video = _files_of(root, VIDEO_FOLDER, ".flv")
    defects = []
    paired: dict[str, dict[str, Path]] = {}
    for kind, files in (("audio", audio), ("video", video)):
        for path in files:
            name = parse_clip_name(path.stem)
            if name is None:
                defects.append(Defect(path.stem, _relative(path, root), UNKNOWN_NAME))
            else:
                paired.setdefault(str(name), {})[kind] = path
    clips = []
    for text, pair in sorted(paired.items()):
        found = [Defect(text, _relative(path, root), LFS_POINTER) for path in pair.values() if is_lfs_pointer(path)]
        if len(pair) == 1:
            reason = NO_VIDEO_FILE if "audio" in pair else NO_AUDIO_FILE
            found.extend(Defect(text, _relative(path, root), reason) for path in pair.values())
        name = parse_clip_name(text)
        if not found and name is not None:
            clips.append(Clip(name, pair["audio"], pair["video"]))
        defects.extend(found)
    sizes = tuple((_relative(path, root), path.stat().st_size) for path in (*audio, *video))
    return ClipScan(tuple(clips), tuple(defects), sizes)


def is_lfs_pointer(path: Path) -> bool:
    """Check for the stub that `git clone` leaves in place of a file that git-lfs has not fetched."""
    if path.stat().st_size > _LFS_MAX_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(_LFS_SIGNATURE)) == _LFS_SIGNATURE


def clips_fingerprint(data_dir: str | os.PathLike[str], scan: ClipScan, settings: Mapping[str, object]) -> str:
    """Hash the folder, every file's name and size, and the settings to sixteen hexadecimal digits."""
    content = [str(Path(data_dir).resolve()), scan.files, dict(settings)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_unreadable(
    defects: Sequence[Defect], num_names: int, max_unreadable_share: float, list_file: Path
) -> str | None:
    """Decide whether the unreadable clips are too many.

    Args:
        defects: All unreadable files.
        num_names: Number of clips, readable or not.
        max_unreadable_share: Share of unreadable clips, 0 to 1, that is put up with.
        list_file: File that lists the defects; the message names it.

    Returns:
        A sentence for the log, or `None` when every clip can be read.

    Raises:
        CremadDataError: When the share is exceeded or no clip is readable.
    """
    if not defects:
        return None
    num_bad = len({defect.name for defect in defects})
    counts = Counter(defect.reason for defect in defects)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    summary = (
        f"{num_bad} of {num_names} clips cannot be read ({len(defects)} files; {reasons}). "
        f"Each file and its reason: {list_file}."
    )
    if num_bad < num_names and num_bad <= max_unreadable_share * num_names:
        return summary + " They are left out."
    message = f"{summary} At most {max_unreadable_share:.1%} may be unreadable (max_unreadable_share)."
    if counts[LFS_POINTER]:
        message += (
            " A git-lfs pointer is the stub of a file that was never fetched: run `git lfs install && git lfs pull` "
            "in the clone (if git answers that 'lfs' is not a git command, install git-lfs first), then run again."
        )
    else:
        message += " Replace these files by whole copies, or raise the share to go on without them."
    raise CremadDataError(message)


def _files_of(root: Path, folder: str, suffix: str) -> list[Path]:
    files: Iterable[Path] = (root / folder).iterdir() if (root / folder).is_dir() else ()
    # A leading dot marks what operating systems leave beside the files, not a clip.
    chosen = [path for path in files if path.suffix.lower() == suffix and not path.name.startswith(".")]
    if not chosen:
        raise CremadDataError(
            f"{root} is no CREMA-D folder: expected {AUDIO_FOLDER}/*.wav and {VIDEO_FOLDER}/*.flv, but "
            f"{_what_is_there(root, folder, suffix)}. Give the folder of the clone that holds both."
        )
    return sorted(chosen)


def _what_is_there(root: Path, folder: str, suffix: str) -> str:
    if not root.is_dir():
        return "there is no such folder"
    if (root / folder).is_dir():
        return f"{folder}/ holds no {suffix} file ({_entries(root / folder)})"
    return f"there is no {folder}/ ({_entries(root)})"


def _entries(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return f"found: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "it is empty"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
