"""What backbones keep beside plain weights, through loading, training, freezing and re-initialisation."""

import logging

import pytest
import torch
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, assert_moved_back, make_trainer, weights_of
from tiny_backbones import BACKBONES, SIZES, WORDS, images, texts
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AlbertConfig, AutoModel, BertConfig, CLIPModel, ViTConfig, ViTModel

from hf_relearn import InitialWeights, MultimodalForClassification, soft_reinit_
from hf_relearn.method.relearn import interpolate_buffers_
from hf_relearn.models.modeling_encoders import ModalityEncoder

ALPHA = 0.3


def build(name: str, source=None, **kwargs) -> MultimodalForClassification:
    torch.manual_seed(0)
    options = {"m": BACKBONES[name].options}
    return MultimodalForClassification.from_backbones(
        {"m": source if source is not None else BACKBONES[name].make()}, modality_options=options, **kwargs
    )


def encoder_of(model: MultimodalForClassification) -> ModalityEncoder:
    encoder = model.encoders["m"]
    assert isinstance(encoder, ModalityEncoder)
    return encoder


def run(model: nn.Module, inputs: dict[str, Tensor], **kwargs):
    return model(**{f"m_{name}": value for name, value in inputs.items()}, **kwargs)


@torch.no_grad()
def feature(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return run(model, inputs).features["m"]


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Weights that no initialisation gives."""
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))


def train_a_step(model: MultimodalForClassification, name: str, batch: int = 4) -> None:
    run(model.train(), BACKBONES[name].inputs(batch, 3), labels=torch.arange(batch) % 2).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad(set_to_none=True)


def move_back(model: MultimodalForClassification, initial: InitialWeights, alpha: float = ALPHA) -> None:
    soft_reinit_(encoder_of(model), initial.subset("multimodal.encoders.m"), alpha)


@pytest.mark.parametrize("name", ["t5", "umt5", "bart", "pegasus"])
def test_tied_embeddings_come_from_the_checkpoint_and_move_once(name, tmp_path):
    """The checkpoint holds one table under the decoder's name or `shared`, of which the encoder's is an alias."""
    whole = AutoModel.from_config(BACKBONES[name].make())
    shake(whole)
    whole.save_pretrained(tmp_path / "whole")
    table = whole.get_input_embeddings().weight.detach().clone()

    model = build(name, tmp_path / "whole")
    model.save_pretrained(tmp_path / "fused")
    again = MultimodalForClassification.from_pretrained(tmp_path / "fused")

    for loaded in (model, again):
        assert torch.equal(encoder_of(loaded).backbone.get_input_embeddings().weight, table)
    assert not any("decoder" in key or "shared" in key for key in again.state_dict())
    initial = InitialWeights.save(again, tmp_path)
    train_a_step(again, name)
    embeddings = encoder_of(again).backbone.get_input_embeddings().weight
    trained = embeddings.detach().clone()
    move_back(again, initial)
    assert not torch.equal(trained, table)
    assert_moved_back(embeddings, trained, table, ALPHA)


def test_batch_statistics_stay_unless_asked_and_counts_always_do(tmp_path):
    model = build("resnet")
    initial = InitialWeights.save(model, tmp_path)
    train_a_step(model, "resnet")
    train_a_step(model, "resnet")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    counts = {name for name in before if name.endswith("num_batches_tracked")}
    assert counts and all(before[name] == 2 for name in counts)

    move_back(model, initial)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())

    interpolate_buffers_(model, initial, ALPHA)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) == (name in counts), name
        assert buffer.dtype == (torch.int64 if name in counts else torch.float32)
    model.save_pretrained(tmp_path)
    again = dict(MultimodalForClassification.from_pretrained(tmp_path).named_buffers())
    assert all(torch.equal(buffer, again[name]) for name, buffer in model.named_buffers())


@torch.no_grad()
def test_levits_cached_biases_follow_the_weights(tmp_path):
    model = build("levit")
    shake(model)
    inputs = BACKBONES["levit"].inputs(2, 0)
    expected = feature(model, inputs)
    initial = InitialWeights.save(model, tmp_path)
    saved = weights_of(model)
    biases = [name for name in saved if name.endswith("attention_biases")]
    for name, parameter in model.named_parameters():
        if name in biases:
            parameter.add_(10 * torch.randn_like(parameter))

    assert not torch.equal(feature(model, inputs), expected)  # never in training mode in between
    move_back(model, initial, alpha=1.0)
    assert torch.equal(feature(model, inputs), expected)
    shake(model)
    feature(model, inputs)
    model.load_state_dict(saved)
    assert torch.equal(feature(model, inputs), expected)
    assert not any(module.training for module in model.modules())
    half = model.bfloat16()
    assert feature(half, inputs).dtype == torch.bfloat16


def test_the_factors_of_a_normed_weight_move_and_give_its_new_value(tmp_path):
    model = build("wav2vec2")
    initial = InitialWeights.save(model, tmp_path)
    shake(encoder_of(model))
    convolution = encoder_of(model).backbone.encoder.pos_conv_embed.conv
    factors = [convolution.parametrizations.weight.original0, convolution.parametrizations.weight.original1]
    prefix = "multimodal.encoders.m.backbone.encoder.pos_conv_embed.conv.parametrizations.weight.original"
    starts = [initial[f"{prefix}{index}"] for index in range(2)]
    trained, weight = [factor.detach().clone() for factor in factors], convolution.weight.detach().clone()

    move_back(model, initial)

    for factor, old, start in zip(factors, trained, starts, strict=True):
        assert_moved_back(factor, old, start, ALPHA)
        assert not torch.equal(factor, old)
    size, direction = factors
    expected = size * direction / direction.norm(dim=(0, 1), keepdim=True)
    assert torch.allclose(convolution.weight, expected, atol=1e-6)
    assert not torch.equal(convolution.weight, weight)


def test_a_shared_layer_moves_once(tmp_path):
    config = AlbertConfig(**{**SIZES, "num_hidden_layers": 4}, **WORDS, embedding_size=8, num_hidden_groups=1)
    model = build("albert", config)
    assert (
        len({name.split("albert_layer_groups.")[1][0] for name in model.state_dict() if "layer_groups" in name}) == 1
    )
    initial = InitialWeights.save(model, tmp_path)
    train_a_step(model, "albert")
    before = weights_of(model)

    move_back(model, initial)

    name = next(name for name in before if name.endswith("ffn.weight"))
    assert not torch.equal(before[name], initial[name])
    assert_moved_back(model.get_parameter(name), before[name], initial[name], ALPHA)


@pytest.mark.parametrize("name", ["dinov2", "xlnet"])
def test_parameters_that_never_get_a_gradient_keep_their_bits(name, tmp_path):
    model = build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.1)  # values that the formula would round
    initial = InitialWeights.save(model, tmp_path)
    run(model.train(), BACKBONES[name].inputs(4, 3), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    idle = [
        key
        for key, parameter in encoder_of(model).named_parameters(prefix="multimodal.encoders.m")
        if parameter.grad is None
    ]
    torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1).step()

    for _ in range(3):
        move_back(model, initial)

    assert any("mask" in key for key in idle)
    assert all(torch.equal(model.get_parameter(key), initial[key]) for key in idle)


@pytest.mark.parametrize("name", ["whisper", "roformer", "pegasus"])
def test_position_tables_that_are_frozen_from_the_start_stay_frozen(name, tmp_path):
    AutoModel.from_config(BACKBONES[name].make()).save_pretrained(tmp_path / "whole")
    build(name).save_pretrained(tmp_path / "fused")
    loaded = MultimodalForClassification.from_pretrained(tmp_path / "fused", output_loading_info=True)[0]

    for model in (build(name), build(name, tmp_path / "whole"), loaded):
        encoder = encoder_of(model)
        frozen = [key for key, parameter in encoder.named_parameters() if not parameter.requires_grad]
        assert len(frozen) == 1 and frozen[0].endswith("embed_positions.weight")
        encoder.freeze()
        encoder.freeze()  # twice does not forget
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
        encoder.unfreeze()
        assert [key for key, parameter in encoder.named_parameters() if not parameter.requires_grad] == frozen


def test_a_frozen_encoder_stays_in_evaluation_mode_and_keeps_its_statistics():
    model = MultimodalForClassification.from_backbones(
        {"m": BACKBONES["resnet"].make(), "text": BertConfig(**SIZES, **WORDS, hidden_dropout_prob=0.5)}
    )
    for encoder in model.encoders.values():
        encoder.freeze()
    before = weights_of(model.encoders)
    inputs = {f"m_{name}": value for name, value in images(3, 0, size=32).items()}
    inputs |= {f"text_{name}": value for name, value in texts(3, 0).items()}

    first, second = model.train()(**inputs).features, model(**inputs).features

    assert model.training and not any(module.training for module in model.encoders["m"].modules())
    assert all(torch.equal(first[name], second[name]) for name in ("m", "text"))  # no dropout
    assert all(torch.equal(value, before[name]) for name, value in model.encoders.state_dict().items())
    encoder = model.encoders["m"]
    encoder.unfreeze()
    model.train()(**inputs)
    assert encoder.training and not model.encoders["text"].training
    assert not torch.equal(
        dict(encoder.named_buffers())["backbone.embedder.embedder.normalization.running_mean"], torch.zeros(8)
    )


@pytest.mark.parametrize("name", ["bert", "vit", "clap-text-tower", "vjepa2"])
def test_what_nothing_uses_is_left_out(name):
    names = [key for key, _ in build(name).named_parameters()]

    assert not any(".pooler." in key or ".predictor." in key for key in names)
    model = build(name)
    run(model.train(), BACKBONES[name].inputs(2, 0), labels=torch.tensor([0, 1])).loss.backward()
    idle = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


def test_a_mask_that_the_backbone_does_not_take_still_says_what_is_pooled():
    model = build("fnet")
    inputs = texts(2, 0)
    inputs["attention_mask"][0, 5:] = 0

    encoded = encoder_of(model)(**inputs)

    assert encoded.token_mask.sum(dim=1).tolist() == [5, 8]
    assert torch.allclose(encoded.feature[0], encoded.tokens[0, :5].mean(dim=0), atol=1e-6)
    with pytest.raises(TypeError, match="'m_token_type' belongs to no modality"):
        run(model, {**inputs, "token_type": inputs["input_ids"]})


@pytest.mark.parametrize(
    ("name", "expected"), [("whisper", [6, 10]), ("speech-to-text", [3, 5]), ("encodec", [30, 60])]
)
def test_masks_over_the_input_become_masks_over_tokens(name, expected):
    inputs = BACKBONES[name].inputs(2, 0)
    if name == "encodec":
        inputs["padding_mask"] = torch.ones(2, 2400).long()
        inputs["padding_mask"][0, 1200:] = 0
    else:
        inputs["attention_mask"] = torch.ones(2, 20).long()
        inputs["attention_mask"][0, 12:] = 0

    encoded = encoder_of(build(name))(**inputs)

    assert encoded.token_mask.shape == encoded.tokens.shape[:2]
    assert encoded.token_mask.sum(dim=1).tolist() == expected


def test_dtype_and_attention_reach_every_tower(tmp_path):
    whole = CLIPModel(BACKBONES["clip-text-tower"].make())
    whole.save_pretrained(tmp_path / "clip")
    sources = {"vision": tmp_path / "clip", "text": tmp_path / "clip", "sound": BACKBONES["whisper"].make()}
    kwargs = {"dtype": torch.bfloat16, "attn_implementation": "eager"}

    model = MultimodalForClassification.from_backbones(sources, backbone_kwargs=kwargs)
    model.save_pretrained(tmp_path / "fused")
    again = MultimodalForClassification.from_pretrained(
        tmp_path / "fused", dtype=torch.float16, attn_implementation="eager"
    )
    plain = MultimodalForClassification.from_pretrained(tmp_path / "fused")

    for one, dtype, attention in (
        (model, torch.bfloat16, "eager"),
        (again, torch.float16, "eager"),
        (plain, torch.bfloat16, "sdpa"),
    ):
        assert {parameter.dtype for parameter in one.parameters()} == {dtype}
        assert {backbone.config._attn_implementation for backbone in one.backbones.values()} == {attention}


def test_activation_checkpointing_is_switched_on_where_it_can_be(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("hf_relearn"), "propagate", True)
    plain = ViTConfig(**SIZES, image_size=16, patch_size=8)
    model = MultimodalForClassification.from_backbones(
        {"m": plain, "text": BertConfig(**SIZES, **WORDS), "net": BACKBONES["resnet"].make()}
    )
    inputs = {f"m_{name}": value for name, value in images(3, 0).items()}
    inputs |= {f"net_{name}": value for name, value in images(3, 0).items()}
    inputs |= {f"text_{name}": value for name, value in texts(3, 0).items()}
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model.train()(**inputs, labels=torch.tensor([0, 1, 0])).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    expected = gradients()
    model.gradient_checkpointing_enable()

    assert "net (ResNetModel)" in caplog.text and "ViTModel" not in caplog.text
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert isinstance(model.encoders["m"].backbone, ViTModel)
    found = gradients()
    assert len(found) == len(expected)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
    model.gradient_checkpointing_disable()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    with pytest.raises(ValueError, match=r"no encoder supports activation checkpointing: m \(ResNetModel\)"):
        build("resnet").gradient_checkpointing_enable()


class Rows(Dataset):
    """Inputs of three backbones that keep state of their own."""

    kinds = {"picture": "levit", "caption": "t5", "sound": "whisper"}

    def __init__(self, size: int, seed: int = 0):
        self.inputs = {
            f"{modality}_{name}": values
            for modality, backbone in self.kinds.items()
            for name, values in BACKBONES[backbone].inputs(size, seed).items()
        }
        self.labels = torch.arange(size) % 3

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {name: values[index] for name, values in self.inputs.items()} | {"labels": self.labels[index]}


@pytest.mark.filterwarnings("ignore::hf_relearn.method.diagnosis.DiagnosisWarning")  # the inputs mean nothing
@FEW_SAMPLES
@CONSTANT_STRENGTH
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    def train(folder, **kwargs):
        torch.manual_seed(0)
        model = MultimodalForClassification.from_backbones(
            {modality: BACKBONES[name].make() for modality, name in Rows.kinds.items()},
            id2label={index: str(index) for index in range(3)},
        )
        trainer = make_trainer(
            folder,
            model,
            Rows(24),
            {"eval_dataset": Rows(6, seed=1)},
            num_train_epochs=3,
            save_strategy="epoch",
            relearn_alpha="0.5",
        )
        trainer.train(**kwargs)
        return model

    first = train(tmp_path)
    resumed = train(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    flags = {name: parameter.requires_grad for name, parameter in first.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in resumed.named_parameters()} == flags
    assert not all(flags.values())
    expected = weights_of(first)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(resumed).items())
