"""Train the arms of a comparison: one process for each run, several at once, and further after a kill."""

import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_relearn.experiments.arguments import RunArguments
from hf_relearn.experiments.arms import Run, known_arms, plan_runs
from hf_relearn.experiments.experiment import Experiment
from hf_relearn.experiments.predictions import combine, load_predictions, of_heads
from hf_relearn.experiments.processes import Processes, RunFailed, die_with_parent, is_child
from hf_relearn.experiments.results import read_result, write_result
from hf_relearn.experiments.running import run_experiment
from hf_relearn.files import whole_file
from hf_relearn.hub.upload import PUSH_FAILED_EXIT_CODE
from hf_relearn.quality import main_metric
from hf_relearn.relearning.terminal import say
from hf_relearn.report import comparison_lines, write_comparison
from hf_relearn.report.comparison import FAILURE_FILE, SETTINGS_FILE
from hf_relearn.report.markdown import metric_label, number
from hf_relearn.training import RelearnTrainingArguments, last_checkpoint
from hf_relearn.training.metrics import ComputeMetrics

logger = logging.getLogger(__name__)

_FLAGS_FILE = "flags.json"
_LOCK_FILE = ".comparison.lock"
# What may differ between two starts of one comparison.
_FREE_FLAGS = {"compare_arms", "compare_seeds", "compare_jobs", "resume_from_checkpoint", "output_dir", "disable_tqdm"}


def run_or_compare(
    experiment: Experiment,
    run: RunArguments,
    args: RelearnTrainingArguments,
    *,
    compute_metrics: ComputeMetrics | None = None,
) -> None:
    """Train one model to its report, or with `--compare` all arms to their comparison.

    Args:
        experiment: data and model.
        run: what is done with them.
        args: training arguments.
        compute_metrics: further metrics, as for `run_experiment`.

    Raises:
        SystemExit: with `PUSH_FAILED_EXIT_CODE` if the model could not be pushed, when everything else is done; with 1
            if a run of the comparison failed.
    """
    if is_child():
        die_with_parent()
    experiment = experiment.corrupted(run.corrupt, args)
    if not run.compare:
        settings = {"preset": run.preset}
        result = run_experiment(
            experiment,
            args,
            extra_settings=settings,
            with_predictions=run.save_predictions,
            compute_metrics=compute_metrics,
        )
        if result.trainer.push_failure is not None:
            sys.exit(PUSH_FAILED_EXIT_CODE)
    elif args.process_index == 0:  # the other processes have nothing to do: each run is a process of its own
        seeds = [args.seed + place for place in range(run.compare_seeds)]
        runs = plan_comparison(experiment, args, run.compare_arms, seeds)
        if compare(experiment, args, runs, [sys.executable, *sys.argv], run.compare_jobs, compute_metrics):
            sys.exit(1)


def plan_comparison(
    experiment: Experiment, args: RelearnTrainingArguments, arms: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """Return the runs of a comparison.

    Raises:
        ValueError: for what cannot be compared.
    """
    for split in ("test", "validation"):
        if split not in experiment.held_out:
            raise ValueError(f"--compare needs a {split} split, and the data set has none")
    if args.push_to_hub:
        raise ValueError("--compare pushes nothing: train the arm that you want by itself, with --push_to_hub")
    modalities = experiment.model.use_modalities or list(experiment.modalities)
    return plan_runs(arms, seeds, modalities, args, numbers=experiment.numbers)


def compare(
    experiment: Experiment,
    args: RelearnTrainingArguments,
    runs: Sequence[Run],
    command: Sequence[str],
    jobs: int | None = None,
    compute_metrics: ComputeMetrics | None = None,
) -> dict[str, str]:
    """Do the runs that are not done yet, and write the comparison into the output directory.

    Args:
        experiment: title, notes and modalities are used.
        args: `output_dir` and `use_cpu` are used.
        runs: of `plan_comparison`.
        command: python, recipe and flags of the comparison; a run's own flags come behind them.
        jobs: runs at the same time; None for one on each GPU, or up to 4 on a CPU.
        compute_metrics: further metrics of ensembles; the command gives them to the other runs itself.

    Returns:
        Name of a run -> why it failed.

    Raises:
        ValueError: if another comparison is at work there, or a run was started with other flags.
    """
    root = Path(str(args.output_dir))
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / _LOCK_FILE, timeout=0):
            for run in runs:
                _check_flags(root / run.folder, _flags_of(command, run))
            arms = {name: arm.description for name, arm in known_arms(list(experiment.modalities)).items()}
            with whole_file(root / SETTINGS_FILE) as file:
                settings = {"title": experiment.title, "notes": list(experiment.notes), "arms": arms}
                file.write(json.dumps(settings, indent=2, ensure_ascii=False).encode())
            processes, metric = Processes(args.use_cpu, jobs), main_metric(experiment.numbers)
            failures = _Scheduler(root, runs, command, processes, metric, compute_metrics).run()
            path = write_comparison(root)
            found = json.loads((root / "comparison.json").read_text(encoding="utf-8"))
            say(f"\n{comparison_lines(found)}\n\nreport  {path}")
            return failures
    except Timeout:
        raise ValueError(f"--output_dir {root}: another comparison is at work there; wait for it to end") from None


class _Scheduler:
    """Do runs in the order in which they can be done, and report progress."""

    def __init__(
        self,
        root: Path,
        runs: Sequence[Run],
        command: Sequence[str],
        processes: Processes,
        metric: str,
        compute_metrics: ComputeMetrics | None,
    ):
        self.root = root
        self.metric = metric  # of progress lines
        self.compute_metrics = compute_metrics
        self.command = command
        self.processes = processes
        self.waiting = list(runs)
        self.done: set[str] = set()
        self.failures: dict[str, str] = {}
        self._failed: dict[str, str] = {}  # folder -> name
        self._total = len(runs)
        self._durations: list[float] = []
        self._left = sum(not run.ensemble for run in runs)  # to be trained

    def run(self) -> dict[str, str]:
        finished = [run for run in self.waiting if read_result(self.root / run.folder) is not None]
        for run in finished:
            self.waiting.remove(run)
            self.done.add(run.folder)
            self._left -= not run.ensemble
        if finished:
            logger.info("%d of %d runs are done already", len(finished), self._total)
        futures: dict[Future[None], Run] = {}
        with ThreadPoolExecutor(self.processes.jobs) as pool:
            try:
                while self.waiting or futures:
                    for run in self._ready():
                        futures[pool.submit(self._do, run)] = run
                    ended, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._end(futures.pop(future), future)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self.processes.stop()
        return self.failures

    def _ready(self) -> list[Run]:
        """Take from the waiting runs those whose turn it is; what needs a failed run fails with it."""
        ready = []
        for run in list(self.waiting):
            if missing := [self._failed[folder] for folder in run.needs if folder in self._failed]:
                self.waiting.remove(run)
                self._left -= not run.ensemble
                self._fail(run, f"it needs {missing[0]}, which failed")
            elif self.done.issuperset(run.needs):
                self.waiting.remove(run)
                ready.append(run)
        return ready

    def _do(self, run: Run) -> None:
        folder = self.root / run.folder
        if run.ensemble:
            _write_ensemble(self.root, run, self.compute_metrics)
            return
        flags = {**run.flags, "output_dir": str(folder), "resume_from_checkpoint": _prepare(folder)}
        if run.encoders:
            flags["encoders_from"] = [f"{name}={self.root / path}" for name, path in run.encoders.items()]
        with whole_file(folder / _FLAGS_FILE) as file:
            file.write(json.dumps(_flags_of(self.command, run), indent=2, ensure_ascii=False).encode())
        start = time.monotonic()
        self.processes.run([*self.command, *_as_words(flags)], folder / "log.txt")
        if read_result(folder) is None:
            raise RunFailed(f"it ended without a result; see {folder / 'log.txt'}")
        self._durations.append(time.monotonic() - start)
        for path in [*folder.glob("checkpoint-*"), *folder.glob("_initial_weights-*")]:  # of no use any more
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _end(self, run: Run, future: Future[None]) -> None:
        self._left -= not run.ensemble
        try:
            future.result()
        except (RunFailed, ValueError, OSError) as error:
            self._fail(run, str(error))
            return
        self.done.add(run.folder)
        result = read_result(self.root / run.folder) or {}
        found = f"{metric_label(self.metric)} {number(result['results']['last']['test'].get(self.metric))}"
        logger.info("%s is done: test %s. %s", self._place(run), found, self._outlook())

    def _fail(self, run: Run, message: str) -> None:
        self.failures[run.name] = message
        self._failed[run.folder] = run.name
        folder = self.root / run.folder
        with whole_file(folder / FAILURE_FILE) as file:
            file.write(message.encode())
        logger.error("%s failed: %s. %s", self._place(run), message, self._outlook())

    def _place(self, run: Run) -> str:
        return f"Run {len(self.done) + len(self.failures)} of {self._total} ({run.name})"

    def _outlook(self) -> str:
        if not self._left or not self._durations:
            return ""
        seconds = sum(self._durations) / len(self._durations) * self._left / self.processes.jobs
        end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        return f"About {seconds / 60:.0f} min left, until {end}."


def _prepare(folder: Path) -> str:
    """Make a run's folder ready; returns the value of `--resume_from_checkpoint`."""
    try:
        last_checkpoint(folder)
    except ValueError:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return ""
    (folder / FAILURE_FILE).unlink(missing_ok=True)
    return "last"


def _write_ensemble(root: Path, run: Run, compute_metrics: ComputeMetrics | None) -> None:
    folders = [root / path for path in run.needs]
    found = [load_predictions(folder) for folder in folders]
    members = of_heads(found[0]) if run.ensemble == "heads" else found
    results = [read_result(folder) or {} for folder in folders]
    seconds = [result["seconds"] for result in results]
    write_result(
        root / run.folder,
        {
            **{key: results[0][key] for key in ("title", "notes", "seed", "train_size")},
            "results": combine(
                members,
                weighted=run.ensemble == "weighted",
                signed="sign_accuracy" in results[0]["results"]["last"]["test"],
                compute_metrics=compute_metrics,
            ),
            "seconds": None if None in seconds else sum(seconds),
            "peak_memory": max((result["peak_memory"] or 0 for result in results), default=0) or None,
        },
    )
    (root / run.folder / FAILURE_FILE).unlink(missing_ok=True)


def _flags_of(command: Sequence[str], run: Run) -> dict[str, Any]:
    """Return the flags that a run's figures depend on: those of the command, then its own."""
    flags: dict[str, Any] = {}
    name = ""
    for word in command[2:]:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags[name] = [value] if equals else []
        elif name:
            flags[name] = [*flags[name], word]
    if config := flags.get("config"):
        flags["config"] = [Path(config[0]).read_text(encoding="utf-8")]
    for name, value in run.flags.items():
        flags[name] = _words(value)
    return {name: values for name, values in sorted(flags.items()) if name not in _FREE_FLAGS}


def _check_flags(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was started with other flags."""
    path = folder / _FLAGS_FILE
    if not path.is_file():
        return
    started = json.loads(path.read_text(encoding="utf-8"))
    differing = sorted(name for name in {*started, *wanted} if started.get(name) != wanted.get(name))
    if differing:
        raise ValueError(
            f"{folder} was started with another --{differing[0]}: repeat the comparison with the flags that it was "
            "begun with, give another --output_dir, or delete it"
        )


def _words(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]


def _as_words(flags: Mapping[str, Any]) -> list[str]:
    return [word for name, value in flags.items() for word in (f"--{name}", *_words(value))]
