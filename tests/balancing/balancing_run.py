"""What every process of `test_balancing_distributed.py` runs: `python balancing_run.py FOLDER`.

Each process leaves the gradients of one step with each method in `process-<index>.safetensors`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from three import trainer_of_three

from hf_relearn.balancing import METHODS

OPTIONS = {"modality_dropout": ["probability=1", "scale=0", "share=1"]}


def main() -> None:
    folder = Path(sys.argv[1])
    tensors = {}
    for name in METHODS:
        trainer, gradients = trainer_of_three(
            folder,
            name,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=2,
            balancing_options=OPTIONS.get(name),
        )
        trainer.train()
        (found,) = gradients.steps
        tensors |= {f"{name}:{key}": value for key, value in found.items()}
    save_file(tensors, folder / f"process-{torch.distributed.get_rank()}.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
