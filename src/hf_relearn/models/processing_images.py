"""How images and videos become a backbone's inputs."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .processing_augmentation import Augmentation
from .processing_media import load_image
from .processing_preprocessors import from_settings
from .processing_video import load_frames


class ImageInput:
    """Images, or several frames a sample, through an image processor of transformers.

    Args:
        image_processor: settings of an image processor, with its class name under `image_processor_type`.
        num_frames: images per sample; more are thinned out evenly, fewer are repeated. With more than one, a sample is
            a list of images or a video (see `load_frames`).
        num_channels: 3, or 1 for a backbone that sees grey values.
        input_names: which of the processor's outputs the backbone takes.
    """

    type: ClassVar[str] = "image"

    def __init__(
        self,
        image_processor: dict[str, Any],
        num_frames: int = 1,
        num_channels: int = 3,
        input_names: Sequence[str] = ("pixel_values",),
    ):
        self.settings = {
            "image_processor": image_processor,
            "num_frames": num_frames,
            "num_channels": num_channels,
            "input_names": list(input_names),
        }
        self.num_frames = num_frames
        self.num_channels = num_channels
        self.reads_videos = num_frames > 1
        self.input_names = list(input_names)
        self.image_processor = from_settings(image_processor, "image_processor_type")

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return `pixel_values`, (batch, channels, height, width) or (batch, frames, channels, height, width), and
        what else of the image processor's outputs the backbone takes."""
        tensors = self._tensors([image for value in values for image in self._images(value, augmentation)])
        if self.num_frames > 1:
            tensors = {name: tensor.unflatten(0, (-1, self.num_frames)) for name, tensor in tensors.items()}
        return tensors

    def _images(self, value: Any, augmentation: Augmentation | None) -> list:
        if self.reads_videos or isinstance(value, (list, tuple)):
            images = load_frames(value, lambda available: frame_indices(available, self.num_frames, augmentation))
        else:
            images = [load_image(value)]
        return augmentation.images(images) if augmentation else images

    def _tensors(self, images: list) -> dict[str, Tensor]:
        output = self.image_processor(images, return_tensors="pt")
        tensors = {name: output[name] for name in self.input_names}
        if self.num_channels == 1:
            tensors["pixel_values"] = tensors["pixel_values"].mean(dim=1, keepdim=True)
        return tensors


class VideoInput(ImageInput):
    """Videos, or lists of images, through an image processor of transformers, frame by frame, for a video backbone.

    transformers has video processors, too; they need torchvision and do to each frame what an image processor does.

    Args:
        image_processor: settings of an image processor, with its class name under `image_processor_type`.
        num_frames: frames per sample that the backbone takes: the middles of as many equal parts of the video, a
            random place in each part for training; a shorter video repeats frames.
        num_channels: 3, or 1 for a backbone that sees grey values.
        input_name: the backbone's argument, `"pixel_values"` or `"pixel_values_videos"`.
    """

    type: ClassVar[str] = "video"

    def __init__(
        self,
        image_processor: dict[str, Any],
        num_frames: int,
        num_channels: int = 3,
        input_name: str = "pixel_values",
    ):
        super().__init__(image_processor, num_frames, num_channels)
        self.reads_videos = True
        self.input_name = input_name
        del self.settings["input_names"]
        self.settings["input_name"] = input_name

    def __call__(self, values: Sequence[Any], augmentation: Augmentation | None = None) -> dict[str, Tensor]:
        """Return the backbone's argument, (batch, frames, channels, height, width)."""
        frames = self._tensors([image for value in values for image in self._images(value, augmentation)])
        return {self.input_name: frames["pixel_values"].unflatten(0, (-1, self.num_frames))}


def frame_indices(available: int, num_frames: int, augmentation: Augmentation | None) -> list[int]:
    """The middle of each of `num_frames` equal segments; a random place in each for training."""
    place = torch.rand(num_frames).numpy() if augmentation else np.full(num_frames, 0.5)
    return ((np.arange(num_frames) + place) * available / num_frames).astype(int).tolist()
