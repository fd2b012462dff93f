"""A fusion model as one ONNX file, by PyTorch's exporter, checked in ONNX Runtime before it is left there."""

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_relearn.models import MultimodalForClassification, MultimodalProcessor, TableInput
from hf_relearn.models.modeling_weights import refuse_missing_weights

Shapes = dict[str, dict[int, str]]  # input -> axis -> name of a size that is free


def example_inputs(model: MultimodalForClassification, processor: MultimodalProcessor) -> dict[str, Tensor]:
    """Return a batch of two made-up samples that have every modality, as the processor makes it.

    Features are vectors for a multilayer perceptron or from several columns of a table, else sequences.
    """
    generator = np.random.default_rng(0)
    values: dict[str, list[Any]] = {}
    for name, modality in model.config.modalities.items():
        rows = processor.inputs[name]
        if isinstance(rows, TableInput):
            values[name] = [rows.example(number) for number in range(2)]
        else:
            vectors = isinstance(processor.columns.get(name), list)
            values[name] = [_raw_value(modality, generator, vectors) for _ in range(2)]
    return dict(processor(values))


def _raw_value(modality: Any, generator: np.random.Generator, vectors: bool) -> Any:
    if modality.kind == "text":
        return "what is said and what is seen"
    if modality.kind == "features":
        config = modality.backbone_config
        vectors = vectors or getattr(config, "architecture", None) == "mlp"
        shape = _shape_of(modality) or ((config.input_size,) if vectors else (4, config.input_size))
        return generator.normal(size=shape).astype(np.float32)
    if modality.kind == "audio":
        return generator.uniform(-0.5, 0.5, 16000).astype(np.float32)
    pictures = generator.integers(0, 255, size=(16, 64, 64, 3), dtype=np.uint8)
    frames = modality.num_frames or 1
    if modality.kind == "video":
        return list(pictures[: max(frames, 2)])
    return list(pictures[:frames]) if frames > 1 else pictures[0]


def _shape_of(modality: Any) -> Any:
    """Return the shape that a user's own module takes; None of other backbones."""
    return getattr(modality.backbone_config, "input_shape", None)


def dynamic_shapes(model: MultimodalForClassification, batch: Mapping[str, Tensor]) -> Shapes:
    """The free sizes: of the batch, and the lengths of token sequences, waveforms and sequences of features."""
    shapes: Shapes = {}
    for name, modality in model.config.modalities.items():
        own = {key: value for key, value in batch.items() if key.startswith(f"{name}_")}
        sequences = modality.kind == "text" or (
            modality.kind == "audio" and all(value.ndim == 2 for value in own.values())
        )
        # A user's module for features says by its own shape what it takes.
        steps = modality.kind == "features" and f"{name}_attention_mask" in own and not _shape_of(modality)
        for key, value in own.items():
            shapes[key] = {0: "batch"}
            if steps or (sequences and value.ndim == 2):
                shapes[key][1] = f"{name}_length"
    return shapes


def other_inputs(batch: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Return another batch than the example: one row more, in another order, the values changed a little, free lengths
    shorter."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, value in batch.items():
        rows = list(range(len(value)))[::-1]
        other = value[[*rows, rows[0]]]
        if 1 in shapes[name] and value.shape[1] > 2:
            other = other[:, : value.shape[1] - max(1, value.shape[1] // 4)]
        if other.is_floating_point():
            other = other + 0.1 * torch.randn(other.shape, generator=generator).to(other.device)
        found[name] = other.contiguous()
    return found


FILE = "model.onnx"
TOLERANCE = 1e-4  # of logits, relative to the largest one where that is above 1
_LARGE = 2**30  # bytes of weights that go into a file of their own; one file of ONNX holds no more than 2 GiB


def export_onnx(
    model: MultimodalForClassification,
    target: str | os.PathLike,
    processor: MultimodalProcessor | None = None,
    *,
    inputs: Mapping[str, Tensor] | None = None,
) -> Path:
    """Export a model to ONNX: the inputs are those of `forward`, by name, the output is `logits`.

    The size of the batch is free, and so are the lengths of texts, waveforms and sequences of features; all other
    sizes (of images, spectrograms, clips) are those of the example. Every sample needs all modalities. The labels are
    in the file's metadata, as JSON under `id2label`.

    The file is run in ONNX Runtime on another batch than the example, and appears only if its logits are the model's
    to 1e-4 (relative if they exceed 1). `benchmarks/onnx_export.py` measures which backbones can be exported; its
    table is in `docs/onnx.md`.

    Args:
        model: float32; it stays as it is.
        target: a file whose name ends in `.onnx`, or a folder, in which it is called `model.onnx`. With more than
            1 GiB of weights, these lie beside it, in a file with `.data` added to the name.
        processor: the model's processor, from which an example batch is made.
        inputs: such a batch, of two rows or more, in place of the processor: `{modality}_{argument}`.

    Returns:
        The file.

    Raises:
        ImportError: without the packages of the extra `onnx`.
        ValueError: if the model is not float32, its files lacked weights, the example is unsuitable, or a backbone
            cannot be exported or gives other logits; the message names the modality.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ImportError(f"ONNX export needs {', '.join(missing)}: pip install 'hf_relearn[onnx]'")
    if types := {str(weight.dtype) for weight in model.parameters() if weight.dtype != torch.float32}:
        raise ValueError(f"the model has weights of {', '.join(sorted(types))}: load it with dtype=torch.float32")
    refuse_missing_weights(model)
    if inputs is None:
        if processor is None:
            raise ValueError("an export needs an example: give the model's processor, or a batch of inputs")
        inputs = example_inputs(model, processor)
    batch = _checked(model, inputs)
    file = Path(target) if Path(target).suffix == ".onnx" else Path(target) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"_{file.stem}.", dir=file.parent))
    was_training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        _export(model, batch, temporary / file.name)
        for path in sorted(temporary.iterdir(), reverse=True):  # weights before what refers to them
            os.replace(path, file.parent / path.name)
    finally:
        for module, training in was_training.items():
            module.training = training
        shutil.rmtree(temporary, ignore_errors=True)
    return file


class _Logits(nn.Module):
    """The model as a function of its inputs alone."""

    def __init__(self, model: MultimodalForClassification):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**inputs).logits


class _Feature(nn.Module):
    """One modality's encoder by itself."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.encoder(**inputs).feature


def _export(model: MultimodalForClassification, batch: dict[str, Tensor], file: Path) -> None:
    """Export and check; if that fails, find out because of which modality."""
    shapes = dynamic_shapes(model, batch)
    labels = {"id2label": json.dumps(model.config.id2label)}
    try:
        _write(_Logits(model), batch, shapes, file, labels)
        return
    except Exception as error:  # of any type that an exporter of many layers may raise
        reason, cause = _reason(error), error
    for name, encoder in model.encoders.items():
        prefix = f"{name}_"
        own = {key: value for key, value in batch.items() if key.startswith(prefix)}
        part = {key.removeprefix(prefix): value for key, value in own.items()}
        axes = {key.removeprefix(prefix): shapes[key] for key in own}
        try:
            _write(_Feature(encoder), part, axes, file.with_name("part.onnx"))
        except Exception as error:
            backbone = type(encoder.backbone).__name__
            raise ValueError(
                f"the modality {name!r} cannot be exported: {backbone} {_reason(error)}; see the table of "
                "docs/onnx.md for backbones that can"
            ) from error
    fusion = type(model.multimodal.fusion).__name__
    raise ValueError(f"every encoder can be exported, but not the model: {fusion} {reason}") from cause


def _write(
    module: nn.Module,
    batch: dict[str, Tensor],
    shapes: Shapes,
    file: Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module whose only argument is a mapping of inputs, and compare what it gives."""
    module.eval()
    other = other_inputs(batch, shapes)
    with _silent_exporter(), torch.no_grad():
        module(other)  # what a backbone keeps of the last batch (a table for its length) must not become a constant
        program = torch.onnx.export(
            module,
            kwargs={"inputs": batch},
            dynamo=True,
            dynamic_shapes={"inputs": {name: shapes[name] for name in batch}},
            input_names=list(batch),
            output_names=["logits"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("gave no program")
    program.model.metadata_props.update(metadata or {})
    size = sum(weight.nbytes for weight in module.state_dict().values())
    program.save(str(file), external_data=size > _LARGE)
    del program
    _compare(module, other, file)


def _compare(module: nn.Module, batch: dict[str, Tensor], file: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]  # those that matter
    (values,) = session.run(None, {name: batch[name].cpu().numpy() for name in names})
    with torch.no_grad():
        expected = module(batch).cpu()
    found = torch.from_numpy(values)
    difference = (found - expected).abs().max().item() if found.shape == expected.shape else float("nan")
    if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise RuntimeError(f"gives other values in ONNX Runtime (by {difference:.1e})")


def _checked(model: MultimodalForClassification, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the example on the model's device."""
    batch = {name: value.to(model.device) for name, value in inputs.items() if name != "labels"}
    if present := [name for name in batch if name.endswith("_present")]:
        raise ValueError(f"{', '.join(present)}: an exported model needs all modalities, so must the example batch")
    if short := [name for name, value in batch.items() if len(value) < 2]:
        raise ValueError(f"the example batch has {len(batch[short[0]])} row of {short[0]}: give two or more")
    return batch


def _reason(error: BaseException) -> str:
    """Return an exporter's error in one line, by its innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split()) or "no reason was given"
    return said if said.startswith("gives other") else f"fails with {type(error).__name__}: {said[:300]}"


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Keep the exporter's remarks on itself off the terminal."""
    logger: Any = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
