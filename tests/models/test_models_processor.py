"""The processor: raw values of a batch to the model's inputs."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_models_encoders import wav2vec2_config
from tiny import ast_config, resnet_config, vit_config
from transformers import Wav2Vec2FeatureExtractor

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.models.processing_images import ImageInput
from hf_relearn.models.processing_pretrained import from_settings
from hf_relearn.models.processing_sounds import SpectrogramInput, WaveformInput
from hf_relearn.models.processing_sources import MediaError

build = MultimodalForClassification.from_backbones
IMAGE_SETTINGS = {
    "image_processor_type": "ViTImageProcessorPil",
    "size": {"height": 8, "width": 8},
    "image_mean": [0.0] * 3,
    "image_std": [1.0] * 3,
}


def flat(value: int) -> Image.Image:
    return Image.new("RGB", (10, 12), (value,) * 3)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def frames_seen(available: int, num_frames: int) -> list[int]:
    """Which of `available` frames the processor takes, told by their grey values."""
    image_input = ImageInput(IMAGE_SETTINGS, num_frames=num_frames)
    pixels = image_input([[flat(index) for index in range(available)]])["pixel_values"]
    return (pixels.reshape(num_frames, -1).mean(dim=1) * 255).round().int().tolist()


def test_defaults_suit_the_backbones_and_the_model_takes_the_result():
    model = build(
        {
            "speech": wav2vec2_config(),
            "sound": ast_config(),
            "paper": resnet_config(num_channels=1),
            "clip": vit_config(),
        },
        modality_options={"paper": {"kind": "audio"}, "clip": {"num_frames": 2}},
    )
    processor = MultimodalProcessor.from_model(model.config)
    sounds = [noise(3000), noise(5000)]

    inputs = processor({"clip": [[flat(1)] * 3, [flat(9)]], "speech": sounds, "sound": sounds, "paper": sounds})

    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    assert shapes == {
        "speech_input_values": (2, 5000),
        "speech_attention_mask": (2, 5000),
        "sound_input_values": (2, 16, 16),
        "paper_pixel_values": (2, 1, 257, 188),  # as in the paper's code
        "clip_pixel_values": (2, 2, 3, 16, 16),
    }
    assert inputs["speech_attention_mask"].sum(dim=1).tolist() == [3000, 5000]
    assert model(**inputs).logits.shape == (2, 2)


def test_group_normalised_backbones_get_no_mask():
    model = build({"speech": wav2vec2_config(feat_extract_norm="group", do_stable_layer_norm=False)})

    inputs = MultimodalProcessor.from_model(model.config)({"speech": [noise(3000), noise(5000)]})

    assert list(inputs) == ["speech_input_values"]


def test_options_replace_arguments_of_the_inputs():
    model = build({"sound": ast_config(), "image": vit_config()})
    options = {"sound": {"max_seconds": 0.5}, "image": {"image_size": 12}}

    processor = MultimodalProcessor.from_model(model.config, options=options)

    assert processor.inputs["sound"].max_samples == 8000
    inputs = processor({"sound": [noise(20000)], "image": [flat(3)]})
    assert inputs["image_pixel_values"].shape == (1, 3, 12, 12)
    with pytest.raises(ValueError, match=r"options for \['picture'\], but the modalities are \['sound', 'image'\]"):
        MultimodalProcessor.from_model(model.config, options={"picture": {}})


def test_modalities_that_do_not_fit_are_named():
    processor = MultimodalProcessor({"image": {"type": "image", "image_processor": IMAGE_SETTINGS}})

    with pytest.raises(ValueError, match="has the modalities image, but got image, sound"):
        processor({"image": [flat(1)], "sound": [noise(10)]})
    with pytest.raises(ValueError, match="has the modalities image, but got none"):
        processor({})
    with pytest.raises(ValueError, match="'image': unknown type of input 'smell'; known are image, video, waveform"):
        MultimodalProcessor({"image": {"type": "smell"}})
    with pytest.raises(MediaError, match="modality 'image': row.png: no such file"):
        processor({"image": ["row.png"]})


def test_frames_are_thinned_out_to_the_middles_of_equal_parts():
    assert frames_seen(10, 2) == [2, 7]
    assert frames_seen(9, 3) == [1, 4, 7]
    assert frames_seen(4, 4) == [0, 1, 2, 3]
    assert frames_seen(5, 1) == [2]


def test_frames_stay_with_their_sample():
    pixels = ImageInput(IMAGE_SETTINGS, num_frames=2)([[flat(10), flat(20)], [flat(30), flat(40)], [flat(50)]])

    values = (pixels["pixel_values"].mean(dim=(2, 3, 4)) * 255).round().int().tolist()
    assert values == [[10, 20], [30, 40], [50, 50]]


def test_too_few_frames_are_repeated_in_order():
    assert frames_seen(1, 3) == [0, 0, 0]
    assert frames_seen(2, 4) == [0, 0, 1, 1]


def test_a_sample_without_frames_is_refused():
    with pytest.raises(MediaError, match="empty list of frames"):
        ImageInput(IMAGE_SETTINGS)([[]])


def test_grey_backbones_get_one_channel():
    model = build({"image": vit_config(num_channels=1)})

    inputs = MultimodalProcessor.from_model(model.config)({"image": [flat(0), flat(255)]})

    assert inputs["image_pixel_values"].shape == (2, 1, 16, 16)
    assert inputs["image_pixel_values"].amin(dim=(1, 2, 3)).tolist() == [-1.0, 1.0]
    assert model(**inputs).logits.shape == (2, 2)


def test_spectrogram_shows_the_pitch_and_is_standardised():
    rate = 22050
    tone = np.sin(2 * np.pi * 3000 * np.arange(rate) / rate).astype(np.float32)

    image = SpectrogramInput()([tone])["pixel_values"][0, 0]

    assert image.mean(dim=1).argmax().item() == pytest.approx(3000 * 512 / rate, abs=1)
    assert image.mean().item() == pytest.approx(0, abs=1e-4)
    assert image.std().item() == pytest.approx(1, abs=1e-3)


def test_spectrogram_repeats_short_sounds_and_cuts_long_ones():
    spectrogram = SpectrogramInput(sampling_rate=16000, seconds=1.0)
    short, long = noise(4000), noise(40000)

    images = spectrogram([short, np.tile(short, 4), long, long[:16000]])["pixel_values"]

    assert torch.equal(images[0], images[1])
    assert torch.equal(images[2], images[3])
    assert not torch.equal(images[0], images[2])


def test_spectrogram_takes_the_size_and_channels_of_an_image_backbone():
    model = build({"sound": vit_config()}, modality_options={"sound": {"kind": "audio"}})

    inputs = MultimodalProcessor.from_model(model.config)({"sound": [noise(3000)]})

    assert inputs["sound_pixel_values"].shape == (1, 3, 16, 16)
    assert model(**inputs).logits.shape == (1, 2)


@pytest.mark.parametrize("sound", [np.zeros(8000, np.float32), noise(1), noise(100)], ids=["silence", "1", "100"])
@pytest.mark.parametrize(
    "config", [wav2vec2_config(), ast_config(), resnet_config()], ids=["wav2vec2", "ast", "resnet"]
)
def test_silence_and_the_shortest_sounds_give_finite_features(config, sound):
    model = build({"sound": config}, modality_options={"sound": {"kind": "audio"}})

    inputs = MultimodalProcessor.from_model(model.config)({"sound": [sound]})

    assert torch.isfinite(model(**inputs).features["sound"]).all()


def test_long_sounds_are_cut_and_other_rates_resampled():
    waveform = WaveformInput(Wav2Vec2FeatureExtractor().to_dict(), max_seconds=0.25)

    inputs = waveform([{"array": noise(8000), "sampling_rate": 8000}])

    assert inputs["input_values"].shape == (1, 4000)


@pytest.mark.parametrize("name", ["pipeline", "os", "AutoImageProcessor", "ViTModel", "no such", "", None, 3])
def test_settings_that_name_no_preprocessor_are_refused(name):
    with pytest.raises(ValueError, match="no preprocessor of this release"):
        from_settings({"image_processor_type": name}, "image_processor_type")
    with pytest.raises(ValueError, match="no preprocessor of this release"):
        MultimodalProcessor({"m": {"type": "waveform", "feature_extractor": {"feature_extractor_type": name}}})
    with pytest.raises(ValueError, match="feature_extractor_type is None"):
        from_settings({}, "feature_extractor_type")


def test_values_by_the_arguments_of_other_processors():
    model = build({"speech": wav2vec2_config(), "face": vit_config()})
    processor = MultimodalProcessor.from_model(model.config)
    sounds, faces = [noise(3000), noise(5000)], [flat(1), flat(9)]
    expected, given = processor({"speech": sounds, "face": faces}), processor(audio=sounds, images=faces)
    assert expected.keys() == given.keys()
    assert all(torch.equal(value, given[name]) for name, value in expected.items())
    alone = processor(audio=sounds[0], images=faces[0])
    assert alone["face_pixel_values"].shape[0] == 1
    with pytest.raises(ValueError, match="videos= means no modality of the processor: give the values by name"):
        processor(videos=["a.mp4"])
    with pytest.raises(ValueError, match="give values, or images, not both"):
        processor({"speech": sounds, "face": faces}, images=faces)


def test_hidden_states_are_told_where_to_find():
    model = build({"face": vit_config()})
    pixels = torch.zeros(1, 3, 16, 16)
    with pytest.raises(TypeError, match="output_hidden_states=True is not for a fusion model: `features` of the out"):
        model(face_pixel_values=pixels, output_hidden_states=True)
    model(face_pixel_values=pixels, output_hidden_states=False)
