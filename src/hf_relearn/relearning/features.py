"""Extract uni-modal features of a whole part in eval mode, across processes, without leaving a trace."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather, send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from tqdm.auto import tqdm
from transformers import TrainingArguments

from hf_relearn.method.tensors import is_sharded
from hf_relearn.relearning.processes import failing_together


@contextmanager
def preserved_random_state(seed: int | None = None, *, devices: bool = True) -> Iterator[None]:
    """Restore the generators of Python, NumPy and torch (CPU and accelerators) at the end.

    Args:
        seed: what all of them are seeded with inside; None leaves them as they are.
        devices: whether accelerators' generators are meant too; forked processes cannot reach those.
    """
    state = random_state(devices)
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            (torch if devices else torch.default_generator).manual_seed(seed)
        yield
    finally:
        restore_random_state(state)


def random_state(devices: bool = True) -> tuple[Any, ...]:
    """Return the state of the generators of Python, NumPy and torch (CPU and, with `devices`, accelerators)."""
    device_states = _device_states() if devices else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), device_states


def restore_random_state(state: tuple[Any, ...]) -> None:
    """Put all generators back into a state that `random_state` gave."""
    python_state, numpy_state, torch_state, device_states = state
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)
    if device_states is not None:
        _restore_device_states(device_states)


def _device_states() -> list[torch.Tensor] | None:
    """Return the states of all accelerators of the present kind; None if there is none."""
    if not torch.accelerator.is_available():
        return None
    module = torch.get_device_module()
    return module.get_rng_state_all() if hasattr(module, "get_rng_state_all") else [module.get_rng_state()]


def _restore_device_states(states: list[torch.Tensor]) -> None:
    module = torch.get_device_module()
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(states)
    else:  # a kind of which a machine has one only
        module.set_rng_state(states[0])


# Modality -> (batch, d) features; or those with (batch,) bool, False if a sample lacks the modality.
FeatureFunction = Callable[[nn.Module, Any], Mapping[str, Tensor | tuple[Tensor, Tensor]]]


def extract_features(
    model: nn.Module,
    feature_function: FeatureFunction,
    dataset: Any,
    indices: Sequence[int],
    collate_fn: Callable[[list], Any],
    *,
    batch_size: int,
    device: torch.device,
    process_index: int = 0,
    num_processes: int = 1,
    num_workers: int = 0,
    seed: int = 0,
    description: str = "features",
    progress: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return uni-modal features of some samples of a data set.

    Batches are the same whatever the number of processes, which share them out; so the features are the same to the
    bit. Model mode, random generators and gradients are afterwards as before. A data set or a model that draws random
    numbers even here draws the same ones each time, so that a resumed run diagnoses as the uninterrupted one did.

    Args:
        model: called through `feature_function` only.
        feature_function: (model, batch) -> modality -> (batch, d) tensor, or a pair of it and a (batch,) bool tensor
            that is False if a sample lacks the modality.
        dataset: map-style data set.
        indices: the samples wanted, in the order wanted.
        collate_fn: rows -> batch, without augmentation.
        batch_size: samples per forward pass of one process.
        device: where batches are sent.
        process_index, num_processes: this process among those that call together.
        num_workers: of the data loader.
        seed: of every random generator meanwhile.
        description: of the progress bar, which the first process shows if `progress`.

    Returns:
        On the first process modality -> (number of indices, d) float32, and modality -> (number of indices,) bool of
        those modalities for which the feature function tells which samples have them; on the others empty mappings.

    Raises:
        Exception: what the data set, the collator or the feature function raised; a failure of one process reaches
            all of them, but for one in the forward pass of a sharded model, in the middle of which the others wait.
    """
    chunks = [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
    rounds = -(-len(chunks) // num_processes)
    # Every process makes as many forward passes, which sharded models need; surplus ones repeat the first batch.
    turns = range(process_index, rounds * num_processes, num_processes)
    mine = [chunks[turn] if turn < len(chunks) else chunks[0] for turn in turns]
    loader = DataLoader(
        dataset, batch_sampler=mine, collate_fn=collate_fn, num_workers=num_workers, generator=torch.Generator()
    )
    sharded = any(is_sharded(parameter) for parameter in model.parameters())
    parts: dict[str, list[np.ndarray]] = {}
    present: dict[str, list[np.ndarray]] = {}
    with leaving_no_trace(model, seed), torch.no_grad():
        model.eval()
        batches = iter(loader)
        shown = progress and process_index == 0
        bar = tqdm(mine, desc=description, disable=None if shown else True, leave=False)  # None: on a terminal only
        for _ in bar:
            with failing_together(num_processes):
                batch = send_to_device(next(batches), device)
            with nullcontext() if sharded else failing_together(num_processes):
                features = feature_function(model, batch)
            for name, values in features.items():
                if isinstance(values, tuple):
                    values, having = values
                    present.setdefault(name, []).append(_gathered(having, batch_size, num_processes))
                parts.setdefault(name, []).append(_gathered(values, batch_size, num_processes))
    if process_index != 0:
        return {}, {}
    sizes = [len(chunk) for chunk in chunks]
    return (
        {name: _in_order(batches, sizes, batch_size, num_processes) for name, batches in parts.items()},
        {name: _in_order(batches, sizes, batch_size, num_processes) > 0 for name, batches in present.items()},
    )


def multimodal_features(model: nn.Module, batch: Mapping[str, Any]) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
    """Return the feature function of a fusion model: out of the root forward, so that sharded models work."""
    outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    present = outputs.get("present")
    if present is None:
        return outputs.features
    return {name: (feature, present[name]) for name, feature in outputs.features.items()}


@contextmanager
def leaving_no_trace(model: nn.Module, seed: int) -> Iterator[None]:
    """Restore the training mode of every module and the state of every random generator; seed them meanwhile."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with preserved_random_state(seed):
            yield
    finally:
        # From the root down, and through train(): some towers cache what depends on their weights until then.
        for module, training in modes:
            if module.training != training:
                module.train(training)


def _gathered(values: Tensor, batch_size: int, num_processes: int) -> np.ndarray:
    """This round's features of all processes, (processes · batch size, d), short batches padded with zeros."""
    values = values.detach().float()
    if num_processes > 1:
        padded = values.new_zeros((batch_size, *values.shape[1:]))
        padded[: len(values)] = values
        values = gather(padded)
    return values.cpu().numpy()


def _in_order(batches: list[np.ndarray], sizes: list[int], batch_size: int, num_processes: int) -> np.ndarray:
    if num_processes == 1:
        return np.concatenate(batches)
    padded = np.concatenate(batches).reshape(-1, batch_size, *batches[0].shape[1:])
    return np.concatenate([padded[number, :size] for number, size in enumerate(sizes)])


def without_augmentation(collate_fn: Callable[[list], Any]) -> Callable[[list], Any]:
    """Take augmentation out of a collate function; one that cannot do without is given back as it is."""
    plain = getattr(collate_fn, "without_augmentation", None)
    return plain() if plain else collate_fn


@dataclass(frozen=True)
class PartFeatures:
    """Features of one part of the data.

    Attributes:
        features: modality -> (n, d) float32; empty but on the first process.
        labels: (n,) integers, or numbers of a regression.
        present: modality -> (n,) bool, False for samples without this modality, whose features mean nothing; a
            modality that is not named there is one that all samples have.
    """

    features: Mapping[str, np.ndarray]
    labels: np.ndarray
    present: Mapping[str, np.ndarray] = field(default_factory=dict)

    def having(self, modality: str) -> np.ndarray:
        """Return the rows of the samples that have a modality."""
        return np.flatnonzero(self.present.get(modality, np.ones(len(self.labels), dtype=bool)))

    def with_gaps(self) -> dict[str, np.ndarray]:
        """Return the features by modality, NaN in the rows of samples that lack it, as figures leave them out."""
        return {
            name: np.where(self.present[name][:, None], values, np.nan) if name in self.present else values
            for name, values in self.features.items()
        }


class EvaluatedFeatures:
    """Keep the features that the forward passes of an evaluation give, for a diagnosis with the same weights."""

    def __init__(self) -> None:
        self._batches: dict[str, list[np.ndarray]] = {}
        self._present: dict[str, list[np.ndarray]] = {}

    def observe(self, outputs: Any, accelerator: Accelerator) -> None:
        """Take one forward pass of a fusion model."""
        for kept, values in ((self._batches, outputs.get("features")), (self._present, outputs.get("present"))):
            for name, value in (values or {}).items():
                value = value.detach() if value.dtype == torch.bool else value.detach().float()
                kept.setdefault(name, []).append(accelerator.gather_for_metrics(value).cpu().numpy())

    def finish(self) -> PartFeatures:
        """Return the features of all samples, in order; they have no labels."""
        features = {name: np.concatenate(batches) for name, batches in self._batches.items()}
        present = {name: np.concatenate(batches) for name, batches in self._present.items()}
        return PartFeatures(features, np.empty(0), present)


def shows_held_out_samples(dataloader: DataLoader, dataset: Any, args: TrainingArguments) -> bool:
    """Check whether an evaluation runs the same batches of the held-out samples that a diagnosis would, to the bit."""
    base: Any = getattr(dataloader, "base_dataloader", dataloader)
    if dataset is None or getattr(base, "dataset", None) is not dataset or not hasattr(dataset, "__len__"):
        return False
    # Several processes fill up the last batches, so that their sizes, and the last bits, would differ.
    size = len(dataset)  # type: ignore[arg-type]
    even = args.world_size == 1 or size % (args.per_device_eval_batch_size * args.world_size) == 0
    in_order = isinstance(getattr(base, "sampler", None), SequentialSampler)
    return even and in_order and args.eval_batch_size == args.per_device_eval_batch_size
