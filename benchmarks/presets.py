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


def run_arm(name: str, changes: list[str], seed: int, folder: Path, flags: list[str]) -> dict[str, float]:
    output = folder / f"{name.replace('`', '').replace(' ', '_')}-seed{seed}"
    results = output / "all_results.json"
    if not results.is_file():
        output.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            str(RECIPE),
            *flags,
            *changes,
            "--seed",
            str(seed),
            "--output_dir",
            str(output),
        ]
        with open(output / "log.txt", "w") as log:
            subprocess.run([*command, "--disable_tqdm", "true"], check=True, stdout=log, stderr=log)
    return json.loads(results.read_text())


def make_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """The flags that are not the recipe's."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--folder", default=folder, help=f"where the runs go (default: {folder})")
    return parser


def main() -> None:
    arguments, flags = make_parser(__doc__, "outputs/presets").parse_known_args()
    compare(arguments, ARMS, flags)


def compare(arguments: argparse.Namespace, arms: dict[str, list[str]], flags: list[str]) -> None:
    """Run every arm for every seed and print the table; differences are to the first arm."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for seed in arguments.seeds:
        for name, changes in arms.items():
            runs[name].append(run_arm(name, changes, seed, Path(arguments.folder), flags))
            print(f"seed {seed}, {name}: {runs[name][-1]['test_accuracy']:.4f}", file=sys.stderr, flush=True)
    first = next(iter(arms))
    alone = [key for key in runs[first][0] if key.startswith("test_unimodal_") and key.endswith("_accuracy")]
    names = [key.removeprefix("test_unimodal_").removesuffix("_accuracy") for key in alone]
    print(f"| arm | test accuracy | {' | '.join(f'{name} by itself' for name in names)} | difference to the first |")
    print("| --- " * (len(names) + 3) + "|")
    for name, results in runs.items():
        cells = []
        for metric in ("test_accuracy", *alone):
            values = [100 * result[metric] for result in results if metric in result]
            cells.append(f"{statistics.mean(values):.1f} ± {_deviation(values):.1f}" if values else "")
        pairs = zip(results, runs[first], strict=True)
        differences = [100 * (result["test_accuracy"] - joint["test_accuracy"]) for result, joint in pairs]
        cells.append(", ".join(f"{difference:+.1f}" for difference in differences))
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n{len(arguments.seeds)} seeds, {os.cpu_count()} cores; mean ± standard deviation over seeds, in percent.")


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
