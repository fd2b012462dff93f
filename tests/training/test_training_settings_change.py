"""A run may be resumed with other settings, and its record says so."""

import json

from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, history, make_trainer
from transformers import TrainerCallback

from hf_relearn.report import write_report

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]

RUN = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 1, "relearn_lambda": 3.0}


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def run(folder, stop=None, resume=None, **settings):
    callbacks = {"callbacks": [StopAt(stop)]} if stop else {}
    trainer = make_trainer(folder, trainer_kwargs=callbacks, **{**RUN, **settings})
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{resume}") if resume else None)
    return [(record["step"], record["kind"]) for record in history(folder)]


def test_a_change_is_recorded_where_it_took_effect_and_is_in_force(tmp_path, caplog):
    run(tmp_path, stop=6)
    lines = run(tmp_path, resume=6, relearn_lambda=0.0, relearn_modalities=["audio"])

    assert lines == [(4, "point"), (6, "settings"), (8, "point"), (12, "point")]
    record = history(tmp_path)[1]
    assert record["changed"] == {
        "relearn_lambda": {"from": 3.0, "to": 0.0},
        "relearn_modalities": {"from": None, "to": ["audio"]},
    }
    assert record["epoch"] == 1.5
    assert "another --relearn_lambda: 0.0 instead of 3.0" in caplog.text
    assert write_report(
        tmp_path, title="Run", records=history(tmp_path), log_history=[], results={}, settings={}
    ).is_file()
    assert list(history(tmp_path)[2]["modalities"]) == ["audio"]
    assert history(tmp_path)[2]["modalities"]["audio"]["alpha"] == 0.0


def test_a_change_is_recorded_once_and_survives_further_resumes(tmp_path):
    run(tmp_path, stop=6)
    for _ in range(2):
        run(tmp_path, stop=9, resume=6, relearn_max_times=2)
    lines = run(tmp_path, resume=9, relearn_max_times=2)
    assert lines == [(4, "point"), (6, "settings"), (8, "point")]


def test_a_run_that_is_over_is_not_recorded_as_changed(tmp_path):
    lines = run(tmp_path, diagnosis_interval=4)
    assert lines[-1] == (16, "end")
    assert run(tmp_path, resume=16, diagnosis_interval=2, relearn_lambda=1.0) == lines


def test_the_same_settings_leave_no_line(tmp_path):
    run(tmp_path, stop=6, relearn_modalities=["vision", "audio"], relearn_alpha="0.5")
    lines = run(tmp_path, resume=6, relearn_modalities=["vision", "audio"], relearn_alpha="0.5")
    assert lines == [(4, "point"), (8, "point"), (12, "point")]


def test_relearning_may_pause_and_come_back(tmp_path):
    run(tmp_path, stop=6)
    run(tmp_path, stop=9, resume=6, relearn_strategy="no")
    lines = run(tmp_path, resume=9)
    assert lines == [(4, "point"), (6, "settings"), (9, "settings"), (12, "point")]


def test_a_checkpoint_that_notes_no_settings_resumes(tmp_path):
    run(tmp_path, stop=6)
    path = tmp_path / "checkpoint-6" / "relearn_run.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps({"initial_weights": note["initial_weights"]}))
    assert run(tmp_path, resume=6, relearn_lambda=1.0) == [(4, "point"), (8, "point"), (12, "point")]
