"""Uni-modal quality in evaluation, at no further forward pass."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from tiny import TensorRows, make_trainer, tiny_model, without_times

from hf_relearn.method import linear_probe_accuracy
from hf_relearn.training.modality_accuracy import FeatureWindow, probe_accuracies

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


def test_without_heads_a_probe_on_training_features_is_scored(tmp_path):
    trainer = make_trainer(tmp_path)
    assert not any("unimodal" in name for name in trainer.evaluate())  # nothing was trained on yet
    trainer.train()
    dataset = TensorRows(19, seed=3)
    metrics = trainer.evaluate(dataset)
    outputs, labels = outputs_on(trainer.model, dataset)
    window = trainer.unimodal.window.tensors()
    assert len(window["labels"]) == 3 * 27
    for name, features in outputs.features.items():
        expected = linear_probe_accuracy(window[f"features.{name}"], window["labels"], features, labels)
        assert metrics[f"eval_unimodal_{name}_accuracy"] == pytest.approx(expected, abs=1 / 18)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_evaluation_makes_no_further_forward_pass(tmp_path, weight):
    trainer = make_trainer(tmp_path, tiny_model(unimodal_loss_weight=weight))
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
    trainer = make_trainer(tmp_path, trainer_kwargs={"eval_dataset": sets}, eval_strategy="epoch", num_train_epochs=1)
    with pytest.warns(UserWarning, match="no re-learning point"):
        trainer.train()
    logged = set().union(*trainer.state.log_history)
    assert {"eval_first_unimodal_audio_accuracy", "eval_second_unimodal_vision_accuracy"} <= logged


def test_the_probe_is_the_same_after_resuming(tmp_path):
    settings = {"save_strategy": "epoch", "eval_strategy": "epoch"}
    whole = make_trainer(tmp_path, **settings)
    whole.train()
    resumed = make_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert without_times(resumed.state.log_history[:-1]) == without_times(whole.state.log_history[:-1])


def batch_of(size, start):
    features = torch.arange(start, start + size, dtype=torch.float16)[:, None].repeat(1, 2)
    return {"audio": features}, torch.arange(start, start + size)


def test_the_window_keeps_the_latest_samples():
    window = FeatureWindow(size=5)
    assert window.tensors() == {}
    for start in range(0, 12, 3):
        window.add(*batch_of(3, start))
    kept = window.tensors()
    assert kept["labels"].tolist() == list(range(6, 12))  # whole batches, as few as hold 5 samples
    assert kept["features.audio"].dtype == torch.float32
    assert kept["features.audio"][:, 0].tolist() == list(range(6, 12))


def test_the_window_does_not_share_memory_with_what_it_was_given():
    window, (features, labels) = FeatureWindow(), batch_of(3, 0)
    features = {"audio": features["audio"].float()}
    window.add(features, labels)
    features["audio"].zero_(), labels.zero_()
    assert window.tensors()["labels"].tolist() == [0, 1, 2]
    assert window.tensors()["features.audio"][:, 0].tolist() == [0, 1, 2]


def test_a_window_is_read_back_as_it_was(tmp_path):
    window, other = FeatureWindow(size=5), FeatureWindow(size=5)
    for start in range(0, 9, 3):
        window.add(*batch_of(3, start))
    window.save(str(tmp_path / "window.safetensors"))
    other.load(str(tmp_path / "window.safetensors"))
    for each in (window, other):
        each.add(*batch_of(2, 9))
    assert all(torch.equal(value, other.tensors()[name]) for name, value in window.tensors().items())


def test_a_modality_with_nan_features_is_left_out_of_the_probes():
    train = {"features.a": torch.eye(4), "features.b": torch.full((4, 2), torch.nan), "labels": torch.arange(4) % 2}
    found = probe_accuracies(train, {"a": np.eye(4), "b": np.ones((4, 2))}, np.arange(4) % 2)
    assert list(found) == ["a"]
