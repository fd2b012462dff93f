"""The pipeline `multimodal-classification`: from raw sounds, pictures and sentences to labels and scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .modeling_weights import refuse_missing_weights
from .processing_downloads import download, is_address

TASK = "multimodal-classification"
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
# What people call a modality by, beside the name that it has in the model.
_KEYS_OF_KIND = {"vision": ("image", "vision"), "audio": ("audio",), "text": ("text",), "video": ("video",)}


class MultimodalClassificationPipeline(Pipeline):
    """Labels and scores of samples that are given as files, addresses, arrays or texts.

    `pipeline("multimodal-classification", model=repo)` makes one. A sample is a mapping from modality to raw value:
    what `MultimodalProcessor` takes, or an `http://` or `https://` address of a sound, picture or video. Keys are the
    model's modality names; `image`, `audio`, `text` and `video` also name its only modality of that kind. A modality
    may be missing: its key is absent, or its value None.

    Args:
        top_k: labels of each sample, best first; 5 by default, None for all.
        function_to_apply: what makes scores of logits: `softmax`, `sigmoid` or `none`; by default `sigmoid` for a
            model with several labels per sample (`problem_type="multi_label_classification"`), else `softmax`.
        return_contributions: whether to tell each modality's share in each score.
        timeout: seconds that fetching one address may take; 30 by default.
        allow_private_addresses: whether addresses of this machine and of private networks are fetched; they are
            refused by default.

    Raises:
        ValueError: for a model that is not ours, lacks weights in its files, or comes without its processor.
    """

    _load_processor: Any = True
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False
    model: Any
    processor: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model.config, "modalities"):
            raise ValueError(f"{type(self.model).__name__} is no fusion model: the task {TASK!r} needs one")
        if self.processor is None:
            raise ValueError(f"the task {TASK!r} needs the model's processor: pipeline(..., processor=...)")
        refuse_missing_weights(self.model)
        self.tokenizer = None  # those of texts belong to the processor

    def _sanitize_parameters(
        self,
        top_k: int | str | None = "",
        function_to_apply: str | None = None,
        return_contributions: bool | None = None,
        timeout: float | None = None,
        allow_private_addresses: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if function_to_apply is not None and function_to_apply not in SCORES:
            raise ValueError(f"function_to_apply is {function_to_apply!r}: use one of {', '.join(SCORES)}")
        if isinstance(top_k, int) and top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for at least one label, or for all (None)")
        given = {"timeout": timeout, "allow_private_addresses": allow_private_addresses}
        preprocess = {name: value for name, value in given.items() if value is not None}
        forward = {} if return_contributions is None else {"return_contributions": return_contributions}
        postprocess = {} if top_k == "" else {"top_k": top_k}
        if function_to_apply is not None:
            postprocess["function_to_apply"] = function_to_apply
        return preprocess, forward, postprocess

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Classify samples.

        Args:
            inputs: a sample, a list of them, or a data set or generator that gives them.
            **kwargs: `batch_size` (1 by default), `num_workers`, and the arguments of the class.

        Returns:
            For a sample a list of `{"label": ..., "score": ...}`, best first; for a list a list of those; for a data
            set or generator an iterator. With `return_contributions` each entry also holds `"contributions"`:
            modality -> how much that label's score falls when the modality is left out (negative if it rises; 0 for a
            modality that the sample lacks).

        Raises:
            ValueError: for a sample that is no mapping, has an unknown key or none of the modalities, or a value that
                cannot be read; the message names the sample and the modality.
        """
        if isinstance(inputs, Mapping):
            return super().__call__([inputs], **kwargs)[0]
        if isinstance(inputs, (list, tuple)):
            return super().__call__(list(inputs), **kwargs) if inputs else []
        if isinstance(inputs, str) or not (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")):
            raise ValueError(
                f"a sample is a mapping from modality ({', '.join(self.processor.inputs)}) to a value, but got "
                f"{type(inputs).__name__}"
            )
        return super().__call__(inputs if isinstance(inputs, Dataset) else (row for row in inputs), **kwargs)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """The stages of the pipeline, one after the other. Samples are numbered, so that errors can name them."""
        dataset: Any
        if hasattr(inputs, "__len__"):
            dataset = PipelineDataset(_Numbered(inputs), self.preprocess, preprocess_params)
        else:
            dataset = PipelineIterator(enumerate(inputs), self.preprocess, preprocess_params)
            num_workers = 0
        loader = DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=self.collate)
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def preprocess(
        self, input_: tuple[int, Any], timeout: float = 30.0, allow_private_addresses: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Check a numbered sample and fetch what is given by its address: its number, and modality -> raw value."""
        number, sample = input_
        names = self.processor.inputs
        if not isinstance(sample, Mapping):
            raise ValueError(
                f"sample {number} is a {type(sample).__name__}: give a mapping from modality ({', '.join(names)}) to "
                "a value"
            )
        values: dict[str, Any] = dict.fromkeys(names)
        for key, value in sample.items():
            name = self.modality_of(key)
            if name is None:
                raise ValueError(f"sample {number} has the key {key!r}, but the modalities are {', '.join(names)}")
            if name in values and values[name] is not None:
                raise ValueError(f"sample {number} gives the modality {name!r} twice, also as {key!r}")
            values[name] = value
        if all(value is None for value in values.values()):
            raise ValueError(f"sample {number} has none of the modalities {', '.join(names)}: it needs at least one")
        for name, value in values.items():
            if self.model.config.modalities[name].kind != "text":
                try:
                    values[name] = _fetched(value, timeout, allow_private_addresses)
                except ValueError as error:
                    raise ValueError(f"sample {number}: modality {name!r}: {error}") from error
        return number, values

    def collate(self, samples: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Tensor]:
        """Numbered samples to the model's inputs."""
        try:
            return self._process([values for _, values in samples])
        except (ValueError, TypeError):
            for number, values in samples:  # which of them it was
                try:
                    self._process([values])
                except (ValueError, TypeError) as error:
                    raise ValueError(f"sample {number}: {error}") from error
            raise

    def _forward(self, input_tensors: dict[str, Tensor], return_contributions: bool = False) -> dict[str, Tensor]:
        if not return_contributions:
            return {"logits": self.model(**input_tensors).logits}
        if len(self.processor.inputs) < 2:
            raise ValueError("contributions compare modalities, but this model has only one: leave them out")
        outputs = self.model(**input_tensors, output_ablations=True)
        left_out = {f"without_{name}": outputs.ablation_logits[f"without_{name}"] for name in self.processor.inputs}
        return {"logits": outputs.logits, **left_out}

    def postprocess(
        self, model_outputs: dict[str, Tensor], top_k: int | None = 5, function_to_apply: str | None = None
    ) -> list[dict[str, Any]]:
        """The best labels of one sample, from (1, number of classes) logits."""
        if function_to_apply is None:
            several = self.model.config.problem_type == "multi_label_classification"
            function_to_apply = "sigmoid" if several else "softmax"
        scores = {name: SCORES[function_to_apply](logits[0].float()) for name, logits in model_outputs.items()}
        fused = scores.pop("logits")
        best = fused.argsort(descending=True, stable=True)[: len(fused) if top_k is None else top_k].tolist()
        entries: list[dict[str, Any]] = []
        for index in best:
            entry = {"label": self.model.config.id2label[index], "score": fused[index].item()}
            if scores:
                entry["contributions"] = {
                    name.removeprefix("without_"): (fused[index] - rest[index]).item() for name, rest in scores.items()
                }
            entries.append(entry)
        return entries

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save the model and its processor into a folder, from which the pipeline can be made again."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def modality_of(self, key: Any) -> str | None:
        """The modality that a sample's key names, by its name or as the only one of its kind."""
        modalities = self.model.config.modalities
        if key in modalities:
            return key
        alike = [name for name, modality in modalities.items() if key in _KEYS_OF_KIND.get(modality.kind, ())]
        return alike[0] if len(alike) == 1 else None

    def _process(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return dict(self.processor({name: [values[name] for values in samples] for name in self.processor.inputs}))


class _Numbered(Dataset):
    """Samples with their numbers."""

    def __init__(self, samples: Any):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.samples[index]


def _fetched(value: Any, timeout: float, allow_private_addresses: bool) -> Any:
    """A value, or the content of each address in it, in the form in which data sets hold files."""
    if isinstance(value, (list, tuple)):
        return [_fetched(item, timeout, allow_private_addresses) for item in value]
    if not is_address(value):
        return value
    content = download(value, timeout=timeout, allow_private_addresses=allow_private_addresses)
    return {"bytes": content, "path": value}
