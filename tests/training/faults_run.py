"""What both processes of `test_training_faults.py` run: `python faults_run.py FOLDER agreed|training|late`.

`agreed`: failures of one process that the other one is told of, one after the other, with a short time limit of
collective operations; each process leaves what it saw in `process-<index>.json`. `training`: one that it is not.
`late`: one process never comes to a collective operation.
"""

import errno
import faulthandler
import json
import os
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import torch
from tiny import TensorRows, history, make_trainer, tiny_model, training_arguments

from hf_relearn.relearning import diagnoser

TIME_LIMIT = 5
RANK = int(os.environ["RANK"])


class Rows(TensorRows):
    """Rows that the second process cannot read: when a run starts, in training, or in the diagnosis after that."""

    def __init__(self, model, when):
        super().__init__()
        self.model, self.when = model, when
        self.trained = False

    def __getitem__(self, index):
        now = "training" if self.model.training else "diagnosis" if self.trained else "start"
        self.trained = self.trained or self.model.training
        if RANK == 1 and torch.distributed.is_initialized() and now == self.when:
            raise OSError(f"row {index} is damaged")
        return super().__getitem__(index)


def seen(folder: Path, patch=None, train_dataset=None, model=None, feature_function=None) -> dict:
    """What training comes to, in this process."""
    model = model or tiny_model()
    settings = {"ddp_timeout": TIME_LIMIT, "num_train_epochs": 2, "diagnosis_sampling": "all"}
    others = {"diagnosis_dataset": TensorRows(12, seed=2)}
    trainer = make_trainer(folder, model, train_dataset, others, per_device_eval_batch_size=4, **settings)
    if feature_function is not None:
        trainer.relearn_callback.feature_function = feature_function
    found: dict = {}
    print(f"process {RANK}: {folder.name}", flush=True)
    with patch or mock.patch.object(os, "sep", os.sep), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.train()
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
    found["warned"] = [str(warning.message) for warning in caught if "NaN or infinite" in str(warning.message)]
    records = history(folder)
    moved = sum(entry["distance"] > 0 for record in records for entry in record["modalities"].values())
    return {**found, "step": trainer.state.global_step, "points": len(records), "moved": moved}


def full_disk(function: str, at: int):
    """Some write of the first process to a disk fails."""
    calls, original = [], getattr(os, function)

    def fails(*args):
        calls.append(args)
        if RANK == 0 and len(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args)

    return mock.patch.object(os, function, fails)


def diagnosed_by(function):
    return mock.patch.object(diagnoser, "diagnose", function)


def never(*args, **kwargs):
    raise MemoryError("the clusters do not fit")


def features(model, batch):
    if RANK == 1:
        raise ValueError("no features of this batch")
    return model(**{name: value for name, value in batch.items() if name != "labels"}).features


def broken_features(model, batch):
    found = model(**{name: value for name, value in batch.items() if name != "labels"}).features
    return {name: values * (float("nan") if RANK == 1 else 1.0) for name, values in found.items()}


def agreed(folder: Path) -> dict:
    models = [tiny_model(), tiny_model()]
    return {
        "clustering": seen(folder / "clustering", diagnosed_by(never)),
        "features": seen(folder / "features", feature_function=features),
        "nan": seen(folder / "nan", feature_function=broken_features),
        "labels": seen(folder / "labels", train_dataset=Rows(models[0], "start"), model=models[0]),
        "rows": seen(folder / "rows", train_dataset=Rows(models[1], "diagnosis"), model=models[1]),
        "samples": seen(folder / "samples", full_disk("replace", 1)),
        "initial weights": seen(folder / "weights", full_disk("replace", 2)),
        "first record": seen(folder / "first", full_disk("replace", 3)),
        "note": seen(folder / "note", full_disk("replace", 4)),
        "record": seen(folder / "record", full_disk("fsync", 5)),
    }


def main() -> None:
    faulthandler.dump_traceback_later(200, exit=True)  # in place of a hang
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    (folder / f"ready-{RANK}").touch()
    while not (folder / f"ready-{1 - RANK}").exists():
        time.sleep(0.05)  # the time limit holds from here on
    training_arguments(folder / "limit", ddp_timeout=TIME_LIMIT)  # starts the processes, on a CPU too
    if kind == "late":
        start, found = time.monotonic(), ""
        if RANK == 0:
            try:
                torch.distributed.barrier()
            except RuntimeError as error:
                found = str(error)
            (folder / "waited.json").write_text(json.dumps([time.monotonic() - start, found]))
        else:
            while not (folder / "waited.json").exists():
                time.sleep(0.1)
        return
    if kind == "training":
        model = tiny_model()
        rows, settings = Rows(model, "training"), {"diagnosis_fraction": 0, "relearn_alpha": "1"}
        make_trainer(folder / "run", model, rows, **settings).train()
    (folder / f"process-{RANK}.json").write_text(json.dumps(agreed(folder)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
