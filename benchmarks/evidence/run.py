"""Measure which remedy helps on small real data sets, paired over seeds, and print the tables.

    python benchmarks/evidence/run.py --data_dir DATA --out evidence.jsonl --jobs 2
    python benchmarks/evidence/run.py --data_dir DATA --tune --out tuning.jsonl --jobs 2 [--choose]
    python benchmarks/evidence/run.py --out evidence.jsonl --tables docs/evidence.md README.md
    python benchmarks/evidence/run.py --data_dir DATA --figure docs/separability.png --tasks TASK --first_seed SEED

A run that stands in the file is not trained again, so a measurement that was stopped goes on. The test accuracy of the
last epoch counts. Every arm of a seed has the same samples, initial weights and batches. `--quick` measures a part, in
less than 20 minutes on two cores.

Rates, lengths and decays of heads and joint are those of tuned.json, which `--tune` and then `--tune --choose` write:
chosen for both by the same grid, by accuracy on validation, on seeds of their own. Arms that build on one of them have
its settings. results.jsonl and tuning.jsonl beside this file hold the runs of docs/evidence.md.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from tables import write_tables  # noqa: E402
from tasks import TASKS, Stacking, Task, TensorRows  # noqa: E402

from hf_relearn.report.diagnosis_figures import separability_figure  # noqa: E402
from hf_relearn.report.theme import render_png  # noqa: E402
from hf_relearn.training import PRESETS, MultimodalRelearnTrainer, RelearnTrainingArguments  # noqa: E402

# Arm -> changes of the training arguments, and the weight of the uni-modal heads.
RIVALS = ("detached", "ogm_ge", "mlb", "modality_dropout", "mmpareto")
JOINT = {"relearn_strategy": "no", "max_grad_norm": 0.0}
ARMS: dict[str, tuple[Mapping[str, Any], float]] = {
    "joint": (JOINT, 0.0),
    "heads": (PRESETS["heads"], 1.0),
    "balanced": (PRESETS["balanced"], 1.0),
    # As published, but for the held-out part: every arm trains on the same samples.
    "paper": ({**PRESETS["paper"], "diagnosis_source": "eval"}, 0.0),
    **{name: ({**PRESETS["heads"], "balancing": name}, 1.0) for name in RIVALS},
}
ENSEMBLE = "ensemble"
# One after the other, each with the best of those before: rate, length as a share of the task's, weight decay.
RATES, LENGTHS, DECAYS = (5e-4, 1e-3, 2e-3, 4e-3), (1.0, 0.5), (0.01, 0.3)
TUNED = HERE / "tuned.json"
QUICK = {
    "tasks": ["digits-150-noise1.5", "emoji-400", "mfeat-300", "mfeat-10-epochs"],
    "arms": ["joint", "heads", "balanced", ENSEMBLE],
    "seeds": 4,
}
FIRST_TUNING_SEED = 1000


def training_arguments(task: Task, name: str, arm: str, seed: int, changes: Mapping[str, Any], folder: str) -> Any:
    """The arguments of a run: the task's, those that tuning chose for heads and joint alike, the arm's."""
    settings = {
        "optim": "adamw_torch",
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.05,
        **task.training,
        **_tuned(name, arm, changes),
        **changes,
    }
    return RelearnTrainingArguments(
        output_dir=folder,
        per_device_eval_batch_size=256,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        eval_strategy="no",
        report_to="none",
        **settings,
    )


def _tuned(name: str, arm: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What tuning chose: for joint training, for heads and all that build on them, by task."""
    if "learning_rate" in changes or not TUNED.is_file():
        return {}
    chosen = json.loads(TUNED.read_text()).get(TASKS[name].tuned_as or name, {})
    return dict(chosen.get("joint" if arm in ("joint", "paper", ENSEMBLE) else "heads", {}))


def train(
    task: Task,
    name: str,
    arm: str,
    seed: int,
    parts: tuple[TensorRows, TensorRows, TensorRows],
    changes: Mapping[str, Any],
    weight: float,
    only: str | None = None,
) -> tuple[MultimodalRelearnTrainer, np.ndarray, np.ndarray]:
    """Train one model; its validation and test logits (n, classes)."""
    rows = [part.only(only) for part in parts] if only else list(parts)
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(task, name, arm, seed, changes, folder)
        trainer = MultimodalRelearnTrainer(
            task.model(seed, weight, only), args, Stacking(task.shift), rows[0], rows[1], compute_metrics=None
        )
        trainer.train()
        logits = [np.asarray(trainer.predict(part).predictions) for part in rows[1:]]
    return trainer, logits[0], logits[1]


def measure(name: str, arm: str, seed: int, data_dir: Path, changes: Mapping[str, Any] | None = None) -> dict:
    """One run of an arm: test accuracy of the last epoch, and what re-learning did."""
    task = TASKS[name]
    parts = task.load(data_dir / task.folder, seed)
    start = time.perf_counter()
    labels = parts[2].labels.numpy()
    result: dict[str, Any] = {"task": name, "arm": arm, "seed": seed, **(changes or {})}
    if arm == ENSEMBLE:
        logits = [
            train(task, name, arm, seed, parts, {**JOINT, **(changes or {})}, 0.0, only)[2] for only in task.backbones
        ]
        probabilities = torch.stack([torch.from_numpy(each).softmax(dim=-1) for each in logits])
        for modality, each in zip(task.backbones, logits, strict=True):
            result[f"only_{modality}"] = float(np.mean(each.argmax(axis=1) == labels))
        predicted = probabilities.mean(dim=0).argmax(dim=-1).numpy()
    else:
        arm_changes, weight = ARMS[arm]
        trainer, seen, all_logits = train(task, name, arm, seed, parts, {**arm_changes, **(changes or {})}, weight)
        result["validation"] = float(np.mean(seen.argmax(axis=1) == parts[1].labels.numpy()))
        predicted = all_logits.argmax(axis=1)
        records = [record for record in trainer.relearn_callback.records if record["kind"] == "point"]
        result["moved"] = [
            {modality: values["alpha"] for modality, values in record["modalities"].items()} for record in records
        ]
        result["memorised"] = [
            {modality: values["memorised"] for modality, values in record["modalities"].items()} for record in records
        ]
    result["accuracy"] = float(np.mean(predicted == labels))
    result["seconds"] = round(time.perf_counter() - start, 1)
    return result


def draw(name: str, seed: int, data_dir: Path, path: Path) -> None:
    """Train the arm `balanced` with a diagnosis every second epoch, and draw the separabilities."""
    task = TASKS[name]
    parts = task.load(data_dir / task.folder, seed)
    changes, weight = ARMS["balanced"]
    trainer, *_ = train(task, name, "balanced", seed, parts, {**changes, "diagnosis_interval": 2}, weight)
    path.write_bytes(render_png(separability_figure(trainer.relearn_callback.records)))


def wanted_runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs that the options ask for, seeds outermost, so that a stopped measurement is paired."""
    first = options.first_seed
    for seed, name, arm in itertools.product(range(first, first + options.seeds), options.tasks, options.arms):
        yield {"task": name, "arm": arm, "seed": seed}


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished runs; a line that was cut off by a kill is passed over."""
    results = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return results


def run(wanted: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The result of a run, from the file if it stands there."""
    out = Path(options.out)
    for finished in read_results(out):
        if wanted.items() <= finished.items():
            return finished
    changes = {key: value for key, value in wanted.items() if key not in ("task", "arm", "seed")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = measure(wanted["task"], wanted["arm"], wanted["seed"], Path(options.data_dir), changes)
    with open(out, "a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps({key: result[key] for key in ("task", "arm", "seed", "accuracy", "seconds")}), flush=True)
    return result


def tune(name: str, arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """The settings of an arm with the best mean accuracy on validation, over seeds of their own."""
    epochs = TASKS[name].training["num_train_epochs"]

    def best(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
        def accuracy(cell: dict[str, Any]) -> float:
            seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.seeds)
            runs = [run({"task": name, "arm": arm, "seed": seed, **cell}, options) for seed in seeds]
            return float(np.mean([each["validation"] for each in runs]))

        return max(cells, key=accuracy)

    chosen = best([{"learning_rate": rate, "weight_decay": DECAYS[0], "num_train_epochs": epochs} for rate in RATES])
    if chosen["learning_rate"] == RATES[-1]:
        chosen = best([chosen, {**chosen, "learning_rate": 2 * RATES[-1]}])
    if not TASKS[name].fixed_length:
        chosen = best([{**chosen, "num_train_epochs": max(1, round(length * epochs))} for length in LENGTHS])
    return best([{**chosen, "weight_decay": decay} for decay in DECAYS])


def work(options: argparse.Namespace) -> None:
    """Train the runs of this process' share that are not finished yet."""
    if options.tune:
        pairs = [(name, arm) for name in options.tasks if TASKS[name].tuned_as is None for arm in ("joint", "heads")]
        for name, arm in pairs[options.share :: options.jobs]:
            tune(name, arm, options)
        return
    runs = list(wanted_runs(options))
    for wanted in runs[options.share :: options.jobs]:
        run(wanted, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="folder with one folder per data set")
    parser.add_argument("--out", default="evidence.jsonl", help="JSON lines, one per finished run")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--arms", nargs="+", default=[*ARMS, ENSEMBLE], choices=[*ARMS, ENSEMBLE])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a part: four tasks, four arms, four seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tune", action="store_true", help="tune heads and joint on seeds of their own")
    parser.add_argument("--choose", action="store_true", help="write tuned.json from the finished runs of --tune")
    parser.add_argument("--figure", metavar="FILE", help="draw the run of the first task and seed, and nothing else")
    parser.add_argument(
        "--tables", nargs="+", metavar="PAGE", help="write the tables of the finished runs, and train nothing"
    )
    options = parser.parse_args()
    if options.tables:
        places = {name: place for place, name in enumerate([*TASKS, *ARMS, ENSEMBLE])}
        results = sorted(read_results(Path(options.out)), key=lambda run: (places[run["task"]], places[run["arm"]]))
        for page in options.tables:
            write_tables(results, Path(page))
        return
    if options.quick:
        vars(options).update(QUICK)
    if options.data_dir is None:
        parser.error("--data_dir is missing: the folder with one folder per data set")
    absent = sorted(
        {TASKS[name].folder for name in options.tasks if not (Path(options.data_dir) / TASKS[name].folder).is_dir()}
    )
    if absent:
        print(f"not in {options.data_dir}, so left out: {', '.join(absent)}")
        options.tasks = [name for name in options.tasks if TASKS[name].folder not in absent]
    torch.set_num_threads(1)
    if options.figure:
        draw(options.tasks[0], options.first_seed, Path(options.data_dir), Path(options.figure))
        return
    if options.choose:
        chosen = json.loads(TUNED.read_text()) if TUNED.is_file() else {}
        for name in options.tasks:
            if TASKS[name].tuned_as is None:
                chosen[name] = {arm: tune(name, arm, options) for arm in ("joint", "heads")}
        TUNED.write_text(json.dumps(chosen, indent=2) + "\n")
        return
    if options.jobs == 1 or options.share is not None:
        options.share = options.share or 0
        work(options)
        return
    command = [sys.executable, *sys.argv]
    processes = [
        subprocess.Popen([*command, "--share", str(share)], env=dict(os.environ)) for share in range(options.jobs)
    ]
    sys.exit(max(process.wait() for process in processes))


if __name__ == "__main__":
    main()
