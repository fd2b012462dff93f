"""What every process of `test_models_missing_distributed.py` runs: `python distributed_missing.py FOLDER`.

In each step other modalities are missing in other processes. Each process leaves `<name>-<index>.safetensors`.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
from fusions import BATCH, NAMES, inputs, model_with
from safetensors.torch import save_file
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

RUNS = {
    "concat": ("concat", "zero"),
    "bottleneck": ("bottleneck", "learnt"),
    "gated": ("gated", "learnt"),
}
LABELS = torch.tensor([0, 1, 2, 3, 0])
# step -> process -> modality that its batch lacks
LACKING = [[None, "vision"], ["audio", "gaze"], ["gaze", "gaze"], [None, None]]


def batch_of(step: int, process: int) -> dict[str, torch.Tensor]:
    """A batch whose lacking modality is told by the mask alone: it has no inputs of it."""
    values = inputs(seed=10 * step + process)
    lacking = LACKING[step][process]
    kept = {name: value for name, value in values.items() if lacking is None or not name.startswith(lacking)}
    masks = {f"{lacking}_present": torch.zeros(BATCH, dtype=torch.bool)} if lacking else {}
    return {**kept, **masks, "labels": LABELS}


def model_of(run: str) -> torch.nn.Module:
    fusion, placeholder = RUNS[run]
    model = model_with(fusion, missing_placeholder=placeholder, unimodal_loss_weight=0.5).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def train(model: torch.nn.Module, processes: list[int]) -> None:
    """SGD on the mean of the losses of these processes' batches, which alone is all that two together see."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(len(LACKING)):
        optimizer.zero_grad()
        losses = [model(**batch_of(step, process)).loss for process in processes]
        (sum(losses) / len(losses)).backward()
        optimizer.step()


def save(folder: Path, name: str, model: torch.nn.Module) -> None:
    tensors = {
        key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in model.state_dict().items()
    }
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / f"{name}.safetensors")


def main() -> None:
    folder = Path(sys.argv[1])
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    process = distributed.get_rank()
    for run in RUNS:
        model = model_of(run)
        train(DistributedDataParallel(model, find_unused_parameters=False), [process])
        save(folder, f"{run}-{process}", model)
    model = model_of("concat")
    for name in NAMES:
        fully_shard(model.encoders[name])
    fully_shard(model)
    train(model, [process])
    save(folder, f"sharded-{process}", model)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
