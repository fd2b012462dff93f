"""The gradients that each method gives the optimizer, against its formula, on three modalities."""

import pytest
import torch
from balancing_run import OPTIONS
from expected import EXPECTED, NAMES, encoder_of, others, separate_gradients, summed
from three import ROWS, RowsOfThree, model_of_three, trainer_of_three

from hf_relearn.balancing import METHODS, BalancingMethod

SHARED_OUT = [(ROWS, 1), (4, 3)]


def gradients_of(folder, balancing, batch_size=ROWS, accumulation=1, **kwargs):
    settings = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation, **kwargs}
    trainer, gradients = trainer_of_three(folder, balancing, **settings)
    trainer.train()
    return gradients.steps


def assert_close(found, expected, rtol=1e-4):
    for name, gradient in expected.items():
        other = found.get(name, torch.zeros_like(gradient))
        assert torch.allclose(other, gradient, rtol=rtol, atol=rtol * float(gradient.abs().max()) + 1e-8), name


@pytest.mark.parametrize(("batch_size", "accumulation"), SHARED_OUT)
@pytest.mark.parametrize("method", EXPECTED)
def test_the_optimizer_gets_the_gradients_of_the_formula(tmp_path, method, batch_size, accumulation):
    expected = EXPECTED[method](*separate_gradients())
    (found,) = gradients_of(tmp_path, method, batch_size, accumulation, balancing_options=OPTIONS.get(method))
    assert_close(found, expected)
    (joint,) = gradients_of(tmp_path, "none", batch_size, accumulation)
    assert_close(joint, summed(separate_gradients()[0]))
    for name in NAMES:  # the formula changes something in each encoder
        assert any(not torch.allclose(found[p], joint[p], rtol=0.01) for p in found if encoder_of(p) == name)


def opposed():
    """A model whose heads pull at their encoders against the fusion."""
    model = model_of_three()
    with torch.no_grad():
        parts = model.classifier.weight.split(8, dim=1)
        for part, head in zip(parts, model.unimodal_heads.values(), strict=True):
            part.copy_(-0.3 * head.weight)
    return model


def test_mmpareto_takes_the_least_norm_where_gradients_conflict(tmp_path):
    gradients, scores = separate_gradients(opposed())
    encoders = {name: [p for p in gradients["fused"] if encoder_of(p) == name] for name in NAMES}
    assert any(sum((gradients["fused"][p] * gradients[n][p]).sum() for p in ps) < 0 for n, ps in encoders.items())
    for settings in ({}, {"max_grad_norm": 0.01}):  # clipping scales everything before
        (found,) = gradients_of(tmp_path, "mmpareto", 4, 3, model=opposed(), **settings)
        expected = EXPECTED["mmpareto"](gradients, scores)
        if settings:
            norm = torch.cat([g.flatten() for g in summed(gradients).values()]).norm()
            expected = {p: g * 0.01 / norm for p, g in expected.items()}
        assert_close(found, expected, rtol=2e-3)


@pytest.mark.parametrize(("batch_size", "accumulation"), SHARED_OUT)
@pytest.mark.parametrize("weight", [0.5, 0.0])
def test_ogm_ge_weakens_the_stronger_encoder_and_adds_noise_to_matrices(tmp_path, batch_size, accumulation, weight):
    def run(**kwargs):
        model = model_of_three(unimodal_loss_weight=weight)
        options = {"balancing_options": ["alpha=0.4", "until=1"], "num_train_epochs": 2, "learning_rate": 0.0}
        return gradients_of(tmp_path, "ogm_ge", batch_size, accumulation, model=model, **{**options, **kwargs})

    if weight:
        gradients, scores = separate_gradients()
        plain = summed(gradients)
    else:  # scores come from the fused prediction with one modality alone
        (plain,) = gradients_of(tmp_path, "none", model=model_of_three(unimodal_loss_weight=0.0))
        rows = RowsOfThree().values
        with torch.no_grad():
            output = model_of_three(unimodal_loss_weight=0.0).eval()(**rows, output_ablations=True)
        having = {name: rows.get(f"{name}_present", torch.ones(ROWS).bool()) for name in NAMES}
        true = {
            name: output.ablation_logits[f"only_{name}"].softmax(-1)[torch.arange(ROWS), rows["labels"]]
            for name in NAMES
        }
        scores = {name: float(true[name][having[name]].mean()) for name in NAMES}
    first, second = run()
    noise = {}
    for name, gradient in plain.items():
        modality = encoder_of(name)
        if modality is None or gradient.ndim == 1:
            assert torch.allclose(first[name], gradient, rtol=1e-4, atol=1e-6)
            continue
        ratio = scores[modality] / others(scores, modality)
        factor = 1 - torch.tanh(torch.tensor(0.4 * ratio)) if ratio > 1 else 1.0
        noise[name] = (first[name] - factor * gradient) / gradient.std()
    drawn = torch.cat([values.flatten() for values in noise.values()])
    assert len(drawn) > 500 and abs(drawn.mean()) < 0.15 and abs(drawn.std() - 1) < 0.1
    assert all(torch.equal(first[name], gradient) for name, gradient in run()[0].items())
    assert all(not torch.allclose(first[name], second[name]) for name in noise)
    (before, after) = run(balancing_options=["until=0.5"])
    assert_close(after, plain)
    assert any(not torch.allclose(before[name], plain[name]) for name in noise)


def test_modality_dropout_drops_the_stronger_as_often_as_its_formula_says(tmp_path):
    rows = RowsOfThree(400)
    model = model_of_three()
    seen = []
    settings = {"per_device_train_batch_size": 100, "num_train_epochs": 5, "learning_rate": 0.0}
    options = ["probability=0.4", "scale=0.5", "share=0.7"]
    trainer, _ = trainer_of_three(tmp_path, "modality_dropout", model, rows, balancing_options=options, **settings)
    (method,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, BalancingMethod))

    class Watch(type(trainer.callback_handler.callbacks[-1])):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 0:
                model.multimodal.fusion.register_forward_pre_hook(lambda module, args: seen.append(args[1]))

    trainer.add_callback(Watch())
    trainer.train()
    assert len(seen) == 20
    with torch.no_grad():
        output, labels = model.eval()(**rows.values), rows.values["labels"]
    having = {name: rows.values.get(f"{name}_present", torch.ones(400).bool()) for name in NAMES}
    true = {name: logits.softmax(-1)[torch.arange(400), labels] for name, logits in output.unimodal_logits.items()}
    scores = {name: float(true[name][having[name]].mean()) for name in NAMES}
    acting = [present for present in seen[:20] if not bool(present["a"].all())]
    assert 8 <= len(acting) <= 19  # .7 of 20 steps
    for name in NAMES:
        ratio = scores[name] / others(scores, name)
        dropped = 1 - float(torch.cat([present[name] for present in acting]).float().mean())
        probability = 0.4 * (1 + 0.5 * float(torch.tanh(torch.tensor(ratio - 1)))) if ratio > 1 else 0.0
        assert dropped == pytest.approx(probability, abs=0.06), name
    assert all(torch.stack([*present.values()]).any(dim=0).all() for present in seen)


def test_none_is_the_models_own_sum_and_adds_nothing(tmp_path):
    trainer, _ = trainer_of_three(tmp_path)
    assert not any(isinstance(callback, BalancingMethod) for callback in trainer.callback_handler.callbacks)
    output = model_of_three()(**RowsOfThree().values)
    assert list(output.losses) == ["fused", *NAMES]
    total = output.losses["fused"]
    for name in NAMES:
        total = total + 0.5 * output.losses[name]
    assert torch.equal(output.loss, total)
    assert list(model_of_three(unimodal_loss_weight=0.0)(**RowsOfThree().values).losses) == ["fused"]
    assert set(METHODS) == {*EXPECTED, "ogm_ge"}
