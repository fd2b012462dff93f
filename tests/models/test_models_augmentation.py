"""Augmentation: in training only, reproducible, and alike for all frames of a sample."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ast_config, vit_config

from hf_relearn import Augmentation, MultimodalForClassification, MultimodalProcessor

NOTHING = Augmentation(image_crop_scale=1.0, image_flip=0.0, audio_gain_db=0.0, audio_shift=0.0)
NUMPY_SEEDS = itertools.count()
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32)


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def process(augmentation: Augmentation | None, seed: int = 0) -> dict[str, torch.Tensor]:
    options = {"vision": {"num_frames": 2}}
    model = MultimodalForClassification.from_backbones(
        {"audio": ast_config(), "vision": vit_config()}, modality_options=options
    )
    processor = MultimodalProcessor.from_model(model.config)
    torch.manual_seed(seed)
    np.random.seed(next(NUMPY_SEEDS))  # the other generators decide nothing
    values = {"audio": [SOUND, SOUND], "vision": [[picture(0), picture(1)], [picture(2), picture(3)]]}
    return dict(processor(values, augmentation))


def test_training_batches_differ_and_follow_torchs_seed():
    plain, first, again, other = (
        process(None),
        process(Augmentation()),
        process(Augmentation()),
        process(Augmentation(), seed=5),
    )

    for name in plain:
        assert torch.equal(first[name], again[name]), name
        assert not torch.equal(first[name], plain[name]), name
        assert not torch.equal(first[name], other[name]), name
        assert first[name].shape == plain[name].shape, name
        assert not torch.equal(first[name][0], first[name][1]), name


def test_evaluation_draws_nothing():
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    expected = torch.random.get_rng_state()
    process(None)
    assert torch.equal(torch.random.get_rng_state(), expected)
    torch.random.set_rng_state(state)

    assert all(torch.equal(process(None, seed=1)[name], value) for name, value in process(None, seed=2).items())


def test_every_part_can_be_switched_off():
    torch.manual_seed(0)

    assert np.array_equal(np.asarray(NOTHING.images([picture()])[0]), np.asarray(picture()))
    assert np.array_equal(NOTHING.waveform(SOUND), SOUND)


def test_frames_of_one_sample_are_cropped_and_mirrored_alike():
    mirrored = 0
    for seed in range(12):
        torch.manual_seed(seed)
        first, second = Augmentation().images([picture(), picture()])
        assert np.array_equal(np.asarray(first), np.asarray(second)), seed
        torch.manual_seed(seed)
        (flip,) = dataclasses.replace(NOTHING, image_flip=0.5).images([picture()])
        mirrored += np.array_equal(np.asarray(flip), np.asarray(picture())[:, ::-1])
    assert 0 < mirrored < 12


def test_mirroring_and_cropping_do_what_they_say():
    (mirror,) = dataclasses.replace(NOTHING, image_flip=1.0).images([picture()])
    assert np.array_equal(np.asarray(mirror), np.asarray(picture())[:, ::-1])

    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (200, 1)))
    for seed in range(5):
        torch.manual_seed(seed)
        (crop,) = dataclasses.replace(NOTHING, image_crop_scale=0.25).images([ramp])
        values = np.asarray(crop, dtype=int)
        span = (values[:, -1] - values[:, 0]).mean() / 199
        assert crop.size == ramp.size
        assert 0.45 < span < 1.01  # a quarter of the area is half of the width


def test_a_sound_changes_in_loudness_and_time_within_bounds():
    for seed in range(5):
        torch.manual_seed(seed)
        louder = dataclasses.replace(NOTHING, audio_gain_db=6.0).waveform(SOUND)
        ratio = louder / SOUND
        assert ratio.std() < 1e-4 * ratio.mean()
        assert 10 ** (-6 / 20) <= ratio.mean() <= 10 ** (6 / 20)
        assert louder.dtype == np.float32

        torch.manual_seed(seed)
        shifted = dataclasses.replace(NOTHING, audio_shift=0.1).waveform(SOUND)
        shift = int(np.flatnonzero(shifted == SOUND[0])[0])
        assert np.array_equal(np.roll(SOUND, shift), shifted)
        assert min(shift, len(SOUND) - shift) <= 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_crop_scale", 0.0),
        ("image_crop_scale", 1.5),
        ("image_crop_scale", float("nan")),
        ("image_flip", -0.1),
        ("image_flip", 2.0),
        ("audio_gain_db", -3.0),
        ("audio_gain_db", float("nan")),
        ("audio_shift", -0.1),
        ("audio_shift", 1.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        Augmentation(**{field: value})
