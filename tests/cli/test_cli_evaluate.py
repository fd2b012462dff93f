"""`hf-relearn evaluate`."""

import csv
import json

import numpy as np
import pytest
import torch
from tiny import tiny_model

from hf_relearn import MultimodalProcessor

FLAGS = ("--columns", "audio=sound", "vision=picture", "--label_column", "emotion")


@pytest.fixture
def emotions(tmp_path):
    """A model whose classes stand in another order than in the table."""
    torch.manual_seed(0)
    model = tiny_model()
    model.config.id2label = {0: "emotion 2", 1: "emotion 0", 2: "emotion 1"}
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    model.save_pretrained(tmp_path / "model")
    MultimodalProcessor.from_model(model.config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_metrics_classes_confusion_and_predictions(emotions, clips, run, tmp_path):
    output = tmp_path / "out"
    code, out, err = run(
        "evaluate", emotions, "--dataset_name", clips / "validation.csv", *FLAGS, "--output", output, "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    with open(output / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [f"emotion {index % 3}" for index in range(12)]
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert found["metrics"]["accuracy"] == pytest.approx(right)
    for row in rows:
        scores = {name: float(row[name]) for name in ("emotion 0", "emotion 1", "emotion 2")}
        assert max(scores, key=scores.get) == row["prediction"] and sum(scores.values()) == pytest.approx(1, abs=1e-5)
    written = json.loads((output / "metrics.json").read_text())
    assert np.sum(written["confusion"]) == 12 and np.trace(written["confusion"]) == pytest.approx(12 * right)
    for name, values in found["per_class"].items():
        mine = [row for row in rows if row["label"] == name]
        assert values["support"] == 4
        assert values["recall"] == pytest.approx(np.mean([row["prediction"] == name for row in mine]))
    assert (output / "confusion.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("evaluate", emotions, "--dataset_name", clips / "validation.csv", *FLAGS, "--output", output)
    assert code == 0 and "precision" in out and "accuracy" in out and str(output / "predictions.csv") in out


def test_a_class_that_the_model_does_not_have(emotions, clips, run, tmp_path):
    table = tmp_path / "other.csv"
    table.write_text(f"sound,picture,emotion\n{clips}/train0.wav,{clips}/train0.png,bored\n")
    code, _, err = run("evaluate", emotions, "--dataset_name", table, *FLAGS, "--output", tmp_path / "out")
    assert code == 1 and "has the class 'bored', which the model does not have; its classes are emotion 2" in err
    assert not (tmp_path / "out").exists()
