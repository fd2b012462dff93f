"""Whole runs with each method: resumed, beside re-learning, in a stock Trainer, with any fusion; and refusals."""

import pytest
import torch
from three import ROWS, RowsOfThree, model_of_three, trainer_of_three
from tiny import (
    TensorRows,
    assert_same,
    history,
    make_trainer,
    tiny_model,
    training_arguments,
    weights_of,
    without_times,
)
from transformers import Trainer, TrainingArguments

from hf_relearn import MultimodalRelearnTrainer
from hf_relearn.balancing import METHODS, MultiLossBalancing
from hf_relearn.models.configuration_multimodal import FUSION_OPTIONS

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")

# Whose resumed runs are looked at by default: one draws at random, one takes the gradients of each loss apart.
RESUMED = ("modality_dropout", "mmpareto")


def slow(*values: str):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("method", [method if method in RESUMED else slow(method) for method in METHODS])
def test_a_run_that_is_re_learnt_too_resumes_to_the_bit(tmp_path, method):
    settings = {"save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2, "balancing": method}

    def result(seed, checkpoint=None):
        model = tiny_model(seed, dropout=0.2, unimodal_loss_weight=1.0)
        trainer = make_trainer(tmp_path, model, **{**settings, "save_strategy": "no" if checkpoint else "steps"})
        trainer.train(resume_from_checkpoint=checkpoint)
        return weights_of(trainer.model), trainer.optimizer.state_dict(), without_times(trainer.state.log_history[:-1])

    expected = result(0)
    assert [record["kind"] for record in history(tmp_path)] == ["point", "point"]
    for step in (1, 2, 4):  # in the middle and at the end of an epoch
        torch.manual_seed(1234)
        assert_same(result(7, str(tmp_path / f"checkpoint-{step}")), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_stock_trainer_calls_the_hooks_too(tmp_path, method):
    trainer, gradients = trainer_of_three(tmp_path, method)
    trainer.train()
    args = TrainingArguments(
        str(tmp_path / "stock"),
        per_device_train_batch_size=ROWS,
        num_train_epochs=1,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    stock = Trainer(model_of_three(), args, train_dataset=RowsOfThree(), callbacks=[METHODS[method](), gradients])
    stock.train()
    first, second = gradients.steps
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=1e-4, atol=1e-6), name
    plain = model_of_three().train()
    output = stock.model(**RowsOfThree().values)  # after the run nothing of the method is left
    plain.load_state_dict(stock.model.state_dict())
    assert torch.equal(output.loss, plain(**RowsOfThree().values).loss)


@pytest.mark.parametrize(
    ("method", "fusion"),
    [
        (method, fusion) if (place + number) % len(METHODS) == 0 else slow(method, fusion)
        for place, method in enumerate(METHODS)
        for number, fusion in enumerate(FUSION_OPTIONS)
    ],
)
def test_every_fusion_trains_with_every_method(tmp_path, method, fusion):
    options = {"hidden_size": 8, "num_attention_heads": 2} if "attention" in fusion or fusion == "bottleneck" else {}
    model = model_of_three(fusion=fusion, fusion_kwargs=options, missing_placeholder="learnt")
    before = weights_of(model)
    trainer, gradients = trainer_of_three(tmp_path, method, model)
    trainer.train()
    (found,) = gradients.steps
    assert all(bool(value.isfinite().all()) for value in found.values())
    changed = [name for name, value in weights_of(model).items() if not torch.equal(value, before[name])]
    for part in ("encoders.a", "encoders.b", "encoders.c", "classifier", "unimodal_heads.b"):
        assert any(part in name for name in changed), part


def test_a_method_sees_neither_evaluation_nor_diagnosis(tmp_path):
    class Counting(MultiLossBalancing):
        calls = 0

        def loss(self, model, outputs, inputs):
            self.calls += 1
            return super().loss(model, outputs, inputs)

    method = Counting()
    args = training_arguments(tmp_path, eval_strategy="epoch", balancing="none")
    model = tiny_model(unimodal_loss_weight=1.0)
    trainer = MultimodalRelearnTrainer(
        model, args, train_dataset=TensorRows(), eval_dataset=TensorRows(12, seed=1), callbacks=[method]
    )
    trainer.train()
    assert method.calls == trainer.state.global_step == 12


@pytest.mark.parametrize("method", ["detached", "mlb", "modality_dropout", "mmpareto"])
def test_a_model_without_heads_is_refused(tmp_path, method):
    trainer, _ = trainer_of_three(tmp_path, method, model_of_three(unimodal_loss_weight=0.0))
    with pytest.raises(ValueError, match=f"--balancing {method} needs a uni-modal head .*--unimodal_loss_weight"):
        trainer.train()


def test_what_cannot_be_balanced_is_refused(tmp_path):
    several = model_of_three(problem_type="multi_label_classification")
    trainer, _ = trainer_of_three(tmp_path, "mlb", several)
    with pytest.raises(ValueError, match="--balancing mlb compares scores of the true class"):
        trainer.train()
    frozen = trainer_of_three(tmp_path, "mmpareto", freeze=["unimodal_heads"])[0]
    with pytest.raises(ValueError, match="--balancing mmpareto .* that of 'a' is frozen"):
        frozen.train()


@pytest.mark.parametrize(
    ("balancing", "options", "message"),
    [
        ("drop", None, "--balancing is 'drop': choose one of none, detached"),
        ("none", ["alpha=1"], "--balancing_options is given, but no --balancing"),
        ("mlb", ["beta=1"], "--balancing_options names 'beta', but the method takes alpha"),
        ("mlb", ["alpha"], "--balancing_options holds 'alpha': give NAME=NUMBER"),
        ("mlb", ["alpha=-1"], "--balancing_options: alpha is -1.0"),
        ("modality_dropout", ["share=2"], "--balancing_options: .*share 2.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, balancing, options, message):
    with pytest.raises(ValueError, match=message):
        training_arguments(tmp_path, balancing=balancing, balancing_options=options)
