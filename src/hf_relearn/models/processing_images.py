"""Prepare images and videos as a backbone's inputs."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .configuration_limits import check_settings, excess, limit
from .processing_augmentation import Augmentation
from .processing_media import load_image
from .processing_pretrained import from_settings
from .processing_sources import MediaError, describe, encoded, open_container, open_image


def load_frames(value: Any, choose: Callable[[int], list[int]]) -> list[Image.Image]:
    """Decode chosen frames of one sample to RGB.

    Args:
        value: a list of images (see `load_image`); a video as path, encoded bytes or a mapping with `bytes` or `path`
            (as `datasets.Video(decode=False)` gives it); a uint8 array (frames, height, width, channels); or a single
            image, which is a video of one frame.
        choose: number of frames -> the indices of those wanted, in ascending order; one may be wanted several times.

    Raises:
        MediaError: if it cannot be decoded or holds no frame; the message names the file.
    """
    if isinstance(value, (Mapping, bytes, str, os.PathLike)):
        return [load_image(value)] * len(choose(1)) if _is_image(value) else decode_video(value, choose)
    if getattr(value, "ndim", None) == 4:
        value = list(np.asarray(value))
    if not isinstance(value, (list, tuple)):
        value = [value]
    if not value:
        raise MediaError("a sample has an empty list of frames")
    indices = choose(len(value))
    decoded: dict[int, Image.Image] = {}
    for index in sorted(set(indices)):
        decoded[index] = load_image(value[index])
        _refuse_if_too_large(decoded[index].size, len(set(indices)), "a list of images")
    return [decoded[index] for index in indices]


def decode_video(value: Any, choose: Callable[[int], list[int]]) -> list[Image.Image]:
    """Decode chosen frames of a video. Its packets are read once to count the frames; then only what lies between
    the wanted frames and the key frames before them is decoded.

    Args and errors are those of `load_frames`.
    """
    origin = describe(value)
    try:
        with open_container(encoded(value, "a video")) as container:
            if not container.streams.video:
                raise MediaError(f"{origin}: holds no video")
            codec = container.streams.video[0].codec_context
            size = codec.width, codec.height
            _refuse_if_too_large(size, 1, origin)
            packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
        times = sorted({time for time, _ in packets if time is not None})
        keys = sorted(time for time, is_key in packets if time is not None and is_key)
        count = len(times)
        if any(time is None for time, _ in packets):
            count, times = len(packets), []
        if not count:
            raise MediaError(f"{origin}: holds no video frames")
        indices = choose(count)
        _refuse_if_too_large(size, len(set(indices)), origin)
        found = _frames_at(value, [times[index] for index in indices], keys) if times else None
        if found is None:
            found = _frames_in_order(value, indices)
    except MediaError:
        raise
    except (av.FFmpegError, ValueError, MemoryError) as error:
        most = f"{limit('image pixels'):,}"
        raise MediaError(
            f"{origin}: not a readable video, or of a format that is not read, or of more than {most} pixels a frame "
            f"({error})"
        ) from error
    if not found:
        raise MediaError(f"{origin}: holds no video frames")
    return found


def _refuse_if_too_large(size: tuple[int, int], frames: int, origin: str) -> None:
    pixels = size[0] * size[1]
    number = f"the number of pixels ({size[0]} × {size[1]}"
    reason = excess("image pixels", pixels, f"{number})")
    reason = reason or excess("video pixels", pixels * frames, f"{number}, {frames} frames)")
    if reason:
        raise MediaError(f"{origin}: {reason}")


def _decoded(container: Any) -> Iterator[av.VideoFrame]:
    """Return the frames of the first video stream; larger pictures than are allowed end it with an error of FFmpeg."""
    stream = container.streams.video[0]
    if not stream.codec_context.is_open:
        stream.codec_context.options = {"max_pixels": str(limit("image pixels"))}
    return container.decode(video=0)


def _frames_at(value: Any, wanted: list[int], keys: list[int]) -> list[Image.Image] | None:
    """Read the frames of given times (in the stream's unit); None if a jump in the file goes astray."""
    found: list[Image.Image] = []
    with open_container(encoded(value, "a video")) as container:
        frames, time = _decoded(container), None
        for target in wanted:
            if time == target:
                found.append(found[-1])
                continue
            key = bisect_right(keys, target) - 1
            if key > 0 and (time is None or keys[key] > time):
                container.seek(keys[key], stream=container.streams.video[0])
                frames = _decoded(container)
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= target), None)
            if frame is None or frame.pts != target:
                return None
            found.append(_upright(frame))
            time = target
    return found


def _frames_in_order(value: Any, indices: list[int]) -> list[Image.Image]:
    """Read the frames of given indices by decoding from the start; a video that ends early repeats its last frame."""
    found: list[Image.Image] = []
    last = None
    with open_container(encoded(value, "a video")) as container:
        for index, frame in enumerate(_decoded(container)):
            last = frame
            while len(found) < len(indices) and indices[len(found)] == index:
                found.append(_upright(frame))
            if len(found) == len(indices):
                return found
    return found + [_upright(last)] * (len(indices) - len(found)) if last else []


def _upright(frame: av.VideoFrame) -> Image.Image:
    image = frame.to_image()
    rotation = getattr(frame, "rotation", 0)  # how the camera was held, in degrees
    return image.rotate(rotation, expand=True) if rotation else image


def _is_image(value: Any) -> bool:
    try:
        with open_image(value, "an image or a video") as image:
            return image.format != "GIF"  # which moves
    except MediaError:
        raise
    except Exception:  # Pillow's decoders raise nearly anything on what is no image
        return False


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
        check_settings({"num_frames": num_frames, "num_channels": num_channels}, "the processor")
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
        for image in images:
            self._refuse_if_grown(image)
        output = self.image_processor(images, return_tensors="pt")
        tensors = {name: output[name] for name in self.input_names}
        if self.num_channels == 1:
            tensors["pixel_values"] = tensors["pixel_values"].mean(dim=1, keepdim=True)
        return tensors

    def _refuse_if_grown(self, image: Image.Image) -> None:
        """Refuse a long, narrow image that grows too large if its shorter edge is resized."""
        size = dict(getattr(self.image_processor, "size", None) or {})
        edge, most = size.get("shortest_edge"), size.get("longest_edge")
        if not edge or hasattr(self.image_processor, "merge_size"):
            return
        longest = round(edge * max(image.size) / min(image.size))
        pixels = edge * min(longest, most or longest)
        number = f"the number of pixels of an image of {image.width} × {image.height}, resized to {edge} × {longest},"
        if reason := excess("image pixels", pixels, number):
            raise MediaError(reason)


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
    """Return the middle of each of `num_frames` equal segments; a random place in each for training."""
    place = torch.rand(num_frames).numpy() if augmentation else np.full(num_frames, 0.5)
    return ((np.arange(num_frames) + place) * available / num_frames).astype(int).tolist()
