"""The gate: what has memorised is re-learnt, the rest stays; if it never fires, nothing happened."""

import pytest
import torch
from patterns import MODALITIES, PatternRows, Towers, pattern_arguments, pattern_model, pattern_trainer
from tiny import (
    FEW_SAMPLES,
    TensorRows,
    around_points,
    assert_moved_back,
    assert_same,
    history,
    tiny_model,
    weights_of,
)
from tiny import without_times as timeless
from transformers import Trainer

from hf_relearn import RelearnCallback
from hf_relearn.training import MultimodalRelearnTrainer, RelearnTrainingArguments, read_history

pytestmark = FEW_SAMPLES

EXPECTED = {"memorised": 0.9, "known": 0.0, "noise": 0.0}


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_only_the_modality_that_memorised_is_moved(tmp_path, weight):
    trainer = pattern_trainer(tmp_path, pattern_model(unimodal_loss_weight=weight))
    initial = weights_of(trainer.model.encoders)
    seen = around_points(trainer, lambda: weights_of(trainer.model.encoders))
    trainer.train()
    assert [(point.step, dict(point.alphas)) for _, _, point in seen] == [(8, EXPECTED), (16, EXPECTED)]
    for before, after, point in seen:
        assert set(point.distances) == {"memorised"} and bool(point.head_accuracies) == bool(weight)
        for name in before:
            if name.startswith("memorised."):
                assert_moved_back(after[name], before[name], initial[name], 0.9)
            else:
                assert torch.equal(after[name], before[name]), name
    values = history(tmp_path)[0]["modalities"]
    for found in values.values():
        share = max(0.0, found["gap"]) / (found["train_separability"] - found["chance"])
        assert found["memorised"] == pytest.approx(share) or found["train_separability"] - found["chance"] < 0.05
    assert values["memorised"]["memorised"] - 2 * values["memorised"]["memorised_error"] > 0.3
    assert abs(values["memorised"]["val_separability"] - 1 / 3) < 0.2 < values["known"]["val_separability"] - 1 / 3


def test_the_gate_works_in_a_stock_trainer(tmp_path):
    torch.manual_seed(0)
    model = Towers()
    relearn = RelearnCallback(
        lambda model: model.towers,
        lambda model, batch: model.features(batch),
        PatternRows(44, seed=1, held_out=True),
    )
    args = pattern_arguments(tmp_path, remove_unused_columns=False)
    Trainer(model, args, train_dataset=PatternRows(), callbacks=[relearn]).train()
    found = [{name: entry["alpha"] for name, entry in each["modalities"].items()} for each in history(tmp_path)]
    assert found == [EXPECTED, EXPECTED]
    assert [record["kind"] for record in relearn.records] == ["start", "point", "point"]


@pytest.mark.parametrize(
    ("settings", "alphas"),
    [
        ({"relearn_gate_alpha": 0.5}, [0.5, 0.0]),
        ({"relearn_gate_threshold": 1.0}, [0.0, 0.0]),
        ({"relearn_gate_errors": 100.0}, [0.0, 0.0]),
        ({"relearn_gate_rise": 100.0}, [0.9, 0.0]),
        ({"relearn_modalities": ["known"]}, [None, 0.0]),
    ],
)
def test_its_constants_are_settings(tmp_path, settings, alphas):
    pattern_trainer(tmp_path, num_train_epochs=2, relearn_points=[0.5], **settings).train()
    (record,) = history(tmp_path)
    assert [record["modalities"].get(name, {}).get("alpha") for name in MODALITIES[:2]] == alphas


def test_a_modality_that_still_gains_on_held_out_samples_is_kept_and_said_to_learn(tmp_path, capsys):
    """The slightest rise counts here, so that chance makes some: at other points the same modality is moved."""
    settings = {"num_train_epochs": 8, "relearn_interval": 1, "relearn_max_times": 7}
    pattern_trainer(tmp_path, relearn_gate_rise=0.0, **settings).train()
    records = read_history(tmp_path)
    found = [each["modalities"]["memorised"] for each in records]
    for before, entry in zip(found, found[1:], strict=False):
        assert entry["rise"] == pytest.approx(entry["val_separability"] - before["val_separability"])
        memorised = entry["memorised"] - 2 * entry["memorised_error"] > 0.3
        assert entry["alpha"] == (0.9 if memorised and entry["rise"] <= 0 else 0.0)
        assert (entry.get("kept") == "still learns") == (memorised and entry["rise"] > 0)
    assert found[0]["rise"] is None and {"kept" in entry for entry in found[1:]} == {True, False}
    told = [line for line in capsys.readouterr().out.splitlines() if "memorised  " in line]
    assert [line.endswith(": still learns") for line in told] == ["kept" in each for each in found[1:]]


def result_of(trainer):
    log = [entry for entry in timeless(trainer.state.log_history[:-1]) if not any("relearn/" in key for key in entry)]
    return weights_of(trainer.model), trainer.optimizer.state_dict(), log


def test_a_gate_that_never_fires_leaves_the_run_with_heads_alone_resumed_or_not(tmp_path):
    """With dropout and evaluations; the comparison is one to the bit."""
    shared = {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 1, "use_cpu": True}
    shared |= {"num_train_epochs": 4, "learning_rate": 1e-2, "disable_tqdm": True, "logging_steps": 1}

    def run(name, preset, resume=None, seed=0, **settings):
        args = RelearnTrainingArguments.from_preset(preset, str(tmp_path / name), **shared, **settings)
        model = tiny_model(seed, dropout=0.2, preset=preset)
        data = {"train_dataset": TensorRows(), "eval_dataset": TensorRows(12, seed=1)}
        trainer = MultimodalRelearnTrainer(model, args, **data)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    heads = result_of(run("heads", "heads"))
    never = {"relearn_gate_threshold": 1.0}
    gated = run("gated", "balanced", **never)
    assert_same(result_of(gated), heads)
    steps = [(record["step"], record["kind"]) for record in read_history(tmp_path / "gated")]
    assert steps == [(0, "start"), (5, "point"), (10, "point")]
    for step in (5, 7):  # just before a point, and in the middle of an epoch between the two
        again = run("gated", "balanced", str(tmp_path / "gated" / f"checkpoint-{step}"), seed=3, **never)
        assert_same(result_of(again), heads)
        assert [(record["step"], record["kind"]) for record in read_history(tmp_path / "gated")] == steps


def test_the_record_names_what_a_point_cost_and_what_the_heads_know(tmp_path):
    trainer = pattern_trainer(tmp_path, pattern_model(unimodal_loss_weight=1.0), relearn_interval=1)

    def look():
        if not trainer.state.global_step:
            return None
        training = trainer.model.training
        found = {}
        with torch.no_grad():
            for part, rows in (("train", trainer.train_dataset), ("val", trainer.eval_dataset)):
                batch = trainer.data_collator([rows[index] for index in range(len(rows))])
                labels = batch.pop("labels")
                for name, logits in trainer.model.eval()(**batch).unimodal_logits.items():
                    found[name, part] = float((logits.argmax(-1) == labels).double().mean())
        trainer.model.train(training)
        return found

    seen = around_points(trainer, look)
    trainer.train()
    start, *records = read_history(tmp_path)
    assert start["kind"] == "start" and (start["step"], start["share_of_epoch"]) == (0, None)
    accuracies = [before for before, _, _ in seen]
    assert len(accuracies) == len(records) == 3
    for expected, record in zip(accuracies, records, strict=True):
        assert record["share_of_epoch"] > 0 and 0 < record["estimator_seconds"] < record["seconds"]
        for name, entry in record["modalities"].items():
            assert entry["train_head_accuracy"] == pytest.approx(expected[name, "train"])
            assert entry["val_head_accuracy"] == pytest.approx(expected[name, "val"])


def test_parts_that_differ_before_training_are_told_at_the_start(tmp_path):
    trainer = pattern_trainer(tmp_path, relearn_strategy="no", diagnosis_interval=9, max_steps=1)
    with pytest.warns(UserWarning, match="before training the held-out samples of 'memorised' already differ.*gap 0"):
        trainer.train()
    start = read_history(tmp_path)[0]["modalities"]
    assert start["memorised"]["gap"] > 2 * start["memorised"]["standard_error"]
    assert start["known"]["gap"] < 2 * start["known"]["standard_error"]
