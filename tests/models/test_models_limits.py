"""Images and sounds that are larger than they look are refused, with a clear error and in bounded memory."""

import io
import resource
import struct
import warnings
import zlib

import av
import numpy as np
import pytest
import soundfile

from hf_relearn.models.processing_media import load_audio, load_image
from hf_relearn.models.processing_sources import MediaError

ROOM = 64_000  # kB that an error may cost


def peak_of(function) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    function()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def png(width: int, height: int) -> bytes:
    """A black picture, of a few kilobytes whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + width // 8 + 1)
    rows = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (9_000, 9_000), (40_000, 40_000)])
def test_a_huge_image_is_refused_before_it_is_decoded(width, height):
    data = png(width, 10)
    data = data[:20] + struct.pack(">I", height) + data[24:]  # the size is all that is looked at
    data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]

    def load():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, of images that it decodes nevertheless
            with pytest.raises(MediaError, match="too many pixels|at most 64,000,000 is allowed"):
                load_image(data)

    assert peak_of(load) < ROOM
    with pytest.raises(MediaError, match="too many pixels|at most 64,000,000 is allowed"):
        load_image(data)


def test_an_ordinary_photograph_is_not_too_large():
    assert load_image(png(4000, 3000)).size == (4000, 3000)


def wav(promised: int, held: int = 3200) -> bytes:
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    sizes = struct.pack("<I", min(promised + 36, 2**32 - 1)), struct.pack("<I", promised)
    return b"RIFF" + sizes[0] + b"WAVEfmt " + form + b"data" + sizes[1] + bytes(held)


@pytest.mark.parametrize("promised", [4_000_000_000, 2**32 - 1, 2**32 - 16])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_wav_header_that_promises_4_gb_is_refused(promised, kind, tmp_path):
    source = wav(promised)
    if kind == "file":
        (tmp_path / "bomb.wav").write_bytes(source)
        source = str(tmp_path / "bomb.wav")

    def load():
        with pytest.raises(MediaError, match="its header promises"):
            load_audio(source, 16000)

    assert peak_of(load) < ROOM


def test_a_flac_header_that_promises_terabytes_is_refused():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(1600), 16000, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"

    def load():
        with pytest.raises(MediaError, match="its header promises"):
            load_audio(bytes(data), 16000)

    assert peak_of(load) < ROOM


def test_a_sound_that_ends_before_its_header_says_is_read_as_far_as_it_goes():
    assert len(load_audio(wav(promised=6400, held=3200), 16000)) == 1600


def test_decoded_samples_count_where_a_header_says_nothing(monkeypatch):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flv") as file:  # a container that libsndfile does not know
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for part in (frame, None):
            file.mux(stream.encode(part))
    assert len(load_audio(buffer.getvalue(), 16000)) > 15000
    monkeypatch.setenv("HF_RELEARN_LIMITS", str(8000 / 2**26))
    with pytest.raises(MediaError, match="at most 8,000 is allowed"):
        load_audio(buffer.getvalue(), 16000)
