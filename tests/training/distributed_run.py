"""What every process of `test_training_distributed.py` runs: `python distributed_run.py FOLDER`.

Each process leaves `process-<index>.safetensors` and `process-<index>.json` in the folder.
"""

import json
import os
import random
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny import TensorRows, history, make_trainer, tiny_model, training_arguments, weights_of, without_times
from transformers import TrainerCallback, default_data_collator

from hf_relearn.training import MultimodalRelearnTrainer, RelearnTrainingArguments, read_history


class Perturbed(TrainerCallback):
    """Stands for training: moves the weights away from their initial values, in every process alike."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


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
    return tensors, {"record": history(folder)[0], "accuracies": accuracies}


def training_with_points(folder: Path) -> tuple[dict, dict]:
    """A usual run; without heads, so with a probe at its end."""
    others = {"eval_dataset": TensorRows(19, seed=3)}
    settings = {"relearn_max_times": 1, "diagnosis_interval": 1, "per_device_train_batch_size": 4}
    trainer = make_trainer(folder, tiny_model(dropout=0.1), TensorRows(), others, eval_strategy="epoch", **settings)
    trainer.train()
    probes = [
        entry["eval_unimodal_audio_accuracy"]
        for entry in trainer.state.log_history
        if "eval_unimodal_audio_accuracy" in entry
    ]
    values = {"probes": probes}
    return {f"trained.{name}": value for name, value in weights_of(trainer.model).items()}, values


def batches_of_sixteen(folder: Path) -> tuple[dict, dict]:
    """The same global batches, however they are shared out; with uni-modal heads, and two points on the way.

    The strength is constant: a diagnosis chooses clusters, or a separator, and may jump by a rounding.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    tensors, values = {}, {}
    for size, steps in ((16, 1), (4, 4)) if alone else ((8, 1),):
        name = f"{size} x {steps}"
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "optim": "sgd"}
        settings |= {"learning_rate": 0.02, "optim_args": "momentum=0.9"}
        settings |= {"diagnosis_estimator": "separability", "relearn_strength": "0.5"}
        model = tiny_model(unimodal_loss_weight=1.0)
        others = {"diagnosis_dataset": TensorRows(24, seed=3)}
        trainer = make_trainer(folder / name, model, TensorRows(48), others, **settings)
        trainer.train()
        tensors |= {f"batches.{name}.{key}": value for key, value in weights_of(trainer.model).items()}
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        norms = [entry["grad_norm"] for entry in trainer.state.log_history if "loss" in entry]
        values[name] = {"losses": losses, "norms": norms, "records": history(folder / name)}
    return tensors, {"batches": values}


def augmented(rows):
    """A batch that depends on every generator of the CPU."""
    draw = torch.rand(()).item() + random.random() + np.random.rand()
    batch = default_data_collator(rows)
    return {name: value + draw if value.is_floating_point() else value for name, value in batch.items()}


class SlowGenerators(MultimodalRelearnTrainer):
    """The second process is late with its share of a checkpoint."""

    def _save_rng_state(self, output_dir):
        if self.args.process_index == 1 and self.state.global_step == 2:
            time.sleep(0.7)
        super()._save_rng_state(output_dir)


def resumed_in_the_middle(folder: Path) -> tuple[dict, dict]:
    """A run with dropout, augmentation and points, and the same one resumed from its checkpoints."""
    files = {}

    class Look(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):  # the checkpoint counts as whole by now
            found = sorted(path.name for path in (folder / f"checkpoint-{state.global_step}").iterdir())
            files.setdefault(str(state.global_step), found)

    def trained(checkpoint=None):
        settings = {"per_device_train_batch_size": 5, "num_train_epochs": 3}
        settings |= {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "cosine"}
        args = training_arguments(folder, **settings)
        model = tiny_model(seed=7 if checkpoint else 0, dropout=0.2)
        trainer = SlowGenerators(model, args, augmented, TensorRows(), TensorRows(12, seed=1))
        trainer.add_callback(Look())
        trainer.train(resume_from_checkpoint=checkpoint)
        state = trainer.optimizer.state_dict()["state"]
        tensors = {f"weights.{name}": value for name, value in weights_of(trainer.model).items()}
        tensors |= {f"optimizer.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}
        records = without_times(history(folder))
        return tensors, {"log": without_times(trainer.state.log_history[:-1]), "records": records}

    tensors, values = {}, {}
    for name, step in (("whole", None), ("middle", 2), ("end of an epoch", 3), ("after a point", 4)):
        found, seen = trained(None if step is None else str(folder / f"checkpoint-{step}"))
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in found.items()}
        values[name] = seen
    return {f"resumed.{key}": value for key, value in tensors.items()}, {"resumed": values, "files": files}


def gate_that_never_fires(folder: Path) -> tuple[dict, dict]:
    """The preset `balanced` with a gate that nothing passes, and the preset `heads`."""
    tensors, values = {}, {}
    for preset, settings in (("heads", {}), ("balanced", {"relearn_gate_threshold": 1.0})):
        settings |= {"num_train_epochs": 2, "per_device_train_batch_size": 5, "learning_rate": 1e-2, "use_cpu": True}
        settings |= {"eval_strategy": "epoch", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
        args = RelearnTrainingArguments.from_preset(preset, str(folder / preset), **settings)
        model = tiny_model(dropout=0.2, preset=preset)
        data = {"train_dataset": TensorRows(), "eval_dataset": TensorRows(19, seed=1)}
        trainer = MultimodalRelearnTrainer(model, args, augmented, **data)
        trainer.train()
        state = trainer.optimizer.state_dict()["state"]
        tensors |= {f"gate.{preset}.weights.{name}": value for name, value in weights_of(trainer.model).items()}
        tensors |= {
            f"gate.{preset}.optimizer.{i}.{key}": value.clone()
            for i, entry in state.items()
            for key, value in entry.items()
        }
        log = [entry for entry in without_times(trainer.state.log_history[:-1]) if "relearn/audio/alpha" not in entry]
        records = [(record["kind"], record["step"]) for record in read_history(folder / preset)]
        values[preset] = {"log": log, "records": records}
    return tensors, {"gate": values}


def main() -> None:
    warnings.simplefilter("ignore")  # so few samples look purer by chance
    folder = Path(sys.argv[1])
    tensors, values = one_point_for_given_weights(folder / "point")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    parts = [training_with_points, batches_of_sixteen]
    for part in parts + [resumed_in_the_middle, gate_that_never_fires] * several:
        more_tensors, more_values = part(folder / part.__name__)
        tensors, values = tensors | more_tensors, values | more_values
    index = int(torch.distributed.get_rank()) if torch.distributed.is_initialized() else 0
    save_file(tensors, folder / f"process-{index}.safetensors")
    (folder / f"process-{index}.json").write_text(json.dumps(values))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
