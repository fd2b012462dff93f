"""Lives of runs that are ended by SIGKILL: `python killed_run.py FOLDER`.

`FOLDER/plan.json` holds `kills`, how many lives to end at random moments (`seed`), and `events`, the moments at which
to end one more each: [audit event, part of a path, which occurrence]. Each life is a process of its own (forked from
this one, which has only imported modules) that trains the run in FOLDER/<run>, or goes on with its last whole
checkpoint. What a killed one left behind is copied to `FOLDER/<run>-killed-<n>`, and a run that has come to its end,
as they all do at last, leaves `FOLDER/<run>-result`.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

from safetensors.torch import save_file
from tiny import TensorRows, make_trainer, tiny_model, weights_of

from hf_relearn.training import last_checkpoint

SETTINGS = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 14,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "relearn_interval": 1,
    "diagnosis_interval": 1,
    "lr_scheduler_type": "cosine",
}


def train(folder: Path) -> None:
    """Train the run, or go on with it."""
    warnings.simplefilter("ignore")
    trainer = make_trainer(folder, tiny_model(dropout=0.2), TensorRows(), **SETTINGS)
    try:
        checkpoint = last_checkpoint(folder)
    except ValueError:
        checkpoint = None  # killed before the first one was whole
    trainer.train(resume_from_checkpoint=checkpoint)
    result = folder.with_name(f"{folder.name}-result")
    result.mkdir(exist_ok=True)
    save_file(weights_of(trainer.model), result / "weights.safetensors")
    state = {f"{i}.{k}": v for i, s in trainer.optimizer.state_dict()["state"].items() for k, v in s.items()}
    save_file(state, result / "optimizer.safetensors")
    (result / "log.json").write_text(json.dumps(trainer.state.log_history[:-1]))
    (result / "history.jsonl").write_text((folder / "relearn_history.jsonl").read_text())


def kill_at(event: str, part: str, occurrence: int) -> None:
    """End this process in the moment in which it is about to do something to a file."""
    seen = 0

    def watch(name: str, arguments: tuple) -> None:
        nonlocal seen
        if name == event and part in str(arguments[0]):
            seen += 1
            if seen == occurrence:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


class Lives:
    """Starts the lives of all runs in one folder, one after the other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.killed = 0

    def live(self, run: str, *, event: list | None = None, delay: float = 60.0) -> bool:
        """Start one life, and end it at an event or after a delay in seconds; whether it came to its own end."""
        process = os.fork()
        if process == 0:
            try:
                if event is not None:
                    kill_at(*event)
                train(self.folder / run)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        deadline = time.monotonic() + delay
        while (ended := os.waitpid(process, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        if ended[0] == 0:
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
        status = os.waitstatus_to_exitcode(ended[1])
        if status not in (0, -signal.SIGKILL):
            sys.exit(f"a life of {run} failed")
        if status != 0 and (self.folder / run).is_dir():
            shutil.copytree(self.folder / run, self.folder / f"{run}-killed-{self.killed}")
        self.killed += status != 0
        return status == 0


def main() -> None:
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "plan.json").read_text())
    lives = Lives(folder)
    for run in ("warm-up", "uninterrupted"):
        start = time.monotonic()
        lives.live(run)
        seconds = time.monotonic() - start
    for number, event in enumerate(plan["events"]):
        lives.live(f"moment-{number}", event=event)
        lives.live(f"moment-{number}")
    generator, number, killed_before = random.Random(plan["seed"]), 0, lives.killed
    while lives.killed < killed_before + plan["kills"]:
        number += lives.live(f"random-{number}", delay=generator.uniform(0, seconds))
    lives.live(f"random-{number}")


if __name__ == "__main__":
    main()
