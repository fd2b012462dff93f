"""Augment raw images and sounds, for training batches only."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image


@dataclass(frozen=True)
class Augmentation:
    """Augment training batches, never evaluation. Draws from torch's global generator, which
    `MultimodalRelearnTrainer` seeds for every training batch by seed, epoch and rows: a resumed run draws what the
    uninterrupted one would have drawn, also in the middle of an epoch and with worker processes.

    Args:
        image_crop_scale: smallest share of an image's area that a random crop keeps; 1.0 does not crop.
        image_flip: probability of mirroring an image (all frames of a sample alike).
        audio_gain_db: largest change of loudness in dB, either way.
        audio_shift: largest circular shift in time, as a share of the length, either way.

    Raises:
        ValueError: for a value out of its range.
    """

    image_crop_scale: float = 0.7
    image_flip: float = 0.5
    audio_gain_db: float = 6.0
    audio_shift: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.image_crop_scale <= 1:
            raise ValueError(f"image_crop_scale is {self.image_crop_scale}, but it is a share in (0, 1]")
        if not 0 <= self.image_flip <= 1:
            raise ValueError(f"image_flip is {self.image_flip}, but it is a probability")
        if not self.audio_gain_db >= 0:
            raise ValueError(f"audio_gain_db is {self.audio_gain_db}, but it is a largest change, 0 or more")
        if not 0 <= self.audio_shift <= 1:
            raise ValueError(f"audio_shift is {self.audio_shift}, but it is a share in [0, 1]")

    def images(self, images: list[Image.Image]) -> list[Image.Image]:
        """Crop and mirror the frames of one sample alike."""
        scale, left, top, flip = torch.rand(4).tolist()
        side = (self.image_crop_scale + (1 - self.image_crop_scale) * scale) ** 0.5
        output = []
        for image in images:
            width, height = image.width * side, image.height * side
            x, y = left * (image.width - width), top * (image.height - height)
            if side < 1:
                image = image.resize(image.size, Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))
            if flip < self.image_flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            output.append(image)
        return output

    def waveform(self, waveform: np.ndarray) -> np.ndarray:
        """Change loudness and shift a (samples,) waveform in time."""
        gain, shift = (2 * torch.rand(2) - 1).tolist()
        shifted = np.roll(waveform, round(shift * self.audio_shift * len(waveform)))
        return (shifted * 10 ** (gain * self.audio_gain_db / 20)).astype(np.float32)
