"""What every process of `test_training_sharded.py` runs: `python sharded_run.py FOLDER sharded|replicated`.

Each process leaves `process-<index>.json` in the folder, the first one also `tensors.safetensors`, of whole tensors.
"""

import copy
import json
import sys
import warnings
from pathlib import Path

import torch
from distributed_run import Perturbed
from safetensors.torch import save_file
from tiny import TensorRows, history, make_trainer, tiny_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from hf_relearn.method import InitialWeights, interpolate_buffers_, soft_reinit_, soft_reinit_with_distance_
from hf_relearn.method.tensors import local_part

ALPHA = 0.6043677771176636


class Watched(TorchDispatchMode):
    """Notes the collective operations, and the elements of the largest (local) tensor that any operation gave.

    Bytes and views are left out: safetensors maps a file, of which it reads what is asked for.
    """

    def __init__(self):
        super().__init__()
        self.collectives = []
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional", "_dtensor"):
            self.collectives.append(str(func))
        output = func(*args, **(kwargs or {}))
        outputs = output if isinstance(output, (tuple, list)) else [output]
        plain = [one for one in outputs if isinstance(one, torch.Tensor) and not isinstance(one, DTensor)]
        plain = [one for one in plain if one.is_floating_point()]
        if not any(returned.alias_info and not returned.alias_info.is_write for returned in func._schema.returns):
            self.largest = max([self.largest, *(one.numel() for one in plain)])
        return output


class Unevenly(nn.Module):
    """Parameters whose first dimension two processes cannot share evenly, or not at all; statistics; a frozen part."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(
            nn.Linear(40, 701), nn.BatchNorm1d(701), nn.Linear(701, 1), nn.Linear(1, 4), nn.Linear(4, 5)
        )
        self.head = nn.Linear(5, 3)
        for tensor in [*self.parameters(), self.encoder[1].running_mean]:
            torch.nn.init.uniform_(tensor, 0.1, 1.0)
        self.encoder[3].requires_grad_(False)

    def forward(self, inputs):
        return self.head(self.encoder(inputs))


def shards(model, mesh=None):
    """The root and two layers in groups of their own, one of which is divided by columns."""

    def by_columns(parameter):
        return Shard(1) if parameter.ndim == 2 else None

    fully_shard(model.encoder[0], mesh=mesh)
    fully_shard(model.encoder[4], mesh=mesh, shard_placement_fn=by_columns)
    return fully_shard(model, mesh=mesh)


def whole(module):
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in module.state_dict().items()
    }


def reinitialise(folder: Path) -> tuple[dict, dict]:
    """The same weights moved by one process with whole parameters, and by all processes with shards."""
    initial_model, model = Unevenly(0), Unevenly(1)
    alone = copy.deepcopy(model)
    initial = InitialWeights.save(initial_model, folder / str(torch.distributed.get_rank()))
    distance = soft_reinit_with_distance_(alone.encoder, initial.subset("encoder"), ALPHA)
    interpolate_buffers_(alone.encoder, initial.subset("encoder"), ALPHA)
    tensors = {f"alone.{name}": value.detach() for name, value in alone.state_dict().items()}
    inputs = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))

    sharded = shards(copy.deepcopy(model))
    with torch.no_grad():
        sharded.eval()(inputs)  # after which the root group still holds whole copies
    try:
        soft_reinit_(sharded.encoder, initial.subset("encoder"), ALPHA)
        refused = ""
    except ValueError as error:
        refused = str(error)
    sharded.reshard()
    parts = {name: list(value.to_local().shape) for name, value in sharded.named_parameters()}
    with Watched() as watched:
        soft_reinit_(sharded.encoder, initial.subset("encoder"), ALPHA)
        interpolate_buffers_(sharded.encoder, initial.subset("encoder"), ALPHA)
    with Watched() as gathering:
        tensors |= {f"sharded.{name}": value for name, value in whole(sharded).items()}
    with torch.no_grad():
        tensors |= {"alone.output": alone.eval()(inputs), "sharded.output": sharded(inputs)}

    with_distance = shards(copy.deepcopy(model))
    with Watched() as counted:
        sharded_distance = soft_reinit_with_distance_(with_distance.encoder, initial.subset("encoder"), ALPHA)
    from_memory = shards(copy.deepcopy(model))
    values = {name.removeprefix("encoder."): value for name, value in initial_model.named_parameters()}
    soft_reinit_(from_memory.encoder, values, ALPHA)
    distances = [distance, sharded_distance]
    for sizes in ((1, 2), (2, 1)):  # replicas of shards, and replicas of the whole
        mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("replicate", "shard"))
        hybrid = shards(copy.deepcopy(model), mesh)
        distances.append(soft_reinit_with_distance_(hybrid.encoder, initial.subset("encoder"), ALPHA))
        tensors |= {f"hybrid {sizes}.{name}": value for name, value in whole(hybrid).items()}
    tensors |= {f"with_distance.{name}": value for name, value in whole(with_distance).items()}
    tensors |= {f"from_memory.{name}": value for name, value in whole(from_memory).items()}

    shared_folder = folder / "all"
    saved = InitialWeights.save(shards(Unevenly(0)), shared_folder, prefixes=["encoder"])
    saved.check_matches(sharded)  # as a resumed run does
    plain = InitialWeights.save(Unevenly(0), folder / f"plain-{torch.distributed.get_rank()}", prefixes=["encoder"])
    return tensors, {
        "parts": parts,
        "refused": refused,
        "collectives": watched.collectives,
        "largest": watched.largest,
        "collectives_for_whole_tensors": gathering.collectives,
        "largest_of_whole_tensors": gathering.largest,
        "collectives_for_distance": counted.collectives,
        "distances": distances,
        "files": sorted(path.name for path in shared_folder.iterdir()),
        "same_file": saved.path.read_bytes() == plain.path.read_bytes() and saved.path.name == plain.path.name,
    }


def refuse_first_version(folder: Path) -> dict:
    model = FullyShardedDataParallel(Unevenly(0), device_id=torch.device("cpu"), use_orig_params=True)
    messages = []
    for attempt in (lambda: InitialWeights.save(model, folder), lambda: soft_reinit_(model, {}, 0.5)):
        try:
            attempt()
        except ValueError as error:
            messages.append(str(error))
    return {"first_version": messages, "first_version_files": [path.name for path in folder.glob("*")]}


def sharded_model(sharded: bool, **kwargs):
    model = tiny_model(**kwargs)
    if sharded:
        fully_shard(model.encoders["audio"])
        fully_shard(model)
    return model


def trainer_of(folder: Path, model, sharded: bool, settings: dict):
    trainer = make_trainer(folder, model, TensorRows(), **settings)
    if sharded:
        # On a CPU accelerate knows replication only.
        trainer.accelerator.prepare_model = lambda model, **kwargs: model
    return trainer


def train(folder: Path, sharded: bool) -> tuple[dict, dict]:
    """A Trainer's run with points, its model sharded or replicated."""
    model = sharded_model(sharded, unimodal_loss_weight=1.0)
    settings = {"max_grad_norm": 0.0, "optim": "sgd", "learning_rate": 0.05}
    # 3 batches of one part and 1 of the other: a process has to make a forward pass more than it needs.
    settings |= {"diagnosis_sampling": "all", "per_device_eval_batch_size": 9}
    trainer = trainer_of(folder, model, sharded, settings)
    trainer.add_callback(PerturbedShards() if sharded else Perturbed())
    trainer.train()
    metrics = trainer.evaluate(TensorRows(19, seed=3))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    values = {"records": history(folder), "losses": losses, "accuracy": metrics["eval_accuracy"]}
    values["initial_weights"] = [path.name for path in InitialWeights.find(folder)]
    return {f"trained.{name}": value for name, value in whole(trainer.model).items()}, values


class States(TrainerCallback):
    """Notes of which parameters the optimizer has a state before and after a point, its steps and local sizes."""

    def __init__(self):
        self.seen = {}

    def note(self, when, model, optimizer):
        names = {parameter: name for name, parameter in model.named_parameters()}
        state = optimizer.optimizer.state
        self.seen[when] = {
            names[parameter]: (int(entry["step"]), local_part(entry["exp_avg"]).numel())
            for parameter, entry in state.items()
        }

    def on_epoch_end(self, args, state, control, model, optimizer, **kwargs):
        if "before" not in self.seen:
            self.note("before", model, optimizer)

    def on_step_begin(self, args, state, control, model, optimizer, **kwargs):
        if state.global_step == 3:
            self.note("after", model, optimizer)

    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        if state.global_step == 4:
            self.note("following", model, optimizer)


def reset(folder: Path, sharded: bool) -> dict:
    """A run in which a point resets the optimizer's state of one encoder."""
    model = sharded_model(sharded)
    settings = {"max_grad_norm": 0.0, "optim": "adamw_torch", "num_train_epochs": 2, "diagnosis_fraction": 0}
    settings |= {"relearn_alpha": "audio=0,vision=0.5", "relearn_optimizer_state": "reset"}
    trainer = trainer_of(folder, model, sharded, settings)
    states = States()
    trainer.add_callback(states)
    trainer.train()
    return {"reset": states.seen}


class PerturbedShards(Perturbed):
    """The same noise for the shards."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                rows = parameter.to_local().shape[0]
                begin = -(-len(noise) // args.world_size) * args.process_index
                parameter.to_local().add_(0.05 * noise[begin : begin + rows])


def main() -> None:
    warnings.simplefilter("ignore")  # so few samples look purer by chance
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    tensors, values = train(folder / "training", kind == "sharded")  # which starts the process group
    values |= reset(folder / "reset", kind == "sharded")
    if kind == "sharded":
        for more_tensors, more_values in (reinitialise(folder / "moved"), ({}, refuse_first_version(folder / "v1"))):
            tensors, values = tensors | more_tensors, values | more_values
    index = torch.distributed.get_rank()
    if index == 0:
        save_file(tensors, folder / "tensors.safetensors")
    (folder / f"process-{index}.json").write_text(json.dumps(values))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
