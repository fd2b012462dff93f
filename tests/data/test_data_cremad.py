"""Preparing a CREMA-D clone: rows, the cache, resuming."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_relearn.data import CremadDataError, prepare_cremad
from hf_relearn.data.media import check_wav, sample_frames

NUM_CLIPS = 66


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each sound that is read from here on."""
    seen: list[int] = []

    def spy(content):
        seen.append(len(content))
        return check_wav(content)

    monkeypatch.setattr("hf_relearn.data.cremad.check_wav", spy)
    return seen


def _media(dataset: datasets.Dataset) -> list:
    return dataset.to_list()


def test_row_holds_what_the_files_hold(corpus_once, tmp_path):
    dataset = prepare_cremad(corpus_once, tmp_path, frames_per_second=4, max_side=48, num_proc=1)
    assert len(dataset) == NUM_CLIPS
    assert dataset["name"][:] == sorted(dataset["name"][:])
    row = dataset[dataset["name"][:].index("9002_IEO_ANG_HI")]
    assert (row["actor"], row["sentence"], row["level"]) == ("9002", "IEO", "HI")
    assert dataset.features["label"].int2str(row["label"]) == "anger"
    assert row["audio"]["bytes"] == (corpus_once / "AudioWAV/9002_IEO_ANG_HI.wav").read_bytes()
    seconds = (len(row["audio"]["bytes"]) - 44) / 32000
    assert abs(len(row["frames"]) - 4 * seconds) <= 1
    images = [Image.open(io.BytesIO(frame["bytes"])) for frame in row["frames"]]
    assert {(image.format, image.mode, image.size) for image in images} == {("JPEG", "RGB", (48, 48))}
    assert dataset.cache_files  # memory-mapped from disk


def test_label_order_is_the_fields(corpus_once, tmp_path, shared_data):
    codes = (shared_data / "cremad_meta" / "stat.csv").read_text(encoding="utf-8-sig").split()
    dataset = prepare_cremad(corpus_once, tmp_path, num_proc=1)
    assert dataset.features["label"].names == ["neutral", "happy", "sad", "fear", "disgust", "anger"]
    for name, label in zip(dataset["name"][:], dataset["label"][:], strict=True):
        assert codes[label] == name.split("_")[2]


def test_a_slow_rate_still_gives_one_frame(corpus_once, tmp_path):
    dataset = prepare_cremad(corpus_once, tmp_path, frames_per_second=0.01, num_proc=1)
    assert {len(frames) for frames in dataset["frames"][:]} == {1}


def test_more_frames_are_no_repeats(corpus_once, tmp_path):
    dataset = prepare_cremad(corpus_once, tmp_path, frames_per_second=500, num_proc=1)
    frames = [frame["bytes"] for frame in dataset[0]["frames"]]
    assert len(frames) > 8
    assert all(first != second for first, second in zip(frames, frames[1:], strict=False))


def test_valid_cache_is_used_without_decoding(corpus_once, tmp_path, decoded):
    first = prepare_cremad(corpus_once, tmp_path, num_proc=1)
    assert len(decoded) == NUM_CLIPS
    second = prepare_cremad(corpus_once, tmp_path, num_proc=2)
    assert len(decoded) == NUM_CLIPS
    assert _media(first) == _media(second)


def test_default_cache_is_the_hugging_face_one(corpus_once, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    dataset = prepare_cremad(corpus_once, num_proc=1)
    assert Path(dataset.cache_files[0]["filename"]).is_relative_to(tmp_path / "hub" / "cremad")


def test_interrupted_preparation_begins_again(corpus_once, tmp_path, monkeypatch):
    recorded = sample_frames
    seen = []

    def killed_at_third(*args):
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return recorded(*args)

    monkeypatch.setattr("hf_relearn.data.cremad.sample_frames", killed_at_third)
    with pytest.raises(KeyboardInterrupt):
        prepare_cremad(corpus_once, tmp_path, num_proc=1)
    assert len(prepare_cremad(corpus_once, tmp_path, num_proc=1)) == NUM_CLIPS


@pytest.mark.parametrize("damage", ["delete", "cut"])
def test_damaged_data_are_named(corpus_once, tmp_path, damage):
    dataset = prepare_cremad(corpus_once, tmp_path, num_proc=1)
    path = Path(dataset.cache_files[0]["filename"])
    del dataset
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CremadDataError, match="cremad-.* are damaged .*: delete that folder"):
        prepare_cremad(corpus_once, tmp_path, num_proc=1)


def test_a_failure_leaves_nothing_half_written(corpus_once, tmp_path, monkeypatch):
    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr("hf_relearn.data.cremad.sample_frames", broken)
    with pytest.raises(OSError, match="disk full"):
        prepare_cremad(corpus_once, tmp_path, num_proc=1)
    assert not list(tmp_path.rglob("*.arrow"))


def test_changed_clips_and_settings_are_prepared_anew(clone, tmp_path, decoded):
    cache = tmp_path / "cache"
    prepare_cremad(clone, cache, num_proc=1)
    decoded.clear()
    prepare_cremad(clone, cache, frames_per_second=3, num_proc=1)
    assert decoded
    decoded.clear()
    wav = clone / "AudioWAV" / "9001_IEO_NEU_XX.wav"
    other = clone / "AudioWAV" / "9003_IEO_NEU_XX.wav"
    assert wav.stat().st_size != other.stat().st_size
    wav.write_bytes(other.read_bytes())
    dataset = prepare_cremad(clone, cache, num_proc=1)
    assert decoded
    assert dataset[dataset["name"][:].index("9001_IEO_NEU_XX")]["audio"]["bytes"] == other.read_bytes()
    decoded.clear()
    (clone / "AudioWAV" / "9001_ITS_SAD_LO.wav").write_bytes(other.read_bytes())
    (clone / "VideoFlash" / "9001_ITS_SAD_LO.flv").write_bytes(
        (clone / "VideoFlash" / "9003_IEO_NEU_XX.flv").read_bytes()
    )
    assert len(prepare_cremad(clone, cache, num_proc=1)) == NUM_CLIPS + 1
    assert decoded


def test_several_processes_from_a_script_without_main_guard(corpus_once, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from hf_relearn.data import prepare_cremad\n"
        f"dataset = prepare_cremad({str(corpus_once)!r}, {str(tmp_path / 'cache')!r}, num_proc=2)\n"
        "print('rows', len(dataset))\n"
    )
    # Two at once, as the ranks of a launch: one prepares, the other waits.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [output for output, _ in outputs] == [f"rows {NUM_CLIPS}\n"] * 2
    assert sum("Generating train split" in errors for _, errors in outputs) == 1
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 2


def test_progress_is_counted_in_clips(corpus_once, tmp_path, capsys):
    prepare_cremad(corpus_once, tmp_path, num_proc=1)
    assert f"{NUM_CLIPS} examples" in capsys.readouterr().err


def test_readable_clone_gives_no_warning(corpus_once, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepare_cremad(corpus_once, tmp_path, num_proc=1)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"frames_per_second": 0}, "frames_per_second is 0"),
        ({"frames_per_second": np.nan}, "frames_per_second is nan"),
        ({"max_side": 0}, "max_side is 0"),
        ({"max_unreadable_share": 5}, "max_unreadable_share is 5"),
        ({"num_proc": 0}, "num_proc is 0"),
    ],
)
def test_settings_out_of_range(corpus_once, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        prepare_cremad(corpus_once, tmp_path, **setting)


def test_layout_is_explained(tmp_path):
    with pytest.raises(CremadDataError, match="nowhere is no CREMA-D folder.*there is no such folder"):
        prepare_cremad(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CremadDataError, match=r"expected AudioWAV/\*.wav and VideoFlash/\*.flv.*it is empty"):
        prepare_cremad(tmp_path / "empty", tmp_path / "cache")
    (tmp_path / "other" / "AudioMP3").mkdir(parents=True)
    with pytest.raises(CremadDataError, match=r"there is no AudioWAV/ \(found: AudioMP3\)"):
        prepare_cremad(tmp_path / "other", tmp_path / "cache")
    (tmp_path / "other" / "AudioWAV").mkdir()
    (tmp_path / "other" / "AudioWAV" / "readme.txt").touch()
    with pytest.raises(CremadDataError, match=r"AudioWAV/ holds no .wav file \(found: readme.txt\)"):
        prepare_cremad(tmp_path / "other", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
