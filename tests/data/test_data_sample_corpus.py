"""The synthetic corpus: layout, determinism, resuming."""

import io
import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from hf_relearn.data import SAMPLE_NOTICE, build_sample_corpus
from hf_relearn.data.cremad_clips import SENTENCES, scan_clips


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.glob("*/*.*"))}


def test_layout_is_that_of_cremad(corpus_once):
    scan = scan_clips(corpus_once)
    assert scan.defects == () and len(scan.clips) == 66
    assert {clip.name.actor for clip in scan.clips} == {"9001", "9002", "9003"}
    assert all(clip.name.sentence in SENTENCES for clip in scan.clips)
    assert {clip.name.level for clip in scan.clips if clip.name.sentence == "IEO"} == {"LO", "MD", "HI", "XX"}
    with wave.open(str(scan.clips[0].audio)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16000, 1, 2)
        seconds = sound.getnframes() / 16000
    assert 0.8 < seconds < 2.5
    assert scan.clips[0].video.read_bytes()[:3] == b"FLV"
    frames = _frames(scan.clips[0].video)
    assert frames[0].shape == (96, 96, 3)
    assert abs(len(frames) / 10 - seconds) < 0.2


def test_sound_is_neither_silent_nor_clipped(corpus_once):
    for path in sorted((corpus_once / "AudioWAV").iterdir())[::9]:
        with wave.open(str(path)) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2") / 32768
        assert 0.003 < np.sqrt(np.mean(samples**2)) < 0.5
        assert np.abs(samples).max() < 1


def test_same_seed_same_corpus_in_any_number_of_processes(corpus_once, tmp_path):
    again = build_sample_corpus(tmp_path / "again", num_actors=3, num_sentences=2, num_proc=2)
    first, second = _contents(corpus_once), _contents(again)
    assert first.keys() == second.keys()
    for name in first:
        if name.endswith(".wav"):
            assert first[name] == second[name]
    for name in list(first)[-66::11]:
        for one, other in zip(_frames(corpus_once / name), _frames(again / name), strict=True):
            assert np.array_equal(one, other)


def test_a_relative_folder_lies_where_the_caller_is_though_workers_are_used_again(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        build_sample_corpus("corpus", num_actors=2, num_sentences=1, num_proc=2)
        assert len(list((tmp_path / name).glob("corpus/AudioWAV/*.wav"))) == 32


def test_another_seed_is_another_corpus(tmp_path):
    first = build_sample_corpus(tmp_path / "a", num_actors=1, num_sentences=1, seed=1, num_proc=1)
    content = _contents(first)
    build_sample_corpus(tmp_path / "a", num_actors=1, num_sentences=1, seed=2, num_proc=1)
    assert content.keys() == _contents(first).keys()
    assert all(content[name] != other for name, other in _contents(first).items())
    assert json.loads((first / "sample_corpus.json").read_text())["seed"] == 2


def test_complete_corpus_is_reused_and_incomplete_one_finished(tmp_path, monkeypatch):
    built: list[str] = []
    opened = wave.open

    def spy(path, mode):
        built.append(Path(path).stem)
        if len(built) == 5:
            raise KeyboardInterrupt
        return opened(path, mode)

    monkeypatch.setattr(wave, "open", spy)
    options = {"num_actors": 1, "num_sentences": 1, "num_proc": 1}
    with pytest.raises(KeyboardInterrupt):
        build_sample_corpus(tmp_path / "corpus", **options)
    assert json.loads((tmp_path / "corpus" / "sample_corpus.json").read_text())["complete"] is False
    assert len(list((tmp_path / "corpus" / "AudioWAV").iterdir())) == 4
    root = build_sample_corpus(tmp_path / "corpus", **options)
    assert len(built) == 5 + 12
    assert len(scan_clips(root).clips) == 16
    built.clear()
    build_sample_corpus(root, **options)
    assert built == []
    expected = _contents(root)
    (root / "VideoFlash" / "9001_IEO_NEU_XX.flv").unlink()
    build_sample_corpus(root, **options)
    assert built == ["9001_IEO_NEU_XX"]
    assert _contents(root) == expected


def test_foreign_files_are_never_touched(tmp_path):
    real = tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav"
    real.parent.mkdir()
    real.write_bytes(b"real")
    with pytest.raises(FileExistsError, match="1001_DFA_ANG_XX.wav, which is not of a sample corpus"):
        build_sample_corpus(tmp_path, num_actors=1, num_sentences=1, num_proc=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [real]


@pytest.mark.parametrize(("option", "value"), [("num_actors", 0), ("num_actors", 1000), ("num_sentences", 13)])
def test_sizes_out_of_range(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        build_sample_corpus(tmp_path / "corpus", **{option: value})
    assert not (tmp_path / "corpus").exists()


def test_loudness_tells_anger_from_sadness_and_the_mouth_moves(corpus_once):
    def loudness(emotion: str) -> float:
        found = []
        for path in (corpus_once / "AudioWAV").glob(f"*_{emotion}_*.wav"):
            with wave.open(io.BytesIO(path.read_bytes())) as sound:
                found.append(np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2").astype(float).std())
        return float(np.median(found))

    assert loudness("ANG") > 1.5 * loudness("SAD")
    frames = np.stack(_frames(corpus_once / "VideoFlash" / "9001_IEO_FEA_HI.flv")).astype(float)
    assert frames.std(axis=0).max() > 30


def test_notice_says_synthetic_and_how_to_give_the_real_data():
    assert "SYNTHETIC" in SAMPLE_NOTICE and "--data_dir" in SAMPLE_NOTICE and "git lfs pull" in SAMPLE_NOTICE
    assert len(SAMPLE_NOTICE.splitlines()) <= 4
