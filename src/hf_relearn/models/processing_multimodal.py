"""The processor: raw values of a batch (sounds, images, videos, texts, features) to the fusion model's inputs."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedConfig, ProcessorMixin

from .configuration_multimodal import MultimodalConfig, check_modality_name
from .modeling_seeds import draw_seed, drawing_for
from .processing_augmentation import Augmentation
from .processing_defaults import INPUT_TYPES, ModalityInput, default_input, takes_spectrogram
from .processing_pretrained import load_tokenizer
from .processing_sources import RawValueError
from .processing_table import TableInput
from .processing_text import TextInput

__all__ = ["MultimodalProcessor", "takes_spectrogram"]

_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "trust_remote_code")

# Argument of transformers' processors -> the types of input that it means.
_ARGUMENTS = {
    "images": ("image",),
    "text": ("text",),
    "audio": ("waveform", "spectrogram"),
    "videos": ("video",),
}


class MultimodalProcessor(ProcessorMixin):
    """Turn raw values, per modality, into the flat inputs of `MultimodalForClassification`.

    Args:
        modalities: modality name -> settings, which name their `type` (`image`, `video`, `waveform`, `spectrogram`,
            `text`, `features` or `table`) and hold the arguments of that type's class. The tokenizer of a text is an
            object here; `save_pretrained` writes its files into a subfolder that is named like the modality.
        columns: modality -> column, or list of columns, of the table that the model was trained on.
        label_column: its column with classes. A Trainer of this package sets both.

    Raises:
        ValueError: for an unknown type, a name that cannot be a prefix, or settings that its class refuses; the
            message names the modality.
    """

    # `Trainer` reads the special tokens of a processor's tokenizer (transformers pull request 38441), and here there
    # may be none to read.
    tokenizer = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None, init_kwargs={})

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        columns: Mapping[str, str | Sequence[str]] | None = None,
        label_column: str | None = None,
    ):
        self.columns = {
            name: column if isinstance(column, str) else list(column) for name, column in (columns or {}).items()
        }
        self.label_column = label_column
        self.modalities: dict[str, dict[str, Any]] = {}
        self.inputs: dict[str, ModalityInput] = {}
        for name, settings in modalities.items():
            check_modality_name(name)  # it may become part of a path, and the settings may be a stranger's
            arguments = dict(settings)
            input_type = arguments.pop("type", None)
            if input_type not in INPUT_TYPES:
                raise ValueError(
                    f"modality {name!r}: unknown type of input {input_type!r}; known are {', '.join(INPUT_TYPES)}"
                )
            if input_type == TextInput.type and name.startswith("_"):
                raise ValueError(
                    f"modality {name!r}: its tokenizer would be saved in a folder of this name, and what begins with "
                    "'_' is not uploaded to the Hub: choose another name"
                )
            try:
                self.inputs[name] = INPUT_TYPES[input_type](**arguments)
            except ValueError as error:
                raise ValueError(f"modality {name!r}: {error}") from error
            arguments.pop("tokenizer", None)
            self.modalities[name] = {"type": input_type, **arguments}
        self.chat_template = None

    @property
    def tokenizers(self) -> dict[str, Any]:
        """The tokenizer of every text modality."""
        return {name: item.tokenizer for name, item in self.inputs.items() if isinstance(item, TextInput)}

    def __call__(
        self,
        values: Mapping[str, Sequence[Any]] | None = None,
        augmentation: Augmentation | None = None,
        *,
        images: Any = None,
        text: Any = None,
        audio: Any = None,
        videos: Any = None,
    ) -> BatchFeature:
        """Process a batch.

        Args:
            values: modality -> one raw value per sample: sounds (see `load_audio`), images (`load_image`), videos or
                lists of images (`load_frames`), strings, vectors or sequences of numbers (`FeaturesInput`), rows of a
                table (`TableInput`). None if a sample lacks the modality, or a row whose cells are all empty; an empty
                string is a text that is there.
            augmentation: what to do to the raw values first; None for evaluation.
            images, text, audio, videos: in place of `values`, those of the only modality of the kind: one value, or a
                list of them.

        Returns:
            `{modality}_{argument of the backbone}` -> tensor with the batch first. If some samples lack a modality,
            their rows are zeros and `{modality}_present`, (batch,) bool, tells which; a modality that all of them
            lack has that tensor alone.

        Raises:
            ValueError: for a modality that is unknown or missing.
            RawValueError: for a value that nothing can be made of (`MediaError`: that cannot be decoded); the message
                names the modality and, if known, the file.
        """
        given = {"images": images, "text": text, "audio": audio, "videos": videos}
        given = {name: value for name, value in given.items() if value is not None}
        if given and values is not None:
            raise ValueError(f"give values, or {', '.join(given)}, not both")
        if given:
            values = {self._only_one(name): _as_list(value) for name, value in given.items()}
        values = values or {}
        if set(values) != set(self.inputs):
            raise ValueError(
                f"the processor has the modalities {', '.join(self.inputs)}, but got {', '.join(values) or 'none'}"
            )
        batch = {}
        seed = draw_seed() if augmentation else 0  # a modality is augmented alike, whatever others there are
        for name, modality_input in self.inputs.items():
            given_values = [None if _is_missing(modality_input, value) else value for value in values[name]]
            present = torch.tensor([value is not None for value in given_values])
            tensors: dict[str, Tensor] = {}
            if present.any():
                try:
                    with drawing_for(name, seed) if augmentation else nullcontext():
                        tensors = modality_input([value for value in given_values if value is not None], augmentation)
                except RawValueError as error:
                    raise type(error)(f"modality {name!r}: {error}") from error
            if not present.all():
                tensors = {argument: _with_blank_rows(tensor, present) for argument, tensor in tensors.items()}
                tensors["present"] = present
            batch.update({f"{name}_{argument}": tensor for argument, tensor in tensors.items()})
        return BatchFeature(batch)

    def _only_one(self, argument: str) -> str:
        """Name the only modality of the kind that an argument means."""
        found = [name for name, item in self.inputs.items() if item.type in _ARGUMENTS[argument]]
        if len(found) != 1:
            several = f"several modalities ({', '.join(found)})" if found else "no modality"
            raise ValueError(
                f"{argument}= means {several} of the processor: give the values by name, as "
                f"{{{next(iter(self.inputs))!r}: [...], ...}}"
            )
        return found[0]

    @property
    def model_input_names(self) -> list[str]:
        """Prefixes tell which modality an input belongs to; the arguments follow from the backbones."""
        return [f"{name}_" for name in self.inputs]

    def to_dict(self) -> dict[str, Any]:
        inputs, self.inputs = self.inputs, {}
        try:  # the parent class copies attributes deeply, whole vocabularies among them
            settings = super().to_dict()
        finally:
            self.inputs = inputs
        return {name: value for name, value in settings.items() if value or name not in ("columns", "label_column")}

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write the settings, and the files of every tokenizer into a subfolder named like its modality.

        Args:
            save_directory: the folder.
            push_to_hub: upload the folder's new files afterwards; `repo_id`, which is the folder's name by default,
                and the rest of `kwargs` say where.
        """
        files = super().save_pretrained(str(save_directory))
        for name, tokenizer in self.tokenizers.items():
            files += tokenizer.save_pretrained(str(Path(save_directory) / name))
        if push_to_hub:
            kwargs.pop("max_shard_size", None)
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return files

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """Return the settings of a folder or Hub repository, with its tokenizers among them."""
        hub_kwargs = {name: kwargs[name] for name in _HUB_KWARGS if kwargs.get(name) is not None}
        hub_kwargs["config"] = PreTrainedConfig()  # or else one is looked for beside the tokenizer
        folder = kwargs.get("subfolder")
        settings, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        for name, modality in settings.get("modalities", {}).items():
            if modality.get("type") == TextInput.type:
                check_modality_name(name)  # which becomes part of a path
                subfolder = f"{folder}/{name}" if folder else name
                try:
                    tokenizer = load_tokenizer(pretrained_model_name_or_path, subfolder=subfolder, **hub_kwargs)
                except ValueError as error:
                    raise OSError(
                        f"modality {name!r}: the subfolder {subfolder} of {pretrained_model_name_or_path} holds no "
                        "tokenizer: save the processor again with save_pretrained"
                    ) from error
                modality["tokenizer"] = tokenizer
        return settings, unused

    @classmethod
    def from_model(
        cls,
        config: MultimodalConfig,
        backbones: Mapping[str, Any] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "MultimodalProcessor":
        """Build the processor that a model's backbones expect.

        Args:
            config: the model's configuration.
            backbones: what was given to `from_backbones`; for a Hub id or folder that carries a preprocessor, its
                settings are taken. Other backbones get defaults from their configuration.
            options: modality -> arguments that replace those of its input class (`ImageInput`, `VideoInput`,
                `WaveformInput`, `SpectrogramInput`, `TextInput`, `FeaturesInput`, `TableInput`), and `image_size`
                for images and videos. A text backbone that is no Hub id or folder needs its `tokenizer` (object, Hub
                id or folder).
                Texts are cut after what tokenizer and backbone can take, 512 tokens at most, unless `max_length` is
                given.

        Raises:
            ValueError: for options of an unknown modality, a backbone whose input cannot be made, or texts without a
                tokenizer.
            OSError: for a Hub id without a preprocessor; give its settings in `options` (`image_processor` or
                `feature_extractor`).
        """
        options = options or {}
        if unknown := set(options) - set(config.modalities):
            raise ValueError(f"options for {sorted(unknown)}, but the modalities are {list(config.modalities)}")
        modalities = {}
        for name, modality in config.modalities.items():
            source = (backbones or {}).get(name)
            try:
                modality_input = default_input(modality, source, options.get(name, {}))
            except ValueError as error:
                raise ValueError(f"modality {name!r}: {error}") from error
            modalities[name] = {"type": modality_input.type, **modality_input.settings}
            if isinstance(modality_input, TextInput):
                modalities[name]["tokenizer"] = modality_input.tokenizer
        return cls(modalities)


def _is_missing(modality_input: ModalityInput, value: Any) -> bool:
    return value is None or (isinstance(modality_input, TableInput) and modality_input.is_empty(value))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _with_blank_rows(tensor: Tensor, present: Tensor) -> Tensor:
    """Spread the rows over a batch in which only some samples are present; the others are zeros."""
    full = tensor.new_zeros(len(present), *tensor.shape[1:])
    full[present] = tensor
    return full
