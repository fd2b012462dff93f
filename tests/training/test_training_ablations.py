"""Evaluation with modalities alone and left out, and samples that lack modalities, in evaluation and diagnosis."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from tiny import (
    FEW_SAMPLES,
    TensorRows,
    around_points,
    assert_same,
    history,
    make_trainer,
    tiny_model,
    weights_of,
    without_times,
)
from torch.utils.data import Dataset
from transformers import Trainer, default_data_collator
from two_towers import Pairs, TwoTowers, arguments

from hf_relearn import RelearnCallback
from hf_relearn.method import diagnose, linear_probe_accuracy
from hf_relearn.relearning.diagnoser import PartFeatures
from hf_relearn.training.modality_accuracy import probe_accuracies

pytestmark = FEW_SAMPLES


class GappyRows(TensorRows):
    """Every third sample lacks the vision, every seventh the audio; some lack both. What stands there is garbage."""

    def __init__(self, size: int = 48, seed: int = 0):
        super().__init__(size, seed)
        order = np.random.default_rng(seed + 7).permutation(size)
        self.present = {"audio": order % 7 > 0, "vision": order % 3 > 0}

    def __getitem__(self, index):
        row = super().__getitem__(index)
        for name, having in self.present.items():
            row[f"{name}_present"] = bool(having[index])
        if not row["vision_present"]:
            row["vision_pixel_values"] = torch.full((3, 16, 16), torch.nan)
        return row


def batch_of(dataset):
    return default_data_collator([dataset[index] for index in range(len(dataset))])


@torch.no_grad()
def outputs_on(trainer, dataset):
    batch = batch_of(dataset)
    labels = batch.pop("labels").numpy()
    return trainer.model.eval()(**batch, output_ablations=True), labels


def test_each_modality_alone_and_each_left_out_is_reported(tmp_path):
    trainer = make_trainer(tmp_path, relearn_strategy="no")
    trainer.train()
    for size in (12, 19):  # with an uneven last batch
        dataset = TensorRows(size, seed=3)
        metrics = trainer.evaluate(dataset)
        outputs, labels = outputs_on(trainer, dataset)
        assert set(outputs.ablation_logits) == {"only_audio", "without_audio", "only_vision", "without_vision"}
        for name, logits in outputs.ablation_logits.items():
            assert metrics[f"eval_{name}_accuracy"] == accuracy_score(labels, logits.argmax(-1)), name
    assert (
        trainer.predict(dataset, metric_key_prefix="test").metrics["test_only_audio_accuracy"]
        == (metrics["eval_only_audio_accuracy"])
    )


def test_a_sample_counts_only_where_one_of_its_modalities_is_left(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(unimodal_loss_weight=1.0), GappyRows(), diagnosis_fraction=0.5)
    trainer.train()
    dataset = GappyRows(29, seed=5)
    metrics = trainer.evaluate(dataset)
    outputs, labels = outputs_on(trainer, dataset)
    for name, having in dataset.present.items():
        assert 0 < having.sum() < len(labels)
        for metric, logits in (
            (f"only_{name}", outputs.ablation_logits[f"only_{name}"]),
            (f"without_{'vision' if name == 'audio' else 'audio'}", outputs.ablation_logits[f"only_{name}"]),
            (f"unimodal_{name}", outputs.unimodal_logits[name]),
        ):
            expected = accuracy_score(labels[having], logits.argmax(-1)[having])
            assert metrics[f"eval_{metric}_accuracy"] == pytest.approx(expected), metric
    assert metrics["eval_accuracy"] == accuracy_score(labels, outputs.logits.argmax(-1))


def test_training_and_predictions_are_as_without_ablations(tmp_path, monkeypatch):
    runs = {}
    for kind in ("with", "without"):
        if kind == "without":
            monkeypatch.setattr("hf_relearn.training.trainer.makes_ablations", lambda model: False)
        trainer = make_trainer(tmp_path / kind, tiny_model(dropout=0.1), eval_strategy="epoch")
        calls = []
        trainer.model.encoders["audio"].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        output = trainer.predict(TensorRows(12, seed=3))
        runs[kind] = weights_of(trainer.model), trainer.state.log_history, output.predictions, len(calls)
    assert runs["with"][2].shape == (12, 3)
    assert np.array_equal(runs["with"][2], runs["without"][2])
    assert_same(runs["with"][0], runs["without"][0])
    assert runs["with"][3] == runs["without"][3]  # encoders run no more often
    of_ablations = ("_only_", "_without_", "_shapley_", "_right_alone")
    kept = [
        {name: value for name, value in entry.items() if not any(part in name for part in of_ablations)}
        for entry in without_times(runs["with"][1])
    ]
    assert kept == without_times(runs["without"][1]) != without_times(runs["with"][1])


def test_models_of_other_classes_are_evaluated_as_before(tmp_path):
    trainer = make_trainer(
        tmp_path,
        TwoTowers(),
        Pairs(12, 0),
        {"eval_dataset": Pairs(12, 1)},
        diagnosis_fraction=0,
        relearn_strategy="no",
    )
    assert not any("only_" in name or "without_" in name for name in trainer.evaluate())


def test_samples_that_lack_a_modality_do_not_count_in_its_diagnosis(tmp_path):
    settings = {"diagnosis_fraction": 0.5, "diagnosis_sampling": "all", "num_train_epochs": 2}
    trainer = make_trainer(tmp_path, train_dataset=GappyRows(), **settings)
    parts = {}

    def look():
        training = trainer.model.training
        for name, dataset in (("training", trainer.train_dataset), ("diagnosing", trainer.diagnosis_dataset)):
            batch = batch_of(dataset)
            labels = batch.pop("labels").numpy()
            with torch.no_grad():
                features = trainer.model.eval()(**batch).features
            parts[name] = features, labels, {m: batch[f"{m}_present"].numpy() for m in features}
        trainer.model.train(training)
        return dict(parts)

    seen = around_points(trainer, look)
    trainer.train()
    parts = seen[0][0]
    (record,) = history(tmp_path)
    for name, found in record["modalities"].items():
        (train, val) = (
            ({name: features[name][having[name]].numpy()}, labels[having[name]])
            for features, labels, having in (parts["training"], parts["diagnosing"])
        )
        expected = diagnose(*train, *val, 3)[name]
        assert (found["train_size"], found["diagnosis_size"]) == (len(train[1]), len(val[1]))
        assert found["train_size"] < len(parts["training"][1]) == 24
        assert found["train_purity"] == pytest.approx(expected.train_purity)
        assert found["val_purity"] == pytest.approx(expected.val_purity)
        assert found["alpha"] == pytest.approx(expected.alpha)
    assert record["train_size"] == max(entry["train_size"] for entry in record["modalities"].values())


def test_features_for_figures_have_gaps_where_a_sample_lacks_the_modality(tmp_path):
    trainer = make_trainer(tmp_path, train_dataset=GappyRows(), diagnosis_fraction=0.5, diagnosis_sampling="all")
    part = trainer.part_features()["diagnosing"]
    for name, values in part.with_gaps().items():
        having = np.stack([row[f"{name}_present"] for row in trainer.diagnosis_dataset])
        assert values.dtype == np.float32
        assert np.array_equal(np.isfinite(values).all(axis=1), having) and not having.all()
        assert np.array_equal(values[having], part.features[name][having])


def test_matched_sampling_matches_the_samples_that_have_the_modality(tmp_path):
    make_trainer(tmp_path, train_dataset=GappyRows(), diagnosis_fraction=0.4, num_train_epochs=2).train()
    (record,) = history(tmp_path)
    for found in record["modalities"].values():
        assert 0 < found["train_size"] == found["diagnosis_size"]


def test_a_modality_that_no_diagnosed_sample_has_is_named(tmp_path):
    rows = GappyRows()
    rows.present["vision"][:] = False
    trainer = make_trainer(tmp_path, train_dataset=rows)
    with pytest.raises(ValueError, match="no sample of the training part that is diagnosed has the modality 'vision'"):
        trainer.train()


def test_probes_pass_over_samples_that_lack_the_modality(tmp_path):
    settings = {"diagnosis_interval": 1, "diagnosis_sampling": "all"}
    trainer = make_trainer(tmp_path, train_dataset=GappyRows(), **settings)
    trainer.train()
    dataset = GappyRows(29, seed=5)
    metrics = trainer.evaluate(dataset)
    outputs, labels = outputs_on(trainer, dataset)
    training = trainer.part_features()["training"]
    for name, having in dataset.present.items():
        rows = training.having(name)
        assert 0 < len(rows) < len(training.labels)
        expected = linear_probe_accuracy(
            training.features[name][rows], training.labels[rows], outputs.features[name][having], labels[having]
        )
        assert metrics[f"eval_unimodal_{name}_accuracy"] == pytest.approx(expected, abs=1 / having.sum() - 1e-6)


def test_a_probe_is_fitted_and_scored_on_samples_that_have_the_modality():
    labels, having = np.arange(12) % 3, np.arange(12) < 9
    features = np.eye(3)[np.where(having, labels, (labels + 1) % 3)]  # those of the others mislead
    training = PartFeatures({"a": features}, labels, {"a": having})
    assert probe_accuracies(training, {"a": features}, labels, {"a": having}) == {"a": 1.0}
    assert probe_accuracies(training, {"a": features}, labels)["a"] == pytest.approx(9 / 12)
    assert probe_accuracies(training, {"a": features}, labels, {"a": having & False}) == {}


class GappyPairs(Dataset):
    def __init__(self, size: int, seed: int):
        self.rows = Pairs(size, seed)
        self.having = np.arange(size) % 4 > 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {**self.rows[index], "has_sound": bool(self.having[index])}


class ForgivingTowers(TwoTowers):
    def forward(self, sound, image, labels=None, has_sound=None):
        return super().forward(sound * has_sound[:, None], image, labels)


def test_a_feature_function_of_ones_own_may_say_which_samples_have_a_modality(tmp_path):
    relearn = RelearnCallback(
        encoders=lambda model: {"sound": model.ear, "image": model.eye},
        feature_function=lambda model, batch: {
            "sound": (model.ear(batch["sound"]), batch["has_sound"]),
            "image": model.eye(batch["image"]),
        },
        diagnosis_dataset=GappyPairs(32, 1),
        relearn_interval=2,
    )
    Trainer(ForgivingTowers(), arguments(tmp_path), train_dataset=GappyPairs(40, 0), callbacks=[relearn]).train()
    for record in history(tmp_path):
        sizes = {name: entry["diagnosis_size"] for name, entry in record["modalities"].items()}
        assert sizes == {"sound": 24, "image": 32}
