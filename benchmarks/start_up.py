"""Measure what imports and helps cost, as ratios where a ratio says more than this machine's seconds.

    python benchmarks/start_up.py

Each command runs several times in turn, in a process of its own, and its least CPU time counts. Exits with 1 if a
limit is missed: `import hf_relearn`, and hf_relearn on top of what a training script imports or of the Auto classes
alone, take at most a tenth more than without it; `hf-relearn --help` half a second, a recipe's `--help` two.

`import torch, transformers` loads hardly any part of transformers. hf_relearn, imported after it, registers with the
Auto classes, and so loads what `AutoModel` itself would: that is what it is measured against.
"""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPEATS = 5
# What a script imports that trains by the Trainer and uses the model.
USED = "import torch, transformers; transformers.Trainer, transformers.AutoModel, transformers.pipeline"
# What each of the classes loads that a model, its processor and its pipeline are registered with.
AUTO = "import torch, transformers; transformers.AutoModel, transformers.AutoProcessor, transformers.pipeline"
COMMANDS = {
    "import torch, transformers": ["-c", "import torch, transformers"],
    "import hf_relearn": ["-c", "import hf_relearn"],
    "import torch, transformers, hf_relearn": ["-c", "import torch, transformers, hf_relearn"],
    "torch and the Auto classes of transformers": ["-c", AUTO],
    "torch and the parts of transformers": ["-c", USED],
    "these, and hf_relearn": ["-c", f"{USED}; import hf_relearn"],
    "hf-relearn --help": ["-m", "hf_relearn", "--help"],
    "hf-relearn train --help": ["-m", "hf_relearn", "train", "--help"],
    "python recipes/train_cremad.py --help": [str(ROOT / "recipes" / "train_cremad.py"), "--help"],
}


def cpu_seconds(words: list[str]) -> float:
    """The CPU time of one process, which waiting for other work on the machine does not lengthen."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    least = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(REPEATS):
        for name, words in COMMANDS.items():
            least[name] = min(least[name], cpu_seconds(words))
    heavy, used, both = "import torch, transformers", "torch and the parts of transformers", "these, and hf_relearn"
    registered, auto = "import torch, transformers, hf_relearn", "torch and the Auto classes of transformers"
    checks = [
        (f"'import hf_relearn' against '{heavy}'", least["import hf_relearn"] / least[heavy], 1.1, ""),
        (f"'{registered}' against {auto}", least[registered] / least[auto], 1.1, ""),
        (f"hf_relearn after {used} that a training script uses", least[both] / least[used], 1.1, ""),
        ("hf-relearn --help", least["hf-relearn --help"], 0.5, " s"),
        ("hf-relearn train --help", least["hf-relearn train --help"], 0.5, " s"),
        ("python recipes/train_cremad.py --help", least["python recipes/train_cremad.py --help"], 2.0, " s"),
    ]
    for name, seconds in least.items():
        print(f"{seconds:7.2f} s  {name}")
    print(f"\n'{registered}' takes {least[registered] / least[heavy]:.2f} of '{heavy}'\n")
    for name, value, limit, unit in checks:
        print(f"{'ok  ' if value <= limit else 'MISS'}  {value:.2f}{unit} (at most {limit}{unit})  {name}")
    return int(any(value > limit for _, value, limit, _ in checks))


if __name__ == "__main__":
    sys.exit(main())
