"""Decoding of sound and images, from whatever form a data set holds them in, with soundfile, PyAV and Pillow."""

import io
import os
import struct
from collections.abc import Mapping
from itertools import chain
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps, UnidentifiedImageError

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


_BLOCK_FRAMES = 1 << 20


class RawValueError(ValueError):
    """A raw value that a modality's input cannot be made of."""


class MediaError(RawValueError):
    """A sound, image or video that cannot be decoded."""


def load_audio(value: Any, sampling_rate: int) -> np.ndarray:
    """Decode a sound to mono at a given rate.

    Args:
        value: a path, encoded bytes, a mapping with `bytes` or `path` (as `datasets.Audio(decode=False)` gives it), or
            one with `array` and `sampling_rate`; a plain array or tensor is taken as a waveform at `sampling_rate`.
            Arrays are (samples,) or (channels, samples); int16 and int32 are scaled to [-1, 1].
        sampling_rate: wanted rate in Hz; other rates are resampled.

    Returns:
        (samples,) float32, in [-1, 1] unless a float array exceeds it.

    Raises:
        MediaError: if it cannot be decoded, holds no samples or values that are not finite; the message names the
            file.
    """
    origin = describe(value)
    if isinstance(value, Mapping) and value.get("array") is not None:
        waveform, rate = _waveform(value["array"], origin), value.get("sampling_rate")
        if not rate or rate < 1:
            raise MediaError(f"{origin}: the mapping with an array has the sampling_rate {rate}, but needs one in Hz")
    elif isinstance(value, (Mapping, bytes, str, os.PathLike)):
        waveform, rate = decode_audio(encoded(value, "a sound"), origin)
    else:
        waveform, rate = _waveform(value, origin), sampling_rate
    if waveform.size == 0:
        raise MediaError(f"{origin}: the sound has zero length")
    if waveform.ndim == 2:
        waveform = waveform.mean(axis=0)
    if not np.isfinite(waveform).all():
        raise MediaError(f"{origin}: the sound holds values that are not finite numbers")
    return waveform if rate == sampling_rate else resample(waveform, int(rate), sampling_rate)


def resample(waveform: np.ndarray, rate: int, sampling_rate: int) -> np.ndarray:
    """Resample a (samples,) float32 waveform from `rate` to `sampling_rate` Hz; the duration stays."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=sampling_rate)
    padded = np.pad(waveform, (0, max(0, rate // 20 - len(waveform))))  # its filter gives nothing for a few samples
    frame = av.AudioFrame.from_ndarray(padded[None], format="flt", layout="mono")
    frame.sample_rate = rate
    parts = [part.to_ndarray()[0] for chunk in (frame, None) for part in resampler.resample(chunk)]
    return np.concatenate(parts)[: -(-len(waveform) * sampling_rate // rate)]


def load_image(value: Any) -> Image.Image:
    """Decode one image to RGB.

    Args:
        value: a PIL image, a path, encoded bytes, a mapping with `bytes` or `path` (as `datasets.Image(decode=False)`
            gives it), or a uint8 array of shape (height, width) or (height, width, channels). An orientation that a
            camera noted is applied; a transparent layer is dropped.

    Raises:
        MediaError: if it cannot be decoded; the message names the file.
    """
    try:
        if isinstance(value, Image.Image):
            return _upright_rgb(value)
        if isinstance(value, (Mapping, bytes, str, os.PathLike)):
            with Image.open(encoded(value, "an image")) as image:
                if reason := image_too_large(*image.size):
                    raise MediaError(f"{describe(value)}: {reason}")
                return _upright_rgb(image)
        return _image_of_array(value).convert("RGB")
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own bounds
        raise MediaError(f"{describe(value)}: the image has too many pixels to be decoded ({error})") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{describe(value)}: not an image, or of a format that Pillow does not know") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
        raise MediaError(f"{describe(value)}: not a readable image ({error})") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # 16-bit grey values, which Pillow would clip at 255
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert("RGB")


def _image_of_array(value: Any) -> Image.Image:
    array = np.asarray(value)
    pixels = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise MediaError(
            f"an image array has the shape {array.shape} and dtype {array.dtype}, but needs (height, width) or "
            "(height, width, channels) and uint8"
        )
    return Image.fromarray(pixels)


def _waveform(value: Any, origin: str) -> np.ndarray:
    """A given array as float32, (samples,) or (channels, samples)."""
    try:
        array = np.asarray(value)
        scale = 2.0 ** (8 * array.dtype.itemsize - 1) if array.dtype in (np.int16, np.int32) else 1.0
        waveform = np.asarray(array, dtype=np.float32) / np.float32(scale)
    except (TypeError, ValueError) as error:
        raise MediaError(
            f"{origin}: not a sound ({error}); give a path, bytes, an array, or the mapping that a data set's column "
            "holds after a cast to Audio(decode=False)"
        ) from error
    if waveform.ndim not in (1, 2) or (waveform.ndim == 2 and waveform.shape[0] > waveform.shape[1] > 0):
        raise MediaError(
            f"{origin}: the sound is an array of shape {array.shape}, not (samples,) or (channels, samples)"
        )
    return waveform


def decode_audio(source: Any, origin: str) -> tuple[np.ndarray, int]:
    """Decode a path or file object to (channels, samples) float32, and its rate in Hz.

    Args:
        source: what `encoded` gives.
        origin: what to call it in a message.

    Raises:
        MediaError: if it cannot be decoded or is too long.
    """
    _refuse_if_too_long(samples_promised_by_wav(source), origin)
    try:
        with soundfile.SoundFile(source) as sound:
            _refuse_if_too_long(sound.frames * sound.channels, origin)
            blocks = [sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)]  # room for what is there only
            while len(blocks[-1]) == _BLOCK_FRAMES:
                blocks.append(sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True))
                _refuse_if_too_long(sum(block.size for block in blocks), origin)
            return np.concatenate(blocks).T, sound.samplerate
    except soundfile.LibsndfileError:
        pass  # not one of libsndfile's formats: PyAV reads the rest
    if hasattr(source, "seek"):
        source.seek(0)
    try:
        with av.open(source) as container:
            resampler = av.AudioResampler(format="fltp")
            frames, samples = [], 0
            for frame in chain(container.decode(audio=0), [None]):
                frames += resampler.resample(frame)
                samples += frame.samples * frame.layout.nb_channels if frame is not None else 0
                _refuse_if_too_long(samples, origin)
            if not frames:
                raise MediaError(f"{origin}: the sound has zero length")
            return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), frames[0].sample_rate
    except MediaError:
        raise
    except IndexError as error:
        raise MediaError(f"{origin}: holds no sound") from error
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise MediaError(f"{origin}: not a readable sound ({error})") from error


def _refuse_if_too_long(samples: int, origin: str) -> None:
    if reason := sound_too_long(samples):
        raise MediaError(f"{origin}: {reason}")


def encoded(value: Any, what: str) -> Any:
    """The path or file object to decode.

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
    """What to call a raw value in a message: its file where there is one."""
    if isinstance(value, Mapping):
        value = value.get("path") or "bytes"
    return str(value) if isinstance(value, (str, os.PathLike)) else f"{type(value).__name__} in memory"
