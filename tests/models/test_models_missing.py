"""Samples and batches that lack modalities, with every fusion."""

import pytest
import torch
from fusions import BATCH, FUSIONS, NAMES, PRESENT, close, inputs, model_with
from tiny import resnet_config, vit_config, weights_of
from torch.nn.functional import cross_entropy

from hf_relearn import MultimodalForClassification

each_fusion = pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: getattr(fusion, "__name__", fusion))
LABELS = torch.tensor([0, 1, 2, 3, 0])


def rows(values: dict, chosen) -> dict:
    return {name: value[chosen] for name, value in values.items()}


def without(values: dict, name: str) -> dict:
    """A batch that lacks a modality wholly: no inputs of it, only the mask."""
    kept = {key: value for key, value in values.items() if not key.startswith(f"{name}_")}
    return {**kept, f"{name}_present": torch.zeros(BATCH, dtype=torch.bool)}


@each_fusion
@pytest.mark.parametrize("placeholder", ["zero", "learnt"])
def test_missing_rows_train_without_nan(fusion, placeholder):
    model = model_with(fusion, missing_placeholder=placeholder, unimodal_loss_weight=1.0).train()

    output = model(**inputs(), **PRESENT, labels=LABELS)
    output.loss.backward()

    assert output.logits.isfinite().all()
    assert {f"{name}_present": mask.tolist() for name, mask in output.present.items()} == {
        name: mask.tolist() for name, mask in PRESENT.items()
    }
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for name in NAMES:
        assert any(parameter.grad.any() for parameter in model.encoders[name].parameters()), name


@each_fusion
@torch.no_grad()
def test_what_stands_in_the_inputs_of_a_missing_modality_does_not_matter(fusion):
    model, values = model_with(fusion, missing_placeholder="learnt"), inputs()
    before = model(**values, **PRESENT)
    for name in NAMES:
        absent = ~PRESENT[f"{name}_present"]
        main = next(key for key in values if key.startswith(name))
        spoilt = values[main].clone()
        spoilt[absent] = float("nan")
        after = model(**{**values, main: spoilt}, **PRESENT)
        assert torch.equal(after.logits, before.logits), name
        placeholder = model.multimodal.placeholders[name].feature
        assert torch.equal(after.features[name][absent], placeholder.expand(int(absent.sum()), -1))


@each_fusion
@torch.no_grad()
def test_a_row_does_not_depend_on_who_is_present_in_others(fusion):
    model = model_with(fusion)
    together = model(**inputs(), **PRESENT).logits
    for row in range(BATCH):
        alone = model(**rows(inputs(), [row]), **rows(PRESENT, [row])).logits
        assert close(alone[0], together[row]), row
    everyone = {name: torch.ones(BATCH, dtype=torch.bool) for name in PRESENT}
    assert torch.equal(model(**inputs(), **everyone).logits, model(**inputs()).logits)


@each_fusion
@torch.no_grad()
def test_a_batch_without_a_modality_is_as_one_whose_rows_all_lack_it(fusion):
    model, values = model_with(fusion), inputs()
    for name in NAMES:
        absent = {f"{name}_present": torch.zeros(BATCH, dtype=torch.bool)}
        left_out = model(**without(values, name)).logits
        assert close(left_out, model(**values, **absent).logits)
        mixed = {f"{name}_present": torch.tensor([True] + [False] * (BATCH - 1))}
        assert close(left_out[1:], model(**values, **mixed).logits[1:])
    nothing = {f"{name}_present": torch.zeros(BATCH, dtype=torch.bool) for name in NAMES}
    logits = model(**nothing).logits
    assert logits.isfinite().all() and close(logits, logits[:1].expand(BATCH, -1))


@each_fusion
def test_a_batch_without_a_modality_gives_every_parameter_a_gradient(fusion):
    """So that processes stay in step: the encoder's are zeros, and it does not move."""
    for placeholder in ("zero", "learnt"):
        model = model_with(fusion, missing_placeholder=placeholder).train()
        model(**without(inputs(), "vision"), labels=LABELS).loss.backward()

        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
        assert not any(parameter.grad.any() for parameter in model.encoders["vision"].parameters())
        assert any(parameter.grad.any() for parameter in model.encoders["audio"].parameters())


@each_fusion
@torch.no_grad()
def test_ablations_are_what_a_forward_with_these_masks_gives(fusion):
    model, values = model_with(fusion, missing_placeholder="learnt"), inputs()
    calls = []
    for encoder in model.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    found = model(**values, **PRESENT, output_ablations=True)

    assert len(calls) == 3  # encoders run once
    assert torch.equal(found.logits, model(**values, **PRESENT).logits)
    assert list(found.ablation_logits) == [
        *(f"only_{name}" for name in NAMES),
        *(f"without_{name}" for name in NAMES),
    ]
    for ablation, logits in found.ablation_logits.items():
        kind, name = ablation.split("_")
        kept = {name} if kind == "only" else set(NAMES) - {name}
        masks = {
            f"{other}_present": PRESENT[f"{other}_present"] & torch.full((BATCH,), other in kept) for other in NAMES
        }
        assert close(logits, model(**values, **masks).logits), ablation


def test_learnt_placeholders_learn_and_lie_outside_the_encoders():
    model = model_with("concat", missing_placeholder="learnt").train()
    model(**inputs(), **PRESENT, labels=LABELS).loss.backward()

    placeholder = model.multimodal.placeholders["audio"]
    assert placeholder.feature.grad.any() and not placeholder.token.grad.any()
    inside = {id(parameter) for encoder in model.encoders.values() for parameter in encoder.parameters()}
    assert not inside & {id(parameter) for parameter in placeholder.parameters()}

    model = model_with("bottleneck", missing_placeholder="learnt").train()
    model(**inputs(), **PRESENT, labels=LABELS).loss.backward()
    assert model.multimodal.placeholders["audio"].token.grad.any()


def test_new_placeholders_are_zeros_so_both_kinds_begin_alike(tmp_path):
    backbones = {"a": vit_config(), "b": vit_config()}
    for dtype in (torch.float32, torch.bfloat16):
        model = MultimodalForClassification.from_backbones(
            backbones, missing_placeholder="learnt", backbone_kwargs={"dtype": dtype}
        )
        values = [
            value for placeholder in model.multimodal.placeholders.values() for value in placeholder.parameters()
        ]
        assert len(values) == 4 and not any(value.any() for value in values)
        assert {value.dtype for value in values} == {dtype}
    zero = MultimodalForClassification.from_backbones(backbones)
    assert not list(zero.multimodal.placeholders.parameters())
    zero.save_pretrained(tmp_path)
    changes = {"missing_placeholder": "learnt", "fusion": "low_rank", "ignore_mismatched_sizes": True}
    later = MultimodalForClassification.from_pretrained(tmp_path, **changes)
    assert not any(value.any() for value in later.multimodal.placeholders.parameters())
    assert (later.multimodal.fusion.rank_weights == 1 / 4).all() and later.config.fusion_kwargs["rank"] == 4


def batch_norm_model() -> tuple[MultimodalForClassification, dict]:
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones({"rgb": resnet_config(), "flow": resnet_config()}).train()
    images = {f"{name}_pixel_values": torch.randn(4, 3, 32, 32) for name in ("rgb", "flow")}
    return model, images


def buffers(model, name) -> dict:
    return {key: value for key, value in weights_of(model.encoders[name]).items() if "running" in key or "num_" in key}


def test_batch_norm_statistics_hold_real_rows_only():
    present = torch.tensor([True, False, True, True])
    model, images = batch_norm_model()
    with torch.no_grad():
        model(**images, rgb_present=present)
    alone, _ = batch_norm_model()
    with torch.no_grad():
        alone.encoders["rgb"](pixel_values=images["rgb_pixel_values"][present])

    mixed, expected = buffers(model, "rgb"), buffers(alone, "rgb")
    assert mixed and all(torch.equal(value, expected[name]) for name, value in mixed.items())


def test_a_batch_without_a_modality_leaves_batch_norm_and_training_mode_alone():
    model, images = batch_norm_model()
    model.encoders["rgb"].backbone.embedder.eval()  # as a user may have frozen it
    modes = {name: module.training for name, module in model.named_modules()}
    before = buffers(model, "rgb")

    model(flow_pixel_values=images["flow_pixel_values"], rgb_present=torch.zeros(4, dtype=torch.bool))

    assert all(torch.equal(value, before[name]) for name, value in buffers(model, "rgb").items())
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_heads_learn_from_the_rows_that_have_the_modality():
    model = model_with("sum", unimodal_loss_weight=0.5)
    output = model(**inputs(), **PRESENT, labels=LABELS)

    expected = cross_entropy(output.logits, LABELS)
    for name in NAMES:
        losses = cross_entropy(output.unimodal_logits[name], LABELS, reduction="none")
        expected = expected + 0.5 * losses[PRESENT[f"{name}_present"]].sum() / BATCH
    assert close(output.loss, expected)

    parts = [slice(0, 2), slice(2, 5)]
    losses = [
        model(**rows(inputs(), part), **rows(PRESENT, part), labels=LABELS[part], num_items_in_batch=BATCH).loss
        for part in parts
    ]
    assert close(sum(losses), output.loss)

    model.zero_grad()
    model(**without(inputs(), "gaze"), labels=LABELS).loss.backward()
    assert not model.unimodal_heads["gaze"].weight.grad.any()


def test_masks_that_do_not_fit_are_refused():
    model, values = model_with("concat"), inputs()
    partly = {"vision_present": torch.tensor([True, False, False, True, False])}
    lacking = {name: value for name, value in values.items() if "vision" not in name}

    with pytest.raises(TypeError, match=r"no input for the modality 'vision': .*give vision_present, all False"):
        model(**lacking)
    with pytest.raises(TypeError, match=r"no input for the modality 'vision', but vision_present says that 2 rows"):
        model(**lacking, **partly)
    with pytest.raises(ValueError, match=r"vision_present has shape \(3,\), but the batch has 5 rows"):
        model(**values, vision_present=torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match="'taste_present' belongs to no modality"):
        model(**values, taste_present=torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="unknown missing_placeholder 'noise': use one of zero, learnt"):
        model_with("concat", missing_placeholder="noise")
