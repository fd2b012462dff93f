"""Options of the Trainer that meet a re-learning point: optimizers, early stopping, the best model, batch sizes."""

import json

import pytest
import torch
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, TensorRows, assert_same, history, make_trainer, tiny_model, weights_of
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from hf_relearn import InitialWeights, RelearnCallback
from hf_relearn.training import RelearnSettings
from hf_relearn.training.trainer import multimodal_features

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]


# --- relearn_optimizer_state=reset ---


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("AdamW", {"optim": "adamw_torch_fused"}),
        ("SGD", {"optim": "sgd", "optim_args": "momentum=0.9"}),
        ("Adafactor", {"optim": "adafactor"}),
        ("AdamW8bit", {"optim": "adamw_bnb_8bit"}),
    ],
)
def test_a_reset_drops_exactly_the_state_of_moved_parameters(tmp_path, optimizer, settings):
    if optimizer == "AdamW8bit":
        pytest.importorskip("bitsandbytes", reason="8-bit optimizers need bitsandbytes")
    seen = {}

    def states():
        inner = trainer.optimizer.optimizer
        names = {parameter: name for name, parameter in trainer.model.named_parameters()}
        copies = {
            names[parameter]: {key: v.clone() if torch.is_tensor(v) else v for key, v in state.items()}
            for parameter, state in inner.state.items()
        }
        return type(inner).__name__, copies

    class Watch(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            seen.setdefault("before", states())

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                seen["after"] = states()

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 6:
                seen["next"] = states()

    model = tiny_model()
    model.encoders["vision"].backbone.embeddings.requires_grad_(False)
    trainer = make_trainer(
        tmp_path,
        model,
        trainer_kwargs={"callbacks": [Watch()]},
        num_train_epochs=2,
        diagnosis_fraction=0,
        relearn_optimizer_state="reset",
        relearn_alpha="audio=0.0,vision=0.5",
        **settings,
    )
    trainer.train()
    (name, before), (_, after), (_, following) = seen["before"], seen["after"], seen["next"]
    assert name.startswith(optimizer)
    moved = {name for name in before if name.startswith("multimodal.encoders.vision.")}
    assert moved and set(before) - set(after) == moved
    assert_same(after, {name: before[name] for name in after})
    # The next step begins the state of the moved parameters anew, and goes on with that of the others.
    assert set(following) == set(before)
    if optimizer != "SGD":
        steps = {bool(name in moved): float(state["step"]) for name, state in following.items()}
        assert steps == {True: 1, False: 6}


# --- early stopping and the best model ---

WORSE_EACH_TIME = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_score",
    "greater_is_better": True,
}


def worsening_scores():
    scores = iter([0.9, 0.5, 0.1])
    return {"compute_metrics": lambda prediction: {"score": next(scores)}}


@pytest.mark.parametrize("late", [False, True])
def test_a_run_stopped_early_records_its_end_as_trained_and_loads_its_best_model(tmp_path, late):
    stopping = EarlyStoppingCallback(early_stopping_patience=1)
    trainer = make_trainer(
        tmp_path,
        trainer_kwargs={**worsening_scores(), "callbacks": [] if late else [stopping]},
        num_train_epochs=5,
        relearn_alpha="0.5",
        diagnosis_interval=2,
        **WORSE_EACH_TIME,
    )
    if late:
        trainer.add_callback(stopping)
    diagnosed = {}
    trainer.relearn_callback.on_point = lambda point: diagnosed.update({point.kind: weights_of(trainer.model)})
    trainer.train()
    assert trainer.state.global_step == 8 < trainer.state.max_steps
    assert [(record["step"], record["kind"]) for record in history(tmp_path)] == [(4, "point"), (8, "end")]
    last, best = (type(trainer.model).from_pretrained(tmp_path / f"checkpoint-{step}") for step in (8, 4))
    assert_same(diagnosed["end"], weights_of(last))
    assert_same(weights_of(trainer.model), weights_of(best))
    logged = [entry for entry in trainer.state.log_history if "relearn/audio/gap" in entry]
    assert [entry["step"] for entry in logged] == [0, 4, 8]


def test_the_end_is_recorded_once(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=2, diagnosis_interval=1, save_strategy="epoch")
    trainer.train()
    assert [record["kind"] for record in history(tmp_path)] == ["point", "end"]
    trainer.train(resume_from_checkpoint=True)  # from the end: nothing is left to do
    assert [record["kind"] for record in history(tmp_path)] == ["point", "end"]


# --- auto_find_batch_size ---


class OutOfMemory(TrainerCallback):
    """Fails as an accelerator does, after some step of batches larger than fit."""

    def __init__(self, at_step, fitting):
        self.at_step = at_step
        self.fitting = fitting

    def on_step_end(self, args, state, control, train_dataloader, **kwargs):
        if state.global_step == self.at_step and train_dataloader.total_batch_size > self.fitting:
            raise RuntimeError("CUDA out of memory.")


def batches_that_fit(folder, at_step, batch_size, fitting=9, **kwargs):
    """A run with dropout, a schedule and points, in which a batch of more than `fitting` does not fit."""
    settings = {"lr_scheduler_type": "linear", "optim": "adamw_torch", "auto_find_batch_size": True}
    trainer = make_trainer(
        folder,
        tiny_model(dropout=0.2),
        trainer_kwargs={"callbacks": [OutOfMemory(at_step, fitting)]},
        **{"per_device_train_batch_size": batch_size, **settings, **kwargs},
    )
    return trainer


def test_a_smaller_batch_goes_back_to_the_first_attempts_initial_weights(tmp_path, caplog):
    """After a point, and in the middle of an epoch."""
    started = []

    class Look(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model, **kwargs):
            if state.global_step == 0:
                started.append(weights_of(model.encoders))

    trainer = batches_that_fit(tmp_path, 4, 10)
    trainer.add_callback(Look())
    with caplog.at_level("WARNING", logger="hf_relearn"):
        trainer.train()
    assert "training starts over with a smaller batch: the encoders go back to their initial" in caplog.text
    assert len(started) == 2  # with batches of 10 and 9
    for name, value in started[0].items():
        assert torch.equal(started[1][name], value), name
    (path,) = InitialWeights.find(tmp_path)
    stored = InitialWeights.load(path, json.loads((tmp_path / "relearn_run.json").read_text())["initial_weights"])
    for name, value in started[0].items():
        assert torch.equal(stored[f"multimodal.encoders.{name}"], value), name
    assert [record["kind"] for record in history(tmp_path)].count("point") >= 1
    assert trainer.state.train_batch_size == 9


def test_a_resumed_run_starts_over_from_its_checkpoint(tmp_path):
    make_trainer(tmp_path, num_train_epochs=4, save_strategy="epoch", per_device_train_batch_size=10).train()
    started = []

    class Look(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model, **kwargs):
            if state.global_step == 6:
                started.append(weights_of(model))

    trainer = batches_that_fit(tmp_path, 7, 10, num_train_epochs=4, fitting=8)
    trainer.remove_callback(trainer.relearn_callback)  # to look before a point is taken
    trainer.callback_handler.callbacks += [Look(), trainer.relearn_callback]
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    saved = type(trainer.model).from_pretrained(tmp_path / "checkpoint-6")
    assert len(started) == 3  # with batches of 10, 9 and 8
    for state in started:
        assert_same(state, weights_of(saved))


def test_a_diagnosis_that_does_not_fit_is_no_reason_for_smaller_batches(tmp_path):
    trainer = batches_that_fit(tmp_path, 99, 10)
    started = []

    class Count(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            started.append(state.train_batch_size)

    def features(model, batch):
        raise RuntimeError("CUDA out of memory.")

    trainer.relearn_callback.feature_function = features
    trainer.callback_handler.callbacks.insert(0, Count())  # the first diagnosis comes at the start
    with pytest.raises(RuntimeError, match="diagnosis ran out of memory.*lower --per_device_eval_batch_size"):
        trainer.train()
    assert started == [10]


# --- the same Trainer trained twice ---


def stock_trainer(folder):
    model = tiny_model()
    arguments = make_trainer(folder / "unused").args
    arguments.output_dir = str(folder)
    relearn = RelearnCallback(
        encoders=lambda model: model.encoders,
        feature_function=multimodal_features,
        diagnosis_dataset=TensorRows(9, seed=3),
        settings=RelearnSettings(relearn_interval=1, relearn_strength="gap"),
    )
    return Trainer(model, arguments, train_dataset=TensorRows(), callbacks=[relearn])


@pytest.mark.parametrize("make", [make_trainer, stock_trainer])
def test_a_second_training_is_a_run_of_its_own_from_where_the_first_ended(tmp_path, make):
    trainer = make(tmp_path)
    trainer.train()
    (first,) = InitialWeights.find(tmp_path)
    trained = weights_of(trainer.model)
    trainer.train()
    (second,) = InitialWeights.find(tmp_path)
    assert first != second
    stored = InitialWeights.load(second)
    assert stored and all(torch.equal(stored[name], trained[name]) for name in stored)
    assert len(history(tmp_path)) == 2
    assert any(0 < entry["alpha"] for record in history(tmp_path) for entry in record["modalities"].values())


def test_a_training_after_one_that_failed_does_not_go_back(tmp_path):
    class Fail(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("something else")

    trainer = make_trainer(tmp_path, auto_find_batch_size=True, relearn_alpha="0.5", num_train_epochs=2)
    trainer.add_callback(Fail())
    with pytest.raises(RuntimeError, match="something else"):
        trainer.train()
    stepped = weights_of(trainer.model)
    trainer.remove_callback(Fail)
    trainer.train()
    stored = InitialWeights.load(InitialWeights.find(tmp_path)[0])
    assert all(torch.equal(stored[name], stepped[name]) for name in stored)
