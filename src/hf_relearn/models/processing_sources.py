"""Open media from the file or bytes of a raw value, as one of the named formats only."""

import io
import os
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import av
from PIL import Image

from .configuration_limits import excess, limit

# Other formats of these libraries start programs, open further files or listen on the network.
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SOUND_FORMATS = ("AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX")
CONTAINER_FORMATS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,gif,h264,hevc,m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,ogg,w64,"
    "wav,webm"
)


class RawValueError(ValueError):
    """A raw value that a modality's input cannot be made of."""


class MediaError(RawValueError):
    """A sound, image or video that cannot be decoded."""


def open_container(source: Any) -> Any:
    """Open a container of `CONTAINER_FORMATS` with PyAV, which then opens no other file or address.

    Args:
        source: a path or a seekable binary file.

    Raises:
        av.FFmpegError: for other formats, and for pictures of more pixels than are allowed.
    """
    source = os.path.abspath(source) if isinstance(source, str) else source  # never taken for an address
    return av.open(
        source,
        options={
            "format_whitelist": CONTAINER_FORMATS,
            "protocol_whitelist": "file",
            "max_pixels": str(limit("image pixels")),
        },
    )


def wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a WAV file: name, the size that its header promises, and where its content begins.

    Args:
        data: the file or its beginning; nothing comes of other files.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        yield name, size, position + 8
        position += 8 + size + size % 2  # chunks are padded to an even length


@cache
def _image_formats() -> tuple[str, ...]:
    """Return those of `IMAGE_FORMATS` that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def open_image(value: Any, what: str = "an image") -> Image.Image:
    """Open an image of `IMAGE_FORMATS` with Pillow, without decoding it.

    Args:
        value: a path, bytes, or a mapping with `bytes` or `path`.
        what: to call it in a message.

    Raises:
        MediaError: if there is no such file, or the image has more pixels than are allowed.
        OSError: if it is not an image of these formats.
    """
    try:
        image = Image.open(encoded(value, what), formats=_image_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own bounds
        raise MediaError(f"{describe(value)}: the image has too many pixels to be decoded ({error})") from error
    number = f"{describe(value)}: the number of pixels ({image.width} × {image.height})"
    if reason := excess("image pixels", image.width * image.height, number):
        image.close()
        raise MediaError(reason)
    return image


def encoded(value: Any, what: str) -> Any:
    """Return the path or file object to decode.

    Args:
        value: a path, bytes, or a mapping with `bytes` or `path`.
        what: what to call it in a message.

    Raises:
        MediaError: if there is no such file, or the mapping holds neither.
    """
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return io.BytesIO(value["bytes"])
        if value.get("path") is None:
            raise MediaError(f"{what} is a mapping with {', '.join(value) or 'no keys'}: it needs 'bytes' or 'path'")
        value = value["path"]
    if isinstance(value, bytes):
        return io.BytesIO(value)
    if not os.path.isfile(value):
        raise MediaError(f"{value}: no such file")
    return os.fspath(value)


def describe(value: Any) -> str:
    """Name a raw value for a message: by its file if there is one."""
    if isinstance(value, Mapping):
        value = value.get("path") or "bytes"
    return str(value) if isinstance(value, (str, os.PathLike)) else f"{type(value).__name__} in memory"
