"""How the raw values of one modality become a backbone's inputs: images, waveforms, spectrograms."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import FeatureExtractionMixin, ImageProcessingMixin
from transformers.utils import is_torchvision_available

from .processing_augmentation import Augmentation
from .processing_media import MediaError, load_audio, load_image


class ImageInput:
    """Images, or several frames a sample, through an image processor of transformers.

    Args:
        image_processor: settings of an image processor, with its class name under `image_processor_type`.
        num_frames: images per sample; more are thinned out evenly, fewer are repeated.
        num_channels: 3, or 1 for a backbone that sees grey values.
    """

    type: ClassVar[str] = "image"

    def __init__(self, image_processor: dict[str, Any], num_frames: int = 1, num_channels: int = 3):
        self.settings = {"image_processor": image_processor, "num_frames": num_frames, "num_channels": num_channels}
        self.num_frames = num_frames
        self.num_channels = num_channels
        self.image_processor = _from_settings(image_processor, "image_processor_type")

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return `pixel_values`, (batch, channels, height, width) or (batch, frames, channels, height, width)."""
        images = []
        for value in values:
            frames = value if isinstance(value, (list, tuple)) else [value]
            decoded = [load_image(frames[index]) for index in self._frame_indices(len(frames), augmentation)]
            images += augmentation.images(decoded) if augmentation else decoded
        pixel_values = self.image_processor(images, return_tensors="pt")["pixel_values"]
        if self.num_channels == 1:
            pixel_values = pixel_values.mean(dim=1, keepdim=True)
        if self.num_frames > 1:
            pixel_values = pixel_values.unflatten(0, (-1, self.num_frames))
        return {"pixel_values": pixel_values}

    def _frame_indices(self, available: int, augmentation: Augmentation | None) -> list[int]:
        """The middle of each of `num_frames` equal segments; a random place in each for training."""
        if available == 0:
            raise MediaError("a sample has an empty list of frames")
        place = torch.rand(self.num_frames).numpy() if augmentation else np.full(self.num_frames, 0.5)
        return ((np.arange(self.num_frames) + place) * available / self.num_frames).astype(int).tolist()


class WaveformInput:
    """Sounds through a feature extractor of transformers (wav2vec2's waveforms, AST's filter banks).

    Args:
        feature_extractor: settings of a feature extractor, with its class name under `feature_extractor_type`.
        max_seconds: longer sounds are cut after this many seconds.
    """

    type: ClassVar[str] = "waveform"

    def __init__(self, feature_extractor: dict[str, Any], max_seconds: float = 10.0):
        self.settings = {"feature_extractor": feature_extractor, "max_seconds": max_seconds}
        self.feature_extractor = _from_settings(feature_extractor, "feature_extractor_type")
        self.sampling_rate = self.feature_extractor.sampling_rate
        self.max_samples = int(max_seconds * self.sampling_rate)

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return what the extractor makes: `input_values` and, if it masks padding, `attention_mask`."""
        waveforms = load_waveforms(values, self.sampling_rate, self.max_samples, augmentation)
        options = {} if hasattr(self.feature_extractor, "num_mel_bins") else {"padding": True}
        features = self.feature_extractor(waveforms, sampling_rate=self.sampling_rate, return_tensors="pt", **options)
        return dict(features)


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
        self.sampling_rate = sampling_rate
        self.num_samples = int(seconds * sampling_rate)
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


ModalityInput = ImageInput | WaveformInput | SpectrogramInput
INPUT_TYPES: dict[str, type] = {cls.type: cls for cls in (ImageInput, WaveformInput, SpectrogramInput)}


def load_waveforms(
    values: Sequence[Any], sampling_rate: int, max_samples: int, augmentation: Augmentation | None
) -> list[np.ndarray]:
    """Decode, augment and cut the sounds of a batch; silence follows those under 25 ms.

    That is one window of the filter banks and of wav2vec2's convolutions, which raise on less.
    """
    waveforms = [load_audio(value, sampling_rate) for value in values]
    if augmentation:
        waveforms = [augmentation.waveform(waveform) for waveform in waveforms]
    shortest = -(-sampling_rate // 40)
    return [np.pad(waveform[:max_samples], (0, max(0, shortest - len(waveform)))) for waveform in waveforms]


def _from_settings(settings: dict[str, Any], type_key: str) -> Any:
    """Build a preprocessor of transformers from its settings; only such classes of transformers itself are built."""
    name = settings.get(type_key)
    names = [name] if is_torchvision_available() else [f"{name}Pil", name]
    for candidate in names:
        cls = getattr(transformers, str(candidate), None)
        if isinstance(cls, type) and issubclass(cls, (ImageProcessingMixin, FeatureExtractionMixin)):
            return cls.from_dict(dict(settings))
    raise ValueError(f"{type_key} is {name!r}, which is no preprocessor of this release of transformers")
