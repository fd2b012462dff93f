"""Check that a comparison ends with the same figures whether or not it was killed, and with one or two runs at a time.

    python benchmarks/interrupted_comparison.py --dataset_name DATA/av_digits --out comparisons

A comparison of six arms is trained three times: whole and one run at a time; killed twice in its middle and resumed;
two runs at a time. The three `comparison.json` must be equal but for time and memory. Arguments that are not known
here go to the recipe.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "recipes" / "train_multimodal.py"
ARMS = ("joint", "heads", "balanced", "paper", "ogm_ge", "ensemble")


def start(output: Path, jobs: int, options: argparse.Namespace, flags: list[str]) -> subprocess.Popen:
    """Start or resume a comparison in a process group of its own; its output goes to a log beside the folder."""
    command = [sys.executable, str(RECIPE), "--dataset_name", options.dataset_name, "--output_dir", str(output)]
    command += ["--from_scratch", "--compare", "--compare_arms", *options.arms]
    command += ["--compare_seeds", str(options.seeds), "--compare_jobs", str(jobs)]
    command += ["--max_steps", str(options.max_steps), "--use_cpu", "--disable_tqdm", "true", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(f"{output}.log", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def finish(process: subprocess.Popen, output: Path) -> dict:
    """Wait for a comparison, and return its figures without their cost."""
    if process.wait():
        sys.exit(f"the comparison failed: see {output}.log")
    figures = json.loads((output / "comparison.json").read_text())
    figures.pop("cost")
    return figures


def kill_after(process: subprocess.Popen, output: Path, done: int, delay: float) -> None:
    """Kill a comparison with all its processes, some time after so many of its runs are done."""
    while len(list(output.glob("*/seed-*/result.json"))) < done:
        if process.poll() is not None:
            sys.exit(f"the comparison ended before it was killed: see {output}.log")
        time.sleep(0.1)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    print(f"killed {delay:.1f} s after {done} runs were done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--out", type=Path, default=Path("comparisons"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max_steps", type=int, default=40)
    options, flags = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)

    figures = {}
    begin = time.monotonic()
    whole = options.out / "whole"
    figures["whole"] = finish(start(whole, 1, options, flags), whole)
    print(f"whole: {time.monotonic() - begin:.0f} s", flush=True)

    runs = len(list(whole.glob("*/seed-*/result.json")))
    killed = options.out / "killed"
    randomness = random.Random(0)
    for share in (1 / 3, 2 / 3):
        process = start(killed, 1, options, flags)
        kill_after(process, killed, round(share * runs), randomness.uniform(2, 10))
    figures["killed twice"] = finish(start(killed, 1, options, flags), killed)

    two = options.out / "two"
    begin = time.monotonic()
    figures["two at a time"] = finish(start(two, 2, options, flags), two)
    print(f"two at a time: {time.monotonic() - begin:.0f} s", flush=True)

    differ = [name for name, each in figures.items() if each != figures["whole"]]
    if differ:
        sys.exit(f"the figures differ from those of the whole comparison: {', '.join(differ)}")
    last = figures["whole"]["epochs"]["last"]["arms"]
    print(f"{runs} runs, {len(last)} arms: the figures of all three comparisons are equal")


if __name__ == "__main__":
    main()
