"""Videos: which frames are taken, from what, and in what shape a backbone gets them."""

import io
import json

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny import vit_config
from transformers import TimesformerConfig, VideoMAEConfig, VivitConfig, VJEPA2Config

from hf_relearn import Augmentation, MultimodalConfig, MultimodalProcessor
from hf_relearn.models import ModalityConfig
from hf_relearn.models.processing_images import ImageInput, VideoInput
from hf_relearn.models.processing_sources import MediaError

PLAIN = {"image_processor_type": "ViTImageProcessorPil", "size": {"height": 8, "width": 8}}
PLAIN |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
STEP = 8  # of grey values from frame to frame


def video(frames: int, codec: str = "mpeg4", form: str = "mp4", **options) -> bytes:
    """Frame number i is grey with the value STEP * i."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.bit_rate = 32, 32, 4_000_000
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(frames):
            picture = np.full((32, 32, 3), STEP * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def frames_seen(value, num_frames: int, augmentation=None) -> list[int]:
    pixels = VideoInput(PLAIN, num_frames)([value], augmentation)["pixel_values"]
    assert pixels.shape == (1, num_frames, 3, 8, 8)
    return (pixels.mean(dim=(0, 2, 3, 4)) * 255 / STEP).round().int().tolist()


@pytest.mark.parametrize(
    ("codec", "form", "options"),
    [
        ("mpeg4", "mp4", {"g": "5", "sc_threshold": "1000000000"}),
        ("libx264", "mp4", {"g": "6", "bf": "2"}),  # frames that refer to later ones
        ("libx264", "mpegts", {"g": "6", "bf": "2"}),  # no index in the file
        ("mpeg4", "avi", {"g": "100", "sc_threshold": "1000000000"}),  # one key frame
        ("mjpeg", "matroska", {}),
        ("libx264", "h264", {"g": "6"}),  # no times at all
    ],
    ids=["mpeg4", "b-frames", "mpegts", "one key frame", "mjpeg", "raw"],
)
def test_the_middles_of_equal_parts_are_decoded(codec, form, options):
    data = video(30, codec, form, **options)

    assert frames_seen(data, 1) == [15]
    assert frames_seen(data, 3) == [5, 15, 25]
    assert frames_seen(data, 30) == list(range(30))


def test_only_what_lies_behind_the_key_frames_is_decoded(monkeypatch):
    data = video(30, g="5", sc_threshold="1000000000")  # a key frame every 5, wherever the picture changes
    passed, decoded = [], []

    class Frame:
        """Counts the pictures that are made of a frame."""

        def __init__(self, frame):
            self.frame = frame

        def __getattr__(self, name):
            return getattr(self.frame, name)

        def to_image(self, **options):
            decoded.append(self.frame.pts)
            return self.frame.to_image(**options)

    class Container:
        """Counts the frames that the decoder gives."""

        def __init__(self, container):
            self.container = container

        def __enter__(self):
            self.container.__enter__()
            return self

        def __exit__(self, *error):
            return self.container.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, **streams):
            for frame in self.container.decode(**streams):
                passed.append(frame.pts)
                yield Frame(frame)

    opened = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: Container(opened(*args, **options)))

    assert frames_seen(data, 2) == [7, 22]
    assert len(decoded) == 2  # pictures in memory
    assert len(passed) == 6  # frames 5, 6, 7 and 20, 21, 22


def test_a_short_video_repeats_frames_in_order():
    assert frames_seen(video(2), 4) == [0, 0, 1, 1]
    assert frames_seen(video(1), 3) == [0, 0, 0]


def test_a_video_may_be_a_path_bytes_a_mapping_frames_or_an_array(tmp_path):
    data = video(9)
    (tmp_path / "clip.mp4").write_bytes(data)
    images = [Image.new("RGB", (20, 20), (STEP * index,) * 3) for index in range(9)]
    path = tmp_path / "clip.mp4"
    array = np.stack([np.asarray(image) for image in images])

    for value in (path, str(path), data, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}):
        assert frames_seen(value, 3) == [1, 4, 7]
    assert frames_seen(images, 3) == frames_seen(array, 3) == [1, 4, 7]
    assert frames_seen(images[5], 3) == [5, 5, 5]


def test_an_image_backbone_with_several_frames_reads_a_video_and_a_moving_gif():
    data, gif = video(9), io.BytesIO()
    images = [Image.new("RGB", (20, 20), (STEP * index,) * 3) for index in range(9)]
    images[0].save(gif, "GIF", save_all=True, append_images=images[1:])
    png = io.BytesIO()
    images[3].save(png, "PNG")

    pixels = ImageInput(PLAIN, num_frames=3)([data, gif.getvalue(), png.getvalue()])["pixel_values"]

    seen = (pixels.mean(dim=(2, 3, 4)) * 255 / STEP).round().int().tolist()
    assert seen == [[1, 4, 7], [1, 4, 7], [3, 3, 3]]


def test_training_takes_random_frames_in_order_and_crops_them_alike():
    data = video(30)
    torch.manual_seed(0)
    flips = Augmentation(image_flip=0.0, image_crop_scale=1.0)

    seen = [frames_seen(data, 3, flips) for _ in range(6)]

    assert len({tuple(frames) for frames in seen}) > 3
    assert all(0 <= a < 10 <= b < 20 <= c < 30 for a, b, c in seen)


def test_what_cannot_be_decoded_is_named(tmp_path):
    whole = video(9)
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.mp4").write_bytes(b"not a video")
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(800), 8000, format="WAV")
    processor = MultimodalProcessor({"clip": {"type": "video", "image_processor": PLAIN, "num_frames": 2}})
    for value, message in (
        (tmp_path / "cut.mp4", "modality 'clip': .*cut.mp4: (not a readable video|holds no video)"),
        (tmp_path / "text.mp4", "modality 'clip': .*text.mp4: not a readable video"),
        (tmp_path / "gone.mp4", "modality 'clip': .*gone.mp4: no such file"),
        (sound.getvalue(), "modality 'clip': bytes in memory: holds no video"),
        ([], "modality 'clip': a sample has an empty list of frames"),
        ({"url": "x"}, "modality 'clip': .*needs 'bytes' or 'path'"),
    ):
        with pytest.raises(MediaError, match=message):
            processor({"clip": [value]})


def video_processor(config, source=None, **options) -> MultimodalProcessor:
    modality = ModalityConfig(config, "video", feature_size=16, token_size=16)
    return MultimodalProcessor.from_model(
        MultimodalConfig(modalities={"clip": modality}), {"clip": source}, {"clip": options}
    )


@pytest.mark.parametrize(
    ("config", "name", "shape"),
    [
        (VideoMAEConfig(**SIZES, image_size=16, num_frames=4), "pixel_values", (4, 3, 16, 16)),
        (TimesformerConfig(**SIZES, image_size=24, num_frames=3), "pixel_values", (3, 3, 24, 24)),
        (VivitConfig(**SIZES, image_size=16, num_frames=2, tubelet_size=[2, 8, 8]), "pixel_values", (2, 3, 16, 16)),
        (VJEPA2Config(crop_size=32, frames_per_clip=4), "pixel_values_videos", (4, 3, 32, 32)),
    ],
    ids=["videomae", "timesformer", "vivit", "vjepa2"],
)
def test_each_video_backbone_gets_its_number_of_frames_under_its_name(config, name, shape):
    inputs = video_processor(config)({"clip": [video(9), [Image.new("RGB", (20, 30))]]})

    assert {key: tuple(value.shape) for key, value in inputs.items()} == {f"clip_{name}": (2, *shape)}
    assert video_processor(config, image_size=40)({"clip": [video(9)]})[f"clip_{name}"].shape[-2:] == (40, 40)


def test_pretrained_settings_hold_for_every_frame(tmp_path):
    settings = {"size": {"shortest_edge": 12}, "do_center_crop": True, "crop_size": {"height": 10, "width": 10}}
    settings |= {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    white = [Image.new("RGB", (20, 30), (255, 255, 255))]
    config = VideoMAEConfig(**SIZES, image_size=16, num_frames=2)
    for file, kind in (
        ("preprocessor_config.json", {"image_processor_type": "VideoMAEImageProcessor"}),
        ("video_preprocessor_config.json", {"video_processor_type": "VideoMAEVideoProcessor"}),
    ):
        folder = tmp_path / file.split(".")[0]
        folder.mkdir()
        (folder / file).write_text(json.dumps({**settings, **kind}))
        pixels = video_processor(config, folder)({"clip": [white]})["clip_pixel_values"]
        assert pixels.shape == (1, 2, 3, 10, 10)
        assert pixels.unique().tolist() == pytest.approx([2.0])

    vivit = {"image_processor_type": "VivitImageProcessor", "offset": True, "rescale_factor": 1 / 127.5}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, **vivit}))
    (folder / "video_preprocessor_config.json").unlink()
    pixels = video_processor(config, folder)({"clip": [white]})["clip_pixel_values"]
    assert pixels.unique().tolist() == pytest.approx([2.0])  # (255 / 127.5 - 1 - 0.5) / 0.25


def test_a_video_processor_comes_back_from_its_file(tmp_path):
    processor = video_processor(VJEPA2Config(crop_size=32, frames_per_clip=4))
    processor.save_pretrained(tmp_path)

    again = MultimodalProcessor.from_pretrained(tmp_path)

    data = video(9)
    first, second = processor({"clip": [data]}), again({"clip": [data]})
    assert torch.equal(first["clip_pixel_values_videos"], second["clip_pixel_values_videos"])


def test_an_image_backbone_of_one_frame_reads_no_video():
    with pytest.raises(MediaError, match="not an image"):
        ImageInput(PLAIN)([video(3)])
    assert vit_config().num_channels == 3
