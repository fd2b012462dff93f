"""A point in every precision: diagnosed from float32 features, moved in float32, rounded once."""

import math
import warnings

import numpy as np
import pytest
import torch
from tiny import FEW_SAMPLES, TensorRows, around_points, assert_same, history, make_trainer, tiny_model, weights_of
from torch.utils.data import Dataset

from hf_relearn.method import InitialWeights
from hf_relearn.training import read_history

pytestmark = FEW_SAMPLES


class Points:
    """Encoder weights before and after each point of a run, and the training part's features of each diagnosis."""

    def __init__(self, trainer):
        self.features = []
        self.moves = around_points(
            trainer, lambda: {name: weights_of(encoder) for name, encoder in trainer.model.encoders.items()}
        )
        trainer.relearn_callback.on_features = lambda part: self.features.append(part.features)


PRECISIONS = ["float32", "bfloat16 autocast", "bfloat16 weights"]


def trainer_in(precision, folder, **kwargs):
    model = tiny_model()
    if precision == "bfloat16 weights":
        model = model.to(torch.bfloat16)
    return make_trainer(folder, model, bf16=precision == "bfloat16 autocast", **kwargs)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_point_is_computed_in_float32_and_rounded_once(precision, tmp_path):
    trainer = trainer_in(precision, tmp_path)
    points = Points(trainer)
    trainer.train()
    dtype = torch.bfloat16 if precision == "bfloat16 weights" else torch.float32
    initial = InitialWeights.load(InitialWeights.find(tmp_path)[0])
    records = history(tmp_path)
    moved = 0
    assert len(points.moves) == len(records) == 2
    for record, (before, after, _) in zip(records, points.moves, strict=True):
        for modality, found in record["modalities"].items():
            alpha = found["alpha"]
            own = initial.subset(f"multimodal.encoders.{modality}")
            for name, value in after[modality].items():
                assert value.dtype == own[name].dtype == dtype
                exact = torch.lerp(before[modality][name].float(), own[name].float(), alpha)
                assert torch.equal(value, exact.to(dtype) if alpha else before[modality][name]), name
                moved += not torch.equal(value, before[modality][name])
    assert moved > 50


@pytest.mark.parametrize("precision", PRECISIONS)
def test_strengths_come_from_float32_features(precision, tmp_path):
    trainer = trainer_in(precision, tmp_path, learning_rate=0.0, num_train_epochs=2)
    points = Points(trainer)
    trainer.train()
    assert len(points.features) == 2  # at the start and at the point
    for features in points.features:
        assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in features.values())
    expected = make_trainer(tmp_path / "other", tiny_model()).part_features()["training"].features["audio"]
    found = points.features[0]["audio"]
    assert np.array_equal(found, expected) == (precision == "float32")  # the model did compute in that precision
    assert np.allclose(found, expected, atol=0.05)


def test_float16_features_as_large_as_they_get_give_no_nan(tmp_path):
    def large(model, batch):
        with torch.autocast("cpu", torch.float16):
            features = model(**{name: value for name, value in batch.items() if name != "labels"}).features
        return {name: (values / values.abs().max() * 65000).half() for name, values in features.items()}

    trainer = make_trainer(tmp_path)
    trainer.relearn_callback.feature_function = large
    points = Points(trainer)
    trainer.train()
    assert len(points.features) == 3
    for features in points.features:
        assert all(values.dtype == np.float32 for values in features.values())
        # Their range, by which they are scaled, is infinite in float16.
        assert all(values.max() - values.min() > torch.finfo(torch.float16).max for values in features.values())
    records = history(tmp_path)
    assert len(records) == 2
    for record in records:
        for found in record["modalities"].values():
            assert all(
                math.isfinite(found[name]) for name in ("train_purity", "val_purity", "gap", "alpha", "distance")
            )


def test_a_gradient_scaler_is_untouched(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    settings = {"optim": "sgd", "learning_rate": 0.05}
    scaled, plain = (make_trainer(tmp_path / name, **settings) for name in ("scaled", "plain"))
    scaled.accelerator.scaler = scaler  # on a CPU accelerate makes none
    seen = around_points(scaled, scaler.state_dict)
    scaled.train()
    assert len(seen) == 2 and all(before == after for before, after, _ in seen)
    assert any(point.distances for _, _, point in seen)
    assert scaler.get_scale() > seen[0][0]["scale"] >= 2**10  # it was in use
    plain.train()
    other = weights_of(scaled.model)
    for name, value in weights_of(plain.model).items():
        assert torch.allclose(value, other[name], rtol=1e-4, atol=1e-6), name


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
def test_a_modality_with_features_that_are_not_finite_sits_out_and_the_others_are_re_learnt(precision, tmp_path):
    others = {"diagnosis_dataset": PartlyBroken(math.nan)}
    trainer = trainer_in(precision, tmp_path, trainer_kwargs=others)
    points = Points(trainer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    found = [str(warning.message) for warning in caught if "are NaN or infinite" in str(warning.message)]
    assert len(found) == 3  # at the start and at both points
    assert "modality 'vision', diagnosing part: features of 3 of 12 samples (25.0%) are NaN" in found[0]
    assert trainer.state.global_step == trainer.state.max_steps
    start, *later = read_history(tmp_path)
    assert [record["kind"] for record in later] == ["point", "point"]
    for record in (start, *later):
        values = record["modalities"]["vision"]
        assert values["skipped"] == "features that are not finite" and values["alpha"] == values["distance"] == 0
        assert "skipped" not in record["modalities"]["audio"] and record["modalities"]["audio"]["gap"] is not None
    assert any(record["modalities"]["audio"]["distance"] > 0 for record in later)
    for before, after, _ in points.moves:
        assert_same(before["vision"], after["vision"])
