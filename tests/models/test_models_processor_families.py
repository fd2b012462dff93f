"""For every family of backbones the processor makes inputs that the model takes, or says that it cannot."""

import numpy as np
import pytest
import torch
from families import families
from PIL import Image
from tiny import vit_config
from tiny_backbones import BACKBONES, INSTALLED
from tokenizers_of_words import bert_like
from transformers import ClapConfig, EncodecConfig, LayoutLMv3Config, Wav2Vec2FeatureExtractor

from hf_relearn import FeaturesConfig, MultimodalConfig, MultimodalForClassification, MultimodalProcessor
from hf_relearn.models import ModalityConfig

SOUNDS = [np.random.default_rng(seed).uniform(-0.5, 0.5, 5000).astype(np.float32) for seed in range(2)]
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)) for seed in range(2)
]
RAW = {
    "audio": SOUNDS,
    "vision": PICTURES,
    "video": [PICTURES, PICTURES[::-1]],
    "text": ["a red cat", "a dog runs"],
}
OPTIONS = {"text": {"tokenizer": bert_like()}}


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # inside WavLM
@pytest.mark.parametrize("family", families(INSTALLED))
@torch.no_grad()
def test_every_family_takes_what_the_processor_makes(family, tmp_path):
    torch.manual_seed(0)
    backbone = BACKBONES[family]
    model = MultimodalForClassification.from_backbones(
        {"tower": backbone.make()}, modality_options={"tower": backbone.options}
    )
    processor = MultimodalProcessor.from_model(model.config, options={"tower": OPTIONS.get(backbone.kind, {})})
    processor.save_pretrained(tmp_path)
    again = MultimodalProcessor.from_pretrained(tmp_path)

    inputs, reloaded = processor({"tower": RAW[backbone.kind]}), again({"tower": RAW[backbone.kind]})

    features = model(**inputs).features["tower"]
    assert features.shape == (2, model.config.modalities["tower"].feature_size)
    assert torch.isfinite(features).all()
    assert inputs.keys() == reloaded.keys() and all(torch.equal(inputs[name], reloaded[name]) for name in inputs)


def test_features_go_into_their_encoder():
    model = MultimodalForClassification.from_backbones(
        {
            "gaze": FeaturesConfig(input_size=3, hidden_size=8, max_position_embeddings=4),
            "row": FeaturesConfig(input_size=2, hidden_size=8, architecture="mlp"),
        }
    )
    processor = MultimodalProcessor.from_model(model.config, options={"row": {"mean": [1, 1], "std": [2, 2]}})

    inputs = processor({"gaze": [np.ones((2, 3)), np.ones((9, 3))], "row": [[1, 3], [5, 1]]})

    assert inputs["gaze_feature_values"].shape == (2, 4, 3)
    assert inputs["row_feature_values"].tolist() == [[0, 1], [2, 0]]
    assert model(**inputs).logits.shape == (2, 2)


def test_samples_that_lack_modalities_go_through_the_model():
    backbones = {"image": vit_config(), "caption": BACKBONES["bert"].make(), "gaze": FeaturesConfig(input_size=2)}
    model = MultimodalForClassification.from_backbones(backbones)
    processor = MultimodalProcessor.from_model(model.config, options={"caption": OPTIONS["text"]})
    values = {"image": [PICTURES[0], None], "caption": ["a cat", ""], "gaze": [None, None]}

    output = model(**processor(values))

    assert torch.isfinite(output.logits).all()
    assert {name: row.tolist() for name, row in output.present.items()} == {
        "image": [True, False],
        "caption": [True, True],
        "gaze": [False, False],
    }


def test_clap_draws_nothing_at_random_and_a_row_does_not_depend_on_the_others():
    sound = {"spec_size": 32, "num_mel_bins": 8, "enable_fusion": True}
    config = ClapConfig(audio_config=sound).audio_config
    modality = ModalityConfig(ClapConfig(audio_config=sound), "audio", feature_size=8, token_size=8)
    assert config.enable_fusion
    processor = MultimodalProcessor.from_model(MultimodalConfig(modalities={"sound": modality}))

    together = [processor({"sound": SOUNDS}) for _ in range(5)]
    alone = processor({"sound": SOUNDS[:1]})

    assert all(torch.equal(each["sound_input_features"], together[0]["sound_input_features"]) for each in together)
    assert torch.equal(alone["sound_input_features"][0], together[0]["sound_input_features"][0])
    assert not any(each["sound_is_longer"].any() for each in together)


def refusal(config, kind: str, **options) -> str:
    modality = ModalityConfig(config, kind, feature_size=8, token_size=8)
    with pytest.raises(ValueError) as error:
        MultimodalProcessor.from_model(MultimodalConfig(modalities={"tower": modality}), options={"tower": options})
    return str(error.value)


def test_a_backbone_whose_input_cannot_be_made_is_refused():
    waves = Wav2Vec2FeatureExtractor().to_dict()
    patches = BACKBONES["siglip2-vision"].make()
    plain = {"image_processor_type": "ViTImageProcessorPil"}

    assert refusal(BACKBONES["whisper"].make(), "audio", feature_extractor=waves).startswith(
        "modality 'tower': WhisperEncoder takes input_features, but Wav2Vec2FeatureExtractor makes input_values"
    )
    assert "Siglip2VisionModel takes pixel_attention_mask, spatial_shapes, but ViTImage" in refusal(
        patches, "vision", image_processor=plain
    )
    assert "takes 2 channels" in refusal(EncodecConfig(audio_channels=2), "audio")
    assert "takes several kinds of input" in refusal(LayoutLMv3Config(), "vision")
