"""One contract for every family of backbones: what the model, the method and the files need of it."""

import pytest
import torch
from families import families
from tiny import assert_moved_back
from tiny_backbones import BACKBONES, Backbone
from torch import Tensor, nn

from hf_relearn import InitialWeights, MultimodalForClassification, diagnose, soft_reinit_
from hf_relearn.training.checkpoints import reload_weights

ALPHA = 0.3
NAME = "tower"


def build(backbone: Backbone, seed: int = 0) -> MultimodalForClassification:
    """A model whose weights are far from those of any initialisation, with which many nets are constant."""
    torch.manual_seed(seed)
    labels = {index: f"class {index}" for index in range(3)}
    options = {NAME: backbone.options}
    model = MultimodalForClassification.from_backbones(
        {NAME: backbone.make()}, modality_options=options, id2label=labels
    )
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.add_(torch.randn_like(parameter) / fan_in**0.5)
    set_batch_statistics(model, backbone)
    return model


@torch.no_grad()
def set_batch_statistics(model: nn.Module, backbone: Backbone) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        forward(model.train(), backbone.inputs(8, 9))
        model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def forward(model: nn.Module, inputs: dict[str, Tensor], **kwargs):
    return model(**{f"{NAME}_{argument}": value for argument, value in inputs.items()}, **kwargs)


@torch.no_grad()
def features(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return forward(model, inputs).features[NAME]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def check_features(model: MultimodalForClassification, backbone: Backbone) -> None:
    found = model.config.modalities[NAME]
    assert (found.kind, found.pooling) == (backbone.kind, backbone.pooling)
    inputs = backbone.inputs(4, 1)

    together, again = features(model, inputs), features(model, inputs)
    alone = features(model, {name: value[1:2] for name, value in inputs.items()})

    assert together.shape == (4, found.feature_size)
    assert torch.isfinite(together).all() and torch.equal(together, again)
    assert torch.pdist(together).min() > 1e-3 * together.norm(dim=1).mean()
    assert torch.allclose(together[1:2], alone, atol=1e-4, rtol=1e-3)
    encoded = model.encoders[NAME](**inputs)
    assert encoded.tokens.ndim == 3 and encoded.tokens.shape[-1] == found.token_size
    assert encoded.token_mask is None or encoded.token_mask.shape == encoded.tokens.shape[:2]


def check_padding(model: MultimodalForClassification, backbone: Backbone) -> None:
    inputs = backbone.inputs(2, 2)
    mask = inputs.pop("attention_mask", torch.ones_like(next(iter(inputs.values())), dtype=torch.long))
    ((name, values),) = inputs.items()
    expected = features(model, {name: values, "attention_mask": mask})
    padding, sides = values.shape[1] // 2, ["right"]
    if backbone.kind == "text" and backbone.pooling == "last":
        sides.append("left")
    for side in sides:
        where = (padding, 0) if side == "left" else (0, padding)
        padded = {name: nn.functional.pad(values, where), "attention_mask": nn.functional.pad(mask, where)}
        assert torch.allclose(features(model, padded), expected, atol=1e-3), side


def train_a_step(model: MultimodalForClassification, backbone: Backbone) -> set[str]:
    """Returns the names of the parameters that got a gradient."""
    model.train()
    loss = forward(model, backbone.inputs(4, 3), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    assert torch.isfinite(loss)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad(set_to_none=True)
    model.eval()
    return {name for name in named if name.startswith("multimodal.encoders.")}


def check_reinit(model: MultimodalForClassification, initial: InitialWeights, trained: set[str]) -> None:
    prefix = f"multimodal.encoders.{NAME}"
    before = state(model)
    moving = {name for name, parameter in model.named_parameters() if parameter.requires_grad and name in trained}

    soft_reinit_(model.get_submodule(prefix), initial.subset(prefix), ALPHA)

    after = state(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= moving and len(moved) > 0.5 * len(moving)
    for name in moved:
        assert_moved_back(after[name], before[name], initial[name], ALPHA)


def check_diagnosis(model: MultimodalForClassification, backbone: Backbone) -> None:
    parts = [features(model, backbone.inputs(size, seed)).numpy() for size, seed in ((12, 5), (9, 6))]
    labels = [[index % 3 for index in range(len(part))] for part in parts]
    found = diagnose({NAME: parts[0]}, labels[0], {NAME: parts[1]}, labels[1], num_classes=3, sampling="matched")[NAME]
    assert 1 / 3 <= found.train_purity <= 1 and 0 <= found.alpha < 1


@pytest.mark.filterwarnings("ignore::hf_relearn.method.diagnosis.DiagnosisWarning")  # the features mean nothing
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM in transformers
@pytest.mark.parametrize("name", families(BACKBONES))
def test_backbone(name, tmp_path):
    if name == "timm":
        pytest.importorskip("timm", reason="backbones of timm need the package timm (and torchvision)")
    backbone = BACKBONES[name]
    model = build(backbone)

    check_features(model, backbone)
    if backbone.pads:
        check_padding(model, backbone)
    encoders = f"multimodal.encoders.{NAME}"
    initial = InitialWeights.save(model, tmp_path / "initial", prefixes=[encoders])
    trained = train_a_step(model, backbone)
    assert trained
    check_diagnosis(model, backbone)
    check_reinit(model, initial, trained)

    inputs = backbone.inputs(4, 4)
    with torch.no_grad():
        expected = forward(model, inputs).logits
        model.save_pretrained(tmp_path)
        again = MultimodalForClassification.from_pretrained(tmp_path)
        assert torch.allclose(forward(again, inputs).logits, expected, rtol=0, atol=1e-6)
        flags = [parameter.requires_grad for parameter in model.parameters()]
        assert [parameter.requires_grad for parameter in again.parameters()] == flags
        resumed = build(backbone, seed=1)
        reload_weights(resumed, tmp_path)
        assert torch.allclose(forward(resumed, inputs).logits, expected, rtol=0, atol=1e-6)
