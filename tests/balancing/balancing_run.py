"""What every process of `test_balancing_distributed.py` runs: `python balancing_run.py FOLDER`.

Each process leaves the gradients of one step with each method in `process-<index>.safetensors`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from three import ROWS, RowsOfThree, model_of_three, trainer_of_three
from torch.distributed.fsdp import fully_shard
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_relearn.balancing import METHODS

OPTIONS = {"modality_dropout": ["probability=1", "scale=0", "share=1"]}


def sharded_gradients(name: str) -> dict[str, torch.Tensor]:
    """The gradients of one step with parameters that both processes share out; each has half of the rows."""
    model = model_of_three().train()
    for encoder in model.encoders.values():
        fully_shard(encoder)
    fully_shard(model)
    options = {"probability": 1.0, "scale": 0.0, "share": 1.0} if name == "modality_dropout" else {}
    method, args = METHODS[name](**options), TrainingArguments(use_cpu=True, dataloader_pin_memory=False)
    control, state = TrainerControl(), TrainerState(max_steps=1)
    method.on_train_begin(args, state, control, model)
    method.on_step_begin(args, state, control)
    half = slice(args.process_index, None, 2)
    rows = {key: values[half] for key, values in RowsOfThree().values.items()}
    model(**rows, num_items_in_batch=ROWS // 2).loss.backward()  # FSDP takes the mean over processes
    method.on_pre_optimizer_step(args, state, control)
    return {key: p.grad.full_tensor() for key, p in model.named_parameters() if p.grad is not None}


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
    for name in METHODS:
        try:
            tensors |= {f"sharded {name}:{key}": value for key, value in sharded_gradients(name).items()}
        except ValueError as error:
            (folder / f"refused-{name}.txt").write_text(str(error))
    save_file(tensors, folder / f"process-{torch.distributed.get_rank()}.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
