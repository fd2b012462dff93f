"""Half-written checkpoints are passed over, whoever wrote them, and never come to look whole."""

import os
import shutil

import pytest
from tiny import FEW_SAMPLES, make_trainer, tiny_model, training_arguments
from transformers import Trainer, TrainerCallback

from hf_relearn import RelearnCallback
from hf_relearn.experiments.running import checkpoint_to_resume
from hf_relearn.training import last_checkpoint
from hf_relearn.training.trainer import multimodal_features

pytestmark = FEW_SAMPLES

RUN = {"save_strategy": "steps", "save_steps": 2}
LAST = "trainer_state.json"


@pytest.fixture
def run(tmp_path):
    """A finished run with checkpoints 2 to 12."""
    make_trainer(tmp_path, **RUN).train()
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


class Resumed(TrainerCallback):
    """Notes where a run was resumed, and stops it."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.step = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


def resumed_at(folder, resume_from_checkpoint=True):
    resumed = Resumed()
    trainer = make_trainer(folder, trainer_kwargs={"callbacks": [resumed]}, **{**RUN, "save_strategy": "no"})
    trainer.train(resume_from_checkpoint=resume_from_checkpoint)
    return resumed.step


def test_the_last_checkpoint_is_found_by_its_number(run):
    (run / "checkpoint-best").mkdir()
    (run / "checkpoint-99").write_text("no folder")
    assert last_checkpoint(run) == str(run / "checkpoint-12")


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
def test_a_half_written_checkpoint_is_passed_over(run, caplog, how):
    path = run / "checkpoint-12" / LAST
    path.unlink() if how == "missing" else cut(path) if how == "cut" else path.write_text("")
    assert checkpoint_to_resume(training_arguments(run, resume_from_checkpoint="last")) == str(run / "checkpoint-10")
    assert resumed_at(run) == 10
    assert "checkpoint-12 is passed over: it was not written to its end" in caplog.text


def test_a_half_written_checkpoint_that_is_asked_for_is_refused(run):
    cut(run / "checkpoint-8" / LAST)
    with pytest.raises(ValueError, match=f"cannot resume from .*checkpoint-8: .*{LAST}, is missing or cut off"):
        resumed_at(run, str(run / "checkpoint-8"))


def test_where_no_checkpoint_is_whole_the_message_says_so(run):
    for path in run.glob(f"checkpoint-*/{LAST}"):
        path.unlink()
    with pytest.raises(
        ValueError, match="--resume_from_checkpoint last: .* to resume from .6 passed over, .*checkpoint-12"
    ):
        checkpoint_to_resume(training_arguments(run, resume_from_checkpoint="last"))
    with pytest.raises(ValueError, match="no checkpoint in .* to resume from; start afresh"):
        checkpoint_to_resume(training_arguments(run / "elsewhere", resume_from_checkpoint="last"))


def test_checkpoints_of_a_stock_trainer_count_as_whole(tmp_path):
    parts = make_trainer(tmp_path / "parts")
    args = training_arguments(tmp_path, **RUN)
    callback = RelearnCallback(lambda model: model.encoders, multimodal_features, parts.diagnosis_dataset)
    Trainer(tiny_model(), args, train_dataset=parts.train_dataset, callbacks=[callback]).train()
    shutil.rmtree(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
    cut(tmp_path / "checkpoint-12" / LAST)
    assert resumed_at(tmp_path) == 8


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_checkpoint_that_is_replaced_does_not_look_whole_on_the_way(run, monkeypatch, method):
    """A run resumed from step 4 writes checkpoint 6 again, and is killed there: that is now of two runs."""
    trainer = make_trainer(run, **RUN)

    def killed(*args, **kwargs):
        raise Killed

    monkeypatch.setattr(trainer, method, killed)
    with pytest.raises(Killed):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    for later in (8, 10, 12):
        shutil.rmtree(run / f"checkpoint-{later}")
    assert last_checkpoint(run) == str(run / "checkpoint-4")


def test_an_older_checkpoint_is_deleted_only_when_the_new_one_has_everything(tmp_path, monkeypatch):
    make_trainer(tmp_path, **RUN, save_total_limit=1, max_steps=2, relearn_strategy="steps").train()
    before = set(path.name for path in (tmp_path / "checkpoint-2").iterdir())
    trainer = make_trainer(tmp_path, **RUN, save_total_limit=1, max_steps=4, relearn_strategy="steps")
    monkeypatch.setattr("transformers.trainer.rotate_checkpoints", lambda **kwargs: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        trainer.train(resume_from_checkpoint=True)
    assert set(path.name for path in (tmp_path / "checkpoint-4").iterdir()) == before
    assert {"relearn_run.json", LAST} < before


def test_leftovers_of_killed_writers_are_removed_at_the_next_start(run):
    digits = "0123456789abcdef" * 2
    leftovers = [
        run / f"._initial_weights-0123.safetensors.{digits}.tmp",
        run / f".relearn_history.jsonl.{digits}.tmp",
        run / "checkpoint-12" / f".training_arguments.json.{digits}.tmp",
        run / "checkpoint-12" / ".tmpA1b2C3",
    ]
    for path in [*leftovers, run / ".mine.tmp"]:
        path.write_text("half")
    resumed_at(run)
    assert not any(path.exists() for path in leftovers) and (run / ".mine.tmp").exists()


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "model.safetensors": half,
    "optimizer.pt": half,
    "rng_state.pth": half,
    "relearn_run.json": lambda path: path.write_text("{"),
    "./relearn_run.json": lambda path: path.write_text("[1]"),
    "relearn_history.jsonl": lambda path: path.write_bytes(b"\0\1\n"),
    "trainer_state.json": lambda path: path.write_text("null"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_and_its_checkpoint_passed_over(run, name, caplog):
    DAMAGES[name](run / "checkpoint-12" / name)
    with pytest.raises(ValueError, match=f"cannot resume from .*checkpoint-12.*{name.removeprefix('./')}"):
        resumed_at(run, str(run / "checkpoint-12"))
    assert last_checkpoint(run) == str(run / "checkpoint-10")
    assert "checkpoint-12 is passed over" in caplog.text


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_a_checkpoint_that_does_not_resume_exactly_says_so(run, name, caplog):
    (run / "checkpoint-8" / name).unlink()
    resumed_at(run, str(run / "checkpoint-8"))
    assert "the resumed run will not equal the uninterrupted one exactly" in caplog.text


def test_weights_can_be_read_by_those_whom_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        trainer = make_trainer(tmp_path, **{**RUN, "max_steps": 2, "relearn_strategy": "no"})
        trainer.train()
        trainer.save_model()
    finally:
        os.umask(before)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2 and {path.stat().st_mode & 0o777 for path in files} == {0o644}
