"""Media and settings of strangers: what is too large, or of another format than the named ones, is refused."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny import tiny_model, vit_config

from hf_relearn import MultimodalConfig, MultimodalProcessor
from hf_relearn.models import ModalityConfig
from hf_relearn.models.configuration_limits import limit
from hf_relearn.models.processing_images import load_frames
from hf_relearn.models.processing_media import load_audio, load_image
from hf_relearn.models.processing_sources import MediaError


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, int]]:
    """What each hostile file came to, and the kB that it took, with 300 MB of address space left."""
    script = Path(__file__).with_name("hostile_media.py")
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return {name: (message, taken) for name, message, taken in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wav at 8 Hz", "is 8 Hz, but rates are from 1000 Hz to 768000 Hz"),
        ("wav at 1 Hz", "is 1 Hz, but"),
        ("wav at 1 Hz, cut", "is 1 Hz, but"),
        ("wav at 2 GHz", "is 2000000000 Hz, but"),
        ("array at 10^12 Hz", "is 1000000000000 Hz, but"),
        ("array at nan Hz", "is nan Hz, but"),
        ("wanted 10^12 Hz", "is 1000000000000 Hz, but"),
        ("grows when resampled", "is 768,000,000, and at most"),
        ("27 minutes", "is 70,560,000, and at most"),
        ("complex array", "not a sound (an array of complex64)"),
        ("int64 array", "not a sound (an array of int64"),
        ("bool array", "not a sound (an array of bool)"),
        ("gif as image", "too many pixels"),
        ("gif as video", "too many pixels"),
        ("png of 1.6 gigapixels", "too many pixels"),
        ("long, narrow png", "resized to 224 × 13440000, is 3,010,560,000, and at most"),
        ("frames in a list", "(4000 × 4000, 99 frames) is 1,584,000,000, and at most"),
        ("eps", "not an image, or not of a format that is read"),
        ("eps as video", "not a readable video"),
        ("sdp as sound", "not a readable sound"),
        ("sdp as video", "not a readable video"),
        ("playlist as sound", "not a readable sound"),
        ("concat as video", "not a readable video"),
    ],
)
def test_hostile_media_are_refused_in_little_memory(outcomes, name, reason):
    message, taken = outcomes[name]
    assert reason in message
    assert taken < 150_000


def test_decoding_stops_where_the_sound_is_cut(outcomes):
    message, taken = outcomes["27 minutes, cut"]
    assert message == "fine: 160000" and taken < 50_000


def test_a_playlist_on_disk_plays_no_other_file(tmp_path):
    soundfile.write(tmp_path / "secret.wav", np.zeros(16000), 16000)
    for name, text in (
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile secret.wav\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError, match=f"{name}: not a readable sound"):
            load_audio(tmp_path / name, 16000)


def test_what_is_cut_is_the_beginning_of_the_whole():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44100).astype(np.float32)
    for value in ({"array": noise, "sampling_rate": 44100}, _wav(noise, 44100), _flv(noise)):
        whole, cut = load_audio(value, 16000), load_audio(value, 16000, 0.25)
        assert len(cut) == 4000
        assert np.abs(cut - whole[:4000]).max() < 1e-6


def test_integers_of_every_size_are_scaled_alike():
    tone = (0.5 * np.sin(np.arange(800) / 9)).astype(np.float32)
    for array, step in (
        ((tone * 2**7).astype(np.int8), 2**-7),
        (np.round(tone * 2**7 + 128).astype(np.uint8), 2**-7),
        ((tone * 2**15).astype(np.int16), 2**-15),
        ((tone * 2**31).astype(np.int32), 2**-22),
    ):
        assert np.abs(load_audio(array, 16000) - tone).max() <= step


def test_one_setting_raises_the_bounds(monkeypatch):
    frames = [Image.new("RGB", (32, 32))] * 6
    monkeypatch.setenv("HF_RELEARN_LIMITS", "2e-5")
    assert limit("image pixels") == 1280
    assert len(load_frames(frames[:5], lambda count: list(range(count)))) == 5
    with pytest.raises(MediaError, match=r"32 × 32, 6 frames\) is 6,144, and at most 5,368 .*HF_RELEARN_LIMITS"):
        load_frames(frames, lambda count: list(range(count)))
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for index in range(6):
            picture = np.full((32, 32, 3), 40 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"32 × 32, 6 frames\)"):
        load_frames(film.getvalue(), lambda count: list(range(count)))
    monkeypatch.setenv("HF_RELEARN_LIMITS", "1e-5")
    with pytest.raises(MediaError, match="of more than 640 pixels a frame"):
        load_frames(film.getvalue(), lambda count: [0])
    monkeypatch.setenv("HF_RELEARN_LIMITS", "1")
    assert len(load_frames(film.getvalue(), lambda count: list(range(count)))) == 6
    monkeypatch.setenv("HF_RELEARN_LIMITS", "many")
    with pytest.raises(ValueError, match="HF_RELEARN_LIMITS is 'many', but it is a number above 0"):
        limit("frames")


def test_grey_values_of_16_and_32_bits_keep_their_order():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = np.rint(ramp * 255)
    pgm = b"P5 8 8 65535\n" + (ramp * 65535).astype(">u2").tobytes()
    for value in (
        pgm,
        _tiff((ramp * 65535).astype(np.uint16)),
        _tiff((ramp * 65535).astype(np.int32)),
        _tiff(ramp),
        _tiff(ramp * 255),
        _tiff(ramp * 2e6 - 1e6),
        Image.fromarray((ramp * 2**31 * 0.99).astype(np.int32)),
        Image.fromarray(ramp),
    ):
        assert np.abs(np.asarray(load_image(value))[..., 0] - expected).max() <= 1
    with pytest.raises(MediaError, match="not finite"):
        load_image(_tiff(np.full((8, 8), np.nan, np.float32)))


PLAIN = {"image_processor_type": "ViTImageProcessorPil", "size": {"height": 8, "width": 8}}
WHISPER = {"feature_extractor_type": "WhisperFeatureExtractor"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"type": "spectrogram", "sampling_rate": 10**12}, "sampling_rate is 1000000000000 Hz"),
        ({"type": "spectrogram", "seconds": 1e9}, r"seconds × sampling_rate .* is .*, and at most 67,108,864"),
        ({"type": "spectrogram", "hop_length": 1, "n_fft": 8192, "seconds": 60}, "values of a spectrogram is"),
        ({"type": "spectrogram", "n_fft": 10**9}, "n_fft is 1,000,000,000, and at most 8,192"),
        ({"type": "spectrogram", "size": [10**6, 10**6]}, "image_size is 1,000,000, and at most 8,000"),
        ({"type": "waveform", "feature_extractor": WHISPER, "max_seconds": 1e9}, "max_seconds × sampling_rate"),
        ({"type": "waveform", "feature_extractor": {**WHISPER, "chunk_length": 10**9}}, "n_samples is"),
        ({"type": "waveform", "feature_extractor": {**WHISPER, "hop_length": 1}}, "values of a spectrogram is"),
        (
            {"type": "waveform", "feature_extractor": {**WHISPER, "feature_size": 10**9}},
            "WhisperFeatureExtractor settings: feature_size is 1,000,000,000, and at most",
        ),
        (
            {"type": "image", "image_processor": {**PLAIN, "size": {"height": 10**6, "width": 8}}},
            "ViTImageProcessorPil settings: size is 1,000,000, and at most 8,000",
        ),
        ({"type": "video", "image_processor": PLAIN, "num_frames": 10**9}, "num_frames is 1,000,000,000"),
        (
            {
                "type": "image",
                "image_processor": {
                    "image_processor_type": "OneFormerImageProcessorPil",
                    "repo_path": "somewhere",
                    "class_info_file": "../../secret.json",
                },
            },
            "name a file, (repo_path|class_info_file) = .*, which is not opened",
        ),
    ],
)
def test_settings_of_a_processor_are_bounded(settings, reason):
    with pytest.raises(ValueError, match=f"modality 'm': .*{reason}"):
        MultimodalProcessor({"m": settings})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("vocab_size", 10**12),
        ("hidden_size", 10**9),
        ("image_size", 10**6),
        ("image_size", [224, 10**6]),
    ],
)
def test_sizes_that_a_configuration_asks_for_are_bounded(tmp_path, name, value):
    tiny_model().config.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["modalities"]["vision"]["backbone_config"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=f"{name} is 1,000,0.*, and at most"):
        MultimodalConfig.from_pretrained(tmp_path)


def test_frames_and_classes_that_a_configuration_asks_for_are_bounded(tmp_path):
    with pytest.raises(ValueError, match="num_frames is 1,000,000,000, and at most 4,096"):
        ModalityConfig(vit_config().to_dict(), "vision", 16, 16, num_frames=10**9)
    with pytest.raises(ValueError, match="num_labels is 1,000,000,000,000, and at most"):
        MultimodalConfig(num_labels=10**12)


def test_a_model_of_more_parameters_than_allowed_is_not_built(tmp_path):
    model = tiny_model()
    model.config.modalities["vision"].backbone_config.update({"hidden_size": 2**20, "intermediate_size": 2**20})
    with pytest.raises(ValueError, match="the number of parameters is .*, and at most 10,000,000,000 is allowed"):
        with torch.device("meta"):
            type(model)(model.config)


def _wav(waveform: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _flv(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flv") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate = 44100
        for part in (frame, None):
            container.mux(stream.encode(part))
    return file.getvalue()


def _tiff(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    return file.getvalue()
