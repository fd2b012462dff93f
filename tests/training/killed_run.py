"""Lives of runs that are ended by SIGKILL: `python killed_run.py FOLDER`.

`FOLDER/plan.json` is a list of lives, each {"run": name}, and when to kill it: "share" of the seconds that the last
life took which was to end by itself, or "event": [audit event, part of a path, which occurrence]. Each life is a
process of its own (forked from this one, which has only imported modules) that trains the run in FOLDER/<name>, or
goes on with its last whole checkpoint. `FOLDER/lives.json` tells what became of each; what a killed one left behind is
copied to `FOLDER/<name>-killed-<number of the life>`, and a run that has ended leaves `FOLDER/<name>-result`.
"""

import json
import os
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


def live(folder: Path, life: dict, delay: float) -> int:
    """Start one life, end it as planned or after a delay, and return its exit status, negative for a signal."""
    process = os.fork()
    if process == 0:
        try:
            if "event" in life:
                kill_at(*life["event"])
            train(folder / life["run"])
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    folder = Path(sys.argv[1])
    lives, usual = [], 60.0
    for number, life in enumerate(json.loads((folder / "plan.json").read_text())):
        start = time.monotonic()
        status = live(folder, life, life["share"] * usual if "share" in life else 60.0)
        if status not in (0, -signal.SIGKILL):
            sys.exit(f"a life failed: {life}")
        if status == -signal.SIGKILL and (folder / life["run"]).is_dir():
            shutil.copytree(folder / life["run"], folder / f"{life['run']}-killed-{number}")
        elif set(life) == {"run"}:
            usual = time.monotonic() - start
        lives.append({**life, "killed": status == -signal.SIGKILL})
    (folder / "lives.json").write_text(json.dumps(lives))


if __name__ == "__main__":
    main()
