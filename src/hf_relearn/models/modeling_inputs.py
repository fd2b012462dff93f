"""Sorting the flat inputs of a fusion model by modality."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def split_inputs(inputs: Mapping[str, Tensor], encoders: nn.ModuleDict) -> dict[str, dict[str, Tensor]]:
    """Sort `{modality}_{argument}` by modality. `view` and `view_front` may stand side by side: the argument decides.

    Arguments are those of the modality's backbone, and `present`.

    Raises:
        TypeError: for an input of no modality.
    """
    by_modality: dict[str, dict[str, Tensor]] = {name: {} for name in encoders}
    known: dict[str, Any] = {name: (*encoder.input_names, "present") for name, encoder in encoders.items()}
    for key, value in inputs.items():
        owners = [
            (name, key.removeprefix(f"{name}_"))
            for name, arguments in known.items()
            if key.startswith(f"{name}_") and key.removeprefix(f"{name}_") in arguments
        ]
        if not owners:
            takes = ", ".join(f"{name}_({'|'.join(arguments)})" for name, arguments in known.items())
            raise TypeError(f"the input {key!r} belongs to no modality; this model takes {takes}")
        name, argument = max(owners, key=lambda owner: len(owner[0]))
        by_modality[name][argument] = value
    return by_modality
