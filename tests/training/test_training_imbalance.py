"""Measures of imbalance in evaluation, against what predictions without some modalities give."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from test_training_ablations import GappyRows, batch_of
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, NUM_CLASSES, TensorRows, make_trainer, tiny_model
from torch.utils.data import Dataset

from hf_relearn import FeaturesConfig, MultimodalForClassification
from hf_relearn.training.imbalance import calibration_error, shapley_values

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]


class Views(Dataset):
    """Views of one class, of different clarity; every fifth sample lacks the first view."""

    def __init__(self, names, size=60):
        generator = np.random.default_rng(0)
        self.labels = generator.integers(0, NUM_CLASSES, size)
        centres = generator.normal(size=(NUM_CLASSES, 4))
        self.rows = {
            f"{name}_feature_values": torch.tensor(
                centres[self.labels] / (1 + 0.7 * index) + generator.normal(size=(size, 4)), dtype=torch.float32
            )
            for index, name in enumerate(names)
        }
        self.rows[f"{names[0]}_present"] = torch.arange(size) % 5 > 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"labels": int(self.labels[index]), **{name: values[index] for name, values in self.rows.items()}}


def trained(folder, names):
    torch.manual_seed(0)
    config = {"input_size": 4, "architecture": "mlp", "hidden_size": 8, "num_hidden_layers": 1}
    labels = {index: str(index) for index in range(NUM_CLASSES)}
    backbones = {name: FeaturesConfig(intermediate_size=8, **config) for name in names}
    model = MultimodalForClassification.from_backbones(backbones, id2label=labels, fusion="gated")
    trainer = make_trainer(folder, model, Views(names), relearn_strategy="no", num_train_epochs=2)
    trainer.train()
    return trainer


def predictions(trainer, names, kept):
    """Logits with some modalities only."""
    rows = Views(names).rows
    everywhere = torch.ones(len(next(iter(rows.values())))).bool()
    masks = {f"{n}_present": rows.get(f"{n}_present", everywhere) & (n in kept) for n in names}
    with torch.no_grad():
        return trainer.model.eval()(**{**rows, **masks}).logits.numpy(), masks


def exact_shapley(trainer, names):
    labels = Views(names).labels
    guess = np.bincount(labels).argmax()
    worth = {}
    for size in range(len(names) + 1):
        for kept in combinations(names, size):
            logits, masks = predictions(trainer, names, kept)
            some = torch.stack([*masks.values()]).any(dim=0).numpy()
            worth[frozenset(kept)] = accuracy_score(labels, np.where(some, logits.argmax(-1), guess))
    values, number = {}, len(names)
    for name in names:
        rest = [other for other in names if other != name]
        subsets = [frozenset(kept) for size in range(number) for kept in combinations(rest, size)]
        weights = [factorial(len(s)) * factorial(number - len(s) - 1) / factorial(number) for s in subsets]
        gains = [worth[s | {name}] - worth[s] for s in subsets]
        values[f"eval_shapley_{name}"] = float(np.dot(weights, gains))
    return values, worth


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_shapley_values_are_those_of_all_subsets(tmp_path, names):
    trainer = trained(tmp_path, names)
    metrics = trainer.evaluate(Views(names))
    expected, worth = exact_shapley(trainer, names)
    assert len({round(value, 6) for value in expected.values()}) == len(names)
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)
    assert sum(expected.values()) == pytest.approx(worth[frozenset(names)] - worth[frozenset()])


def test_of_more_than_three_modalities_they_are_estimated_by_the_same_orders_each_time(tmp_path):
    names = ("a", "b", "c", "d", "e")
    trainer = trained(tmp_path, names)
    calls = []
    trainer.model.encoders["a"].register_forward_hook(lambda *_: calls.append(1))
    metrics = trainer.evaluate(Views(names))
    assert len(calls) == 8  # batches of 8: the encoders run once
    expected, worth = exact_shapley(trainer, names)
    found = {key: metrics[key] for key in expected}
    assert sum(found.values()) == pytest.approx(worth[frozenset(names)] - worth[frozenset()])
    assert found == pytest.approx(expected, abs=0.06)
    again = trainer.evaluate(Views(names))
    assert found == {key: again[key] for key in expected}


def test_the_other_measures_follow_from_the_predictions(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(), GappyRows(), relearn_alpha="0.5", diagnosis_fraction=0)
    trainer.train()
    dataset = GappyRows(29, seed=5)
    metrics = trainer.evaluate(dataset)
    batch = batch_of(dataset)
    labels = batch.pop("labels").numpy()
    with torch.no_grad():
        output = trainer.model.eval()(**batch, output_ablations=True)
    probabilities = output.logits.double().softmax(-1).numpy()
    assert metrics["eval_nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(NUM_CLASSES)), rel=1e-5)
    right = probabilities.argmax(-1) == labels
    assert metrics["eval_ece"] == pytest.approx(calibration_error(probabilities.max(-1), right), rel=1e-4)
    both = dataset.present["audio"] & dataset.present["vision"]
    assert 0 < both.sum() < len(both)
    alone = {name: output.ablation_logits[f"only_{name}"].argmax(-1).numpy() == labels for name in dataset.present}
    rows = np.arange(len(labels))
    for name, other in (("audio", "vision"), ("vision", "audio")):
        without = output.ablation_logits[f"without_{name}"].softmax(-1).numpy()
        rises = without[rows, labels] > probabilities[rows, labels]
        assert metrics[f"eval_rises_without_{name}"] == pytest.approx(rises[both].mean())
        single = (alone[name] & ~alone[other])[both]
        assert metrics[f"eval_right_alone_{name}"] == pytest.approx(single.mean())
    assert metrics["eval_right_alone"] == pytest.approx((alone["audio"] ^ alone["vision"])[both].mean())


def test_unlabelled_rows_are_left_out_and_none_give_no_measure(tmp_path):
    trainer = make_trainer(tmp_path, relearn_strategy="no")
    rows, part = TensorRows(16, seed=3), TensorRows(16, seed=3)
    part.labels = np.where(np.arange(16) < 9, part.labels, -100)
    first = TensorRows(16, seed=3)
    found = trainer.evaluate(part)
    first = trainer.evaluate(torch.utils.data.Subset(rows, range(9)))
    for name in ("eval_nll", "eval_ece", "eval_shapley_audio", "eval_right_alone", "eval_rises_without_vision"):
        assert found[name] == pytest.approx(first[name], rel=1e-5), name
    part.labels[:] = -100
    trainer.compute_metrics = None
    assert not any("shapley" in name or "nll" in name for name in trainer.evaluate(part))


def test_the_calibration_error_of_known_cases():
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.55, 0.55])
    assert calibration_error(confidence, np.array([1, 1, 1, 0, 1, 0])) == pytest.approx((4 * 0.15 + 2 * 0.05) / 6)
    assert calibration_error(np.ones(4), np.ones(4)) == 0
    assert calibration_error(np.array([1 / 15, 1 / 15 + 1e-9]), np.array([0, 1])) == pytest.approx(0.5, abs=1e-6)


def test_shapley_values_of_a_known_game():
    worth = {frozenset(): 0.5, frozenset("a"): 0.7, frozenset("b"): 0.5, frozenset("ab"): 0.9}
    assert shapley_values(["a", "b"], worth) == pytest.approx({"shapley_a": 0.3, "shapley_b": 0.1})
