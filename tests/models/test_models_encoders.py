"""One modality's encoder: its width, its pooling, its frames, its mask."""

import pytest
import torch
from tiny import ast_config, resnet_config, vit_config
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    ConvNextConfig,
    DeiTConfig,
    SwinConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)
from transformers.modeling_outputs import BaseModelOutput

from hf_relearn import MultimodalForClassification
from hf_relearn.models.modeling_pooling import pool

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def wav2vec2_config(**changes) -> Wav2Vec2Config:
    convolutions = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    normed = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    return Wav2Vec2Config(**{**SIZES, **convolutions, **normed, **changes})


def model_of(config, **options) -> MultimodalForClassification:
    torch.manual_seed(0)
    return MultimodalForClassification.from_backbones({"m": config}, modality_options={"m": options})


def feature(model: MultimodalForClassification, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(**{f"m_{name}": value for name, value in inputs.items()}).features["m"]


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "inputs", "width", "kind"),
    [
        (vit_config(), {"pixel_values": images(3, 3, 16, 16)}, 16, "vision"),
        (ast_config(hidden_size=24), {"input_values": images(3, 16, 16)}, 24, "audio"),
        (resnet_config(), {"pixel_values": images(3, 3, 40, 40)}, 16, "vision"),
        (wav2vec2_config(), {"input_values": images(3, 4000)}, 16, "audio"),
        # hidden_size is wrong for an adapter that projects, and absent where widths grow from stage to stage
        (wav2vec2_config(add_adapter=True, output_hidden_size=12), {"input_values": images(3, 8000)}, 12, "audio"),
        (
            ConvNextConfig(hidden_sizes=[4, 8, 12, 20], depths=[1] * 4),
            {"pixel_values": images(3, 3, 64, 64)},
            20,
            "vision",
        ),
        (
            SwinConfig(image_size=16, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2),
            {"pixel_values": images(3, 3, 16, 16)},
            16,
            "vision",
        ),
    ],
    ids=["vit", "ast", "resnet", "wav2vec2", "wav2vec2-adapter", "convnext", "swin"],
)
def test_feature_is_batch_by_width_and_the_width_is_found(config, inputs, width, kind):
    model = model_of(config)

    output = feature(model, **inputs)

    assert output.shape == (3, width)
    assert model.config.modalities["m"].feature_size == width
    assert model.config.modalities["m"].kind == kind
    assert model.classifier.in_features == width
    assert (output - output[0]).abs().amax(dim=1)[1:].min() > 1e-4  # every sample has a feature of its own


def test_resnet_feature_differs_between_inputs_of_one_batch_and_stays_in_evaluation():
    """A default-initialised BatchNorm net may give one feature for every input, and tests on it would say nothing."""
    model = model_of(resnet_config())
    inputs = images(4, 3, 32, 32)

    first, again = feature(model, pixel_values=inputs), feature(model, pixel_values=inputs)

    assert torch.equal(first, again)
    assert torch.pdist(first).min() > 1e-3 * first.norm(dim=1).mean()


def test_construction_leaves_batch_statistics_alone():
    backbone = AutoModel.from_config(resnet_config())
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}

    model_of(backbone)

    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


@pytest.mark.parametrize("config", [vit_config(), resnet_config()], ids=["vit", "resnet"])
def test_frames_are_encoded_one_by_one_and_averaged(config):
    model = model_of(config, num_frames=3)
    frames = images(2, 3, 3, 16, 16)

    together = feature(model, pixel_values=frames)
    single = torch.stack([feature(model, pixel_values=frames[:, index]) for index in range(3)])

    assert torch.allclose(together, single.mean(dim=0), atol=1e-6)
    assert not torch.allclose(together, single[0], atol=1e-4)


def test_masked_mean_ignores_padding():
    model = model_of(wav2vec2_config())
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    short, long = images(3000).numpy(), images(9000, seed=1).numpy()

    alone = extractor([short], sampling_rate=16000, return_tensors="pt", padding=True)
    padded = extractor([short, long], sampling_rate=16000, return_tensors="pt", padding=True)

    expected = feature(model, **alone)[0]
    assert torch.allclose(feature(model, **padded)[0], expected, atol=1e-4)
    unmasked = feature(model, input_values=padded["input_values"])[0]
    assert not torch.allclose(unmasked, expected, atol=1e-2)


def test_masked_mean_over_many_tokens_stays_in_the_range_of_float16():
    mask = torch.ones(1, 1501)
    mask[:, 0] = 0
    for dtype in (torch.float16, torch.bfloat16):  # the sum, 75,000, is too large for one, the count for the other
        output = BaseModelOutput(last_hidden_state=torch.full((1, 1501, 2), 50.0, dtype=dtype))
        pooled = pool(output, "mean", torch.nn.Identity(), mask)
        assert pooled.dtype == dtype and pooled.tolist() == [[50.0, 50.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_backbones_in_half_precision_take_float32_inputs(dtype):
    for config, inputs in ((ast_config(), {"input_values": images(2, 16, 16)}), (vit_config(), {})):
        model = model_of(config).to(dtype)
        inputs = inputs or {"pixel_values": images(2, 3, 16, 16)}
        found = feature(model, **inputs)
        assert found.dtype == dtype
        assert torch.equal(found, feature(model, **{name: value.to(dtype) for name, value in inputs.items()}))


def test_poolings_are_what_they_say():
    backbone = AutoModel.from_config(vit_config())
    inputs = images(2, 3, 16, 16)
    with torch.no_grad():
        output = backbone.eval()(pixel_values=inputs)
    expected = {
        "auto": output.last_hidden_state[:, 0],
        "cls": output.last_hidden_state[:, 0],
        "mean": output.last_hidden_state.mean(dim=1),
        "pooler": output.pooler_output,
    }
    for pooling in ("pooler", "auto", "cls", "mean"):  # the pooling layer is taken off where it is not used
        model = model_of(backbone, pooling=pooling)
        assert torch.equal(feature(model, pixel_values=inputs), expected[pooling]), pooling


def test_auto_pooling_averages_class_and_distillation_tokens():
    backbone = AutoModel.from_config(DeiTConfig(**SIZES, image_size=16, patch_size=8), add_pooling_layer=False)
    inputs = images(2, 3, 16, 16)
    with torch.no_grad():
        backbone.embeddings.distillation_token.normal_()
        tokens = backbone.eval()(pixel_values=inputs).last_hidden_state

    assert not torch.allclose(tokens[:, 0], tokens[:, 1], atol=1e-2)
    assert torch.equal(feature(model_of(backbone), pixel_values=inputs), tokens[:, :2].mean(dim=1))


def test_auto_pooling_takes_the_part_that_belongs_to_the_network():
    """CLIP's class token is normalised after the last layer; that norm would never be trained otherwise."""
    backbone = AutoModel.from_config(CLIPVisionConfig(**SIZES, image_size=16, patch_size=8))
    inputs = images(2, 3, 16, 16)
    with torch.no_grad():
        backbone.post_layernorm.weight.normal_()
        output = backbone.eval()(pixel_values=inputs)

    assert torch.equal(feature(model_of(backbone), pixel_values=inputs), output.pooler_output)
    assert not torch.allclose(output.pooler_output, output.last_hidden_state[:, 0], atol=1e-2)


def test_auto_pooling_of_a_feature_map_is_its_mean():
    backbone = AutoModel.from_config(resnet_config())
    inputs = images(2, 3, 64, 64)
    with torch.no_grad():
        feature_map = backbone.eval()(pixel_values=inputs).last_hidden_state

    assert feature_map.shape[2] > 1
    assert torch.allclose(feature(model_of(backbone), pixel_values=inputs), feature_map.mean(dim=(2, 3)))
    pooled = model_of(backbone, pooling="pooler")
    assert torch.allclose(feature(pooled, pixel_values=inputs), feature_map.mean(dim=(2, 3)), atol=1e-6)


def test_pooling_that_does_not_suit_the_backbone_is_refused():
    with pytest.raises(ValueError, match="'m'.*pooling 'cls' needs tokens"):
        model_of(resnet_config(), pooling="cls")
    with pytest.raises(ValueError, match="'m'.*pooling 'pooler' needs a pooler_output"):
        model_of(wav2vec2_config(), pooling="pooler")
    with pytest.raises(ValueError, match="'m'.*unknown pooling 'max'"):
        model_of(vit_config(), pooling="max")
