"""An output directory holds one run at a time, and a run goes on from its own checkpoints."""

import os
import shutil
import subprocess
import sys

import pytest
from tiny import make_trainer, tiny_model
from transformers import TrainerCallback

from hf_relearn import InitialWeights
from hf_relearn.training import last_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")

HOLDER = """
import sys
from pathlib import Path
from hf_relearn.files import FolderLock
FolderLock(Path(sys.argv[1]), "_relearn_run.lock").acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that has the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], env=environment, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_a_killed_ones_folder_is_taken_over(tmp_path, other_run):
    weights = InitialWeights.save(tiny_model(seed=5), tmp_path)
    (tmp_path / ".relearn_history.jsonl.1.tmp").touch()
    trainer = make_trainer(tmp_path)
    with pytest.raises(RuntimeError, match=f"in use by process {other_run.pid} on .* since 20.*one run at a time"):
        trainer.train()
    assert weights.path.is_file() and (tmp_path / ".relearn_history.jsonl.1.tmp").is_file()  # those of the other run
    assert trainer.state.global_step == 0
    other_run.kill()
    other_run.wait()
    trainer.train()
    assert not list(tmp_path.glob("*.lock"))


def test_a_run_inside_another_one_is_refused(tmp_path):
    class Nested(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            make_trainer(tmp_path).train()

    trainer = make_trainer(tmp_path, trainer_kwargs={"callbacks": [Nested()]})
    with pytest.raises(RuntimeError, match=f"in use by process {os.getpid()} "):
        trainer.train()
    assert trainer.state.global_step == 1
    make_trainer(tmp_path, num_train_epochs=2).train()  # the failed run has given its folder up


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_the_checkpoints_of_an_earlier_run_are_passed_over(tmp_path, caplog):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "relearn_strategy": "steps"}
    make_trainer(tmp_path, **settings).train()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert "came to its end at step 4; resuming goes on from" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, trainer_kwargs={"callbacks": [Stop()]}, **settings).train()
    caplog.clear()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-4 is passed over: it belongs to an earlier run in this folder" in caplog.text
    shutil.rmtree(tmp_path / "checkpoint-2")
    with pytest.raises(
        ValueError, match="no checkpoint .*the last one checkpoint-4: it belongs to an earlier run.*start afresh"
    ):
        make_trainer(tmp_path, **settings).train(resume_from_checkpoint=True)
    make_trainer(tmp_path, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
