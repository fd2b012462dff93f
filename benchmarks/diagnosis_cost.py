"""What diagnosing & re-learning costs, as ratios of one run on one machine.

    python benchmarks/diagnosis_cost.py

Prints the time of a diagnosis at a re-learning step, without its estimator, over that of an `evaluate()` on as many
samples; its share of an epoch at CREMA-D's sizes; the time of the estimator; the time of a re-learning over a plain
copy of the same bytes; the time of writing and reading the initial weights over that of safetensors' own functions;
and the peak memory of a training run with re-learning over the same run without. Medians of several repetitions;
`--repeats` sets how many.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import accelerate
import numpy as np
import sklearn
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import ResNetConfig, ViTConfig

from hf_relearn import (
    InitialWeights,
    MultimodalForClassification,
    MultimodalRelearnTrainer,
    RelearnTrainingArguments,
    separability,
)
from hf_relearn.method import soft_reinit_with_distance_

NUM_CLASSES = 6
ONE_EPOCH = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "relearn_strategy": "no", "optim": "sgd"}


class RandomImages(Dataset):
    """Random inputs of two image encoders; what they show does not change what they cost."""

    def __init__(self, size: int, side: int):
        generator = torch.Generator().manual_seed(size)
        self.images = torch.randn(size, 3, side, side, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index]
        return {"a_pixel_values": image, "b_pixel_values": image, "labels": index % NUM_CLASSES}


def resnet_18() -> ResNetConfig:
    return ResNetConfig(embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")


def make_trainer(folder: str, config: Any, size: int, side: int, **arguments: Any) -> MultimodalRelearnTrainer:
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones({"a": config, "b": config}, num_labels=NUM_CLASSES)
    settings: dict[str, Any] = {
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
    }
    args = RelearnTrainingArguments(folder, use_cpu=True, per_device_eval_batch_size=16, **settings, **arguments)
    data = RandomImages(size, side)
    return MultimodalRelearnTrainer(model, args, train_dataset=data, eval_dataset=data, diagnosis_dataset=data)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def paired_ratio(first: Callable[[], object], second: Callable[[], object], repeats: int) -> float:
    """Median of first over second, measured in turn after one warm-up of each."""
    first()
    second()
    return statistics.median(seconds(first) / seconds(second) for _ in range(repeats))


def diagnosis_ratios(repeats: int) -> dict[str, float]:
    """A diagnosis at a re-learning step against an evaluation of the training samples that it looks at."""
    size = 96
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, resnet_18(), size, 64)
        trainer.create_optimizer_and_scheduler(1)
        callback = trainer.relearn_callback
        trainer.state.max_steps = trainer.state.num_train_epochs = 4
        model: Any = trainer.model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of so few random samples
            callback.on_train_begin(
                trainer.args, trainer.state, trainer.control, model=model, optimizer=trainer.optimizer
            )
            diagnoser = callback.diagnoser
            assert diagnoser is not None
            evaluated = diagnoser.features(model)["diagnosing"]  # as an evaluation just before leaves them
            ratios = []
            for _ in range(repeats + 1):
                point = diagnoser(model, evaluated)
                ratios.append((point.seconds - point.estimator_seconds) / seconds(trainer.evaluate))
            forward = seconds(lambda: diagnoser(model, evaluated)) / size
            trained = seconds(lambda: make_trainer(folder, resnet_18(), size, 64, **ONE_EPOCH).train()) / size
    return {
        "diagnosis without its estimator / evaluate": statistics.median(ratios[1:]),
        # There a diagnosis looks at 2 x 744 of 5954 training samples, after an evaluation of the 744.
        "diagnosis at CREMA-D's sizes, share of an epoch": 2 * 744 / 5954 * forward / trained,
        "separability of 6000 x 512 in 6 classes, seconds": estimator_seconds(repeats),
    }


def estimator_seconds(repeats: int) -> float:
    """Median time of the separability of features as a ResNet-18 has them."""
    generator = np.random.default_rng(0)
    labels = np.arange(6000) % 6
    centres = 0.1 * generator.normal(size=(6, 512))
    features = (generator.normal(size=(6000, 512)) + centres[labels]).astype(np.float32)
    held_out = generator.normal(size=(744, 512)).astype(np.float32)
    return statistics.median(
        seconds(lambda: separability(features, labels, held_out, np.arange(744) % 6)) for _ in range(repeats)
    )


def plain_copy(module: nn.Module) -> Callable[[], None]:
    """Copy other values into every parameter, as after some training."""
    source = {name: 1.01 * parameter.detach() + 0.01 for name, parameter in module.named_parameters()}

    def copy() -> None:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(source[name])

    return copy


def reinitialisation_ratios(repeats: int) -> dict[str, float]:
    """Moving two encoders, or many small tensors, against copying the same bytes."""
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones({"a": resnet_18(), "b": resnet_18()}, num_labels=NUM_CLASSES)
    large, small = model.encoders, nn.ParameterList([torch.randn(32, 32) for _ in range(2000)])
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in (("two ResNet-18", large), ("2,000 of 32 x 32", small)):
            copy, file = plain_copy(module), InitialWeights.save(module, folder)
            memory = {key: tensor.detach().clone() for key, tensor in module.named_parameters()}
            for where, initial in (("from memory", memory), ("from their file", file)):

                def move(module: nn.Module = module, initial: Mapping[str, torch.Tensor] = initial) -> None:
                    soft_reinit_with_distance_(module, initial, 0.5)

                ratios[f"re-learning {name} {where} / plain copy"] = paired_ratio(move, copy, repeats * 4)
    return ratios


def store_ratios(repeats: int) -> dict[str, float]:
    """Writing and reading the initial weights of two ResNet-18 against safetensors' own functions."""
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones({"a": resnet_18(), "b": resnet_18()}, num_labels=NUM_CLASSES)
    encoders = model.encoders
    tensors = {name: tensor.detach() for name, tensor in encoders.state_dict().items() if tensor.is_floating_point()}
    with tempfile.TemporaryDirectory() as folder:
        plain = f"{folder}/plain.safetensors"
        writing = paired_ratio(
            lambda: InitialWeights.save(encoders, folder), lambda: save_file(tensors, plain), repeats * 4
        )
        initial = InitialWeights.save(encoders, folder)

        def read() -> list[torch.Tensor]:
            with initial.opened():
                return [initial[name] for name in initial]

        reading = paired_ratio(read, lambda: load_file(plain), repeats * 4)
    return {"writing the initial weights / save_file": writing, "reading the initial weights / load_file": reading}


ARMS: dict[str, dict[str, Any]] = {
    "without": {"relearn_strategy": "no"},
    "diagnosis only": {"relearn_strategy": "no", "diagnosis_interval": 1},
    "re-learning": {"relearn_interval": 1},
}


def train_once(arm: str) -> dict[str, float]:
    """One short training run of a model large enough to see its weights in the process' memory."""
    config = ViTConfig(hidden_size=768, num_hidden_layers=6, intermediate_size=3072, image_size=32, patch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            folder,
            config,
            12,
            32,
            num_train_epochs=3,
            per_device_train_batch_size=6,
            optim="sgd",
            **ARMS[arm],
        )
        trainer.train()
    model: Any = trainer.model
    sizes = [parameter.nbytes for parameter in model.parameters()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak": peak, "model": sum(sizes), "tensor": max(sizes), "points": len(trainer.state.log_history)}


def memory_ratios(repeats: int) -> dict[str, float]:
    """Peaks of whole processes; a run that only diagnoses tells what of it is the re-learning's own."""
    peaks: dict[str, list[float]] = {arm: [] for arm in ARMS}
    measured: dict[str, float] = {}
    for _ in range(repeats):
        for arm, values in peaks.items():
            command = [sys.executable, __file__, "--train-once", arm]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured = json.loads(output.splitlines()[-1])
            values.append(measured["peak"])
    without, diagnosing, relearning = (statistics.median(peaks[arm]) for arm in ARMS)
    return {
        "peak memory with re-learning / without": relearning / without,
        "memory more than without / largest tensor": (relearning - without) / measured["tensor"],
        "memory more than without / model": (relearning - without) / measured["model"],
        "memory more than diagnosis only / largest tensor": (relearning - diagnosing) / measured["tensor"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement (default: 5)")
    parser.add_argument("--train-once", choices=list(ARMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train_once:
        print(json.dumps(train_once(arguments.train_once)))
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    versions |= {module.__name__: module.__version__ for module in (transformers, accelerate, sklearn)}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads\n")
    for measure in (reinitialisation_ratios, store_ratios, diagnosis_ratios, memory_ratios):
        for name, value in measure(arguments.repeats).items():
            print(f"{name:55} {value:8.3f}", flush=True)


if __name__ == "__main__":
    main()
