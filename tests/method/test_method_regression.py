"""Leave-one-out R²: the separability of targets that are numbers."""

import numpy as np
import pytest
import torch

from hf_relearn.method import diagnose, numbers_separability, quantile_strata


def draw(num_samples, dimensions=8, signal=1.0, seed=0):
    generator = np.random.default_rng(seed)
    weights = np.random.default_rng(99).normal(size=dimensions) * signal / dimensions**0.5
    features = generator.normal(size=(num_samples, dimensions))
    return features, 5 + 3 * (features @ weights + generator.normal(size=num_samples))


def by_refitting(train, y, val, z, penalty):
    """Predictions, relative to the mean, and the mean itself, by really fitting without each sample."""
    scaled = (train - train.mean(0)) / train.std(0)
    eigenvalues = np.linalg.eigvalsh(scaled.T @ scaled)
    shrunk = penalty * eigenvalues[eigenvalues > 1e-6 * eigenvalues[-1]].mean()

    def fit(left_out, row):
        keep = np.arange(len(y)) != left_out
        x, t = scaled[keep], y[keep]
        centred = x - x.mean(0)
        weights = np.linalg.solve(centred.T @ centred + shrunk * np.eye(x.shape[1]), centred.T @ (t - t.mean()))
        return (row - x.mean(0)) @ weights, t.mean()

    partners = [int(np.abs(y - number).argmin()) for number in z]
    return [
        np.array([fit(left_out, row) for left_out, row in pairs]).T
        for pairs in (enumerate(scaled), zip(partners, (val - train.mean(0)) / train.std(0), strict=True))
    ]


def strata_weights(y, z):
    edges = np.quantile(y, np.arange(1, 10) / 10)
    own, held_out = (np.searchsorted(edges, each, side="right") for each in (y, z))
    return np.array([(held_out == stratum).sum() / (own == stratum).sum() for stratum in own])


@pytest.mark.parametrize(("num_train", "dimensions"), [(80, 8), (60, 90)])
def test_samples_are_predicted_as_if_fitted_again_without_one(num_train, dimensions):
    (train, y), (val, z) = draw(num_train, dimensions, 3.0), draw(25, dimensions, 3.0, seed=1)
    found = numbers_separability(train, y, val, z)
    (guesses, means), (val_guesses, val_means) = by_refitting(train, y, val, z, float(found.separator.split()[1]))
    weights = strata_weights(y, z)
    factor = (weights * guesses * (y - means)).sum() / (weights * guesses**2).sum()
    np.testing.assert_allclose(found.train_scores, means + factor * guesses, atol=1e-3)
    np.testing.assert_allclose(found.val_scores, val_means + factor * val_guesses, atol=1e-3)
    r_squared = 1 - (weights * (y - found.train_scores) ** 2).sum() / (weights * (y - means) ** 2).sum()
    assert found.train == pytest.approx(r_squared, abs=1e-5)
    val_r_squared = 1 - ((z - found.val_scores) ** 2).sum() / ((z - val_means) ** 2).sum()
    assert found.val == pytest.approx(val_r_squared, abs=1e-5)
    assert found.gap == found.train - found.val
    assert (found.chance, found.num_classes, found.train_size, found.val_size) == (0.0, 0, num_train, 25)
    assert found.memorised == pytest.approx(max(0.0, found.gap) / found.train)
    assert found.memorised_error == pytest.approx(found.standard_error / found.train)


def test_the_training_part_chooses_the_penalty_that_predicts_it_best():
    (train, y), (val, z) = draw(60, 40, 2.0), draw(20, 40, 2.0, seed=1)
    found = numbers_separability(train, y, val, z)
    weights = strata_weights(y, z)

    def r_squared(penalty):
        guesses, means = by_refitting(train, y, val, z, penalty)[0]
        factor = (weights * guesses * (y - means)).sum() / (weights * guesses**2).sum()
        return 1 - (weights * (y - means - factor * guesses) ** 2).sum() / (weights * (y - means) ** 2).sum()

    assert found.separator == f"ridge {max((0.01, 0.1, 1.0, 10.0), key=r_squared):g}"


@pytest.mark.parametrize(("num_train", "num_val", "dimensions"), [(1200, 300, 16), (100, 40, 200)])
def test_noise_predicts_nothing_in_both_parts(num_train, num_val, dimensions):
    for seed in range(4):
        generator = np.random.default_rng(seed)
        found = numbers_separability(
            generator.normal(size=(num_train, dimensions)),
            generator.normal(size=num_train),
            generator.normal(size=(num_val, dimensions)),
            generator.normal(size=num_val),
        )
        assert (found.train, found.val, found.gap, found.memorised) == (0.0, 0.0, 0.0, 0.0)
        assert found.separator == "mean"


def test_overfitting_is_found_and_its_absence_too():
    (train, y), (val, z) = draw(400, signal=2.0), draw(200, signal=2.0, seed=1)
    fresh = numbers_separability(train, y, val, z)
    assert fresh.train > 0.6
    assert abs(fresh.gap) < 3 * fresh.standard_error
    memorised = numbers_separability(train, y, val, np.random.default_rng(0).permutation(z))
    assert memorised.train == pytest.approx(fresh.train, abs=0.05)
    assert memorised.memorised - 2 * memorised.memorised_error > 0.3


def test_samples_without_a_target_are_left_out():
    (train, y), (val, z) = draw(100), draw(50, seed=1)
    expected = numbers_separability(train[10:], y[10:], val[5:], z[5:])
    y[:10], z[:5] = np.nan, np.nan
    found = numbers_separability(train, torch.tensor(y), val, torch.tensor(z))
    assert found == expected
    assert np.isnan(found.train_scores[:10]).all() and np.isfinite(found.train_scores[10:]).all()


def test_unit_and_scale_do_not_matter():
    (train, y), (val, z) = draw(100), draw(50, seed=1)
    found, other = (
        numbers_separability(train, y, val, z),
        numbers_separability(train * 7, y * 1e4 - 3, val * 7, z * 1e4 - 3),
    )
    assert other.train == pytest.approx(found.train, abs=1e-4)
    assert other.val == pytest.approx(found.val, abs=1e-4)


def test_equal_held_out_targets_do_not_all_leave_the_same_sample_out():
    (train, y), (val, z) = draw(200, signal=2.0), draw(100, signal=2.0, seed=1)
    rounded = numbers_separability(train, np.round(y / 4), val, np.round(z / 4))
    assert rounded.train > 0.5
    assert abs(rounded.gap) < 3 * rounded.standard_error


def test_targets_that_are_all_the_same_are_refused():
    (train, y), (val, z) = draw(20), draw(10, seed=1)
    with pytest.raises(ValueError, match=r"20 targets of the training part are all 2, so there is nothing to predict"):
        numbers_separability(train, np.full(20, 2.0), val, z)
    with pytest.raises(ValueError, match="all 10 targets of the diagnosing part are NaN"):
        numbers_separability(train, y, val, np.full(10, np.nan))
    with pytest.raises(ValueError, match="1 of 20 are infinite"):
        numbers_separability(train, np.append(y[:-1], np.inf), val, z)


def test_features_that_are_all_the_same_predict_nothing():
    (_, y), (val, z) = draw(20), draw(10, seed=1)
    found = numbers_separability(np.ones((20, 8)), y, val, z)
    assert (found.train, found.val, found.separator) == (0.0, 0.0, "mean")


def test_wide_features_look_at_a_part_of_the_samples():
    generator = np.random.default_rng(0)
    train, val = (generator.normal(size=(size, 1030)).astype(np.float32) for size in (1300, 50))
    found = numbers_separability(train, train[:, 0], val, val[:, 0])
    assert found.train_size == 1024 == np.isfinite(found.train_scores).sum()


def test_diagnose_gives_the_measure_of_every_modality():
    (train, y), (val, z) = draw(300, signal=2.0), draw(300, signal=2.0, seed=1)
    noise, val_noise = np.random.default_rng(3).normal(size=(2, 300, 6))
    found = diagnose(
        {"told": train, "noise": noise},
        y,
        {"told": val, "noise": val_noise},
        z,
        estimator="separability",
        targets="numbers",
    )
    alone = numbers_separability(train, y, val, z)
    told = found["told"]
    assert (told.train_separability, told.val_separability, told.gap) == (alone.train, alone.val, alone.gap)
    assert (told.memorised, told.memorised_error, told.chance) == (alone.memorised, alone.memorised_error, 0.0)
    assert found["noise"].alpha == 0.0 == found["noise"].train_separability


def test_purity_of_numbers_is_refused():
    train, y = draw(20)
    with pytest.raises(ValueError, match="purity needs classes, and the targets are numbers"):
        diagnose({"a": train}, y, {"a": train}, y, targets="numbers")
    with pytest.raises(ValueError, match="purity needs num_classes"):
        diagnose({"a": train}, np.arange(20) % 2, {"a": train}, np.arange(20) % 2)


def test_strata_hold_equal_shares_and_no_unknown_target():
    strata = quantile_strata(np.append(np.arange(100.0), np.nan))
    assert np.bincount(strata[:-1]).tolist() == [10] * 10
    assert strata[-1] == -100
    assert quantile_strata(np.array([1.0, 1.0, 2.0, 2.0]), 2).tolist() == [0, 0, 1, 1]
