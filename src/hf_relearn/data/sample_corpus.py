"""Build a small synthetic corpus in CREMA-D's file layout, for when the real one is not at hand."""

import json
import os
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import joblib
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from hf_relearn.data.cremad_clips import AUDIO_FOLDER, EMOTIONS, SENTENCES, VIDEO_FOLDER, ClipName, parse_clip_name
from hf_relearn.data.sample_faces import EXPRESSIONS, Expression, blend_expression, draw_clip, draw_look
from hf_relearn.data.sample_speech import (
    PROSODY,
    SAMPLE_RATE,
    Prosody,
    blend_prosody,
    draw_voice,
    synthesize,
)

SAMPLE_NOTICE = """\
No data folder given: this run uses a small SYNTHETIC stand-in for CREMA-D (computed voices, drawn faces).
Its numbers show that everything works; they say nothing about CREMA-D or any real data.
For the real data set, clone it, run `git lfs install && git lfs pull` in the clone, and give
    --data_dir /path/to/CREMA-D"""
SAMPLE_CARD_NOTE = (
    "This model was trained on a small SYNTHETIC stand-in for CREMA-D (computed voices, drawn faces). It shows that "
    "everything works, and what a card looks like; its numbers say nothing about CREMA-D or any real data."
)

MARKER = "sample_corpus.json"
FORMAT_VERSION = 1
FRAMES_PER_SECOND = 10
_FIRST_ACTOR = 9001
_BIT_RATE = 120_000
_STRENGTH = {"LO": 0.7, "MD": 0.9, "HI": 1.15, "XX": 1.0}
# In sound, a part of the clips is as much like another emotion as like its own; the pairs differ in the picture.
_SOUNDS_LIKE = {"NEU": "DIS", "DIS": "NEU", "HAP": "ANG", "ANG": "HAP", "SAD": "NEU", "FEA": "HAP"}
_AMBIGUOUS_SHARE = 0.18
# In the picture, many clips hardly show anything; that, and the actors' differences, make it the harder modality.
_FAINT_SHARE = 0.25


@dataclass(frozen=True)
class _ActorJob:
    root: Path
    seed: int
    clips: tuple[ClipName, ...]


def build_sample_corpus(
    root: str | os.PathLike[str],
    *,
    num_actors: int = 20,
    num_sentences: int = 7,
    seed: int = 0,
    num_proc: int | None = None,
) -> Path:
    """Build the synthetic corpus, or return it when it is already there.

    The files are named and laid out as CREMA-D's: `AudioWAV/<name>.wav` (16 kHz, mono, 16 bit) and
    `VideoFlash/<name>.flv` (96 x 96 pixels, 10 frames per second), 12 sentence codes, 6 emotions, the sentence IEO at
    three levels. The actors, 9001 and up, are invented and have no counterpart in CREMA-D. The same seed gives the
    same samples and frames, whatever the number of processes. An interrupted build goes on with the missing clips.

    Args:
        root: Folder of the corpus. It is created; an existing one has to be empty or to hold such a corpus.
        num_actors: Number of actors, 1 to 999.
        num_sentences: Number of sentences each actor speaks, 1 to 12: IEO and others, which differ between actors.
            One actor has 16 clips of IEO and 6 of every other sentence.
        seed: Seed of everything random.
        num_proc: Number of processes. Default: the available cores, at most four.

    Returns:
        `root`, for `prepare_cremad`. `sample_corpus.json` in it holds the settings and says whether it is complete.

    Raises:
        ValueError: When a number is out of its range.
        FileExistsError: When `root` holds files that are not of such a corpus.
    """
    if not 1 <= num_actors <= 999:
        raise ValueError(f"num_actors is {num_actors}; it must be from 1 to 999")
    if not 1 <= num_sentences <= len(SENTENCES):
        raise ValueError(f"num_sentences is {num_sentences}; it must be from 1 to {len(SENTENCES)}")
    folder = Path(root)
    jobs = [
        # Worker processes are used again, and may be in another directory.
        _ActorJob(folder.absolute(), seed, _clips_of_actor(_FIRST_ACTOR + number, num_sentences, seed))
        for number in range(num_actors)
    ]
    expected = {path for job in jobs for clip in job.clips for path in _paths(folder, clip)}
    settings = {"format": FORMAT_VERSION, "seed": seed, "num_actors": num_actors, "num_sentences": num_sentences}
    if _is_complete(folder, settings, expected):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_complete(folder, settings, expected):
            _build(folder, settings, jobs, expected, num_proc)
    return folder


def _build(
    folder: Path, settings: dict[str, int], jobs: list[_ActorJob], expected: set[Path], num_proc: int | None
) -> None:
    present = _present_files(folder)
    goes_on = _read_marker(folder).items() >= settings.items()
    for path in present:
        if not goes_on or path not in expected:
            path.unlink()
    for name in (AUDIO_FOLDER, VIDEO_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write_marker(folder, settings, complete=False)
    num_proc = num_proc if num_proc is not None else min(4, joblib.cpu_count())
    build = joblib.Parallel(n_jobs=num_proc, return_as="generator_unordered")
    with tqdm(total=len(expected) // 2, desc="Building the sample corpus", unit="clip") as bar:
        for count in build(joblib.delayed(_build_actor)(job) for job in jobs):
            bar.update(count)
    _write_marker(folder, settings, complete=True)


def _clips_of_actor(actor: int, num_sentences: int, seed: int) -> tuple[ClipName, ...]:
    others = np.random.default_rng([seed, actor, 1]).permutation(SENTENCES[1:])[: num_sentences - 1]
    clips = []
    for sentence in (SENTENCES[0], *sorted(str(other) for other in others)):
        for emotion in EMOTIONS:
            graded = sentence == SENTENCES[0] and emotion != "NEU"
            for level in ("LO", "MD", "HI") if graded else ("XX",):
                clips.append(ClipName(str(actor), sentence, emotion, level))
    return tuple(clips)


def _build_actor(job: _ActorJob) -> int:
    actor = int(job.clips[0].actor)
    voice = draw_voice(np.random.default_rng([job.seed, actor, 2]))
    look = draw_look(np.random.default_rng([job.seed, actor, 3]))
    for clip in job.clips:
        audio_path, video_path = _paths(job.root, clip)
        if audio_path.exists() and video_path.exists():
            continue
        sentence = SENTENCES.index(clip.sentence)
        rng = np.random.default_rng([job.seed, actor, 4, sentence, clip.label, list(_STRENGTH).index(clip.level)])
        samples, mouth = synthesize(sentence, _prosody(clip, rng), voice, rng)
        times = np.arange(0, samples.size / SAMPLE_RATE, 1 / FRAMES_PER_SECOND)
        talking = mouth[(times * len(mouth) * SAMPLE_RATE / samples.size).astype(int).clip(0, len(mouth) - 1)]
        frames = draw_clip(_expression(clip, rng), look, talking, rng)
        _write_wav(audio_path, samples)
        _write_flv(video_path, frames)
    return len(job.clips)


def _prosody(clip: ClipName, rng: np.random.Generator) -> Prosody:
    own = PROSODY[clip.emotion]
    if rng.random() < _AMBIGUOUS_SHARE:
        return blend_prosody(own, PROSODY[_SOUNDS_LIKE[clip.emotion]], rng.uniform(0.3, 0.6))
    return blend_prosody(PROSODY["NEU"], own, _STRENGTH[clip.level] * rng.uniform(0.8, 1.1))


def _expression(clip: ClipName, rng: np.random.Generator) -> Expression:
    faint = rng.random() < _FAINT_SHARE
    strength = rng.uniform(0.2, 0.6) if faint else rng.uniform(0.8, 1.1)
    return blend_expression(EXPRESSIONS["NEU"], EXPRESSIONS[clip.emotion], _STRENGTH[clip.level] * strength)


def _write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    partial = path.with_suffix(".partial")
    with wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    os.replace(partial, path)


def _write_flv(path: Path, frames: Iterable[Image.Image]) -> None:
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="flv", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flv", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = 96, 96
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = _BIT_RATE
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    os.replace(partial, path)


def _paths(folder: Path, clip: ClipName) -> tuple[Path, Path]:
    return folder / AUDIO_FOLDER / f"{clip}.wav", folder / VIDEO_FOLDER / f"{clip}.flv"


def _present_files(folder: Path) -> list[Path]:
    """Return the files of an earlier build; anything else in the folder is somebody's own and is never touched."""
    present = []
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        if path.is_dir() and path.name in (AUDIO_FOLDER, VIDEO_FOLDER) or path == folder / MARKER:
            continue
        name = parse_clip_name(path.stem)
        if path.parent.name not in (AUDIO_FOLDER, VIDEO_FOLDER) or name is None or int(name.actor) < _FIRST_ACTOR:
            raise FileExistsError(
                f"{folder} holds {path.relative_to(folder)}, which is not of a sample corpus; "
                "give an empty or new folder"
            )
        present.append(path)
    return present


def _is_complete(folder: Path, settings: dict[str, int], expected: set[Path]) -> bool:
    if _read_marker(folder) != {**settings, "complete": True}:
        return False
    return {path for name in (AUDIO_FOLDER, VIDEO_FOLDER) for path in (folder / name).glob("*")} == expected


def _read_marker(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / MARKER).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write_marker(folder: Path, settings: dict[str, int], complete: bool) -> None:
    partial = folder / f"{MARKER}.partial"
    partial.write_text(json.dumps({**settings, "complete": complete}), encoding="utf-8")
    os.replace(partial, folder / MARKER)
