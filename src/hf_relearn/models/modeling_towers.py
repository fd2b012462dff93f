"""Find the part of a model that encodes a modality: all of it, an encoder-decoder's encoder, or one of its towers."""

import copy
import inspect
from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedAudioTokenizerBase

from .configuration_backbones import ModuleConfig
from .configuration_multimodal import KIND_OF_INPUT, KINDS


def backbone_input_names(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of the arguments that the backbone's forward takes."""
    if isinstance(config := getattr(backbone, "config", None), ModuleConfig):
        return tuple(config.input_names)
    parameters = inspect.signature(backbone.forward).parameters.values()
    fixed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return tuple(parameter.name for parameter in parameters if parameter.kind not in fixed)


def input_kinds(backbone: nn.Module) -> list[str]:
    """Return the kinds of modality that a model's inputs belong to, in alphabetical order; video backbones that take
    `pixel_values` are told from image backbones only by running them."""
    return sorted({KIND_OF_INPUT[name] for name in backbone_input_names(backbone) if name in KIND_OF_INPUT})


def shared_parameter(modules: Mapping[str, nn.Module]) -> tuple[str, str, str] | None:
    """Return a parameter that two of some modules share, which no strength of its own could re-learn.

    Returns:
        Names of the first module, of the second, and of the parameter in the second; None if there is none.
    """
    owners: dict[int, str] = {}
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            owner = owners.setdefault(id(parameter), name)
            if owner != name:
                return owner, name, key
    return None


def encoder_part(model: PreTrainedModel, kind: str | None = None, name: str | None = None) -> PreTrainedModel:
    """Return the part of a model that turns one modality into states, without the rest.

    Args:
        model: a model of transformers.
        kind: which kind of input the part shall encode, of a model with several; an image tower may serve `"audio"`.
        name: the modality's name, which says the kind where `kind` does not, if it is a kind (`"text"`).

    Returns:
        The model itself; the encoder of a model that also decodes (T5, Whisper, EnCodec); or the tower of a model with
        one tower per kind (CLIP, CLAP). It shares its parameters with `model`.

    Raises:
        ValueError: if the inputs of the model name no known kind, or several of which none is chosen, or if no part of
            it encodes that input alone.
    """
    class_name, kinds = type(model).__name__, input_kinds(model)
    if not kinds:
        names = ", ".join(backbone_input_names(model))
        raise ValueError(
            f"{class_name} takes {names or 'no inputs'}: none of them is one of {', '.join(KIND_OF_INPUT)}, so its "
            "modality is unknown"
        )
    if len(kinds) > 1:
        return _tower(model, kinds, kind, name)
    if isinstance(model, PreTrainedAudioTokenizerBase):
        return CodecEncoder(model)
    if not any(argument.startswith("decoder_") for argument in backbone_input_names(model)):
        return model
    encoder = model.get_encoder()
    if encoder is model or not isinstance(encoder, PreTrainedModel) or input_kinds(encoder) != kinds:
        raise ValueError(f"{class_name} has no encoder that takes its {kinds[0]} input alone, so it is no backbone")
    return encoder


def _tower(model: PreTrainedModel, kinds: list[str], kind: str | None, name: str | None) -> PreTrainedModel:
    towers: dict[str, list[PreTrainedModel]] = {}
    for child in model.children():
        if isinstance(child, PreTrainedModel) and len(input_kinds(child)) == 1:
            towers.setdefault(input_kinds(child)[0], []).append(child)
    found = f"{type(model).__name__} takes several kinds of input ({', '.join(kinds)})"
    if not towers:
        raise ValueError(f"{found} and has no part that encodes one of them alone, so it is no backbone")
    if kind is None:
        kind = name if name in towers else None
    if kind is None and len(towers) == 1:
        kind = next(iter(towers))
    if kind == "audio" and kind not in towers:  # an image tower may look at a spectrogram
        kind = "vision"
    if kind not in towers:
        raise ValueError(
            f"{found}, and its towers encode {', '.join(sorted(towers))}: choose one by the option 'kind' of the "
            f"modality (modality_options={{{name or 'name'!r}: {{'kind': {sorted(towers)[0]!r}}}}})"
            + ("" if name in KINDS else ", or by a name of the modality that is a kind")
        )
    if len(towers[kind]) > 1:
        classes = ", ".join(type(tower).__name__ for tower in towers[kind])
        raise ValueError(f"{found}, and several towers encode {kind} ({classes}): hand over the object of one of them")
    return towers[kind][0]


class CodecEncoder(PreTrainedModel):
    """The encoder of an audio codec (EnCodec, DAC): states before they are quantised, without the decoder.

    Args:
        codec: the whole model, of which the encoder is kept.
    """

    main_input_name = "input_values"
    _codec: PreTrainedModel

    def __init__(self, codec: PreTrainedModel):
        super().__init__(codec.config)
        self.encoder = codec.get_encoder()
        if self.encoder is codec:
            raise ValueError(f"{type(codec).__name__} has no encoder of its own, so it is no backbone")
        shell = copy.copy(codec)  # without its parts: it knows how weights of its class are initialised
        shell.__dict__["_modules"] = {}
        self.__dict__["_codec"] = shell  # no part of this module
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        self._codec._init_weights(module)

    def forward(self, input_values: Tensor) -> BaseModelOutput:
        """Encode sounds of shape (batch, samples) or (batch, channels, samples)."""
        channels = input_values.unsqueeze(1) if input_values.ndim == 2 else input_values
        return BaseModelOutput(last_hidden_state=self.encoder(channels).transpose(1, 2))
