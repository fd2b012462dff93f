"""Metrics: values, offline loading, and where the values of a diagnosis go."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from tiny import make_trainer
from transformers import EvalPrediction

from hf_relearn import purity_score
from hf_relearn.training import classification_metrics, load_metric, read_history

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


def predictions(seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(50, 4)), generator.integers(0, 5, size=50)  # one class is never predicted


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    load_metric.cache_clear()


def test_classification_metrics_are_those_of_scikit_learn(no_network):
    logits, labels = predictions()
    predicted = logits.argmax(-1)
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "f1_macro": f1_score(labels, predicted, average="macro", zero_division=0),
        "f1_weighted": f1_score(labels, predicted, average="weighted", zero_division=0),
    }
    assert classification_metrics(EvalPrediction(logits, labels)) == pytest.approx(expected)
    assert classification_metrics(EvalPrediction((logits, np.zeros(3)), labels)) == pytest.approx(expected)


def test_purity_is_that_of_the_method(no_network):
    generator = np.random.default_rng(0)
    labels, clusters = generator.integers(-3, 3, size=60), generator.integers(0, 4, size=60)
    found = load_metric("purity").compute(predictions=clusters, references=labels)
    assert found == {"purity": pytest.approx(purity_score(labels, clusters))}


def test_metrics_can_be_used_again_and_in_batches(no_network):
    metric = load_metric("accuracy")
    for _ in range(2):
        metric.add_batch(predictions=[1, 2], references=[1, 0])
        metric.add_batch(predictions=[3], references=[3])
        assert metric.compute()["accuracy"] == pytest.approx(2 / 3)


def test_a_metric_that_is_not_shipped_is_refused_by_name():
    with pytest.raises(ValueError, match="'bleu' is not shipped; there are accuracy, f1, purity"):
        load_metric("bleu")


FIELDS = {"train_purity", "val_purity", "train_chance_purity", "val_chance_purity", "gap", "diagnosed_alpha"}
FIELDS |= {"train_size", "diagnosis_size"}
KEYS = {f"relearn/{name}/{field}" for name in ("audio", "vision") for field in FIELDS | {"alpha", "distance"}}


def test_every_diagnosis_stands_in_the_log(tmp_path):
    trainer = make_trainer(tmp_path, diagnosis_interval=1)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if any(key.startswith("relearn/") for key in entry)]
    records = read_history(tmp_path)
    assert [record["kind"] for record in records] == ["start", "point", "point", "end"]
    for entry, record in zip(entries, records, strict=True):
        assert set(entry) == KEYS | {"epoch", "step"}
        assert (entry["epoch"], entry["step"]) == (record["epoch"], record["step"])
        assert all(entry[key] == record["modalities"][key.split("/")[1]][key.split("/")[2]] for key in KEYS)


def test_trackers_receive_every_diagnosis(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    make_trainer(tmp_path, report_to=["tensorboard"]).train()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    # transformers puts what neither evaluates nor tests under "train/".
    shown = {key.removeprefix("train/") for key in events.Tags()["scalars"]}
    assert KEYS <= shown
    values = [event.value for event in events.Scalars("train/relearn/audio/alpha")]
    expected = [record["modalities"]["audio"]["alpha"] for record in read_history(tmp_path)]
    assert values == pytest.approx(expected)
