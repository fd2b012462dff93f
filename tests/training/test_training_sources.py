"""Which samples are diagnosed: nothing is held out in secret, and labels are read once."""

import pytest
from patterns import PatternRows, pattern_arguments, pattern_model, pattern_trainer
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES
from transformers import TrainerCallback

from hf_relearn.training import MultimodalRelearnTrainer, read_history

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]

SET = PatternRows(44, seed=1, held_out=True)
SEVERAL = {"easy": PatternRows(44, seed=1), "hard": SET}


@pytest.mark.parametrize(
    ("evaluated", "settings", "held_out", "diagnosed"),
    [
        (SET, {}, 0, SET),
        (SET, {"relearn_alpha": "0.5"}, 0, SET),
        (SET, {"relearn_strategy": "no"}, 0, None),
        (SET, {"relearn_strategy": "no", "diagnosis_interval": 1}, 0, SET),
        (SET, {"diagnosis_source": "holdout"}, 6, "a part"),
        (SET, {"relearn_strategy": "no", "diagnosis_source": "holdout"}, 6, "a part"),
        (None, {}, 6, "a part"),
        (None, {"diagnosis_fraction": 0.2}, 12, "a part"),
        (None, {"relearn_alpha": "0.5"}, 0, None),
        (None, {"relearn_strength": "0.5"}, 0, None),
        (None, {"relearn_alpha": "0.5", "diagnosis_source": "holdout"}, 6, "a part"),
        (None, {"relearn_strategy": "no"}, 0, None),
        (SEVERAL, {"diagnosis_source": "hard"}, 0, SET),
        (SEVERAL, {"relearn_strategy": "no"}, 0, None),
        ({"hard": SET}, {}, 0, SET),
    ],
)
def test_what_is_held_out_and_diagnosed(tmp_path, caplog, evaluated, settings, held_out, diagnosed):
    with caplog.at_level("WARNING", logger="hf_relearn"):
        trainer = pattern_trainer(tmp_path, trainer_kwargs={"eval_dataset": evaluated}, **settings)
    assert len(trainer.train_dataset) == 60 - held_out
    said = [record.getMessage() for record in caplog.records if "held out" in record.getMessage()]
    if diagnosed == "a part":
        assert len(trainer.diagnosis_dataset) == held_out
        assert len(said) == 1 and said[0].startswith(f"{held_out} of 60 training samples are held out to diagnose on")
    else:
        assert trainer.diagnosis_dataset is diagnosed and said == []


@pytest.mark.parametrize(
    ("evaluated", "source", "message"),
    [
        (
            SEVERAL,
            "auto",
            r"several evaluation sets \(easy, hard\): name the one to diagnose on, --diagnosis_s",
        ),
        (SEVERAL, "eval", "several evaluation sets"),
        (SEVERAL, "test", r"--diagnosis_source test is the name of no evaluation set \(.*easy, hard\)"),
        (SET, "hard", "--diagnosis_source hard is the name of no evaluation set"),
        (None, "eval", "--diagnosis_source eval needs an evaluation set, and there is none"),
    ],
)
def test_a_source_that_is_not_there_is_refused(tmp_path, evaluated, source, message):
    with pytest.raises(ValueError, match=message):
        pattern_trainer(tmp_path, trainer_kwargs={"eval_dataset": evaluated}, diagnosis_source=source)


class ReadsAtFirstEpoch(TrainerCallback):
    def __init__(self, rows):
        self.rows = rows

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.reads = self.rows.reads


@pytest.mark.parametrize("source", ["holdout", "eval"])
def test_labels_are_read_once(tmp_path, source):
    rows = PatternRows()
    watch = ReadsAtFirstEpoch(rows)
    trainer = pattern_trainer(
        tmp_path, train_dataset=rows, trainer_kwargs={"callbacks": [watch]}, diagnosis_source=source, max_steps=4
    )
    trainer.train()
    start = read_history(tmp_path)[0]
    diagnosed = start["train_size"] + (start["diagnosis_size"] if source == "holdout" else 0)
    assert watch.reads == 1 + 60 + diagnosed  # a row for its columns, the labels, and the features of the start


@pytest.mark.parametrize("settings", [{"relearn_strategy": "no"}, {"relearn_alpha": "0.5"}])
def test_labels_are_not_read_where_nothing_is_diagnosed(tmp_path, settings):
    rows = PatternRows()
    watch = ReadsAtFirstEpoch(rows)
    args = pattern_arguments(tmp_path, max_steps=4, **settings)
    trainer = MultimodalRelearnTrainer(pattern_model(), args, train_dataset=rows, callbacks=[watch])
    trainer.train()
    assert watch.reads == 0 < rows.reads
