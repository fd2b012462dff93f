"""Any backbone may be missing: from all rows of a batch, or from some."""

import copy

import pytest
import torch
from families import families
from fusions import gaze_config
from tiny_backbones import BACKBONES, INSTALLED

from hf_relearn import MultimodalForClassification


def gradients(model, **inputs) -> dict[str, torch.Tensor]:
    """Gradients of the tower's parameters, of those that have one."""
    model.zero_grad()
    loss = model(**inputs, labels=torch.tensor([0, 1, 0])).loss
    loss.backward()
    assert loss.isfinite()
    named = model.encoders["tower"].named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


@pytest.mark.parametrize("name", families(INSTALLED))
def test_any_backbone_may_be_missing(name):
    backbone = BACKBONES[name]
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones(
        {"tower": backbone.make(), "gaze": gaze_config()}, modality_options={"tower": backbone.options}
    )
    with torch.no_grad():  # as initialised, some nets give zeros for everything
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) / max(1.0, parameter[0].numel()) ** 0.5)
    for module in model.modules():  # layers dropped at random get no gradient, whoever is missing
        if hasattr(getattr(module, "config", None), "layerdrop"):
            module.config.layerdrop = 0.0
    model.train()
    buffers = copy.deepcopy(dict(model.encoders["tower"].named_buffers()))
    gaze = {"gaze_feature_values": torch.randn(3, 2, 7)}
    tower = {f"tower_{name}": value for name, value in backbone.inputs(3, 1).items()}

    without = gradients(model, **gaze, tower_present=torch.zeros(3, dtype=torch.bool))

    assert not any(value.any() for value in without.values())
    assert all(torch.equal(value, buffers[name]) for name, value in model.encoders["tower"].named_buffers())
    assert set(gradients(model, **gaze, **tower)) <= set(without)  # what another process waits for

    model.eval()
    present = torch.tensor([True, False, True])
    with torch.no_grad():
        some = model(**gaze, **tower, tower_present=present).features["tower"]
        everyone = model(**gaze, **tower).features["tower"]
    assert torch.allclose(some[present], everyone[present], rtol=1e-3, atol=1e-4)
    assert not some[1].any() and everyone[1].any()
