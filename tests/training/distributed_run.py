"""What every process of `test_training_distributed.py` runs: `python distributed_run.py FOLDER`.

Each process leaves `process-<index>.safetensors` and `process-<index>.json` in the folder.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import TensorRows, make_trainer, tiny_model, weights_of
from transformers import TrainerCallback, default_data_collator

from hf_relearn.training import read_history


class Perturbed(TrainerCallback):
    """Stands for training: moves the weights away from their initial values, in every process alike."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


class NumberedRows(TensorRows):
    """Rows that know their number."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "number": int(index)}


class Watched:
    """A collator that notes which rows the training batches of this process hold."""

    def __init__(self, asked):
        self.asked = asked

    def without_augmentation(self):
        return Watched([])

    def __call__(self, rows):
        self.asked += [row["number"] for row in rows]
        return default_data_collator([{k: v for k, v in row.items() if k != "number"} for row in rows])


def one_point_for_given_weights(folder: Path) -> tuple[dict, dict]:
    """At learning rate 0 a point meets the same weights whatever the number of processes."""
    model = tiny_model(unimodal_loss_weight=1.0)
    settings = {"learning_rate": 0.0, "num_train_epochs": 2, "diagnosis_sampling": "all"}
    trainer = make_trainer(folder, model, TensorRows(), **settings)
    trainer.add_callback(Perturbed())
    trainer.train()
    tensors = {f"weights.{name}": value for name, value in weights_of(trainer.model).items()}
    metrics = trainer.evaluate(TensorRows(19, seed=3))
    for part, found in trainer.part_features().items():
        tensors |= {f"features.{part}.{name}": torch.from_numpy(values) for name, values in found.features.items()}
    accuracies = {name: value for name, value in metrics.items() if name.endswith("accuracy")}
    return tensors, {"record": read_history(folder)[0], "accuracies": accuracies}


def training_with_points(folder: Path) -> tuple[dict, dict]:
    """A usual run, whose diagnosing part returns after the last point; without heads, so with a probe."""
    asked, epochs = [], []

    class Epochs(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            epochs.append(list(asked))
            asked.clear()

    others = {"callbacks": [Epochs()], "data_collator": Watched(asked), "eval_dataset": NumberedRows(19, seed=3)}
    settings = {"relearn_max_times": 1, "diagnosis_return": True, "per_device_train_batch_size": 4}
    trainer = make_trainer(folder, tiny_model(dropout=0.1), NumberedRows(), others, eval_strategy="epoch", **settings)
    held_out = trainer.diagnosis_dataset.indices
    trainer.train()
    probes = [entry["eval_unimodal_audio_accuracy"] for entry in trainer.state.log_history if "eval_loss" in entry]
    values = {"epochs": epochs, "held_out": held_out, "probes": probes, "steps": trainer.state.global_step}
    return {f"trained.{name}": value for name, value in weights_of(trainer.model).items()}, values


def main() -> None:
    warnings.simplefilter("ignore")  # so few samples look purer by chance
    folder = Path(sys.argv[1])
    tensors, values = one_point_for_given_weights(folder / "point")
    more_tensors, more_values = training_with_points(folder / "training")
    index = int(torch.distributed.get_rank()) if torch.distributed.is_initialized() else 0
    save_file(tensors | more_tensors, folder / f"process-{index}.safetensors")
    (folder / f"process-{index}.json").write_text(json.dumps(values | more_values))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
