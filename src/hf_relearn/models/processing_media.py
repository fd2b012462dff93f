"""Decode sound and images, from whatever form a data set holds them in, with soundfile, PyAV and Pillow."""

import os
import struct
from collections.abc import Iterator, Mapping
from itertools import chain
from math import ceil
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps, UnidentifiedImageError

from .configuration_limits import check_rate, excess
from .processing_sources import (
    IMAGE_FORMATS,
    SOUND_FORMATS,
    MediaError,
    describe,
    encoded,
    open_container,
    open_image,
    wav_chunks,
)

_WAV_HEADER_BYTES = 1 << 16
_BLOCK_SAMPLES = 1 << 20
_FILTER_SECONDS = 0.05  # beyond the wanted end, so that resampling does not hear it


def samples_promised_by_wav(file: Any) -> int:
    """Count the samples over all channels that a WAV file's header promises; 0 for other files.

    Decoders trust the file's length if it is the shorter one, so they do not tell.

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
    sample_bytes = 1
    for name, size, position in wav_chunks(header):
        if name == b"fmt " and position + 16 <= len(header):
            (bits,) = struct.unpack_from("<H", header, position + 14)
            sample_bytes = max(1, bits // 8)
        if name == b"data":
            return size // sample_bytes
    return 0


def load_audio(value: Any, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Decode a sound to mono at a given rate.

    Args:
        value: a path, encoded bytes, a mapping with `bytes` or `path` (as `datasets.Audio(decode=False)` gives it), or
            one with `array` and `sampling_rate`; a plain array or tensor is taken as a waveform at `sampling_rate`.
            Arrays are (samples,) or (channels, samples); int8, uint8, int16 and int32 are scaled to [-1, 1].
        sampling_rate: wanted rate in Hz; other rates are resampled.
        max_seconds: where decoding stops; None decodes the whole sound, which must then not be longer than allowed.

    Returns:
        (samples,) float32, in [-1, 1] unless a float array exceeds it.

    Raises:
        MediaError: if it cannot be decoded, is too long, has a rate outside 1 kHz to 768 kHz, holds no samples or
            values that are not finite; the message names the file.
    """
    sampling_rate, origin = check_rate(sampling_rate, "the wanted sampling rate"), describe(value)
    if isinstance(value, Mapping) and value.get("array") is not None:
        rate = _rate(value.get("sampling_rate"), origin)
        waveform = _given_waveform(value["array"], origin, _frames_wanted(rate, max_seconds))
    elif isinstance(value, (Mapping, bytes, str, os.PathLike)):
        waveform, rate = decode_audio(encoded(value, "a sound"), origin, max_seconds)
    else:
        rate = sampling_rate
        waveform = _given_waveform(value, origin, _frames_wanted(rate, max_seconds))
    if waveform.size == 0:
        raise MediaError(f"{origin}: the sound has zero length")
    if not np.isfinite(waveform).all():
        raise MediaError(f"{origin}: the sound holds values that are not finite numbers")
    _refuse_if_too_long(len(waveform) * sampling_rate // rate, origin)
    waveform = waveform if rate == sampling_rate else resample(waveform, rate, sampling_rate)
    return waveform if max_seconds is None else waveform[: ceil(max_seconds * sampling_rate)]


def resample(waveform: np.ndarray, rate: int, sampling_rate: int) -> np.ndarray:
    """Resample a (samples,) float32 waveform from `rate` to `sampling_rate` Hz; the duration stays."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=sampling_rate)
    padded = np.pad(waveform, (0, max(0, rate // 20 - len(waveform))))  # its filter gives nothing for a few samples
    frame = av.AudioFrame.from_ndarray(padded[None], format="flt", layout="mono")
    frame.sample_rate = rate
    parts = [part.to_ndarray()[0] for chunk in (frame, None) for part in resampler.resample(chunk)]
    return np.concatenate(parts)[: -(-len(waveform) * sampling_rate // rate)]


def _rate(rate: Any, origin: str) -> int:
    try:
        return check_rate(rate, "the sampling_rate")
    except ValueError as error:
        raise MediaError(f"{origin}: {error}") from error


def _frames_wanted(rate: int, max_seconds: float | None) -> int | None:
    return None if max_seconds is None else ceil((max_seconds + _FILTER_SECONDS) * rate)


def _given_waveform(value: Any, origin: str, wanted: int | None) -> np.ndarray:
    """Return the beginning of a given array as mono float32."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise _no_sound(origin, str(error)) from error
    if array.dtype.kind not in "fiu" or array.dtype in (np.int64, np.uint64, np.uint32, np.uint16):
        reason = "whole numbers of 64 bits or unsigned ones have no scale" if array.dtype.kind in "iu" else ""
        raise _no_sound(origin, f"an array of {array.dtype}{': ' if reason else ''}{reason}")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > array.shape[1] > 0):
        raise MediaError(
            f"{origin}: the sound is an array of shape {array.shape}, not (samples,) or (channels, samples)"
        )
    array = array[..., :wanted]
    waveform = array.astype(np.float32)
    if array.dtype == np.uint8:  # as in WAV files of 8 bits
        waveform -= 128
    if array.dtype.kind in "iu":
        waveform /= 2.0 ** (8 * array.dtype.itemsize - 1)
    return waveform.mean(axis=0) if waveform.ndim == 2 else waveform


def _no_sound(origin: str, reason: str) -> MediaError:
    return MediaError(
        f"{origin}: not a sound ({reason}); give a path, bytes, an array of float, int16 or int32, or the mapping "
        "that a data set's column holds after a cast to Audio(decode=False)"
    )


def decode_audio(source: Any, origin: str, max_seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Return the sound of a file as mono, up to `max_seconds`, and its rate."""
    if max_seconds is None:
        _refuse_if_too_long(samples_promised_by_wav(source), origin)
    try:
        with soundfile.SoundFile(source) as sound:
            if sound.format not in SOUND_FORMATS:
                raise MediaError(f"{origin}: a sound of the format {sound.format}, which is not read")
            rate = _rate(sound.samplerate, origin)
            if max_seconds is None:
                _refuse_if_too_long(sound.frames * sound.channels, origin)
            return _collected(_blocks(sound), rate, max_seconds, origin), rate
    except soundfile.LibsndfileError:
        pass  # not one of libsndfile's formats: PyAV reads the rest
    if hasattr(source, "seek"):
        source.seek(0)
    try:
        with open_container(source) as container:
            if not container.streams.audio:
                raise MediaError(f"{origin}: holds no sound")
            frames = container.decode(audio=0)
            first = next(frames, None)
            if first is None:
                raise MediaError(f"{origin}: the sound has zero length")
            rate = _rate(first.sample_rate, origin)
            return _collected(_resampled_frames(chain([first], frames)), rate, max_seconds, origin), rate
    except MediaError:
        raise
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise MediaError(f"{origin}: not a readable sound, or of a format that is not read ({error})") from error


def _blocks(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    frames = max(1, _BLOCK_SAMPLES // sound.channels)
    while len(block := sound.read(frames, dtype="float32", always_2d=True)):
        yield block.mean(axis=1)


def _resampled_frames(frames: Iterator[Any]) -> Iterator[np.ndarray]:
    resampler = av.AudioResampler(format="fltp")
    for frame in chain(frames, [None]):
        for part in resampler.resample(frame):
            yield part.to_ndarray().mean(axis=0)


def _collected(blocks: Iterator[np.ndarray], rate: int, max_seconds: float | None, origin: str) -> np.ndarray:
    """Blocks of one channel in one array, no more of them than are wanted."""
    wanted, length, kept = _frames_wanted(rate, max_seconds), 0, []
    for block in blocks:
        kept.append(block)
        length += len(block)
        if wanted is not None and length >= wanted:
            break
        _refuse_if_too_long(length, origin)
    return np.concatenate(kept)[:wanted] if kept else np.zeros(0, np.float32)


def _refuse_if_too_long(samples: int, origin: str) -> None:
    if reason := excess("samples", samples, "the number of samples that the sound has, or its header promises,"):
        raise MediaError(f"{origin}: {reason}")


def load_image(value: Any) -> Image.Image:
    """Decode one image to RGB.

    Args:
        value: a PIL image, a path, encoded bytes, a mapping with `bytes` or `path` (as `datasets.Image(decode=False)`
            gives it), or a uint8 array of shape (height, width) or (height, width, channels). An orientation that a
            camera noted is applied; a transparent layer is dropped. Grey values of 16 and 32 bits are scaled to 8:
            whole numbers up to 65535 as 16 bits, fractions up to 1 as shares of white, others by their own range.

    Raises:
        MediaError: if it cannot be decoded; the message names the file.
    """
    try:
        if isinstance(value, Image.Image):
            return _upright_rgb(value)
        if isinstance(value, (Mapping, bytes, str, os.PathLike)):
            with open_image(value) as image:
                return _upright_rgb(image)
        return _image_of_array(value).convert("RGB")
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{describe(value)}: not an image, or not of a format that is read ({', '.join(IMAGE_FORMATS)})"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
        raise MediaError(f"{describe(value)}: not a readable image ({str(error) or type(error).__name__})") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):  # which Pillow would clip at 255
        upright = _eight_bits(np.asarray(upright))
    return upright.convert("RGB")


def _eight_bits(grey: np.ndarray) -> Image.Image:
    low, high = float(grey.min()), float(grey.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds values that are not finite numbers")
    if grey.dtype.kind in "iu":
        top = 65535.0
    else:
        top = 1.0 if high <= 1 else 255.0
    bottom = 0.0
    if low < 0 or high > top:
        bottom, top = low, high
    scaled = (grey.astype(np.float32) - bottom) * np.float32(255 / (top - bottom))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _image_of_array(value: Any) -> Image.Image:
    array = np.asarray(value)
    pixels = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise MediaError(
            f"an image array has the shape {array.shape} and dtype {array.dtype}, but needs (height, width) or "
            "(height, width, channels) and uint8"
        )
    return Image.fromarray(pixels)
