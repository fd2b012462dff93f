"""Peak memory of the store of initial weights, measured in a process of its own, and that of a diagnosis."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hf_relearn.method import diagnose

COMMAND = Path(__file__).parents[2] / "benchmarks" / "scale.py"
IN_WORDS = "; run it by hand to see: python benchmarks/scale.py --only store"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
@pytest.mark.parametrize("gigabytes", [0.3, pytest.param(4.2, marks=pytest.mark.slow)])
def test_the_store_needs_no_more_memory_than_a_tensor_and_200_mb_beside_the_model(tmp_path, gigabytes):
    command = [sys.executable, str(COMMAND), "--json", "--gigabytes", str(gigabytes), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["file bytes"] >= max(gigabytes * 1e9, 1.1 * measured["allowed bytes"]), "too small to tell"
    for step in ("writing", "re-initialisation"):
        assert measured[f"{step}: peak bytes beyond the model"] <= measured["allowed bytes"], f"{step}{IN_WORDS}"
    assert measured["weights as expected"] == 1
    assert not list(tmp_path.iterdir())


def test_a_diagnosis_holds_two_copies_of_one_part_at_most():
    """Two parts of 12 MB each: the scaled copy of one, and the variance that K-means computes of it."""
    generator = np.random.default_rng(0)
    labels = np.arange(20000) % 3
    parts = [{"a": generator.standard_normal((20000, 150), dtype=np.float32)} for _ in range(2)]
    size = parts[0]["a"].nbytes
    diagnose(parts[0], labels, parts[1], labels, 3)  # what is imported and kept once does not count
    tracemalloc.start()
    try:
        diagnose(parts[0], labels, parts[1], labels, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size < peak < 2.3 * size
