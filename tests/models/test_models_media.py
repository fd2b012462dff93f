"""Decoding sounds and images from every form a data set holds them in."""

import io

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from hf_relearn.models.processing_media import load_audio, load_image, resample
from hf_relearn.models.processing_sources import MediaError

RATE = 16000


def sine(frequency: float = 440.0, rate: int = RATE, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(waveform: np.ndarray, rate: int = RATE, container: str = "WAV", **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=container, **options)
    return buffer.getvalue()


def with_av(container: str, codec: str, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        layout = "stereo" if channels == 2 else "mono"
        stream = file.add_stream(codec, rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.stack([sine()] * channels), format="fltp", layout=layout)
        frame.sample_rate = RATE
        for part in (frame, None):
            file.mux(stream.encode(part))
    return buffer.getvalue()


def pitch(waveform: np.ndarray, rate: int = RATE) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform))


def test_every_form_of_a_wav_gives_the_same_sound(tmp_path):
    file = tmp_path / "tone.wav"
    file.write_bytes(encoded(sine(), subtype="FLOAT"))
    forms = {
        "path": file,
        "string": str(file),
        "bytes": file.read_bytes(),
        "mapping of bytes": {"bytes": file.read_bytes(), "path": "elsewhere.wav"},
        "mapping of a path": {"bytes": None, "path": str(file)},
        "mapping of an array": {"array": sine(), "sampling_rate": RATE},
        "array": sine(),
        "list": sine().tolist(),
        "tensor": torch.from_numpy(sine()),
        "one channel": sine()[None],
    }
    for form, value in forms.items():
        waveform = load_audio(value, RATE)
        assert waveform.dtype == np.float32, form
        assert np.array_equal(waveform, sine()), form


def test_channels_are_averaged():
    left, right = sine(440), sine(1000)
    expected = (left + right) / 2

    decoded = load_audio(encoded(np.stack([left, right], axis=1), subtype="FLOAT"), RATE)
    given = load_audio({"array": np.stack([left, right]), "sampling_rate": RATE}, RATE)

    assert np.allclose(decoded, expected, atol=1e-6)
    assert np.allclose(given, expected, atol=1e-6)


def test_integer_samples_are_scaled():
    integers = (sine() * 2**15).astype(np.int16)

    assert np.abs(load_audio(integers, RATE) - sine()).max() < 1e-4
    assert np.abs(load_audio(encoded(sine(), subtype="PCM_16"), RATE) - sine()).max() < 1e-4


@pytest.mark.parametrize("container", ["FLAC", "OGG"])
def test_compressed_formats_of_soundfile(container):
    waveform = load_audio(encoded(sine(), container=container), RATE)

    assert len(waveform) == len(sine())
    assert pitch(waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("ipod", "aac"), ("flv", "aac")])
def test_other_containers_are_decoded_from_memory_and_from_a_file(container, codec, channels, tmp_path):
    data = with_av(container, codec, channels)
    file = tmp_path / f"clip.{container}"
    file.write_bytes(data)

    waveform = load_audio(data, RATE)

    assert pitch(waveform) == pytest.approx(440, abs=4)
    assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.15)
    assert len(waveform) == pytest.approx(len(sine()), abs=3000)  # AAC pads by up to two of its frames
    assert np.array_equal(load_audio(file, RATE), waveform)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (22050, 16000), (16000, 22050)])
def test_resampling_keeps_pitch_duration_and_loudness(rate, wanted):
    waveform = load_audio(encoded(sine(1000, rate), rate, subtype="FLOAT"), wanted)

    assert len(waveform) == pytest.approx(0.5 * wanted, abs=3)
    assert pitch(waveform, wanted) == pytest.approx(1000, abs=3)
    assert np.abs(waveform[500:-500]).max() == pytest.approx(0.5, abs=0.02)


def test_resampling_down_leaves_out_what_would_alias():
    assert np.abs(resample(sine(7000, 16000), 16000, 8000)[300:-300]).max() < 0.01


@pytest.mark.parametrize("samples", [1, 7, 50])
def test_a_very_short_sound_can_be_resampled(samples):
    assert len(resample(sine()[:samples], 44100, 16000)) == -(-samples * 16000 // 44100)


def test_half_a_file_gives_half_of_the_sound_or_an_error():
    whole = encoded(sine())

    assert len(load_audio(whole[: len(whole) // 2], RATE)) == pytest.approx(len(sine()) / 2, abs=40)
    with pytest.raises(MediaError):
        load_audio(with_av("mp4", "aac")[:200], RATE)


def test_unreadable_sounds_are_named(tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    silent = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(silent)
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for part in (av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)), None):
            container.mux(stream.encode(part))
    empty = tmp_path / "empty.wav"
    empty.write_bytes(encoded(sine()[:0]))
    cases = [
        (broken, "broken.wav: not a readable sound"),
        ({"bytes": b"noise", "path": "row 7.wav"}, "row 7.wav: not a readable sound"),
        (b"", "bytes in memory: not a readable sound"),
        (silent, r"picture.png: not a readable sound"),
        (film, "film.mp4: holds no sound"),
        (empty, "empty.wav: the sound has zero length"),
        ([], "the sound has zero length"),
        (tmp_path / "absent.wav", "absent.wav: no such file"),
        (tmp_path, "no such file"),
        ({"bytes": None, "path": None}, "a sound is a mapping with bytes, path: it needs 'bytes' or 'path'"),
        ({"array": [0.0, 1.0]}, "sampling_rate is None"),
        ({"array": [0.0, 1.0], "sampling_rate": 0}, "sampling_rate is 0 Hz"),
        ([0.0, float("nan")], "not finite"),
        (encoded(np.full(100, np.inf, np.float32), subtype="FLOAT"), "not finite"),
        (np.zeros((5000, 2)), r"array of shape \(5000, 2\), not \(samples,\)"),
        (None, "NoneType in memory"),
        (object(), r"not a sound.*Audio\(decode=False\)"),
    ]
    for value, message in cases:
        with pytest.raises(MediaError, match=message):
            load_audio(value, RATE)


def test_no_broken_file_escapes_as_another_error():
    generator = np.random.default_rng(0)
    sources = [encoded(sine(seconds=0.05)), encoded(sine(seconds=0.05), container="FLAC"), with_av("mp4", "aac")]
    decoded, refused = 0, 0
    for source in sources:
        for _ in range(30):
            data = bytearray(source)
            for place in generator.integers(0, 80, 8):
                data[place] = generator.integers(256)
            try:
                decoded += np.isfinite(load_audio(bytes(data), RATE)).all()
            except MediaError:
                refused += 1
    assert refused > 0
    assert decoded + refused == 90


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(pixels).save(file)
    opaque = np.dstack([pixels, np.full((6, 5), 255, np.uint8)])
    forms = {
        "path": file,
        "string": str(file),
        "bytes": file.read_bytes(),
        "mapping of bytes": {"bytes": file.read_bytes(), "path": None},
        "mapping of a path": {"bytes": None, "path": str(file)},
        "PIL": Image.fromarray(pixels),
        "array": pixels,
        "tensor": torch.from_numpy(pixels),
        "RGBA array": opaque,
        "RGBA": Image.fromarray(opaque),
    }
    for form, value in forms.items():
        image = load_image(value)
        assert image.mode == "RGB", form
        assert np.array_equal(np.asarray(image), pixels), form


def test_grey_values_are_repeated_over_the_channels():
    grey = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
    fine = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(fine, "PNG")  # 16 bits a pixel

    for value in (grey, grey[..., None], Image.fromarray(grey), fine.getvalue()):
        assert np.array_equal(np.asarray(load_image(value)), np.dstack([grey] * 3))


def test_a_photograph_stands_upright():
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)

    assert load_image(buffer.getvalue()).size == (4, 8)


def test_unreadable_images_are_named(tmp_path):
    cut = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(cut, "PNG")
    file = tmp_path / "cut.png"
    file.write_bytes(cut.getvalue()[:600])
    cases = [
        (file, "cut.png: not a readable image"),
        ({"bytes": b"noise", "path": "row 3.jpg"}, "row 3.jpg: not an image, or not of a format"),
        (tmp_path / "absent.png", "absent.png: no such file"),
        ({"path": None}, "an image is a mapping with path"),
        (np.zeros((4, 4)), "float64, but needs .* uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (None, "but needs"),
    ]
    for value, message in cases:
        with pytest.raises(MediaError, match=message):
            load_image(value)


def test_files_are_closed(tmp_path):
    """An open handle would raise a ResourceWarning, which is an error here; frames of a clip add up to thousands."""
    Image.new("RGB", (4, 4)).save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")]
    )
    handles = []
    original = Image.open

    def spy(*args, **kwargs):
        handles.append(original(*args, **kwargs))
        return handles[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", spy)
        load_image(tmp_path / "moving.gif")

    assert [getattr(handle, "fp", None) for handle in handles] == [None]
