"""Uni-modal quality in evaluation, at no further forward pass."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from tiny import TensorRows, make_trainer, tiny_model, without_times

from hf_relearn.method import linear_probe_accuracy
from hf_relearn.relearning.diagnoser import PartFeatures
from hf_relearn.training.modality_accuracy import probe_accuracies

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


def outputs_on(model, dataset):
    rows = [dataset[index] for index in range(len(dataset))]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "labels"}
    model.eval()
    with torch.no_grad():
        return model(**batch), np.array([row["labels"] for row in rows])


def test_the_heads_accuracy_is_that_of_their_logits(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(unimodal_loss_weight=1.0), trainer_kwargs={"eval_dataset": None})
    trainer.train()
    for size in (12, 19):  # with an uneven last batch
        dataset = TensorRows(size, seed=3)
        metrics = trainer.evaluate(dataset)
        outputs, labels = outputs_on(trainer.model, dataset)
        for name, logits in outputs.unimodal_logits.items():
            assert metrics[f"eval_unimodal_{name}_accuracy"] == accuracy_score(labels, logits.argmax(-1)), name
        assert metrics["eval_accuracy"] == accuracy_score(labels, outputs.logits.argmax(-1))


def test_without_heads_a_probe_on_the_diagnosis_training_features_is_scored(tmp_path):
    trainer = make_trainer(tmp_path, diagnosis_interval=1, diagnosis_sampling="all", eval_strategy="epoch")
    assert not any("unimodal" in name for name in trainer.evaluate())  # nothing was diagnosed yet
    trainer.train()
    measured = [entry["step"] for entry in trainer.state.log_history if "eval_unimodal_audio_accuracy" in entry]
    assert measured == [12]  # the others came after weights that a diagnosis had not seen
    dataset = TensorRows(19, seed=3)
    metrics = trainer.evaluate(dataset)
    outputs, labels = outputs_on(trainer.model, dataset)
    training = trainer.part_features()["training"]
    for name, features in outputs.features.items():
        expected = linear_probe_accuracy(training.features[name], training.labels, features, labels)
        assert metrics[f"eval_unimodal_{name}_accuracy"] == pytest.approx(expected, abs=1 / 18)


def test_features_of_other_weights_are_not_used(tmp_path):
    trainer = make_trainer(tmp_path, diagnosis_interval=1, save_strategy="epoch", eval_strategy="epoch")
    trainer.train()
    assert "eval_unimodal_audio_accuracy" in trainer.evaluate()
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-4")
    trainer._load_best_model()  # as the Trainer does at the end
    assert "eval_unimodal_audio_accuracy" not in trainer.evaluate()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_evaluation_makes_no_further_forward_pass(tmp_path, weight):
    trainer = make_trainer(tmp_path, tiny_model(unimodal_loss_weight=weight), diagnosis_interval=1)
    trainer.train()
    calls = []
    for name, encoder in trainer.model.encoders.items():
        encoder.register_forward_hook(lambda module, inputs, output, name=name: calls.append(name))
    metrics = trainer.evaluate(TensorRows(19, seed=3))
    assert "eval_unimodal_audio_accuracy" in metrics
    assert calls == ["audio", "vision"] * 3


def test_predictions_are_measured_under_their_own_prefix(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(unimodal_loss_weight=1.0))
    metrics = trainer.predict(TensorRows(12, seed=3), metric_key_prefix="test").metrics
    assert {"test_accuracy", "test_unimodal_audio_accuracy", "test_unimodal_vision_accuracy"} <= set(metrics)


def test_several_evaluation_sets_are_measured_each(tmp_path):
    sets = {"first": TensorRows(12, seed=1), "second": TensorRows(12, seed=2)}
    trainer = make_trainer(
        tmp_path,
        trainer_kwargs={"eval_dataset": sets},
        eval_strategy="epoch",
        num_train_epochs=1,
        diagnosis_interval=1,
    )
    with pytest.warns(UserWarning, match="no re-learning step"):
        trainer.train()
    logged = set().union(*trainer.state.log_history)
    assert {"eval_first_unimodal_audio_accuracy", "eval_second_unimodal_vision_accuracy"} <= logged


def test_the_probe_is_the_same_after_resuming(tmp_path):
    settings = {"save_strategy": "epoch", "eval_strategy": "epoch", "diagnosis_interval": 1}
    whole = make_trainer(tmp_path, **settings)
    whole.train()
    resumed = make_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert without_times(resumed.state.log_history[:-1]) == without_times(whole.state.log_history[:-1])


def test_a_modality_with_nan_features_is_left_out_of_the_probes():
    train = PartFeatures({"a": np.eye(4), "b": np.full((4, 2), np.nan)}, np.arange(4) % 2)
    found = probe_accuracies(train, {"a": np.eye(4), "b": np.ones((4, 2))}, np.arange(4) % 2)
    assert list(found) == ["a"]
