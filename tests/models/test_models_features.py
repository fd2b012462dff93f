"""The encoder for features that were extracted already."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from hf_relearn import FeaturesConfig, FeaturesModel, MultimodalForClassification

SIZES = {"input_size": 5, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def encoder(**changes) -> FeaturesModel:
    torch.manual_seed(0)
    model = FeaturesModel(FeaturesConfig(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def sequences(batch: int = 3, steps: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, steps, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["transformer", "mlp"])
def test_shapes_and_gradients_for_sequences_and_vectors(architecture):
    model = encoder(architecture=architecture).train()
    states = model(sequences()).last_hidden_state
    assert states.shape == (3, 4, 8)
    assert not torch.allclose(states[0], states[1])

    vectors = sequences()[:, 0]
    model.eval()
    assert torch.equal(model(vectors).last_hidden_state, model(vectors[:, None]).last_hidden_state)

    states.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["transformer", "mlp"])
def test_padding_is_not_seen(architecture):
    model = encoder(architecture=architecture)
    short, mask = sequences(1, 3), torch.tensor([[1, 1, 1, 0, 0]])
    padded = torch.cat([short, torch.full((1, 2, 5), float("nan"))], dim=1)

    states = model(padded, mask).last_hidden_state

    assert torch.allclose(states[:, :3], model(short).last_hidden_state, atol=1e-5)
    assert states.isfinite().all()
    assert model(padded, torch.zeros(1, 5)).last_hidden_state.isfinite().all()  # an empty sequence


@torch.no_grad()
def test_a_transformer_looks_at_order_and_at_other_steps_and_an_mlp_does_not():
    values = sequences(1)
    changed = values.clone()
    changed[0, -1] += 1
    for architecture, sees in (("transformer", True), ("mlp", False)):
        model = encoder(architecture=architecture)
        states = model(values).last_hidden_state
        assert torch.allclose(model(values.flip(1)).last_hidden_state.flip(1), states, atol=1e-4) != sees
        assert torch.allclose(model(changed).last_hidden_state[:, 0], states[:, 0], atol=1e-4) != sees


@torch.no_grad()
def test_a_fusion_model_takes_it_as_a_modality_and_saves_it(tmp_path):
    torch.manual_seed(0)
    backbones = {"gaze": FeaturesConfig(**SIZES), "table": FeaturesConfig(**{**SIZES, "architecture": "mlp"})}
    model = MultimodalForClassification.from_backbones(backbones, id2label={0: "a", 1: "b"})
    inputs = {
        "gaze_feature_values": sequences(),
        "gaze_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]),
        "table_feature_values": sequences(seed=1)[:, 0],
    }
    output = model(**inputs)

    assert {entry.kind for entry in model.config.modalities.values()} == {"features"}
    assert output.features["gaze"].shape == output.features["table"].shape == (3, 8)
    padded = {**inputs, "gaze_feature_values": inputs["gaze_feature_values"].clone()}
    padded["gaze_feature_values"][1, 1:] = 7.0
    assert torch.allclose(model(**padded).features["gaze"], output.features["gaze"], atol=1e-6)

    model.save_pretrained(tmp_path)
    again = MultimodalForClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**inputs).logits, output.logits)


@torch.no_grad()
def test_auto_classes_find_it(tmp_path):
    model = encoder()
    model.save_pretrained(tmp_path)

    assert type(AutoConfig.from_pretrained(tmp_path)) is FeaturesConfig
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again(sequences()).last_hidden_state, model(sequences()).last_hidden_state)


def test_what_does_not_fit_is_refused():
    model = encoder(max_position_embeddings=4)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 6\), but input_size is 5: \(batch, steps, 5\)"):
        model(torch.zeros(3, 4, 6))
    with pytest.raises(ValueError, match=r"shape \(3, 6\)"):
        model(torch.zeros(3, 6))
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 3\), but the features have 4 steps"):
        model(sequences(), torch.ones(3, 3))
    with pytest.raises(ValueError, match="have 5 steps, but max_position_embeddings is 4: shorten"):
        model(sequences(steps=5))
    with pytest.raises(ValueError, match=r"FeaturesConfig\(input_size=...\)"):
        FeaturesModel(FeaturesConfig())
    with pytest.raises(ValueError, match="hidden_size is 8, which 3 attention heads"):
        FeaturesConfig(**{**SIZES, "num_attention_heads": 3})
    with pytest.raises(ValueError, match="unknown architecture 'rnn': use one of transformer, mlp"):
        FeaturesConfig(**SIZES, architecture="rnn")
    with pytest.raises(ValueError, match="num_hidden_layers is 0"):
        FeaturesConfig(**{**SIZES, "num_hidden_layers": 0})
    with pytest.raises(ValueError, match="dropout is 1.5"):
        FeaturesConfig(**SIZES, dropout=1.5)
