"""The pipeline `multimodal-classification`: from raw sounds, pictures and sentences to labels and scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .modeling_weights import refuse_missing_weights
from .processing_downloads import download, is_address
from .processing_table import TableInput

TASK = "multimodal-classification"
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
# What people call a modality by, beside the name that it has in the model.
_KEYS_OF_KIND = {"vision": ("image", "vision"), "audio": ("audio",), "text": ("text",), "video": ("video",)}


class MultimodalClassificationPipeline(Pipeline):
    """Classify samples that are given as files, addresses, arrays or texts.

    `pipeline("multimodal-classification", model=repo)` makes one. A sample is a mapping from modality to raw value:
    what `MultimodalProcessor` takes, or an `http://` or `https://` address of a sound, picture or video. Keys are the
    model's modality names; `image`, `audio`, `text` and `video` also name its only modality of that kind. A modality
    may be missing: its key is absent, or its value None.

    Args:
        top_k: labels of each sample, best first; 5 by default, None for all.
        function_to_apply: what makes scores of logits: `softmax`, `sigmoid` or `none`; by default `sigmoid` for a
            model with several labels per sample (`problem_type="multi_label_classification"`), `none` for one that
            predicts a number, which is then the score, else `softmax`.
        return_contributions: whether to tell each modality's share in each score.
        timeout: seconds that fetching one address may take; 30 by default.
        on_error: `"raise"` (the default) ends with the first sample that cannot be read; `"skip"` gives
            `{"error": reason}` in place of its labels.
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
        on_error: str | None = None,
        are_rows: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if function_to_apply is not None and function_to_apply not in SCORES:
            raise ValueError(f"function_to_apply is {function_to_apply!r}: use one of {', '.join(SCORES)}")
        if isinstance(top_k, int) and top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for at least one label, or for all (None)")
        if on_error not in (None, "raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}: use 'raise' or 'skip'")
        given: dict[str, Any] = {"timeout": timeout, "allow_private_addresses": allow_private_addresses}
        given |= {"on_error": on_error, "are_rows": are_rows}
        preprocess = {name: value for name, value in given.items() if value is not None}
        forward = {} if return_contributions is None else {"return_contributions": return_contributions}
        postprocess = {} if top_k == "" else {"top_k": top_k}
        if function_to_apply is not None:
            postprocess["function_to_apply"] = function_to_apply
        return preprocess, forward, postprocess

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Classify samples.

        Args:
            inputs: a sample, a list of them, or a data set or generator that gives them. The columns of a data set
                that belong to no modality are passed over; a modality is also found by its column in training.
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
        if isinstance(inputs, Dataset) or hasattr(inputs, "column_names"):
            kwargs["are_rows"] = True
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
        """Chain the stages of the pipeline. Samples are numbered, so that errors can name them."""
        dataset: Any
        if hasattr(inputs, "__len__"):
            dataset = PipelineDataset(_Numbered(inputs), self.preprocess, preprocess_params)
        else:
            dataset = PipelineIterator(enumerate(inputs), self.preprocess, preprocess_params)
            num_workers = 0
        collate = partial(self.collate, on_error=preprocess_params.get("on_error", "raise"))
        loader = DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=collate)
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def preprocess(
        self,
        input_: tuple[int, Any],
        timeout: float = 30.0,
        allow_private_addresses: bool = False,
        on_error: str = "raise",
        are_rows: bool = False,
    ) -> tuple[int, dict[str, Any] | ValueError]:
        """Check a numbered sample and fetch what is given by its address.

        Returns:
            Its number, and modality -> raw value; or in place of that the error, if it is to be skipped.
        """
        try:
            return self._checked(input_, timeout, allow_private_addresses, are_rows)
        except ValueError as error:
            if on_error == "raise":
                raise
            return input_[0], error

    def _checked(
        self, input_: tuple[int, Any], timeout: float, allow_private_addresses: bool, are_rows: bool
    ) -> tuple[int, dict[str, Any]]:
        number, sample = input_
        names = self.processor.inputs
        if not isinstance(sample, Mapping):
            raise ValueError(
                f"sample {number} is a {type(sample).__name__}: give a mapping from modality ({', '.join(names)}) to "
                "a value"
            )
        if are_rows:
            sample, _ = self.sample_of_row(sample)
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

    def collate(
        self, samples: Sequence[tuple[int, dict[str, Any] | ValueError]], on_error: str = "raise"
    ) -> dict[str, Any]:
        """Make the model's inputs of numbered samples; `errors` tells of those to skip, if there are some."""
        errors = ["" if isinstance(values, Mapping) else str(values) for _, values in samples]
        good = [values for _, values in samples if isinstance(values, Mapping)]
        try:
            inputs = self._process(good) if good else {}
        except (ValueError, TypeError):
            for place, (number, values) in enumerate(samples):  # which of them it was
                if errors[place]:
                    continue
                try:
                    self._process([values])  # type: ignore[list-item]  # a mapping
                except (ValueError, TypeError) as error:
                    if on_error == "raise":
                        raise ValueError(f"sample {number}: {error}") from error
                    errors[place] = f"sample {number}: {error}"
            if not any(errors):
                raise
            left = [values for (_, values), error in zip(samples, errors, strict=True) if not error]
            inputs = self._process(left) if left else {}  # type: ignore[arg-type]
        return {**inputs, "errors": errors} if any(errors) else inputs

    def _forward(self, input_tensors: dict[str, Any], return_contributions: bool = False) -> dict[str, Any]:
        if return_contributions and len(self.processor.inputs) < 2:
            raise ValueError("contributions compare modalities, but this model has only one: leave them out")
        errors = input_tensors.pop("errors", None)
        if errors is None:
            return self._logits(input_tensors, return_contributions)
        good = torch.tensor([not error for error in errors])
        names = [f"without_{name}" for name in self.processor.inputs] if return_contributions else []
        found = self._logits(input_tensors, return_contributions) if good.any() else {}
        spread = {}
        for name in ["logits", *names]:
            spread[name] = torch.full((len(errors), self.model.config.num_labels), torch.nan)
            if name in found:
                spread[name][good] = found[name].float().cpu()
        return {**spread, "errors": errors}

    def _logits(self, input_tensors: dict[str, Tensor], return_contributions: bool) -> dict[str, Tensor]:
        if not return_contributions:
            return {"logits": self.model(**input_tensors).logits}
        outputs = self.model(**input_tensors, output_ablations=True)
        left_out = {f"without_{name}": outputs.ablation_logits[f"without_{name}"] for name in self.processor.inputs}
        return {"logits": outputs.logits, **left_out}

    def postprocess(
        self, model_outputs: dict[str, Any], top_k: int | None = 5, function_to_apply: str | None = None
    ) -> list[dict[str, Any]] | dict[str, str]:
        """Give the best labels of one sample from (1, number of classes) logits, or why it was skipped."""
        errors = model_outputs.pop("errors", "")
        if error := errors if isinstance(errors, str) else errors[0]:  # a list for batches of one
            return {"error": error}
        if function_to_apply is None:
            problem = self.model.config.problem_type
            function_to_apply = {"multi_label_classification": "sigmoid", "regression": "none"}.get(problem, "softmax")
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

    def sample_of_row(
        self, row: Mapping[str, Any], columns: Mapping[str, str | list[str]] | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Pick the modalities out of a row of a table.

        Args:
            row: column -> value.
            columns: modality -> column, or columns of one vector or row; None takes those of the training. Other
                columns count by their names.

        Returns:
            Modality -> raw value, and the columns that belong to none.

        Raises:
            ValueError: for a vector with a cell that is not a number.
        """
        rest, sample = dict(row), {}
        for name, column in (self.processor.columns if columns is None else columns).items():
            several = [column] if isinstance(column, str) else column
            if name in self.processor.inputs and all(each in row for each in several):
                cells = {each: rest.pop(each, None) for each in several}
                modality_input = self.processor.inputs[name]
                if isinstance(modality_input, TableInput):
                    table_row = modality_input.row_of(cells, column)
                    sample[name] = None if modality_input.is_empty(table_row) else table_row
                else:
                    sample[name] = cells[column] if isinstance(column, str) else _vector(cells)
        others = []
        for key, value in rest.items():
            modality = self.modality_of(key)
            if modality is None:
                others.append(key)
            else:
                sample.setdefault(modality, value)
        return sample, others

    def modality_of(self, key: Any) -> str | None:
        """Return the modality that a sample's key names, by its name or as the only one of its kind."""
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


def _vector(cells: Mapping[str, Any]) -> list[float] | None:
    """Join the cells of several columns to one vector; None if all of them are empty."""
    values = list(cells.values())
    if all(value is None for value in values):
        return None
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"the columns {', '.join(cells)} hold {values}, which are not all numbers") from None


def _fetched(value: Any, timeout: float, allow_private_addresses: bool) -> Any:
    """Return a value, or the content of each address in it, in the form in which data sets hold files."""
    if isinstance(value, (list, tuple)):
        return [_fetched(item, timeout, allow_private_addresses) for item in value]
    if not is_address(value):
        return value
    content = download(value, timeout=timeout, allow_private_addresses=allow_private_addresses)
    return {"bytes": content, "path": value}
