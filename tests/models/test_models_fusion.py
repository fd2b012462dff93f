"""The contract of every fusion, a user's own among them."""

import pytest
import torch
from fusions import BATCH, FUSIONS, NAMES, PRESENT, Average, close, gaze_config, inputs, model_with, small
from tiny import ast_config, vit_config

from hf_relearn import MultimodalForClassification
from hf_relearn.models.modeling_encoders import ModalityOutput
from hf_relearn.training.checkpoints import reload_weights

each_fusion = pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: getattr(fusion, "__name__", fusion))


@each_fusion
def test_shapes_and_gradients_of_every_parameter(fusion):
    model = model_with(fusion).train()

    output = model(**inputs(), labels=torch.tensor([0, 1, 2, 3, 0]))
    output.loss.backward()

    assert output.logits.shape == (BATCH, 4)
    assert {name: tuple(value.shape) for name, value in output.features.items()} == {
        "audio": (BATCH, 16),
        "vision": (BATCH, 20),
        "gaze": (BATCH, 12),
    }
    assert model.multimodal(**inputs()).fused.shape == (BATCH, model.multimodal.fused_size)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    for name, encoder in model.encoders.items():
        assert any(parameter.grad.abs().max() > 1e-7 for parameter in encoder.parameters()), name
    without_use = [
        name for name, parameter in model.multimodal.fusion.named_parameters() if not parameter.grad.abs().any()
    ]
    assert without_use == []


@each_fusion
@torch.no_grad()
def test_every_modality_counts_in_the_logits_but_not_in_anothers_feature(fusion):
    model, values = model_with(fusion), inputs()
    before = model(**values)
    for name in NAMES:
        main = next(key for key in values if key.startswith(name))
        after = model(**{**values, main: torch.randn_like(values[main])})
        assert not torch.allclose(after.logits, before.logits, atol=1e-5), name
        for other in NAMES:
            assert torch.equal(after.features[other], before.features[other]) == (other != name)


@pytest.mark.parametrize("fusion", ["film", "cross_attention", "bottleneck"])
@torch.no_grad()
def test_what_is_fused_of_one_modality_depends_on_every_other(fusion):
    model, values = model_with(fusion), inputs()
    before = model.multimodal(**values).fused.split(8, dim=-1)
    for name in NAMES:
        main = next(key for key in values if key.startswith(name))
        after = model.multimodal(**{**values, main: torch.randn_like(values[main])}).fused.split(8, dim=-1)
        assert all(not torch.allclose(one, other, atol=1e-6) for one, other in zip(after, before, strict=True)), name


@pytest.mark.parametrize("fusion", ["sum", "gated"])
@torch.no_grad()
def test_a_sum_holds_only_what_is_there(fusion):
    model = model_with(fusion, missing_placeholder="learnt")
    fused = model.multimodal(**inputs(), **PRESENT).fused
    assert fused[0].any() and not fused[-1].any()


@each_fusion
@torch.no_grad()
def test_padding_does_not_matter(fusion):
    model, values = model_with(fusion), inputs()
    before = model(**values).logits
    padding = values["gaze_attention_mask"] == 0

    noisy = torch.where(padding[..., None], 100 * torch.randn(BATCH, 4, 7), values["gaze_feature_values"])
    assert close(model(**{**values, "gaze_feature_values": noisy}).logits, before)

    # and whatever an encoder leaves in its padding tokens never reaches the fused representation
    output = model.encoders["gaze"](
        feature_values=values["gaze_feature_values"], attention_mask=values["gaze_attention_mask"]
    )
    spoilt = ModalityOutput(
        output.feature, output.tokens.masked_fill(padding[..., None], float("nan")), output.token_mask
    )
    encoded = {
        "audio": model.encoders["audio"](input_values=values["audio_input_values"]),
        "vision": model.encoders["vision"](pixel_values=values["vision_pixel_values"]),
    }
    everyone = {name: torch.ones(BATCH, dtype=torch.bool) for name in NAMES}
    fused = model.multimodal.fusion({**encoded, "gaze": spoilt}, everyone)
    assert close(model.classifier(fused), before)


@each_fusion
@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_logits_to_the_bit(fusion, tmp_path):
    model = model_with(fusion, missing_placeholder="learnt")
    model.save_pretrained(tmp_path)
    extra = {} if isinstance(fusion, str) else {"fusion_module": fusion}

    again = MultimodalForClassification.from_pretrained(tmp_path, **extra)

    assert torch.equal(again(**inputs()).logits, model(**inputs()).logits)
    assert torch.equal(again(**inputs(), **PRESENT).logits, model(**inputs(), **PRESENT).logits)
    assert {**again.config.to_dict(), "_name_or_path": ""} == model.config.to_dict()


@each_fusion
def test_half_precision_trains(fusion, tmp_path):
    model = model_with(fusion, backbone_kwargs={"dtype": torch.bfloat16}).train()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}

    output = model(**inputs(), **PRESENT, labels=torch.zeros(BATCH, dtype=torch.long))
    output.loss.backward()

    assert output.logits.dtype == torch.bfloat16
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each_fusion
@torch.no_grad()
def test_one_modality_alone_is_fused(fusion):
    torch.manual_seed(0)

    model = MultimodalForClassification.from_backbones(
        {"gaze": gaze_config()}, fusion=fusion, fusion_kwargs=small(fusion)
    )
    values = {name: value for name, value in inputs().items() if name.startswith("gaze")}
    output = model(**values, output_ablations=True)

    assert output.logits.isfinite().all() and not torch.equal(output.logits[0], output.logits[1])
    assert output.ablation_logits is None


@pytest.mark.parametrize("fusion", [fusion for fusion in FUSIONS if isinstance(fusion, str)])
@torch.no_grad()
def test_with_default_options_new_weights_tell_samples_apart(fusion):

    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones({"a": vit_config(), "b": gaze_config()}, fusion=fusion)
    values = {f"b_{name.removeprefix('gaze_')}": value for name, value in inputs().items() if "gaze" in name}
    fused = model.multimodal(a_pixel_values=inputs()["vision_pixel_values"], **values).fused

    assert fused.std(dim=0).mean() > 0.02


@torch.no_grad()
def test_a_module_of_the_users_own_keeps_the_weights_it_came_with():
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones(
        {"audio": model_with("concat").encoders["audio"].backbone}, fusion=Average
    )
    module = model.multimodal.fusion.module
    assert isinstance(module, Average) and model.multimodal.fused_size == 6
    assert torch.equal(module.scale, torch.full((6,), 1.5))
    assert torch.equal(module.shift, torch.full((6,), 0.25))
    assert module.layers["audio"].bias.any()  # transformers would begin with zeros


@torch.no_grad()
def test_an_instance_is_used_as_it_is_and_filled_on_loading(tmp_path):
    instance = Average(model_with("concat").config)
    start = {name: value.clone() for name, value in instance.state_dict().items()}

    backbones = {"audio": ast_config(), "vision": vit_config(hidden_size=20), "gaze": gaze_config()}
    model = MultimodalForClassification.from_backbones(backbones, fusion=instance)
    assert model.multimodal.fusion.module is instance
    assert all(torch.equal(value, start[name]) for name, value in instance.state_dict().items())

    instance.scale.add_(1)
    model.save_pretrained(tmp_path)
    other = Average(model.config)
    again = MultimodalForClassification.from_pretrained(tmp_path, fusion_module=other)
    assert again.multimodal.fusion.module is other
    assert torch.equal(other.scale, instance.scale) and torch.equal(other.shift, torch.full((6,), 0.25))
    assert torch.equal(again(**inputs()).logits, model(**inputs()).logits)

    half = MultimodalForClassification.from_pretrained(tmp_path, fusion_module=Average, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half(**inputs()).logits.isfinite().all()


def test_a_model_with_a_module_of_the_users_own_is_not_loaded_without_it(tmp_path):
    model_with(Average).save_pretrained(tmp_path / "own")
    model_with("sum").save_pretrained(tmp_path / "sum")

    with pytest.raises(ValueError, match=r"not part of its files: .*from_pretrained\(folder, fusion_module="):
        MultimodalForClassification.from_pretrained(tmp_path / "own")
    with pytest.raises(ValueError, match="is 'sum', so it takes no fusion_module: leave it out"):
        MultimodalForClassification.from_pretrained(tmp_path / "sum", fusion_module=Average)


def test_a_module_that_is_no_fusion_is_refused_with_the_reason():
    class Broken(Average):
        def forward(self, encoded, present):
            return self.result(super().forward(encoded, present))

    def broken(result, **attributes):
        return type("Broken", (Broken,), {"result": staticmethod(result), **attributes})

    with pytest.raises(ValueError, match=r"width 6, but its fused_size is 7"):
        model_with(broken(lambda fused: fused, fused_size=7))
    with pytest.raises(ValueError, match=r"made \(1, 6\) of a batch of 2, but \(2, width\) is wanted"):
        model_with(broken(lambda fused: fused[:1]))
    with pytest.raises(ValueError, match=r"made tuple of a batch of 2"):
        model_with(broken(lambda fused: (fused, fused)))
    with pytest.raises(ValueError, match=r"Broken cannot fuse audio, vision, gaze: .*shapes cannot be multiplied"):
        model_with(broken(lambda fused: fused @ fused))
    with pytest.raises(TypeError, match="a torch module or builds one from the configuration, not 3"):
        model_with(3)
    with pytest.raises(TypeError, match="a torch module or builds one from the configuration, not 'text'"):
        model_with(lambda config: "text")


@pytest.mark.parametrize(
    ("fusion", "options", "message"),
    [
        ("product", {}, "unknown fusion 'product': use one of concat, sum, .*bottleneck, or a module of your own"),
        ("concat", {"rank": 2}, "'concat' does not take rank; the options it takes: none"),
        ("low_rank", {"num_layers": 2}, "'low_rank' does not take num_layers; .*: hidden_size, rank"),
        ("sum", {"hidden_size": 0}, "hidden_size is 0, but it is a whole number of at least 1"),
        ("gated", {"hidden_size": 2.5}, "hidden_size is 2.5"),
        ("bottleneck", {"hidden_size": 10}, "hidden_size is 10, which 4 attention heads cannot share evenly"),
        ("cross_attention", {"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(fusion, options, message):

    with pytest.raises(ValueError, match=message):
        MultimodalForClassification.from_backbones({"a": vit_config()}, fusion=fusion, fusion_kwargs=options)


@torch.no_grad()
def test_a_checkpoint_is_read_back_into_a_model_with_a_module_of_the_users_own(tmp_path):
    """As the Trainer does to resume and for the best model."""
    model = model_with(Average)
    model.save_pretrained(tmp_path)
    expected = model(**inputs()).logits
    module = model.multimodal.fusion.module
    for parameter in model.parameters():
        parameter.add_(1)

    reload_weights(model, tmp_path)

    assert torch.equal(model(**inputs()).logits, expected)
    assert model.multimodal.fusion.module is module
