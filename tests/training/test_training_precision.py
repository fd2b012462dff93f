"""A point in every precision: diagnosed from float32 features, moved in float32, rounded once."""

import math
import warnings

import numpy as np
import pytest
import torch
from tiny import TensorRows, history, make_trainer, tiny_model, weights_of
from torch.utils.data import Dataset

from hf_relearn.method import InitialWeights
from hf_relearn.relearning import callback, diagnoser

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


class Points:
    """Encoder weights before and after each point, and the features that each was diagnosed from."""

    def __init__(self, monkeypatch):
        self.moves, self.features = [], []
        move, diagnose = callback.relearn_encoders, diagnoser.diagnose

        def watched_move(encoders, *args):
            before = {name: weights_of(encoder) for name, encoder in encoders.items()}
            moved = move(encoders, *args)
            self.moves.append((before, {name: weights_of(encoder) for name, encoder in encoders.items()}))
            return moved

        def watched_diagnose(train_features, train_labels, val_features, *args, **kwargs):
            self.features.append((train_features, val_features))
            return diagnose(train_features, train_labels, val_features, *args, **kwargs)

        monkeypatch.setattr(callback, "relearn_encoders", watched_move)
        monkeypatch.setattr(diagnoser, "diagnose", watched_diagnose)


@pytest.fixture
def points(monkeypatch):
    return Points(monkeypatch)


PRECISIONS = ["float32", "bfloat16 autocast", "bfloat16 weights"]


def trainer_in(precision, folder, **kwargs):
    model = tiny_model()
    if precision == "bfloat16 weights":
        model = model.to(torch.bfloat16)
    return make_trainer(folder, model, bf16=precision == "bfloat16 autocast", **kwargs)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_point_is_computed_in_float32_and_rounded_once(precision, tmp_path, points):
    trainer_in(precision, tmp_path).train()
    dtype = torch.bfloat16 if precision == "bfloat16 weights" else torch.float32
    initial = InitialWeights.load(InitialWeights.find(tmp_path)[0])
    records = history(tmp_path)
    moved = 0
    assert len(points.moves) == len(records) == 2
    for record, (before, after) in zip(records, points.moves, strict=True):
        for modality, found in record["modalities"].items():
            alpha = found["alpha"]
            own = initial.subset(f"multimodal.encoders.{modality}")
            for name, value in after[modality].items():
                assert value.dtype == own[name].dtype == dtype
                exact = (1 - alpha) * before[modality][name].float() + alpha * own[name].float()
                assert torch.equal(value, exact.to(dtype) if alpha else before[modality][name]), name
                moved += not torch.equal(value, before[modality][name])
    assert moved > 50


@pytest.mark.parametrize("precision", PRECISIONS)
def test_strengths_come_from_float32_features(precision, tmp_path, points):
    trainer_in(precision, tmp_path, learning_rate=0.0, num_train_epochs=2).train()
    for features in points.features[0]:
        assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in features.values())
    expected = make_trainer(tmp_path / "other", tiny_model()).part_features()["training"].features["audio"]
    found = points.features[0][0]["audio"]
    assert np.array_equal(found, expected) == (precision == "float32")  # the model did compute in that precision
    assert np.allclose(found, expected, atol=0.05)


def test_float16_features_as_large_as_they_get_give_no_nan(tmp_path, points):
    def large(model, batch):
        with torch.autocast("cpu", torch.float16):
            features = model(**{name: value for name, value in batch.items() if name != "labels"}).features
        return {name: (values / values.abs().max() * 65000).half() for name, values in features.items()}

    trainer = make_trainer(tmp_path)
    trainer.relearn_callback.feature_function = large
    trainer.train()
    for features in points.features[0]:
        assert all(values.dtype == np.float32 for values in features.values())
        # Their range, by which they are scaled, is infinite in float16.
        assert all(values.max() - values.min() > torch.finfo(torch.float16).max for values in features.values())
    records = history(tmp_path)
    assert len(records) == 2
    for record in records:
        for found in record["modalities"].values():
            assert all(math.isfinite(value) for value in found.values()), found


def test_a_gradient_scaler_is_untouched(tmp_path, monkeypatch):
    def run(folder, scaler):
        trainer = make_trainer(folder, max_grad_norm=0.0, optim="sgd", learning_rate=0.05)
        trainer.accelerator.scaler = scaler  # on a CPU accelerate makes none
        trainer.train()
        return weights_of(trainer.model)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    states, move = [], callback.relearn_encoders
    verdict = callback.RelearnCallback._verdict

    def before(self, model):
        states.append(scaler.state_dict())
        return verdict(self, model)

    def after(*args):
        moved = move(*args)
        states.append(scaler.state_dict())
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(callback.RelearnCallback, "_verdict", before)
        patch.setattr(callback, "relearn_encoders", after)
        scaled = run(tmp_path / "scaled", scaler)
    assert len(states) == 4 and states[0] == states[1] and states[2] == states[3]
    assert scaler.get_scale() > states[0]["scale"] >= 2**10  # it was in use
    for name, value in run(tmp_path / "plain", None).items():
        assert torch.allclose(value, scaled[name], rtol=1e-4, atol=1e-6), name


class PartlyBroken(Dataset):
    """A diagnosing part of 12 samples, the images of 3 of which are broken."""

    def __init__(self, value):
        self.rows, self.value = TensorRows(12, seed=2), value
        self.labels = self.rows.labels

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {**row, "vision_pixel_values": row["vision_pixel_values"] + (self.value if index < 3 else 0.0)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_that_are_not_finite_stop_the_points_and_warn_once(precision, tmp_path, points):
    others = {"diagnosis_dataset": PartlyBroken(math.nan)}
    trainer = trainer_in(precision, tmp_path, trainer_kwargs=others)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # by default the same warning shows once anyway
        trainer.train()
    found = [str(warning.message) for warning in caught if "no diagnosis is possible" in str(warning.message)]
    assert len(found) == 1
    assert "training goes on without it: modality 'vision', diagnosing part: features of 3 of 12 samples" in found[0]
    assert "(25.0%) are NaN or infinite" in found[0]
    assert points.moves == [] and len(points.features) == 2  # at both points
    assert trainer.state.global_step == trainer.state.max_steps and history(tmp_path) == []
