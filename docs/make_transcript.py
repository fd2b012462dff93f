"""Write docs/transcript.md: what the sample run of the README prints on a terminal of 100 columns.

    python docs/make_transcript.py

It takes as long as that run: some minutes on a CPU.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "transcript.md"
RECIPE, FLAGS = "recipes/train_cremad.py", ["--disable_tqdm", "true"]
FIRST = "split by actor"  # the first line after the sample was built
_PAGE = """# A run on the terminal

The sample run, `python {command}`, prints this on a terminal of 100 columns, after the sample was built.
Without the flag, progress bars come and go below the lines. `python docs/make_transcript.py` writes this page.

```text
{text}
```
"""


def run_sample() -> str:
    """Run the sample in a folder of its own and return all that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(ROOT / RECIPE), *FLAGS],
            cwd=folder,
            env={**os.environ, "COLUMNS": "100", "HF_DATASETS_CACHE": f"{folder}/cache"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])
    return done.stdout


def page(printed: str) -> str:
    """Return the page of what a run printed, from its first line on the data."""
    text = printed[printed.index(FIRST) :].rstrip()
    return _PAGE.format(command=" ".join([RECIPE, *FLAGS]), text=text)


if __name__ == "__main__":
    PAGE.write_text(page(run_sample()), encoding="utf-8")
