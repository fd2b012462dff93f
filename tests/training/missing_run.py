"""What every process of `test_training_missing_distributed.py` runs: `python missing_run.py FOLDER`.

Activation checkpointing turns `find_unused_parameters` off; batches of one process or both lack a modality.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import TensorRows, history, make_trainer, tiny_model, weights_of


class GappyRows(TensorRows):
    """The first rows lack the vision, some others the audio."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "vision_present": index >= 12, "audio_present": index % 5 != 4}


def main() -> None:
    warnings.simplefilter("ignore")  # so few samples look purer by chance
    folder = Path(sys.argv[1])
    trainer = make_trainer(
        folder,
        tiny_model(unimodal_loss_weight=1.0, missing_placeholder="learnt"),
        GappyRows(36),
        {"eval_dataset": GappyRows(19, seed=3)},
        activation_checkpointing=True,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=2,
        learning_rates=["vision=1e-3"],
        freeze=["audio.*embeddings"],
        diagnosis_sampling="all",
        num_train_epochs=2,
        lr_scheduler_type="constant",
    )
    trainer.train()
    metrics = trainer.evaluate()
    index = int(torch.distributed.get_rank()) if torch.distributed.is_initialized() else 0
    save_file(weights_of(trainer.model), folder / f"process-{index}.safetensors")
    values = {name: value for name, value in metrics.items() if name.endswith("accuracy")}
    sizes = {
        name: (entry["train_size"], entry["diagnosis_size"])
        for name, entry in history(folder)[0]["modalities"].items()
    }
    rates = sorted({group["lr"] for group in trainer.optimizer.param_groups})
    outcome = {"metrics": values, "sizes": sizes, "steps": trainer.state.global_step, "rates": len(rates)}
    (folder / f"process-{index}.json").write_text(json.dumps(outcome))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
