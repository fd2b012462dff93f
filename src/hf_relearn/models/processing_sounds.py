"""Prepare sounds as a backbone's inputs: waveforms, filter banks, spectrograms."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .configuration_limits import check_rate, check_settings, check_size
from .processing_augmentation import Augmentation
from .processing_media import load_audio
from .processing_pretrained import from_settings

_OWN_LENGTHS = ("n_samples", "nb_max_samples")  # what Whisper and CLAP make of their own seconds


class WaveformInput:
    """Sounds through a feature extractor of transformers (wav2vec2's waveforms, AST's filter banks).

    Args:
        feature_extractor: settings of a feature extractor, with its class name under `feature_extractor_type`.
        max_seconds: longer sounds are cut after this many seconds.
        input_names: which of the extractor's outputs the backbone takes; None for all.

    Raises:
        ValueError: for an extractor of several channels, since sounds are decoded to one.
    """

    type: ClassVar[str] = "waveform"

    def __init__(
        self, feature_extractor: dict[str, Any], max_seconds: float = 10.0, input_names: Sequence[str] | None = None
    ):
        self.input_names = None if input_names is None else list(input_names)
        self.settings = {
            "feature_extractor": feature_extractor,
            "max_seconds": max_seconds,
            "input_names": self.input_names,
        }
        self.feature_extractor = from_settings(feature_extractor, "feature_extractor_type")
        self.sampling_rate = self.feature_extractor.sampling_rate
        self.max_samples = _samples(max_seconds, self.sampling_rate, "max_seconds")
        for name in _OWN_LENGTHS:
            check_size("samples", getattr(self.feature_extractor, name, 0) or 0, f"the extractor's {name}")
        hop = getattr(self.feature_extractor, "hop_length", None) or self.sampling_rate
        window = getattr(self.feature_extractor, "n_fft", None) or getattr(
            self.feature_extractor, "fft_window_size", 1
        )
        longest = max(self.max_samples, *(getattr(self.feature_extractor, name, 0) or 0 for name in _OWN_LENGTHS))
        check_size("samples", longest / abs(hop) * window, "the number of values of a spectrogram")
        padding = inspect.signature(self.feature_extractor.__call__).parameters.get("padding")
        self.padding: dict[str, Any] = {}
        if padding is not None and padding.default is False:
            self.padding = {"padding": True}
        elif padding is not None and padding.default == "max_length":  # Whisper, to a number of seconds
            self.padding = {"max_length": round(self.feature_extractor.n_samples)}

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return what the extractor makes: `input_values` or `input_features` and, if it masks padding, a mask."""
        waveforms = load_waveforms(values, self.sampling_rate, self.max_samples, augmentation)
        features = self.feature_extractor(
            waveforms, sampling_rate=self.sampling_rate, return_tensors="pt", **self.padding
        )
        tensors = {name: tensor for name, tensor in features.items() if name in (self.input_names or features)}
        if "is_longer" in tensors:  # CLAP's extractor calls a random sound longer if none is, which none is here
            tensors["is_longer"] = torch.zeros_like(tensors["is_longer"])
        return tensors


class SpectrogramInput:
    """Sounds as one-channel log spectrograms, for an image backbone (as in the paper's code).

    The magnitude of a short-time Fourier transform in natural logarithm, log(|S| + 1e-7). Sounds are repeated or cut
    to `seconds`, then the spectrogram is resized to `size` and standardised by its own mean and deviation.

    Args:
        sampling_rate: Hz.
        seconds: length that every sound is brought to.
        n_fft, hop_length: window and hop, in samples.
        size: (height, width) of the image, frequency by time; None keeps the spectrogram's own.
        num_channels: the spectrogram is repeated over this many channels.
    """

    type: ClassVar[str] = "spectrogram"

    def __init__(
        self,
        sampling_rate: int = 22050,
        seconds: float = 3.0,
        n_fft: int = 512,
        hop_length: int = 353,
        size: Sequence[int] | None = None,
        num_channels: int = 1,
    ):
        self.num_samples = _samples(seconds, sampling_rate, "seconds")
        check_settings({"n_fft": n_fft, "image_size": size, "num_channels": num_channels}, "the spectrogram")
        if hop_length < 1 or n_fft < 1:
            raise ValueError(f"n_fft is {n_fft} and hop_length {hop_length}, but both are at least 1")
        values = (self.num_samples // hop_length + 1) * (n_fft // 2 + 1)
        check_size("samples", values * num_channels, "the number of values of a spectrogram")
        self.sampling_rate = sampling_rate
        self.n_fft, self.hop_length = n_fft, hop_length
        self.size = list(size) if size is not None else None
        self.num_channels = num_channels
        self.settings = {
            "sampling_rate": sampling_rate,
            "seconds": seconds,
            "n_fft": n_fft,
            "hop_length": hop_length,
            "size": self.size,
            "num_channels": num_channels,
        }

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return `pixel_values`, (batch, channels, frequencies, time steps)."""
        waveforms = load_waveforms(values, self.sampling_rate, self.num_samples, augmentation)
        batch = torch.from_numpy(np.stack([np.resize(waveform, self.num_samples) for waveform in waveforms]))
        window = torch.hann_window(self.n_fft)
        spectrum = torch.stft(batch, self.n_fft, self.hop_length, window=window, return_complex=True)
        images = torch.log(spectrum.abs() + 1e-7).unsqueeze(1)
        if self.size is not None:
            images = torch.nn.functional.interpolate(images, size=self.size, mode="bilinear", antialias=True)
        mean, deviation = images.mean(dim=(2, 3), keepdim=True), images.std(dim=(2, 3), keepdim=True)
        images = (images - mean) / deviation.clamp(min=1e-5)
        return {"pixel_values": images.repeat(1, self.num_channels, 1, 1)}


def _samples(seconds: float, sampling_rate: int, name: str) -> int:
    """Return the samples of a length in seconds, which a processor's file may give."""
    check_rate(sampling_rate, "sampling_rate")
    if not seconds > 0:
        raise ValueError(f"{name} is {seconds}, but it is a length above 0")
    check_size("samples", seconds * sampling_rate, f"{name} × sampling_rate ({seconds} × {sampling_rate})")
    return int(seconds * sampling_rate)


def load_waveforms(
    values: Sequence[Any], sampling_rate: int, max_samples: int, augmentation: Augmentation | None
) -> list[np.ndarray]:
    """Decode, augment and cut the sounds of a batch; silence follows those under 25 ms.

    That is one window of the filter banks and of wav2vec2's convolutions, which raise on less.
    """
    waveforms = [load_audio(value, sampling_rate, max_samples / sampling_rate) for value in values]
    if augmentation:
        waveforms = [augmentation.waveform(waveform) for waveform in waveforms]
    shortest = -(-sampling_rate // 40)
    return [np.pad(waveform[:max_samples], (0, max(0, shortest - len(waveform)))) for waveform in waveforms]
