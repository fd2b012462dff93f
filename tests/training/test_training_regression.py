"""Regression: a number per sample, from the loss to the metrics, the diagnosis and the gate."""

import json
import math

import numpy as np
import pytest
import torch
from tiny import FEW_SAMPLES, ast_config, history, training_arguments, vit_config
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments

from hf_relearn import MultimodalForClassification, RelearnCallback
from hf_relearn.training import MultimodalRelearnTrainer
from hf_relearn.training.metrics import regression_metrics

pytestmark = FEW_SAMPLES
SEPARABILITY = {
    "diagnosis_estimator": "separability",
    "diagnosis_sampling": "all",
    "diagnosis_source": "auto",
    "relearn_interval": None,
}


def model_of_numbers(seed=0, **kwargs) -> MultimodalForClassification:
    torch.manual_seed(seed)
    return MultimodalForClassification.from_backbones(
        {"audio": ast_config(), "vision": vit_config()}, num_labels=1, **kwargs
    )


class NumberRows(Dataset):
    """Both modalities carry a number between about 80 and 120, under noise."""

    def __init__(self, size: int = 48, seed: int = 0, missing: int = 0, shift: float = 100.0):
        generator = np.random.default_rng(seed)
        self.numbers = shift + 10 * generator.normal(size=size)
        patterns = np.random.default_rng(99).normal(size=(2, 16, 16))
        scaled = ((self.numbers - shift) / 10)[:, None, None]
        self.audio = generator.normal(size=(size, 16, 16)) + scaled * patterns[0]
        self.vision = generator.normal(size=(size, 3, 16, 16)) + 0.5 * (scaled * patterns[1])[:, None]
        self.numbers[:missing] = np.nan

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict:
        return {
            "audio_input_values": torch.tensor(self.audio[index], dtype=torch.float32),
            "vision_pixel_values": torch.tensor(self.vision[index], dtype=torch.float32),
            "labels": float(self.numbers[index]),
        }


def make_trainer(folder, model=None, train=None, evaluation=None, **kwargs) -> MultimodalRelearnTrainer:
    return MultimodalRelearnTrainer(
        model or model_of_numbers(unimodal_loss_weight=1.0),
        training_arguments(folder, **{**SEPARABILITY, "relearn_strength": "gate", "max_grad_norm": 0.0, **kwargs}),
        train_dataset=train or NumberRows(),
        eval_dataset=evaluation or NumberRows(24, seed=1),
    )


def test_a_run_learns_the_numbers_and_measures_every_modality(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=8, relearn_points=[0.25, 0.5])
    targets = NumberRows().numbers
    config = trainer.model.config
    assert config.problem_type == "regression"
    assert config.target_mean == pytest.approx(targets.mean())
    assert config.target_deviation == pytest.approx(targets.std())
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_r2"] > 0.3
    assert metrics["eval_mae"] < 10 * math.sqrt(2 / math.pi)  # that of predicting the mean
    assert metrics["eval_pearson"] > 0.6
    assert "eval_sign_accuracy" not in metrics  # all numbers are positive
    assert not [name for name in metrics if "accuracy" in name or "nll" in name]
    for name in ("audio", "vision"):
        assert {f"eval_unimodal_{name}_r2", f"eval_only_{name}_r2", f"eval_without_{name}_r2"} <= set(metrics)
    assert metrics["eval_only_audio_r2"] == metrics["eval_without_vision_r2"]
    worth = metrics["eval_shapley_r2_audio"] + metrics["eval_shapley_r2_vision"]
    assert worth == pytest.approx(metrics["eval_r2"], abs=1e-6)
    records = history(tmp_path)
    assert [record["kind"] for record in records] == ["point", "point"]
    for record in records:
        assert record["num_classes"] == 0
        for values in record["modalities"].values():
            assert values["chance"] == 0.0
            assert values["train_separability"] <= 1 >= values["val_separability"]
            assert values["train_head_r2"] <= 1 >= values["val_head_r2"]


def test_the_gate_fires_if_training_numbers_are_memorised(tmp_path):
    train = NumberRows(60)
    train.numbers = np.random.default_rng(5).permutation(train.numbers)  # nothing to learn but by heart
    trainer = make_trainer(tmp_path, train=train, num_train_epochs=40, relearn_points=[0.9], learning_rate=2e-2)
    trainer.train()
    (point,) = history(tmp_path)
    fired = {name: values["alpha"] for name, values in point["modalities"].items()}
    for name, values in point["modalities"].items():
        surely = values["memorised"] - 2 * values["memorised_error"] > 0.3
        assert fired[name] == (0.9 if surely else 0.0)
    assert 0.9 in fired.values()


def test_predictions_are_in_the_unit_of_the_targets():
    model = model_of_numbers(target_mean=50.0, target_deviation=4.0, unimodal_loss_weight=1.0)
    rows = NumberRows(8)
    batch = {
        name: torch.stack([torch.as_tensor(rows[index][name]) for index in range(8)])
        for name in ("audio_input_values", "vision_pixel_values")
    }
    labels = torch.tensor(rows.numbers, dtype=torch.float32)
    with torch.no_grad():
        output = model(**batch, labels=labels)
        fused = model.classifier(model.multimodal(**batch).fused)
    torch.testing.assert_close(output.logits, 50 + 4 * fused)
    wanted = ((output.logits[:, 0] - labels) / 4).square().mean()
    torch.testing.assert_close(output.losses["fused"], wanted)
    head = ((output.unimodal_logits["audio"][:, 0] - labels) / 4).square().mean()
    torch.testing.assert_close(output.losses["audio"], head)
    model.config.regression_loss = "l1"
    with torch.no_grad():
        torch.testing.assert_close(
            model(**batch, labels=labels).losses["fused"], ((output.logits[:, 0] - labels) / 4).abs().mean()
        )


def test_samples_without_a_number_change_nothing(tmp_path):
    """Neither the loss of a batch, nor an accumulated one, nor a metric."""
    train = NumberRows(16, missing=4)
    trainer = make_trainer(tmp_path, train=train, evaluation=NumberRows(20, seed=1, missing=5))
    assert trainer.model.config.target_mean == pytest.approx(np.nanmean(train.numbers))
    batch = trainer.data_collator([train[index] for index in range(16)])
    known = trainer.data_collator([train[index] for index in range(4, 16)])
    assert trainer._get_num_items_in_batch([batch], torch.device("cpu")) == 12
    with torch.no_grad():
        torch.testing.assert_close(trainer.model(**batch).loss, trainer.model(**known).loss)
    whole = trainer.evaluate()
    kept = NumberRows(20, seed=1)
    part = [kept[index] for index in range(5, 20)]
    assert trainer.evaluate(part)["eval_mae"] == pytest.approx(whole["eval_mae"], rel=1e-5)
    assert trainer.evaluate(part)["eval_only_audio_r2"] == pytest.approx(whole["eval_only_audio_r2"], rel=1e-4)


def test_metrics():
    targets = np.array([-2.0, -1.0, 0.0, 1.0, np.nan])
    found = np.array([[-1.0], [1.0], [0.5], [3.0], [9.0]])
    metrics = regression_metrics(EvalPrediction(predictions=found, label_ids=targets), signed=True)
    assert metrics["mae"] == pytest.approx((1 + 2 + 0.5 + 2) / 4)
    assert metrics["r2"] == pytest.approx(1 - (1 + 4 + 0.25 + 4) / 5)
    assert metrics["pearson"] == pytest.approx(np.corrcoef(found[:4, 0], targets[:4])[0, 1])
    assert metrics["sign_accuracy"] == pytest.approx(2 / 3)  # 0 has no sign
    assert "sign_accuracy" not in regression_metrics(EvalPrediction(predictions=found, label_ids=targets))
    constant = regression_metrics(EvalPrediction(predictions=np.ones((4, 1)), label_ids=targets[:4]))
    assert constant["pearson"] == 0.0


def test_targets_of_both_signs_have_an_accuracy_of_the_sign(tmp_path):
    trainer = make_trainer(tmp_path, train=NumberRows(shift=0.0), evaluation=NumberRows(24, 1, shift=0.0))
    assert 0 <= trainer.evaluate()["eval_sign_accuracy"] <= 1


def test_a_saved_model_keeps_its_unit_in_another_run(tmp_path):
    make_trainer(tmp_path / "a").save_model()
    again = MultimodalForClassification.from_pretrained(tmp_path / "a")
    other = make_trainer(tmp_path / "b", model=again, train=NumberRows(shift=0.0))
    assert other.model.config.target_mean == pytest.approx(NumberRows().numbers.mean())
    assert json.loads((tmp_path / "a" / "config.json").read_text())["problem_type"] == "regression"


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"class_weights": ["balanced"]}, "--class_weights"),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor"),
        ({"train_sampling_strategy": "balanced"}, "--train_sampling_strategy balanced"),
        ({"diagnosis_estimator": "purity", "relearn_strength": "gap"}, "--diagnosis_estimator purity"),
    ],
)
def test_what_needs_classes_is_refused(tmp_path, settings, flag):
    with pytest.raises(ValueError, match=f"{flag} needs classes, but the model predicts a number: leave it out"):
        make_trainer(tmp_path, **settings)


@pytest.mark.parametrize("method", ["ogm_ge", "mlb", "modality_dropout"])
def test_methods_that_compare_classes_are_refused(tmp_path, method):
    with pytest.raises(ValueError, match=f"--balancing {method} compares scores of the true class, but samples have"):
        make_trainer(tmp_path, balancing=method).train()


@pytest.mark.parametrize("method", ["detached", "mmpareto"])
def test_methods_that_weigh_losses_train(tmp_path, method):
    trainer = make_trainer(tmp_path, balancing=method, max_steps=2, relearn_strategy="no")
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_mae"])


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="problem_type is 'regression', which predicts one number, but num_labels is 3"
    ):
        MultimodalForClassification.from_backbones({"v": vit_config()}, problem_type="regression", num_labels=3)
    with pytest.raises(ValueError, match="regression_loss is 'huber': use one of mse, l1"):
        model_of_numbers(regression_loss="huber")
    with pytest.raises(ValueError, match="class_weights is for classes"):
        model_of_numbers(class_weights=[1.0])
    assert (
        MultimodalForClassification.from_backbones(
            {"v": vit_config()}, problem_type="regression"
        ).classifier.out_features
        == 1
    )


def test_targets_that_are_all_the_same_are_refused(tmp_path):
    train = NumberRows(8)
    train.numbers[:] = 3.0
    with pytest.raises(ValueError, match="the training part has 8 targets, all 3, so there is nothing to predict"):
        make_trainer(tmp_path, train=train)


def test_a_part_is_held_out_by_quantiles(tmp_path):
    trainer = make_trainer(tmp_path, diagnosis_source="holdout", diagnosis_fraction=0.25)
    held_out = np.sort([row["labels"] for row in trainer.diagnosis_dataset])
    assert len(held_out) == 12
    middle = np.median(NumberRows().numbers)
    assert 5 <= (held_out < middle).sum() <= 7


def test_the_best_model_is_that_of_the_smallest_error(tmp_path):
    trainer = make_trainer(tmp_path, metric_for_best_model="mae", eval_strategy="epoch", num_train_epochs=3)
    assert trainer.args.greater_is_better is False


def test_final_strength_is_chosen_by_r_squared(tmp_path):
    trainer = make_trainer(tmp_path, relearn_final=True, relearn_strategy="no", num_train_epochs=2)
    for modality in trainer.model.config.modalities.values():
        modality.pretrained = True
    trainer.train()
    best = max(entry["eval_r2"] for entry in trainer.state.log_history if "eval_r2" in entry)
    assert trainer.evaluate()["eval_r2"] == pytest.approx(best, abs=1e-6)


def test_a_stock_trainer_diagnoses_numbers(tmp_path):
    model = model_of_numbers(target_mean=100.0, target_deviation=10.0)
    callback = RelearnCallback(
        diagnosis_dataset=NumberRows(24, seed=1), relearn_points=[0.5], diagnosis_estimator="separability"
    )
    args = TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        remove_unused_columns=False,
    )
    Trainer(model, args, train_dataset=NumberRows(), callbacks=[callback]).train()
    assert [record["num_classes"] for record in callback.records] == [0, 0]


def test_user_models_say_that_labels_are_numbers(tmp_path):
    model = model_of_numbers()
    callback = RelearnCallback(
        lambda model: model.encoders,
        lambda model, batch: model(**{name: value for name, value in batch.items() if name != "labels"}).features,
        NumberRows(24, seed=1),
        relearn_points=[0.5],
    )
    args = TrainingArguments(
        str(tmp_path),
        num_train_epochs=1,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        remove_unused_columns=False,
    )
    with pytest.raises(ValueError, match="a diagnosis needs one integer class per sample; of numbers to predict"):
        Trainer(model, args, train_dataset=NumberRows(), callbacks=[callback]).train()
    callback.targets = "numbers"
    Trainer(model, args, train_dataset=NumberRows(), callbacks=[callback]).train()
    assert callback.records
