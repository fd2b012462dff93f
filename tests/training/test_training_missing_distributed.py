"""Two real processes, some of whose batches lack a modality, with checkpointed activations."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("missing_run.py")


def test_batches_that_lack_a_modality_train_in_step_and_do_not_count(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (load_file(tmp_path / f"process-{index}.safetensors") for index in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    outcomes = [json.loads((tmp_path / f"process-{index}.json").read_text()) for index in range(2)]
    assert outcomes[0] == outcomes[1]
    assert {"eval_only_audio_accuracy", "eval_without_vision_accuracy", "eval_unimodal_vision_accuracy"} <= set(
        outcomes[0]["metrics"]
    )
    assert outcomes[0]["steps"] == 2 * 7  # 27 samples in batches of 2 times 2
    assert outcomes[0]["rates"] == 2
    sizes = outcomes[0]["sizes"]
    assert sizes["vision"][0] + sizes["vision"][1] == 36 - 12
    assert sizes["audio"][0] + sizes["audio"][1] == 36 - 7
