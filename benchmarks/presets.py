"""Test accuracy of joint training, the presets, and uni-modal heads alone, on a data set, for several seeds.

    python benchmarks/presets.py --dataset_name PATH_OR_HUB_ID [flags of recipes/train_multimodal.py]

Every arm is a run of the recipe. Selection never sees the test set: each run's last model counts. Runs that are there
already are not repeated. Prints each arm's mean and standard deviation over the seeds, and the paired differences to
joint training in points.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "recipes" / "train_multimodal.py"
ARMS = {
    "joint": ["--relearn_strategy", "no", "--unimodal_loss_weight", "0"],
    "joint on the training part of `paper`": ["--preset", "paper", "--relearn_strategy", "no"],
    "`paper`": ["--preset", "paper"],
    "uni-modal heads alone": ["--relearn_strategy", "no"],
    "`balanced`": [],
}
METRICS = ("test_accuracy", "test_unimodal_audio_accuracy", "test_unimodal_vision_accuracy")


def run_arm(name: str, seed: int, folder: Path, flags: list[str]) -> dict[str, float]:
    output = folder / f"{name.replace('`', '').replace(' ', '_')}-seed{seed}"
    results = output / "all_results.json"
    if not results.is_file():
        output.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(RECIPE), *flags, *ARMS[name], "--seed", str(seed), "--output_dir", str(output)]
        with open(output / "log.txt", "w") as log:
            subprocess.run([*command, "--disable_tqdm", "true"], check=True, stdout=log, stderr=log)
    return json.loads(results.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--folder", default="outputs/presets", help="where the runs go")
    arguments, flags = parser.parse_known_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for seed in arguments.seeds:
        for name in ARMS:
            runs[name].append(run_arm(name, seed, Path(arguments.folder), flags))
            print(f"seed {seed}, {name}: {runs[name][-1]['test_accuracy']:.4f}", file=sys.stderr, flush=True)
    print("| arm | test accuracy | audio alone | image alone | difference to joint, points |")
    print("| --- | --- | --- | --- | --- |")
    for name, results in runs.items():
        cells = []
        for metric in METRICS:
            values = [100 * result[metric] for result in results]
            cells.append(f"{statistics.mean(values):.1f} ± {_deviation(values):.1f}")
        pairs = zip(results, runs["joint"], strict=True)
        differences = [100 * (result["test_accuracy"] - joint["test_accuracy"]) for result, joint in pairs]
        cells.append(", ".join(f"{difference:+.1f}" for difference in differences))
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n{len(arguments.seeds)} seeds, {os.cpu_count()} cores; mean ± standard deviation over seeds, in percent.")


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
