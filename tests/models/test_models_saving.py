"""Model and processor on disk: the same numbers come back, found by the Auto classes."""

import io
import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from test_models_encoders import wav2vec2_config
from tiny import ast_config, resnet_config, vit_config
from transformers import AutoConfig, AutoModel, AutoProcessor, CLIPVisionConfig

from hf_relearn import MultimodalConfig, MultimodalForClassification, MultimodalModel, MultimodalProcessor

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}

CASES = {
    "ast+vit": ({"audio": ast_config(), "vision": vit_config()}, {}),
    "wav2vec2+vit": ({"audio": wav2vec2_config(), "vision": vit_config()}, {}),
    "resnet+resnet": (
        {"audio": resnet_config(num_channels=1), "vision": resnet_config()},
        {"audio": {"kind": "audio"}, "vision": {"num_frames": 2}},
    ),
    "wav2vec2+clip": (
        {"audio": wav2vec2_config(), "vision": CLIPVisionConfig(**TINY, image_size=16, patch_size=8)},
        {"vision": {"pooling": "pooler"}},
    ),
}


@pytest.fixture(params=CASES)
def built(request):
    backbones, options = CASES[request.param]
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones(
        backbones, modality_options=options, unimodal_loss_weight=1.0, id2label={0: "a", 1: "b", 2: "c"}
    )
    with torch.no_grad():  # trained weights are no initial ones
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, MultimodalProcessor.from_model(model.config)


def raw_values() -> dict[str, list]:
    generator = np.random.default_rng(0)
    sounds, frames = [], []
    for samples in (4000, 7000):
        buffer = io.BytesIO()
        soundfile.write(buffer, 0.3 * generator.uniform(-1, 1, samples), 16000, format="WAV")
        sounds.append({"bytes": buffer.getvalue(), "path": None})
        frames.append([Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)) for _ in range(2)])
    return {"audio": sounds, "vision": frames}


@torch.no_grad()
def test_reloaded_model_and_processor_give_the_same_logits_to_the_bit(built, tmp_path):
    model, processor = built
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    again = MultimodalForClassification.from_pretrained(tmp_path)
    reloaded = MultimodalProcessor.from_pretrained(tmp_path)

    inputs, inputs_again = processor(raw_values()), reloaded(raw_values())
    assert inputs.keys() == inputs_again.keys()
    assert all(torch.equal(inputs[name], inputs_again[name]) for name in inputs)
    expected, output = model(**inputs), again(**inputs_again)
    assert torch.isfinite(expected.logits).all()
    assert torch.equal(output.logits, expected.logits)
    for name in ("audio", "vision"):
        assert torch.equal(output.features[name], expected.features[name])
        assert torch.equal(output.unimodal_logits[name], expected.unimodal_logits[name])
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}


@torch.no_grad()
def test_auto_classes_find_ours(built, tmp_path):
    model, processor = built
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    assert type(AutoConfig.from_pretrained(tmp_path)) is MultimodalConfig
    found = AutoProcessor.from_pretrained(tmp_path)
    assert type(found) is MultimodalProcessor
    assert found.modalities == processor.modalities
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is MultimodalModel
    inputs = processor(raw_values())
    assert torch.equal(base(**inputs).fused, model.multimodal(**inputs).fused)


@torch.no_grad()
def test_dtype_and_attention_reach_the_towers(built, tmp_path):
    model, _ = built
    model.save_pretrained(tmp_path)

    half = MultimodalForClassification.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")

    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    implementations = {encoder.backbone.config._attn_implementation for encoder in half.encoders.values()}
    assert implementations == {"eager"}


@torch.no_grad()
def test_the_order_of_fusion_survives_a_file_that_is_sorted_by_name(tmp_path):
    model = MultimodalForClassification.from_backbones({"zebra": vit_config(), "ant": vit_config()})
    inputs = {f"{name}_pixel_values": torch.randn(2, 3, 16, 16) for name in ("ant", "zebra")}
    model.save_pretrained(tmp_path)

    again = MultimodalForClassification.from_pretrained(tmp_path)

    assert list(again.encoders) == ["zebra", "ant"]
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_a_half_precision_model_comes_back_in_its_dtype(built, tmp_path):
    model, _ = built
    model.to(torch.bfloat16).save_pretrained(tmp_path)

    again = MultimodalForClassification.from_pretrained(tmp_path)

    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_base_model_carries_over_into_a_classifier(built, tmp_path):
    model, _ = built
    model.multimodal.save_pretrained(tmp_path)

    classifier = MultimodalForClassification.from_pretrained(tmp_path, id2label={0: "x", 1: "y"})

    encoders = classifier.encoders.state_dict()
    assert all(torch.equal(tensor, encoders[name]) for name, tensor in model.encoders.state_dict().items())
    assert classifier.classifier.out_features == 2


def test_processor_file_is_json_and_names_only_settings(built, tmp_path):
    _, processor = built
    processor.save_pretrained(tmp_path)

    settings = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))

    assert settings["processor_class"] == "MultimodalProcessor"
    assert settings["modalities"] == processor.modalities
