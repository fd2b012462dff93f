"""Samples as they are given on the command line or in a file, in the form that the pipeline takes."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hf_relearn.cli.usage import UsageError
from hf_relearn.models import MultimodalClassificationPipeline
from hf_relearn.models.processing_downloads import is_address


def given_sample(classify: MultimodalClassificationPipeline, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A sample of `MODALITY=VALUE` pairs; several pictures of a modality make a list.

    Raises:
        UsageError: for a modality that the model does not have, a second value of one that takes one, or features that
            are no numbers in brackets.
    """
    sample: dict[str, Any] = {}
    for key, text in pairs:
        name = classify.modality_of(key)
        if name is None:
            raise UsageError(
                f"{key}={text} names {key!r}, but the modalities are {', '.join(classify.processor.inputs)}"
            )
        kind = classify.model.config.modalities[name].kind
        value = _numbers(key, text) if kind == "features" else text
        if name not in sample:
            sample[name] = value
        elif kind in ("vision", "video"):
            sample[name] = [*(sample[name] if isinstance(sample[name], list) else [sample[name]]), value]
        else:
            raise UsageError(f"{key}={text}: the modality {name!r} is given twice")
    return sample


def read_samples(classify: MultimodalClassificationPipeline, path: str) -> Iterator[dict[str, Any]]:
    """The samples of a file, one at a time; columns of no modality are left out, and told of on stderr.

    Raises:
        ValueError: for a line that is no JSON object, or a file without samples; the message names the place.
    """
    folder = Path() if path == "-" else Path(path).parent
    left_out: set[str] = set()
    number = -1
    for number, row in enumerate(_rows(path)):
        sample: dict[str, Any] = {}
        for key, value in row.items():
            name = classify.modality_of(key)
            if name is None:
                if key not in left_out:
                    print(f"hf-relearn predict: note: {path}: {key!r} is no modality, left out", file=sys.stderr)
                left_out.add(key)
            else:
                sample[name] = _from_file(value, classify.model.config.modalities[name].kind, folder)
        if all(value is None for value in sample.values()):
            raise ValueError(
                f"{path}: sample {number} has none of the modalities {', '.join(classify.processor.inputs)}, by which "
                "columns must be named"
            )
        yield sample
    if number < 0:
        raise ValueError(f"{path} holds no samples")


def _rows(path: str) -> Iterator[Mapping[str, Any]]:
    if Path(path).suffix.lower() == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                yield {key: value or None for key, value in row.items() if key is not None}
        return
    with nullcontext(sys.stdin) if path == "-" else open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: no JSON ({error}); give one object per line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: no JSON object of modalities and values")
            yield row


def _from_file(value: Any, kind: str, folder: Path) -> Any:
    """A cell: numbers out of a CSV's text, and files relative to the folder of the samples' file."""
    if isinstance(value, list) and kind != "features":
        return [_from_file(item, kind, folder) for item in value]
    if not isinstance(value, str) or kind == "text":
        return value
    if kind == "features":
        return _numbers(kind, value)
    return value if is_address(value) else str(folder / value)


def _numbers(name: str, text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise UsageError(f"{name}={text}: features are numbers in brackets, such as [0.1,0.2]")
    return value
