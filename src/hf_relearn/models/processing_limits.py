"""Bounds on what is decoded, so that a hostile or broken file costs an error and no memory."""

import struct
from typing import Any

MAX_IMAGE_PIXELS = 64_000_000  # 192 MB as RGB; more than the largest photographs of cameras
MAX_SOUND_SAMPLES = 2**28  # over all channels: 4.6 hours of mono at 16 kHz, 1 GB as float32

_WAV_HEADER_BYTES = 1 << 16


def image_too_large(width: int, height: int) -> str | None:
    """Why an image is not decoded, or None if it may be."""
    if width * height <= MAX_IMAGE_PIXELS:
        return None
    return (
        f"the image has {width} × {height} pixels, and at most {MAX_IMAGE_PIXELS // 10**6} million are decoded: "
        "scale it down first"
    )


def sound_too_long(samples: int) -> str | None:
    """Why a sound of so many samples, over all channels, is not decoded, or None if it may be."""
    if samples <= MAX_SOUND_SAMPLES:
        return None
    return (
        f"the sound has (or its header promises) {samples:,} samples, and at most {MAX_SOUND_SAMPLES:,} are decoded: "
        "cut it, or write its header anew (ffmpeg -i FILE NEW_FILE)"
    )


def samples_promised_by_wav(file: Any) -> int:
    """Samples over all channels that the header of a WAV file promises, whatever the file holds; 0 for other files.

    Decoders trust the file's length where it is the shorter one, so they do not tell.

    Args:
        file: a path or a seekable binary file, whose position is kept.
    """
    if isinstance(file, str):
        with open(file, "rb") as opened:
            header = opened.read(_WAV_HEADER_BYTES)
    else:
        position = file.tell()
        header = file.read(_WAV_HEADER_BYTES)
        file.seek(position)
    if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return 0
    offset, sample_bytes = 12, 1
    while offset + 8 <= len(header):
        name, size = struct.unpack_from("<4sI", header, offset)
        if name == b"fmt " and offset + 24 <= len(header):
            (bits,) = struct.unpack_from("<H", header, offset + 22)
            sample_bytes = max(1, bits // 8)
        if name == b"data":
            return size // sample_bytes
        offset += 8 + size + size % 2
    return 0
