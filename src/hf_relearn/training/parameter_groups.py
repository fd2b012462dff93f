"""Learning rates and freezing of parts of a model: a modality's encoder, a named part, or a pattern."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from hf_relearn.models import MultimodalForClassification
from hf_relearn.pairs import as_words

logger = logging.getLogger(__name__)

FINE_TUNING_RATE = 1e-4  # below it, random weights hardly move
# What wrappers put into parameter names: torch.compile and FSDP anywhere, DDP and PEFT in front.
_ANYWHERE = ("_orig_mod.", "_fsdp_wrapped_module.")
_IN_FRONT = ("module.", "base_model.model.")


def parse_learning_rates(learning_rates: Sequence[str] | None) -> list[tuple[str, float]]:
    """Read `selector=rate` pairs, in order.

    Raises:
        ValueError: for one without `=`, or with a rate that is not a finite number of at least 0.
    """
    parsed = []
    for pair in as_words(learning_rates) or []:
        selector, _, number = pair.rpartition("=")  # an expression may hold "=", a number not
        try:
            rate = float(number)
        except ValueError:
            rate = math.nan
        if not selector or not 0 <= rate < math.inf:
            raise ValueError(
                f"--learning_rates holds {pair!r}: give 'selector=rate' with a rate of at least 0, as in 'text=1e-5'"
            )
        parsed.append((selector, rate))
    return parsed


def selected_parameters(model: nn.Module, selector: str, flag: str) -> dict[str, nn.Parameter]:
    """Return the parameters that a selector names, by their names without wrappers.

    Args:
        model: the model, possibly wrapped by DDP, torch.compile or PEFT.
        selector: as `ParameterSettings` says.
        flag: named in errors.

    Raises:
        ValueError: if nothing matches, or the expression is none.
    """
    named = {_plain_name(name): parameter for name, parameter in model.named_parameters()}
    encoders = _encoders(model)
    if selector in encoders:
        own = {id(parameter) for parameter in encoders[selector].parameters()}
        found = {name: parameter for name, parameter in named.items() if id(parameter) in own}
    elif selector in (parts := _parts(model, named)):
        found = {name: named[name] for name in parts[selector]}
    else:
        try:
            expression = re.compile(selector)
        except re.error as error:
            raise ValueError(f"{flag} {selector!r} is no regular expression: {error}") from error
        found = {name: parameter for name, parameter in named.items() if expression.search(name)}
    if not found:
        raise ValueError(
            f"{flag} {selector!r} matches no parameter: name a modality ({', '.join(encoders) or 'none here'}), a "
            f"part of the model ({', '.join(_parts(model, named))}), or a regular expression that is found in names "
            f"of parameters such as {next(iter(named), 'none')!r}"
        )
    return found


def freeze_parameters(model: nn.Module, selectors: Sequence[str] | None) -> None:
    """Take parameters out of training, before its initial weights are taken.

    Raises:
        ValueError: as `selected_parameters`, or if nothing is left to train.
    """
    selectors = as_words(selectors)
    for selector in selectors or []:
        found = selected_parameters(model, selector, "--freeze")
        freeze = getattr(_encoders(model).get(selector), "freeze", None)
        if freeze is not None:
            freeze()  # a whole encoder also stops collecting BatchNorm statistics
        for parameter in found.values():
            parameter.requires_grad_(False)
        logger.info("--freeze %s: %d parameters are not trained", selector, len(found))
    if selectors and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"--freeze {' '.join(selectors)} leaves nothing to train: name less")


def trained_learning_rates(model: nn.Module, learning_rates: Sequence[str] | None) -> dict[int, float]:
    """Return the learning rates of those trained parameters that have one of their own, by the parameters' ids.

    Raises:
        ValueError: as `selected_parameters`, or if a selector names frozen parameters only.
    """
    rates = {}
    for selector, rate in parse_learning_rates(learning_rates):
        found = selected_parameters(model, selector, "--learning_rates")
        trained = [parameter for parameter in found.values() if parameter.requires_grad]
        if not trained:
            raise ValueError(f"--learning_rates {selector!r} names parameters that are all frozen: leave one flag out")
        rates.update({id(parameter): rate for parameter in trained})
    return rates


def warn_of_slow_random_encoders(model: MultimodalForClassification, args: Any, names: Iterable[str]) -> None:
    """Say which encoders begin with random weights at a learning rate that is meant for pretrained ones."""
    rates = trained_learning_rates(model, args.learning_rates)
    for name in names:
        parameters = [parameter for parameter in model.encoders[name].parameters() if parameter.requires_grad]
        rate = max((rates.get(id(parameter), args.learning_rate) for parameter in parameters), default=0.0)
        if model.config.modalities[name].pretrained is False and 0 < rate < FINE_TUNING_RATE:
            logger.warning(
                "the encoder of %s begins with random weights, and its learning rate %g is one to fine-tune with: "
                "name a pretrained backbone, or raise it (--learning_rates %s=1e-3)",
                *(name, rate, name),
            )


def divide_parameter_groups(optimizer: Any, model: nn.Module, learning_rates: Sequence[str] | None) -> None:
    """Split the groups of an optimizer that has made no step by learning rate; their other settings stay.

    The parameters without a rate of their own stay in front in each group, so that the Trainer goes on to log
    `learning_rate` as theirs.
    """
    rates = trained_learning_rates(model, learning_rates)
    groups = []
    for group in optimizer.param_groups:
        by_rate: dict[float, list[nn.Parameter]] = {group["lr"]: []}
        for parameter in group["params"]:
            by_rate.setdefault(rates.get(id(parameter), group["lr"]), []).append(parameter)
        groups += [{**group, "params": parameters, "lr": rate} for rate, parameters in by_rate.items() if parameters]
    optimizer.param_groups[:] = groups


def _encoders(model: nn.Module) -> Mapping[str, nn.Module]:
    encoders: Any = getattr(_unwrapped(model), "encoders", {})
    return dict(encoders.items())


def _unwrapped(model: nn.Module) -> nn.Module:
    inner = getattr(model, "module", None)  # of DDP
    return inner if isinstance(inner, nn.Module) and not hasattr(model, "encoders") else model


def _plain_name(name: str) -> str:
    for wrapper in _ANYWHERE:
        name = name.replace(wrapper, "")
    for wrapper in _IN_FRONT:
        name = name.removeprefix(wrapper)
    return name


def _parts(model: nn.Module, names: Mapping[str, Any]) -> dict[str, list[str]]:
    """The model's own submodules, those of its base model in place of that: name -> names of their parameters."""
    base = getattr(_unwrapped(model), "base_model_prefix", "")
    parts: dict[str, list[str]] = {}
    for name in names:
        top = (name.removeprefix(f"{base}.") if base else name).split(".")[0]
        parts.setdefault(top, []).append(name)
    return parts
