"""`RelearnCallback` in a `transformers.Trainer` with a model and data that are not ours."""

import pytest
import torch
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, TensorRows, history, tiny_model, without_times
from torch import nn
from transformers import Trainer
from two_towers import Pairs, TwoTowers, arguments, train_two_towers

from hf_relearn import InitialWeights, RelearnCallback
from hf_relearn.relearning.features import multimodal_features
from hf_relearn.training import read_history

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]


def test_the_example_diagnoses_and_relearns(tmp_path):
    torch.manual_seed(0)
    model = TwoTowers()
    initial = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer = train_two_towers(model, arguments(tmp_path), Pairs(40, 0), Pairs(30, 1))

    records = history(tmp_path)
    assert [(record["epoch"], record["kind"]) for record in records] == [(2, "point"), (4, "point")]
    assert [record["num_classes"] for record in records] == [3, 3]
    logged = [entry for entry in trainer.state.log_history if "relearn/sound/alpha" in entry and entry["step"]]
    for record, entry in zip(records, logged, strict=True):
        assert (entry["step"], entry["epoch"]) == (record["step"], record["epoch"])
        for name, values in record["modalities"].items():
            assert values["gap"] == pytest.approx(values["train_separability"] - values["val_separability"])
            surely = values["memorised"] - 2 * values["memorised_error"]
            assert values["alpha"] == (0.9 if surely > 0.3 else 0.0)
            for field, value in values.items():
                if isinstance(value, (int, float)):
                    assert entry[f"relearn/{name}/{field}"] == value
    stored = InitialWeights.load(InitialWeights.find(tmp_path)[0])
    assert set(stored) == {name for name in initial if not name.startswith("head.")}
    assert all(torch.equal(stored[name], initial[name]) for name in stored)


def test_the_example_is_shorter_than_15_lines():
    import inspect

    assert len(inspect.getsource(train_two_towers).splitlines()) < 15


def test_a_point_moves_the_towers_and_only_them(tmp_path):
    model = TwoTowers()
    seen = {}

    class Spy(RelearnCallback):
        def on_epoch_begin(self, args, state, control, model, **kwargs):
            before = {name: value.detach().clone() for name, value in model.named_parameters()}
            super().on_epoch_begin(args, state, control, model, **kwargs)
            if state.epoch == 1:
                seen["moved"] = {
                    name for name, value in model.named_parameters() if not torch.equal(value, before[name])
                }

    relearn = Spy(
        {"sound": model.ear, "image": model.eye}, lambda model, batch: {}, relearn_alpha="0.5", relearn_interval=1
    )
    Trainer(model, arguments(tmp_path), train_dataset=Pairs(40, 0), callbacks=[relearn]).train()
    assert seen["moved"] == {"ear.0.weight", "ear.0.bias", "eye.0.weight", "eye.0.bias"}


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    def trainer():
        torch.manual_seed(0)
        model = TwoTowers()
        relearn = RelearnCallback(
            {"sound": model.ear, "image": model.eye},
            lambda model, batch: {"sound": model.ear(batch["sound"]), "image": model.eye(batch["image"])},
            Pairs(30, 1),
            relearn_interval=1,
            relearn_strength="gap",
            diagnosis_estimator="purity",
        )
        args = arguments(tmp_path, save_strategy="steps", save_steps=1)
        return Trainer(model, args, train_dataset=Pairs(40, 0), callbacks=[relearn])

    uninterrupted = trainer()
    uninterrupted.train()
    records = [record["modalities"] for record in history(tmp_path)]
    assert any(values["distance"] > 0 for record in records for values in record.values())
    for step in (5, 7, 10):
        resumed = trainer()
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        for name, value in uninterrupted.model.state_dict().items():
            assert torch.equal(value, resumed.model.state_dict()[name]), (step, name)
        assert [record["modalities"] for record in history(tmp_path)] == records


def test_a_datasets_data_set_with_removed_columns_works(tmp_path):
    import datasets

    rows = [{**Pairs(30, 0)[index], "comment": "not for the model"} for index in range(30)]
    rows = [{name: value.tolist() if torch.is_tensor(value) else value for name, value in row.items()} for row in rows]
    dataset = datasets.Dataset.from_list(rows)
    model = TwoTowers()
    train_two_towers(model, arguments(tmp_path, num_train_epochs=3), dataset, dataset)
    # The held-out samples are known from training, each better than without itself.
    assert history(tmp_path)[0]["modalities"]["sound"]["gap"] < 0.0


def test_features_of_a_modality_that_has_no_name_are_an_error(tmp_path):
    model = TwoTowers()
    relearn = RelearnCallback(
        {"sound": model.ear, "image": model.eye},
        lambda model, batch: {"audio": model.ear(batch["sound"])},
        Pairs(30, 1),
        relearn_interval=1,
    )
    with pytest.raises(ValueError, match="gives no features of sound, image, for which there are enc"):
        Trainer(model, arguments(tmp_path), train_dataset=Pairs(40, 0), callbacks=[relearn]).train()


def test_an_encoder_outside_the_model_is_an_error(tmp_path):
    model = TwoTowers()
    for encoder, what in ((nn.Linear(2, 2), "no part of the model"), (model, "the whole model")):
        relearn = RelearnCallback({"sound": encoder}, lambda model, batch: {}, relearn_alpha="0.5")
        with pytest.raises(ValueError, match=f"encoder given for 'sound' is {what}"):
            Trainer(model, arguments(tmp_path), train_dataset=Pairs(40, 0), callbacks=[relearn]).train()


def trainer_of_ours(folder, callback, **kwargs):
    settings = {"num_train_epochs": 4, "save_strategy": "epoch"}
    settings |= {"remove_unused_columns": False, "eval_strategy": "epoch", **kwargs}
    return Trainer(
        tiny_model(unimodal_loss_weight=1.0),
        arguments(folder, **settings),
        train_dataset=TensorRows(),
        eval_dataset=TensorRows(24, seed=1),
        callbacks=[callback],
    )


def test_a_model_of_ours_needs_no_arguments(tmp_path):
    trainer_of_ours(tmp_path, RelearnCallback(), eval_on_start=True).train()
    start, *points = read_history(tmp_path)
    assert start["kind"] == "start" and [record["kind"] for record in points] == ["point", "point"]
    assert set(points[0]["modalities"]) == {"audio", "vision"} and points[0]["num_classes"] == 3
    assert "train_head_accuracy" in points[0]["modalities"]["audio"]

    given = RelearnCallback(
        lambda model: model.encoders,
        multimodal_features,
        TensorRows(24, seed=1),
        num_classes=3,
        heads=lambda model: model.unimodal_heads,
    )
    trainer_of_ours(tmp_path / "given", given, eval_on_start=True).train()
    assert without_times(read_history(tmp_path / "given")) == without_times(read_history(tmp_path))

    resumed = trainer_of_ours(tmp_path, RelearnCallback(), eval_on_start=True)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    again = read_history(tmp_path)
    assert [record["kind"] for record in again] == ["start", "point", "point"]
    assert again[1]["diagnosis_size"] == points[0]["diagnosis_size"] == 24


def test_the_first_evaluation_gives_the_held_out_samples(tmp_path):
    trainer_of_ours(tmp_path, RelearnCallback()).train()
    assert [record["kind"] for record in read_history(tmp_path)] == ["point", "point"]


def test_what_the_callback_cannot_find_is_named(tmp_path):
    with pytest.raises(ValueError, match="model is a TwoTowers, .*give encoders and feature_function"):
        Trainer(TwoTowers(), arguments(tmp_path), train_dataset=Pairs(40, 0), callbacks=[RelearnCallback()]).train()
    with pytest.raises(ValueError, match="no held-out samples to diagnose on"):
        trainer_of_ours(tmp_path / "a", RelearnCallback(), eval_strategy="no").train()
    with pytest.raises(ValueError, match="set eval_on_start=True, or give RelearnCallback a diagnosis_dataset"):
        trainer_of_ours(tmp_path / "b", RelearnCallback(), eval_strategy="steps", eval_steps=100).train()
    with pytest.raises(TypeError, match="give both encoders and feature_function"):
        RelearnCallback(lambda model: model.encoders)


def test_hidden_labels_are_named_before_training(tmp_path):
    rows = TensorRows()
    rows.labels[[5, 9]] = -1
    trainer = trainer_of_ours(tmp_path, RelearnCallback(), eval_on_start=True)
    trainer.train_dataset = rows
    with pytest.raises(ValueError, match=r"'labels' holds -1 in 2 of 36 rows \(first in row 5\)"):
        trainer.train()
