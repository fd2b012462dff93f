"""Samples that lack a modality: only those who have it are encoded, and placeholders stand for the others."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import permutations

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_multimodal import ModalityConfig
from .modeling_encoders import ModalityEncoder, ModalityOutput


def encode_present(encoder: ModalityEncoder, inputs: Mapping[str, Tensor], present: Tensor | None) -> ModalityOutput:
    """Encode the rows that have a modality.

    Rows that lack it do not pass through the encoder, so that BatchNorm statistics hold real samples only. If no
    row has it, one blank row does, which BatchNorm does not count, and what comes of it is never used: its gradients
    are zero, but they exist, so that processes whose batches differ stay in step (DDP, FSDP).

    Args:
        encoder: of the modality.
        inputs: the backbone's inputs, of the whole batch; unused (and maybe empty) if no row has the modality.
        present: (batch,) bool; None if all rows have it.

    Returns:
        The encoder's output for the whole batch; meaningless in rows that lack the modality.
    """
    if present is None:
        return encoder(**inputs)
    rows = present.nonzero().squeeze(1)
    if len(rows) == len(present):
        return encoder(**inputs)
    if len(rows) == 0:
        with _frozen_statistics(encoder):
            output = encoder(**encoder.blank_inputs())
        feature, tokens = output["feature"], output["tokens"][:, :1]
        return ModalityOutput(feature.expand(len(present), -1), tokens.expand(len(present), -1, -1))
    output = encoder(**{name: value[rows] for name, value in inputs.items()})
    spread = {
        name: value.new_zeros(len(present), *value.shape[1:]).index_copy(0, rows, value)
        for name, value in output.items()
    }
    return ModalityOutput(**spread)


class Placeholder(nn.Module):
    """Stand for a modality in the rows that lack it: zeros, or learnt values that begin as zeros.

    Args:
        modality: its configuration; the widths are used.
        learnt: whether the values are parameters. They get a gradient (of zeros, maybe) in every step.
    """

    def __init__(self, modality: ModalityConfig, learnt: bool):
        super().__init__()
        self.feature = nn.Parameter(torch.zeros(modality.feature_size)) if learnt else None
        self.token = nn.Parameter(torch.zeros(modality.token_size)) if learnt else None

    def initialise(self) -> None:
        for parameter in self.parameters():
            init.zeros_(parameter)

    def forward(self, output: ModalityOutput, present: Tensor | None) -> ModalityOutput:
        """Put the placeholder in rows that lack the modality: as the feature, and as the only token that counts.

        Args:
            output: what the encoder handed over.
            present: (batch,) bool; None if all rows have the modality.
        """
        feature, tokens, mask = output["feature"], output["tokens"], output.token_mask
        if present is not None:
            feature = torch.where(present[:, None], feature, _like(self.feature, feature))
            tokens = torch.where(present[:, None, None], tokens, _like(self.token, tokens))
            if mask is None:
                mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            first = torch.arange(tokens.shape[1], device=tokens.device) == 0
            mask = torch.where(present[:, None], mask, first)
        if self.feature is not None and self.token is not None:  # a fusion looks at features or at tokens
            tie = 0 * (self.feature.sum() + self.token.sum())
            feature, tokens = feature + tie.to(feature.dtype), tokens + tie.to(tokens.dtype)
        return ModalityOutput(feature, tokens, mask)


def presence(given: Mapping[str, Tensor], inputs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor | None]:
    """Check who is present; None for a modality that all rows have.

    Args:
        given: modality -> (batch,) mask, for modalities that some row may lack.
        inputs: modality -> its backbone's inputs, without those of modalities that no row has.

    Raises:
        TypeError: for a modality without inputs whose mask is not all False.
        ValueError: for a mask of another shape than (batch,).
    """
    if missing := [name for name, arguments in inputs.items() if not arguments and name not in given]:
        got = [f"{name}_{argument}" for name, arguments in inputs.items() for argument in arguments]
        raise TypeError(
            f"no input for the modality {', '.join(map(repr, missing))}: got {', '.join(got) or 'nothing'}; for a "
            f"batch that lacks it, give {missing[0]}_present, all False"
        )
    sizes = [value.shape[0] for arguments in inputs.values() for value in arguments.values()]
    size = sizes[0] if sizes else len(next(iter(given.values())))
    output: dict[str, Tensor | None] = dict.fromkeys(inputs)
    for name, mask in given.items():
        if mask.shape != (size,):
            raise ValueError(f"{name}_present has shape {tuple(mask.shape)}, but the batch has {size} rows: ({size},)")
        present = mask.bool()
        if not inputs[name] and present.any():
            raise TypeError(
                f"no input for the modality {name!r}, but {name}_present says that {int(present.sum())} rows have it"
            )
        output[name] = present
    return output


def ablations(names: list[str]) -> dict[str, frozenset[str]]:
    """Name the modalities that stay for `only_<modality>`, `without_<modality>` and, of more than three, `a+b`.

    The latter are the further sets that `shapley_orders` passes. Empty if there is but one modality.
    """
    if len(names) < 2:
        return {}
    rests = {f"only_{name}": frozenset([name]) for name in names}
    rests |= {f"without_{name}": frozenset(names) - {name} for name in names}
    for order in shapley_orders(names):
        for size in range(2, len(names) - 1):
            kept = frozenset(order[:size])
            rests["+".join(name for name in names if name in kept)] = kept
    return rests


def shapley_orders(names: list[str]) -> list[tuple[str, ...]]:
    """List orders in which modalities join: all of up to three; of more 16, drawn with a fixed seed and reversed."""
    if len(names) <= 3:
        return list(permutations(names))
    generator = random.Random(0)
    drawn = [tuple(generator.sample(names, len(names))) for _ in range(8)]
    return [order for each in drawn for order in (each, each[::-1])]


def _like(placeholder: Tensor | None, values: Tensor) -> Tensor:
    return values.new_zeros(()) if placeholder is None else placeholder.to(values.dtype)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers use their statistics and leave them alone; everything else trains as it does.

    Parameters of the augmentation inside an encoder (the mask embedding of wav2vec2) get gradients then, too.
    """
    training = [part for part in module.modules() if hasattr(part, "running_mean") and part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
