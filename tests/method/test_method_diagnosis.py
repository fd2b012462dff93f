"""Diagnosis of the modalities."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from hf_relearn.method import DiagnosisWarning, NonFiniteFeaturesError, diagnose, learning_state_alpha, separability

REFERENCE_FILES = [
    "constant_features",
    "labels_missing_in_diagnosing_part",
    "lambda_30",
    "more_clusters_than_points",
    "noncontiguous_labels",
    "plain",
]


def blobs(num_samples, num_classes=4, dimensions=6, spread=1.0, seed=0):
    """Features around one random centre per class, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_samples) % num_classes
    centres = np.random.default_rng(1000).normal(size=(num_classes, dimensions)) * 3
    features = centres[labels] + generator.normal(size=(num_samples, dimensions)) * spread
    return features.astype(np.float32), labels


def noise(num_samples, num_classes, dimensions=64, seed=0):
    """Features that know nothing of their labels."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_samples, dimensions)), generator.integers(0, num_classes, num_samples)


@pytest.fixture
def parts():
    """Arguments of `diagnose` for two modalities: a well separated one, and one that chance does not lift."""
    (easy, labels), (easy_val, val_labels) = blobs(200), blobs(120, seed=1)
    hard, hard_val = blobs(200, spread=3.0, seed=2)[0], blobs(120, spread=4.0, seed=3)[0]
    return {
        "train_features": {"easy": easy, "hard": hard},
        "train_labels": labels,
        "val_features": {"easy": easy_val, "hard": hard_val},
        "val_labels": val_labels,
        "num_classes": 4,
    }


@pytest.mark.parametrize("name", REFERENCE_FILES)
def test_reference_values(shared_reference, name):
    case = np.load(shared_reference / f"{name}.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosisWarning)
        found = diagnose(
            {modality: case[f"train_{modality}"] for modality in ("audio", "vision")},
            case["train_labels"],
            {modality: case[f"val_{modality}"] for modality in ("audio", "vision")},
            case["val_labels"],
            int(case["num_classes"]),
            relearn_lambda=float(case["relearn_lambda"]),
        )
    for i, modality in enumerate(("audio", "vision")):
        assert found[modality].train_purity == pytest.approx(case["train_purity"][i], abs=1e-6)
        assert found[modality].val_purity == pytest.approx(case["val_purity"][i], abs=1e-6)
        assert found[modality].alpha == pytest.approx(case["alpha"][i], abs=1e-6)


def test_record_is_json_and_consistent(parts):
    for modality, found in diagnose(**parts, relearn_lambda=2.0).items():
        assert found.modality == modality
        assert found.gap == abs(found.train_purity - found.val_purity)
        assert found.alpha == math.tanh(2.0 * found.gap)
        assert (found.train_size, found.val_size) == (200, 120)
        assert 0.25 <= found.train_chance_purity < 0.5
        assert json.loads(json.dumps(dataclasses.asdict(found))) == dataclasses.asdict(found)


def test_order_of_modalities_makes_no_difference(parts):
    forwards = diagnose(**parts)
    for part in ("train_features", "val_features"):
        parts[part] = dict(reversed(parts[part].items()))
    backwards = diagnose(**parts)
    assert forwards == backwards
    assert list(forwards) == ["easy", "hard"]
    assert list(backwards) == ["hard", "easy"]


def test_a_modality_alone_is_diagnosed_as_beside_others(parts):
    together = diagnose(**parts)
    for part in ("train_features", "val_features"):
        parts[part] = {"hard": parts[part]["hard"]}
    assert diagnose(**parts)["hard"] == together["hard"]


def test_clustering_runs_on_one_thread_and_gives_the_threads_back(parts, monkeypatch):
    threads_seen = []
    original = KMeans.fit_predict

    def observe(self, *args, **kwargs):
        threads_seen.extend(library["num_threads"] for library in threadpool_info())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(KMeans, "fit_predict", observe)
    with threadpool_limits(limits=2):
        before = [library["num_threads"] for library in threadpool_info()]
        diagnose(**parts)
        assert [library["num_threads"] for library in threadpool_info()] == before
    assert threads_seen
    assert set(threads_seen) == {1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_float_type(parts, dtype):
    tensors, arrays = dict(parts), dict(parts)
    for part in ("train_features", "val_features"):
        tensors[part] = {m: torch.tensor(x).to(dtype).requires_grad_() for m, x in parts[part].items()}
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        arrays[part] = {m: x.detach().to(wide).numpy() for m, x in tensors[part].items()}
    tensors["train_labels"] = torch.tensor(parts["train_labels"])
    assert diagnose(**tensors) == diagnose(**arrays)


@pytest.mark.parametrize(
    ("num_classes", "num_train", "num_val", "at_least", "at_most"),
    [(10, 800, 200, 0.10, 0.08), (31, 1500, 150, 0.3, 0.12)],
)
def test_matched_sampling_lowers_alpha_of_noise(num_classes, num_train, num_val, at_least, at_most):
    alphas = {"all": [], "matched": []}
    for draw in range(3):
        train, train_labels = noise(num_train, num_classes, seed=draw)
        val, val_labels = noise(num_val, num_classes, seed=100 + draw)
        for sampling, found in alphas.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DiagnosisWarning)
                diagnosis = diagnose(
                    {"audio": train}, train_labels, {"audio": val}, val_labels, num_classes, sampling=sampling
                )["audio"]
            assert diagnosis.train_size == (num_train if sampling == "all" else num_val)
            found.append(diagnosis.alpha)
    assert np.mean(alphas["all"]) > at_least
    assert np.mean(alphas["matched"]) < at_most


def test_chance_gap_is_warned_of_with_its_remedy():
    train, train_labels = noise(800, 10)
    val, val_labels = noise(200, 10, seed=1)
    with pytest.warns(DiagnosisWarning, match="chance alone explains most.*'audio'.*sampling=\"matched\"") as caught:
        diagnose({"audio": train}, train_labels, {"audio": val}, val_labels, 10)
    assert caught[0].filename == __file__


def test_a_gap_of_overfitting_is_not_blamed_on_chance(parts):
    parts["val_features"]["easy"] = noise(120, 4, dimensions=6)[0]
    assert diagnose(**parts)["easy"].gap > 0.3  # warnings are errors here


def test_chance_is_not_blamed_where_the_classes_are_separated():
    train, train_labels = blobs(400, 10, 8, 2.0, seed=5)
    val, val_labels = blobs(60, 10, 8, 2.0, seed=55)
    found = diagnose({"audio": train}, train_labels, {"audio": val}, val_labels, 10)["audio"]  # warnings are errors
    assert found.val_chance_purity - found.train_chance_purity > found.gap > 0.05
    assert found.train_purity > 0.7


def test_max_samples_bounds_both_parts(parts):
    found = diagnose(**parts, max_samples=50)["easy"]
    assert (found.train_size, found.val_size) == (50, 50)
    assert found == diagnose(**parts, max_samples=50)["easy"]
    assert diagnose(**parts, max_samples=150)["easy"].val_size == 120
    assert diagnose(**parts, max_samples=1000) == diagnose(**parts)


def test_number_of_starts_reaches_the_clustering(parts):
    assert diagnose(**parts, n_init=10) != diagnose(**parts, n_init=1)


def test_seed_reaches_the_clustering(parts):
    assert len({diagnose(**parts, seed=seed)["hard"].train_purity for seed in range(4)}) > 1


def test_class_absent_from_the_diagnosing_part_is_named(parts):
    keep = parts["val_labels"] != 2
    parts["val_features"] = {m: x[keep] for m, x in parts["val_features"].items()}
    parts["val_labels"] = parts["val_labels"][keep]
    with pytest.warns(DiagnosisWarning, match=r"no sample of 1 classes of the training part \(labels 2\)"):
        assert diagnose(**parts)["easy"].val_size == 90


def test_fewer_samples_than_classes_is_warned_of(parts):
    parts["val_features"] = {m: x[:3] for m, x in parts["val_features"].items()}
    parts["val_labels"] = parts["val_labels"][:3]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = diagnose(**parts)
    assert any("diagnosing part has 3 samples for 4 classes" in str(warning.message) for warning in caught)
    assert found["easy"].val_purity == 1.0


@pytest.mark.parametrize("estimator", ["purity", "separability"])
def test_a_dead_encoder_is_named(parts, estimator):
    parts["train_features"]["easy"] = np.full((200, 5), 0.3, dtype=np.float32)
    parts["val_features"]["easy"] = np.full((120, 5), -1.0, dtype=np.float32)
    with pytest.warns(DiagnosisWarning) as caught:
        found = diagnose(**parts, estimator=estimator)["easy"]
    dead = [str(each.message) for each in caught if "dead" in str(each.message)]
    assert [message.partition(":")[0] for message in dead] == [
        "modality 'easy', training part",
        "modality 'easy', diagnosing part",
    ]
    values = (found.train_purity, found.val_purity)
    if estimator == "separability":
        values = (found.train_separability, found.val_separability)
    assert values == (pytest.approx(0.25), pytest.approx(0.25))
    assert found.alpha == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(parts, value):
    parts["val_features"]["hard"] = parts["val_features"]["hard"].copy()
    parts["val_features"]["hard"][:30, 2] = value
    with pytest.raises(NonFiniteFeaturesError, match=r"'hard', diagnosing part: features of 30 of 120 .*25\.0%"):
        diagnose(**parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_features": {}, "val_features": {}}, "same modalities, at least one"),
        ({"val_features": {"easy": np.zeros((120, 6))}}, r"\['easy', 'hard'\] and \['easy'\]"),
        ({"train_labels": np.zeros(7, dtype=int)}, "'easy', training part: 200 features but 7 labels"),
        ({"train_labels": np.zeros(200)}, "labels of the training part must be integers"),
        ({"val_labels": []}, "labels of the diagnosing part must hold at least one"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"n_init": 0}, "n_init must be at least 1"),
        ({"max_samples": 0}, "max_samples must be at least 1"),
        ({"sampling": "half"}, "'all' or 'matched', but is 'half'"),
        ({"estimator": "svm"}, "estimator must be 'purity' or 'separability', but is 'svm'"),
        ({"nonfinite": "ignore"}, "'raise' or 'skip', but is 'ignore'"),
        ({"train_labels": np.full(200, -100)}, "all 200 labels of the training part are -100"),
        ({"val_labels": np.full(120, -100), "estimator": "separability"}, "all 120 labels of the diagnosing part"),
        ({"relearn_lambda": -1.0}, "relearn_lambda"),
    ],
)
def test_wrong_arguments_are_refused(parts, change, message):
    with pytest.raises(ValueError, match=message):
        diagnose(**(parts | change))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(200), "'hard', training part: features must have the shape"),
        (np.zeros((200, 0)), "'hard', training part: features are empty"),
        (np.array([["a"]] * 200), "'hard', training part: features must be numbers"),
    ],
)
def test_wrong_features_are_refused(parts, features, message):
    parts["train_features"]["hard"] = features
    with pytest.raises(ValueError, match=message):
        diagnose(**parts)


def test_alpha_of_a_gap():
    assert learning_state_alpha(0.2) == pytest.approx(math.tanh(0.6))
    assert learning_state_alpha(-0.2, 30) == pytest.approx(math.tanh(6))
    assert learning_state_alpha(0.5, 0) == 0.0
    for gap, relearn_lambda in ((math.nan, 3.0), (0.1, math.inf), (0.1, -3.0)):
        with pytest.raises(ValueError, match="gap|relearn_lambda"):
            learning_state_alpha(gap, relearn_lambda)


def test_classes_without_a_second_sample_cannot_be_compared(parts):
    parts["train_labels"] = np.arange(200)
    with pytest.raises(ValueError, match="modality 'easy': not one of 200 classes has two training samples"):
        diagnose(**parts, estimator="separability")


def test_separability_gives_its_own_values_and_no_purity(parts):
    found = diagnose(**parts, estimator="separability", relearn_lambda=2.0)
    for modality, item in found.items():
        alone = separability(
            parts["train_features"][modality],
            parts["train_labels"],
            parts["val_features"][modality],
            parts["val_labels"],
        )
        assert item.estimator == "separability"
        assert item.train_purity is item.val_purity is item.train_chance_purity is item.val_chance_purity is None
        assert (item.train_separability, item.val_separability) == (alone.train, alone.val)
        assert (item.gap, item.standard_error, item.chance) == (alone.gap, alone.standard_error, 0.25)
        assert (item.separator, item.memorised, item.memorised_error) == (
            alone.separator,
            alone.memorised,
            alone.memorised_error,
        )
        assert item.alpha == math.tanh(2.0 * max(0.0, alone.gap - alone.standard_error))
        assert (item.train_size, item.val_size) == (200, 120)
        assert json.loads(json.dumps(dataclasses.asdict(item))) == dataclasses.asdict(item)
    assert found["hard"].train_separability < found["easy"].train_separability


def test_purity_says_nothing_of_separability(parts):
    item = diagnose(**parts)["easy"]
    assert item.estimator == "purity"
    assert {item.train_separability, item.standard_error, item.chance, item.separator, item.memorised} == {None}


def test_max_samples_leaves_the_separability_its_power(parts):
    parts["train_labels"] = np.where(np.arange(200) < 15, 3, np.arange(200) % 3)  # a rare class
    item = diagnose(**parts, estimator="separability", max_samples=30)["easy"]
    assert item.val_size == 30
    # Twice the diagnosing part; all 15 of the rare class and 20 of each other are more than its shares would be.
    assert 60 < item.train_size <= 75


@pytest.mark.parametrize("estimator", ["purity", "separability"])
def test_unlabelled_samples_are_left_out(parts, estimator):
    expected = diagnose(**parts, estimator=estimator)
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        labels = parts[f"{part}_labels"]
        places = np.sort(generator.integers(0, len(labels), 70))
        parts[f"{part}_labels"] = np.insert(labels, places, -100)
        for modality, features in parts[f"{part}_features"].items():
            parts[f"{part}_features"][modality] = np.insert(features, places, 50.0, axis=0)
    assert diagnose(**parts, estimator=estimator) == expected


@pytest.mark.parametrize("estimator", ["purity", "separability"])
def test_only_the_modality_that_is_not_finite_sits_out(parts, estimator):
    alone = {key: {"easy": value["easy"]} if isinstance(value, dict) else value for key, value in parts.items()}
    parts["val_features"]["hard"] = parts["val_features"]["hard"].copy()
    parts["val_features"]["hard"][:30, 2] = np.nan
    with pytest.warns(DiagnosisWarning, match=r"'hard', diagnosing part: features of 30 of 120 .*25\.0%.*left out"):
        found = diagnose(**parts, estimator=estimator, nonfinite="skip")
    assert found == diagnose(**alone, estimator=estimator)
    parts["train_features"]["easy"] = np.full((200, 6), np.inf)
    with pytest.warns(DiagnosisWarning, match="left out"):
        assert diagnose(**parts, estimator=estimator, nonfinite="skip") == {}


@pytest.mark.parametrize("estimator", ["purity", "separability"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_an_outlier_that_decides_the_scale_is_warned_of(parts, estimator, part):
    features = parts[f"{part}_features"]["easy"].copy()
    features[17, 1:4] = 1e20
    parts[f"{part}_features"]["easy"] = features
    name = {"train": "training", "val": "diagnosing"}[part]
    with pytest.warns(DiagnosisWarning, match=f"'easy', {name} part: in 3 of 6 dimensions at most 1 %") as caught:
        diagnose(**parts, estimator=estimator)
    assert len(caught) == 1


def test_a_gap_that_is_hardly_known_is_warned_of(parts):
    parts["val_features"] = {modality: features[:12] for modality, features in parts["val_features"].items()}
    parts["val_labels"] = parts["val_labels"][:12]
    with pytest.warns(DiagnosisWarning, match=r"'hard': the standard error of the gap is 0\.\d+.*12 diag") as caught:
        diagnose(**parts, estimator="separability")
    assert len(caught) == 1


def test_classes_with_few_samples_are_warned_of_once(parts):
    parts["train_labels"] = np.arange(200) % 2
    parts["train_labels"][:8] = 2 + np.arange(8) % 2
    with pytest.warns(DiagnosisWarning) as caught:
        diagnose(**parts, estimator="separability")
    few = [str(each.message) for each in caught if "fewer than 5" in str(each.message)]
    assert len(few) == 1
    assert few[0].startswith("2 of 4 classes have fewer than 5 training samples")
