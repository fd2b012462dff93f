"""Lives of runs that are ended by a signal: `python killed_run.py FOLDER`.

`FOLDER/plan.json` holds `configurations`, by names of `CONFIGURATIONS`; `kills`, how many lives of each to end at
random moments (`seed`); and `events`, the moments at which to end one more life each of the first configuration:
[audit event, part of a path, which occurrence]. Each life is a process of its own (forked from this one, which has
only imported modules) that trains the run in FOLDER/<run>, or goes on with its last whole checkpoint. What a killed
one left behind is copied to `FOLDER/<run>-killed-<n>`, and a run that has come to its end, as they all do at last,
leaves `FOLDER/<run>-result`.

A random moment is a number of accesses to the run's files, and some milliseconds after it: so it lies within the run
on a machine of any speed.
"""

import json
import os
import random
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from tiny import TensorRows, make_trainer, tiny_model, weights_of

from hf_relearn.training import last_checkpoint

ENDINGS = (-signal.SIGKILL, -signal.SIGALRM)
LONGEST_DELAY = 0.03  # seconds
EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
GATE = {"relearn_strength": "gate", "diagnosis_estimator": "separability", "diagnosis_source": "eval"}
CONFIGURATIONS: dict[str, dict] = {
    "points of epochs": {**EVERY_STEP, "eval_strategy": "steps", "eval_steps": 2, "diagnosis_interval": 1},
    "evaluations of epochs": {**EVERY_STEP, "eval_strategy": "epoch"},
    "persistent workers": {
        **EVERY_STEP,
        "eval_strategy": "epoch",
        "dataloader_num_workers": 1,
        "dataloader_persistent_workers": True,
    },
    "accumulation": {
        **EVERY_STEP,
        "eval_strategy": "epoch",
        "per_device_train_batch_size": 7,
        "gradient_accumulation_steps": 2,
    },
    "gate": {
        **EVERY_STEP,
        **GATE,
        "eval_strategy": "epoch",
        "relearn_interval": None,
        "relearn_gate_threshold": 0.0,
        "relearn_gate_errors": 0.0,
    },
    "points of steps": {
        **EVERY_STEP,
        "save_steps": 2,
        "relearn_strategy": "steps",
        "relearn_interval": 3,
        "relearn_optimizer_state": "reset",
        "num_train_epochs": 1,
        "max_steps": 8,
    },
    "best checkpoint": {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    },
    "restarts": {
        **EVERY_STEP,
        "save_steps": 3,
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "warmup_steps": 2,
        "max_grad_norm": 1.0,
        "relearn_strength": "0.5",
    },
    "rival": {**EVERY_STEP, "balancing": "modality_dropout", "eval_strategy": "epoch"},
    "final": {**EVERY_STEP, **GATE, "eval_strategy": "epoch", "relearn_final": True},
}
SETTINGS = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 14,
    "relearn_interval": 1,
    "lr_scheduler_type": "cosine",
}


def train(folder: Path, configuration: str) -> None:
    """Train the run, or go on with it."""
    warnings.simplefilter("ignore")
    model = tiny_model(dropout=0.2, unimodal_loss_weight=float(configuration in ("gate", "rival")))
    if configuration == "final":
        for modality in model.config.modalities.values():
            modality.pretrained = True  # only such encoders move at the end
    trainer = make_trainer(folder, model, TensorRows(), **{**SETTINGS, **CONFIGURATIONS[configuration]})
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
    # The mean loss of a resumed run is transformers' mean over another part of it.
    log = [entry for entry in trainer.state.log_history if "train_loss" not in entry]
    (result / "log.json").write_text(json.dumps(log))
    (result / "history.jsonl").write_text((folder / "relearn_history.jsonl").read_text())


def end_at(event: str, part: str, occurrence: int) -> None:
    """End this process in the moment in which it is about to do something to a file."""
    seen = 0

    def watch(name: str, arguments: tuple) -> None:
        nonlocal seen
        if name == event and part in str(arguments[0]):
            seen += 1
            if seen == occurrence:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


class Accesses:
    """Counts this process's accesses to the files of a folder, and ends it some time after one of them."""

    def __init__(self, folder: Path, last: int | None = None, delay: float = 0.0):
        self.seen = 0
        self.folder, self.last, self.delay = str(folder), last, delay
        sys.addaudithook(self.watch)

    def watch(self, name: str, arguments: tuple) -> None:
        if name == "open" or name.startswith(("os.", "shutil.")):
            if arguments and self.folder in str(arguments[0]):
                self.seen += 1
                if self.seen == self.last:
                    # Its default action ends the process at once, as SIGKILL does.
                    signal.setitimer(signal.ITIMER_REAL, max(self.delay, 1e-6))


class Lives:
    """Starts the lives of all runs in one folder, one after the other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.killed = 0

    def live(
        self, run: str, configuration: str, before: Callable | None = None, after: Callable | None = None
    ) -> bool:
        """Live one life; whether it came to its own end."""
        process = os.fork()
        if process == 0:
            try:
                if before is not None:
                    before()
                train(self.folder / run, configuration)
                if after is not None:
                    after()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status != 0 and status not in ENDINGS:
            sys.exit(f"a life of {run} ({configuration}) failed")
        if status != 0 and (self.folder / run).is_dir():
            shutil.copytree(self.folder / run, self.folder / f"{run}-killed-{self.killed}")
        self.killed += status != 0
        return status == 0

    def count_accesses(self, run: str, configuration: str) -> int:
        """Live one life without an end from outside; how often it accessed its files."""
        counter: list[Accesses] = []
        note = self.folder / f"{run}-accesses"
        self.live(
            run,
            configuration,
            before=lambda: counter.append(Accesses(self.folder / run)),
            after=lambda: note.write_text(str(counter[0].seen)),
        )
        return int(note.read_text())

    def end_at_random(
        self, name: str, configuration: str, kills: int, accesses: int, generator: random.Random
    ) -> None:
        """End so many lives of a configuration, in as many runs as it takes, and let the last run come to its end."""
        before, number = self.killed, 0
        while self.killed < before + kills:
            moment = (generator.randint(1, accesses), generator.uniform(0, LONGEST_DELAY))
            folder = self.folder / f"{name}-{number}"
            number += self.live(folder.name, configuration, before=lambda f=folder, m=moment: Accesses(f, *m))
        self.live(f"{name}-{number}", configuration)


def main() -> None:
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "plan.json").read_text())
    lives, generator, first = Lives(folder), random.Random(plan["seed"]), plan["configurations"][0]
    accesses = {name: lives.count_accesses(f"{name}-uninterrupted", name) for name in plan["configurations"]}
    for number, event in enumerate(plan["events"]):
        lives.live(f"moment-{number}", first, before=lambda event=event: end_at(*event))
        lives.live(f"moment-{number}", first)
    for name, count in accesses.items():
        lives.end_at_random(f"{name}-random", name, plan["kills"], count, generator)


if __name__ == "__main__":
    main()
