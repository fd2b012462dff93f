"""Clips that cannot be read: each reason by its name, the list, the share."""

import csv
import io
import logging
import shutil
import wave
from pathlib import Path

import av
import pyarrow.parquet
import pytest

from hf_relearn.data import CremadDataError, prepare_cremad
from hf_relearn.data.media import UnreadableMediaError, check_wav

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 72862\n"
CLIP = "9001_IEO_HAP_LO"


def _wav(num_samples: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(16000)
        target.writeframes(b"\0\0" * num_samples)
    return file.getvalue()


def _flv_header() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flv") as container:
        stream = container.add_stream("flv", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    return file.getvalue()


def _flv_of_sound_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flv") as container:
        stream = container.add_stream("pcm_s16le", rate=44100, layout="mono")
        for _ in range(10):
            sound = av.AudioFrame(format="s16", layout="mono", samples=4410)
            sound.planes[0].update(bytes(8820))
            sound.sample_rate = 44100
            container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return file.getvalue()


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGES = {
    "pointer wav": ("AudioWAV", lambda data: POINTER, "git-lfs pointer"),
    "pointer flv": ("VideoFlash", lambda data: POINTER, "git-lfs pointer"),
    "half wav": ("AudioWAV", _half, "truncated audio"),
    "wav header only": ("AudioWAV", lambda data: data[:30], "truncated audio"),
    "half flv": ("VideoFlash", _half, "truncated video"),
    "no samples": ("AudioWAV", lambda data: _wav(0), "audio of zero length"),
    "empty wav": ("AudioWAV", lambda data: b"", "audio of zero length"),
    "no sound file": ("AudioWAV", lambda data: b"<html>not found</html>" * 99, "undecodable audio"),
    "empty flv": ("VideoFlash", lambda data: b"", "no video frames"),
    "flv header only": ("VideoFlash", lambda data: _flv_header(), "no video frames"),
    "flv of sound only": ("VideoFlash", lambda data: _flv_of_sound_only(), "no video frames"),
    "no video file": ("VideoFlash", lambda data: b"<html>not found</html>" * 99, "undecodable video"),
}


def _listed(cache: Path) -> list[tuple[str, str, str]]:
    (path,) = cache.glob("cremad-*/unreadable.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "file", "reason"]
    return [tuple(row) for row in rows[1:]]


@pytest.fixture
def few(corpus_once, tmp_path) -> Path:
    """Six clips that a test may damage."""
    for folder in ("AudioWAV", "VideoFlash"):
        (tmp_path / "clone" / folder).mkdir(parents=True)
        for path in sorted((corpus_once / folder).glob("9001_IEO_[AH]*")):
            shutil.copy(path, tmp_path / "clone" / folder)
    return tmp_path / "clone"


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_reason_is_recognised(few, tmp_path, caplog, damage):
    folder, change, reason = DAMAGES[damage]
    (path,) = (few / folder).glob(f"{CLIP}.*")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CremadDataError, match=f"1 of 6 clips cannot be read .*{reason}: 1.*unreadable.csv"):
        prepare_cremad(few, tmp_path / "cache", num_proc=1)
    assert _listed(tmp_path / "cache") == [(CLIP, f"{folder}/{path.name}", reason)]
    with caplog.at_level(logging.WARNING):
        dataset = prepare_cremad(few, tmp_path / "cache", num_proc=1, max_unreadable_share=0.2)
    assert len(dataset) == 5 and CLIP not in dataset["name"][:]
    (record,) = [
        record
        for record in caplog.records
        if record.name.startswith("hf_relearn") and record.levelno == logging.WARNING
    ]
    assert f"{reason}: 1" in record.message and "unreadable.csv" in record.message
    assert _listed(tmp_path / "cache") == [(CLIP, f"{folder}/{path.name}", reason)]


@pytest.mark.parametrize(
    ("folder", "name", "reason"),
    [
        ("AudioWAV", "9001_DFA_ANG_XX.wav", "audio without video file"),
        ("VideoFlash", "9001_DFA_ANG_XX.flv", "video without audio file"),
        ("AudioWAV", "9001_DFA_JOY_XX.wav", "unknown name"),
        ("VideoFlash", "copy of a clip.flv", "unknown name"),
    ],
)
def test_file_without_counterpart_and_unknown_name(few, tmp_path, folder, name, reason):
    (source, *_) = (few / folder).iterdir()
    shutil.copy(source, few / folder / name)
    with pytest.raises(CremadDataError, match=f"1 of 7 clips cannot be read .*{reason}: 1"):
        prepare_cremad(few, tmp_path / "cache", num_proc=1)
    assert _listed(tmp_path / "cache") == [(Path(name).stem, f"{folder}/{name}", reason)]
    assert len(prepare_cremad(few, tmp_path / "cache", num_proc=1, max_unreadable_share=0.2)) == 6


def test_six_real_pointers_and_their_remedy(shared_data, tmp_path, monkeypatch):
    clone = shared_data / "cremad_meta" / "unsmudged_clone"
    monkeypatch.setattr("hf_relearn.data.cremad.sample_frames", None)  # nothing may be decoded
    for _ in range(2):
        with pytest.raises(CremadDataError) as caught:
            prepare_cremad(clone, tmp_path)
        assert "3 of 3 clips cannot be read (6 files; git-lfs pointer: 6)" in str(caught.value)
        assert "git lfs install && git lfs pull" in str(caught.value)
    assert len(_listed(tmp_path)) == 6


def test_fetched_clone_works_after_the_failure(few, corpus_once, tmp_path):
    for path in few.glob("*/*.*"):
        path.write_bytes(POINTER)
    with pytest.raises(CremadDataError, match="git-lfs pointer: 12"):
        prepare_cremad(few, tmp_path / "cache", num_proc=1)
    for path in few.glob("*/*.*"):
        shutil.copy(corpus_once / path.parent.name / path.name, path)
    assert len(prepare_cremad(few, tmp_path / "cache", num_proc=1)) == 6


def test_no_readable_clip_is_an_error_at_any_share(few, tmp_path):
    for path in (few / "AudioWAV").iterdir():
        path.write_bytes(_half(path.read_bytes()))
    with pytest.raises(CremadDataError, match="6 of 6 clips"):
        prepare_cremad(few, tmp_path / "cache", num_proc=1, max_unreadable_share=1.0)


def test_hidden_files_and_level_x(few, tmp_path):
    (few / "AudioWAV" / "._9001_IEO_HAP_LO.wav").write_bytes(b"\0")
    for path in few.glob(f"*/{CLIP}.*"):
        path.rename(path.with_name(f"9001_IEO_HAP_X{path.suffix}"))
    assert "9001_IEO_HAP_XX" in prepare_cremad(few, tmp_path / "cache", num_proc=1)["name"][:]


def test_real_recordings_pass_whole_and_fail_cut(shared_data):
    rows = pyarrow.parquet.read_table(shared_data / "av_digits" / "validation.parquet", columns=["audio"])
    for recording in rows["audio"].to_pylist()[:20]:
        check_wav(recording["bytes"])
        with pytest.raises(UnreadableMediaError, match="truncated audio"):
            check_wav(_half(recording["bytes"]))


def test_sound_of_unknown_length_passes():
    data = bytearray(_wav(100))
    data[40:44] = b"\xff\xff\xff\xff"  # as written to a pipe
    check_wav(bytes(data))
