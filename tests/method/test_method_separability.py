"""Leave-one-out separability."""

import dataclasses
import math
import time
import tracemalloc

import numpy as np
import pytest
import torch

import hf_relearn
from hf_relearn.method import NonFiniteFeaturesError, Separability, separability

REFERENCE_FILES = [
    "class_with_one_sample",
    "constant_dimension_and_named_classes",
    "more_dimensions_than_samples",
    "noise",
    "over_fitted",
    "plain",
]


def draw(num_samples, num_classes=5, dimensions=12, signal=1.0, seed=0, classes_seed=100):
    """Features around one centre per class, and their labels."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(classes_seed).normal(size=(num_classes, dimensions)) * signal
    labels = np.arange(num_samples) % num_classes
    return (centres[labels] + generator.normal(size=(num_samples, dimensions))).astype(np.float32), labels


def numbers(found):
    """What can be compared by closeness."""
    return [found.train, found.val, found.gap, found.standard_error, found.memorised, found.memorised_error]


def by_refitting(train, labels, val, val_labels, penalty):
    """Scores of ridge regression by really fitting without each sample; the temperature is not chosen here."""
    scaled = (train - train.mean(0)) / train.std(0)
    classes = np.unique(np.concatenate([labels, val_labels]))
    eigenvalues = np.linalg.eigvalsh(scaled.T @ scaled)
    shrunk = penalty * eigenvalues[eigenvalues > 1e-6 * eigenvalues[-1]].mean()

    def fit(left_out):
        keep = np.arange(len(labels)) != left_out
        # The intercept is free, so that the rows are centred on the samples that stay.
        x, t = scaled[keep], (labels[keep, None] == classes).astype(float)
        centred, targets = x - x.mean(0), t - t.mean(0)
        weights = np.linalg.solve(centred.T @ centred + shrunk * np.eye(x.shape[1]), centred.T @ targets)
        return lambda row: (row - x.mean(0)) @ weights

    train_scores = np.stack([fit(i)(scaled[i]) for i in range(len(labels))])
    seen: dict[int, int] = {}
    val_scores = []
    for row, label in zip((val - train.mean(0)) / train.std(0), val_labels, strict=True):
        own = np.flatnonzero(labels == label)
        val_scores.append(fit(own[seen.get(label, 0) * 7919 % len(own)])(row))
        seen[label] = seen.get(label, 0) + 1
    return train_scores, np.stack(val_scores)


@pytest.mark.parametrize("name", REFERENCE_FILES)
def test_reference_values(shared_reference, name):
    case = np.load(shared_reference / "separability" / f"{name}.npz")
    found = separability(*(case[key] for key in ("train_features", "train_labels", "val_features", "val_labels")))
    np.testing.assert_allclose(found.train_scores, case["train_scores"], atol=1e-4)
    np.testing.assert_allclose(found.val_scores, case["val_scores"], atol=1e-4)
    assert found.separator == str(case["separator"])
    assert found.train == pytest.approx(float(case["train_separability"]), abs=1e-3)
    assert found.val == pytest.approx(float(case["val_separability"]), abs=1e-3)
    assert found.gap == pytest.approx(float(case["gap"]), abs=1e-3)
    assert found.standard_error == pytest.approx(float(case["standard_error"]), abs=1e-3)
    for name, gap in (("alpha", found.gap - found.standard_error), ("alpha_high", found.gap + found.standard_error)):
        assert math.tanh(3 * max(0.0, gap)) == pytest.approx(float(case[name]), abs=1e-3)


def test_values_are_plain_and_consistent():
    found = separability(*draw(100), *draw(60, seed=1))
    assert isinstance(found, Separability)
    assert found == hf_relearn.separability(*draw(100), *draw(60, seed=1))
    assert {type(getattr(found, each.name)) for each in dataclasses.fields(found) if each.compare} == {float, int, str}
    assert found.gap == found.train - found.val
    assert (found.chance, found.num_classes, found.train_size, found.val_size) == (0.2, 5, 100, 60)
    assert found.memorised == pytest.approx(max(0.0, found.gap) / (found.train - 0.2))
    assert found.memorised_error == pytest.approx(found.standard_error / (found.train - 0.2))
    assert (found.train_scores.shape, found.val_scores.shape) == ((100,), (60,))
    assert "scores" not in repr(found)


@pytest.mark.parametrize(("num_train", "dimensions"), [(60, 8), (40, 90)])
def test_ridge_is_scored_as_if_fitted_again_without_each_sample(num_train, dimensions):
    generator = np.random.default_rng(0)
    stretch = generator.normal(size=(dimensions, dimensions))  # correlated dimensions, where centres do badly
    (train, labels), (val, val_labels) = (
        draw(size, 2, dimensions, signal=0.3, seed=seed) for seed, size in enumerate((num_train, 20))
    )
    train, val = train.astype(float) @ stretch, val.astype(float) @ stretch
    found = separability(train, labels, val, val_labels)
    assert found.separator.startswith("ridge ")
    expected = by_refitting(train, labels, val, val_labels, float(found.separator.split()[1]))
    closest = []
    for temperature in 2 * np.logspace(-3, 2, 21):  # one of these is chosen
        probabilities = [
            1 / np.exp((scores - scores[np.arange(len(own)), own][:, None]) / temperature).sum(axis=1)
            for scores, own in zip(expected, (labels, val_labels), strict=True)
        ]
        found_scores = np.concatenate([found.train_scores, found.val_scores])
        closest.append(np.abs(np.concatenate(probabilities) - found_scores).max())
    assert sorted(closest)[0] < 1e-3 < 0.01 < sorted(closest)[1]


def test_overfitting_is_found_and_its_absence_too():
    train, labels = draw(200, 4, 8, signal=3.0)
    fresh = separability(train, labels, *draw(200, 4, 8, signal=3.0, seed=1))
    assert fresh.train > 0.9
    assert abs(fresh.gap) < 3 * fresh.standard_error + 1e-3
    other = separability(train, labels, *draw(200, 4, 8, signal=3.0, seed=1, classes_seed=7))
    assert other.gap - 2 * other.standard_error > 0.5
    assert other.memorised - 2 * other.memorised_error > 0.3


@pytest.mark.parametrize(
    ("num_train", "num_val", "num_classes", "dimensions"), [(800, 200, 2, 16), (900, 150, 60, 64)]
)
def test_noise_scores_chance_in_both_parts(num_train, num_val, num_classes, dimensions):
    alphas = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        found = separability(
            generator.normal(size=(num_train, dimensions)),
            generator.integers(0, num_classes, num_train),
            generator.normal(size=(num_val, dimensions)),
            generator.integers(0, num_classes, num_val),
        )
        assert found.train == pytest.approx(1 / num_classes, abs=0.03)
        assert found.memorised == found.memorised_error == 0.0
        alphas.append(math.tanh(3 * max(0.0, found.gap - found.standard_error)))
    assert max(alphas) <= 0.06


@pytest.mark.parametrize("dimensions", [12, 300])
def test_order_and_scale_make_no_difference(dimensions):
    (train, labels), (val, val_labels) = draw(90, dimensions=dimensions), draw(60, dimensions=dimensions, seed=1)
    expected = separability(train, labels, val, val_labels)
    generator = np.random.default_rng(5)
    columns, names = generator.permutation(dimensions), generator.permutation(5) * 10 - 7
    scale, shift = generator.uniform(0.1, 10, dimensions), generator.normal(size=dimensions)
    found = separability(
        (train * scale + shift)[:, columns], names[labels], (val * scale + shift)[:, columns], names[val_labels]
    )
    assert found.separator == expected.separator
    assert numbers(found) == pytest.approx(numbers(expected), abs=2e-4)
    # Training samples in another order have the same scores; only the partners of held-out samples change.
    rows = generator.permutation(90)
    shuffled = separability(train[rows], labels[rows], val, val_labels)
    np.testing.assert_allclose(shuffled.train_scores, expected.train_scores[rows], atol=2e-4)
    assert shuffled.val == pytest.approx(expected.val, abs=0.02)


def test_no_global_generator_is_used_or_changed():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = separability(*draw(2500), *draw(60, seed=1))
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(1)
    assert separability(*draw(2500), *draw(60, seed=1)) == first


def test_a_class_with_one_sample_and_classes_absent_in_a_part():
    (train, labels), (val, val_labels) = draw(80), draw(50, seed=1)
    labels, val_labels = labels.copy(), val_labels.copy()
    labels[labels == 4] = 0
    labels[7] = 4  # one training sample
    val_labels[val_labels == 3] = 2  # absent from the held-out part
    val_labels[:2] = 9  # absent from the training part
    found = separability(train, labels, val, val_labels)
    assert found.num_classes == 6
    np.testing.assert_array_equal(np.isnan(found.train_scores), labels == 4)
    np.testing.assert_array_equal(np.isnan(found.val_scores), (val_labels == 9) | (val_labels == 4))
    means = [found.train_scores[labels == name].mean() for name in (0, 1, 2)]
    counts = [(val_labels == name).sum() for name in (0, 1, 2)]
    assert found.train == pytest.approx(np.average(means, weights=counts))
    assert found.val == pytest.approx(np.nanmean(found.val_scores))
    assert math.isfinite(found.standard_error)


def test_constant_dimensions_change_nothing_but_the_mean_scatter():
    (train, labels), (val, val_labels) = draw(80), draw(50, seed=1)
    ridge = separability(train, labels, val, val_labels)
    assert ridge.separator.startswith("ridge")
    padded = [np.column_stack([x, np.full(len(x), 0.1, np.float32), np.zeros(len(x))]) for x in (train, val)]
    padded[1][:, -1] = 1e6  # a dimension that only the held-out part has
    found = separability(padded[0], labels, padded[1], val_labels)
    assert numbers(found) == pytest.approx(numbers(ridge), abs=1e-4)


def test_constant_features_score_chance():
    labels, val_labels = np.arange(40) % 4, np.arange(20) % 4
    found = separability(np.full((40, 6), 0.1), labels, np.full((20, 6), 0.3), val_labels)
    assert numbers(found) == pytest.approx([0.25, 0.25, 0, 0, 0, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    (train, labels), (val, val_labels) = draw(80), draw(50, seed=1)
    train, val = torch.tensor(train).to(dtype), torch.tensor(val).to(dtype)
    found = separability(train, torch.tensor(labels), val, val_labels)
    assert found == separability(train.float().numpy(), labels, val.float().numpy(), val_labels)


@pytest.mark.parametrize("size", [40, 400])
def test_an_outlier_does_not_decide_the_scale(size):
    (train, labels), (val, val_labels) = draw(size, 2), draw(100, 2, seed=1)
    expected = separability(train, labels, val, val_labels)
    for part in (train, val):
        part[3] = 1e20
    found = separability(train, labels, val, val_labels)
    assert min(expected.train, expected.val) > 0.95
    assert min(found.train, found.val) > 0.9  # 0.5 if the others shrink to one point


def test_a_feature_that_few_samples_have_is_no_outlier():
    """A rare class is told apart by a dimension that is zero elsewhere."""
    (train, labels), (val, val_labels) = draw(1200, 4), draw(600, 4, seed=1)
    rare = np.where(np.arange(1200) < 8, 4, labels), np.where(np.arange(600) < 4, 4, val_labels)
    columns = [(names == 4).astype(np.float32)[:, None] for names in rare]
    found = separability(np.hstack([train, columns[0]]), rare[0], np.hstack([val, columns[1]]), rare[1])
    without = separability(train, rare[0], val, rare[1])
    assert found.val_scores[:4].mean() > without.val_scores[:4].mean() + 0.5


def test_two_to_many_samples_stay_exact_in_pieces():
    """60,000 samples are worked on in pieces, and then as the first rows of them alone give nearly the same."""
    train, labels = draw(60_000, 10, 96, signal=0.3)
    val, val_labels = draw(3000, 10, 96, signal=0.3, seed=1)
    found = separability(train, labels, val, val_labels)
    part = separability(train[:20_000], labels[:20_000], val, val_labels)
    assert found.train == pytest.approx(part.train, abs=0.01)
    assert found.val == pytest.approx(part.val, abs=0.01)
    assert abs(found.gap) < 3 * found.standard_error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.zeros(7, dtype=int)}, "training part: 80 features but 7 labels"),
        ({"val_features": np.zeros((50, 3))}, "training part has features of 12 dimensions, the diagnosing part of 3"),
        ({"train_labels": np.arange(80)}, "not one of 80 classes has two training samples and a held-out one"),
        ({"val_labels": np.full(50, 77)}, "not one of 6 classes"),
        ({"max_samples": 0}, "max_samples must be at least 1, but is 0"),
        ({"val_labels": np.full(50, -100)}, "all 50 labels of the diagnosing part are -100"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    (train, labels), (val, val_labels) = draw(80), draw(50, seed=1)
    given = {"train_features": train, "train_labels": labels, "val_features": val, "val_labels": val_labels}
    with pytest.raises(ValueError, match=message):
        separability(**(given | change))


def test_features_that_are_not_finite_are_refused():
    (train, labels), (val, val_labels) = draw(80), draw(50, seed=1)
    val[3, 2] = np.nan
    with pytest.raises(NonFiniteFeaturesError, match="diagnosing part: features of 1 of 50"):
        separability(train, labels, val, val_labels)


@pytest.mark.slow
def test_many_samples_of_many_classes_need_little_memory():
    generator = np.random.default_rng(0)
    train = generator.standard_normal((200_000, 768), dtype=np.float32).astype(np.float16)
    val = generator.standard_normal((20_000, 768), dtype=np.float32).astype(np.float16)
    centres = generator.standard_normal((300, 768)).astype(np.float16) / 4
    labels, val_labels = np.arange(200_000) % 300, np.arange(20_000) % 300
    train += centres[labels]
    val += centres[val_labels]
    start = time.perf_counter()
    tracemalloc.start()
    try:
        found = separability(train, labels, val, val_labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    in_float32 = 2 * (train.nbytes + val.nbytes)
    assert peak < in_float32 + 400e6
    assert found.train > 0.5
    assert abs(found.gap) < 3 * found.standard_error + 0.005
    assert time.perf_counter() - start < 300
