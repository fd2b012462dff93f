"""`hf-relearn predict`: labels and scores of samples."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_relearn.cli.shared import (
    Cpu,
    ModelName,
    Revision,
    UsageError,
    epilog,
    given_columns,
    load_model,
    print_json,
    quiet,
)
from hf_relearn.text_table import text_table

if TYPE_CHECKING:
    from hf_relearn.models import MultimodalClassificationPipeline

EPILOG = epilog(
    "hf-relearn predict my-model audio=clip.wav image=face.jpg",
    'hf-relearn predict me/my-model image=https://example.org/cat.jpg text="a cat" --contributions',
    "hf-relearn predict my-model --file samples.csv --batch_size 16 --json > scores.jsonl",
)


def predict(
    context: typer.Context,
    model: ModelName,
    sample: Annotated[
        list[str] | None, typer.Argument(metavar="[MODALITY=VALUE ...]", help="The values of one sample.")
    ] = None,
    revision: Revision = "main",
    cpu: Cpu = False,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Samples: CSV with one column per modality, or JSON with one object per line (.jsonl; '-' reads such "
            "lines from stdin). Files named there are looked up from the folder of FILE; an empty cell or null is a "
            "missing modality.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="MODALITY=COLUMN ...",
            help="Columns of FILE; unset, those of the table that the model was trained on, or as the modalities.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top_k", metavar="N", min=1, help="Labels per sample.")] = 5,
    contributions: Annotated[
        bool,
        typer.Option(
            "--contributions", help="Show how much each score falls when a modality is left out, for each modality."
        ),
    ] = False,
    allow_private_addresses: Annotated[
        bool,
        typer.Option(
            "--allow_private_addresses",
            help="Also fetch http(s) addresses of this machine and of private networks.",
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option("--batch_size", metavar="N", min=1, help="Samples per forward pass.")] = 8,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per sample and line: sample, predictions.")
    ] = False,
) -> None:
    """Classify samples: files, addresses or texts.

    A sample is given as MODALITY=VALUE: a file or an http(s) address of a sound, picture or video, a text, numbers
    in brackets ([0.1,0.2]) for given features, or cells (patient=age=41,city=Rome) for a row of a table. The
    modalities are the model's; image, audio, video and text also name its only one of that kind. One that is left out
    is missing. For several pictures, name the modality once for each.
    """
    if bool(sample) == bool(file):
        raise UsageError("give either a sample (MODALITY=VALUE ...) or --file")
    pairs = [(text, *text.partition("=")) for text in sample or []]
    for text, name, equals, value in pairs:
        if not name or not equals or not value:
            raise UsageError(f"{text!r} is not of the form MODALITY=VALUE")
    if file not in (None, "-") and not Path(str(file)).is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with quiet(context):
        from hf_relearn.models.pipeline_multimodal import TASK, MultimodalClassificationPipeline

        loaded, processor = load_model(model, revision)
        classify = MultimodalClassificationPipeline(
            model=loaded, processor=processor, task=TASK, device=-1 if cpu else None
        )
        samples = (
            _samples_of_file(classify, file, given_columns(columns, processor))
            if file
            else iter([_given_sample(classify, [(name, value) for _, name, _, value in pairs])])
        )
        answers = classify(
            samples,
            batch_size=batch_size,
            top_k=top_k,
            return_contributions=contributions,
            allow_private_addresses=allow_private_addresses,
        )
        for number, predictions in enumerate(answers):
            if as_json:
                print_json({"sample": number, "predictions": predictions})
            else:
                if file:
                    print(f"{'' if number == 0 else chr(10)}sample {number}")
                print(_table(predictions))


def _table(predictions: list[dict[str, Any]]) -> str:
    names = list(predictions[0].get("contributions", {}))
    rows = [
        [
            str(entry["label"]),
            f"{entry['score']:.4f}",
            *(f"{share:+.4f}" for share in entry.get("contributions", {}).values()),
        ]
        for entry in predictions
    ]
    return text_table(["label", "score", *names], rows)


def _given_sample(classify: "MultimodalClassificationPipeline", pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Make a sample of `MODALITY=VALUE` pairs; several pictures of a modality make a list."""
    sample: dict[str, Any] = {}
    for key, text in pairs:
        name = classify.modality_of(key)
        if name is None:
            raise UsageError(
                f"{key}={text} names {key!r}, but the modalities are {', '.join(classify.processor.inputs)}"
            )
        kind = classify.model.config.modalities[name].kind
        value = _numbers(key, text) if kind == "features" else _row(key, text) if kind == "table" else text
        if name not in sample:
            sample[name] = value
        elif kind in ("vision", "video"):
            sample[name] = [*(sample[name] if isinstance(sample[name], list) else [sample[name]]), value]
        else:
            raise UsageError(f"{key}={text}: the modality {name!r} is given twice")
    return sample


def _samples_of_file(
    classify: "MultimodalClassificationPipeline", path: str, columns: Mapping[str, str | list[str]]
) -> Iterator[dict[str, Any]]:
    """Read the samples of a file: a whole file before the first is classified, stdin one by one."""
    samples = _rows_as_samples(classify, path, columns)
    return samples if path == "-" else iter(list(samples))


def _rows_as_samples(
    classify: "MultimodalClassificationPipeline", path: str, columns: Mapping[str, str | list[str]]
) -> Iterator[dict[str, Any]]:
    """Read the samples of a file, one at a time; columns of no modality are left out, with a note on stderr."""
    folder = Path() if path == "-" else Path(path).parent
    modalities = classify.model.config.modalities
    left_out = {classify.processor.label_column}
    missing = set(modalities)
    number = -1
    for number, row in enumerate(_rows(path)):
        sample, others = classify.sample_of_row(row, columns)
        for key in others:
            if key not in left_out:
                print(f"hf-relearn predict: note: {path}: {key!r} is no modality, left out", file=sys.stderr)
                left_out.add(key)
        sample = {name: _from_file(value, modalities[name].kind, folder) for name, value in sample.items()}
        if all(value is None for value in sample.values()):
            raise ValueError(
                f"{path}: sample {number} has none of the modalities {', '.join(modalities)}, by which columns must "
                "be named, unless --columns names them"
            )
        missing -= {name for name, value in sample.items() if value is not None}
        yield sample
    if number < 0:
        raise ValueError(f"{path} holds no samples")
    if missing and path != "-":
        name = min(missing)
        raise ValueError(
            f"{path}: no sample has the modality {name!r} (looked for the column {columns.get(name, name)!r}): name "
            f"its column, --columns {name}=COLUMN"
        )


def _rows(path: str) -> Iterator[Mapping[str, Any]]:
    if Path(path).suffix.lower() == ".csv":
        from hf_relearn.data.table_files import separator

        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, delimiter=separator(Path(path))):
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
    """Read a cell: numbers out of a CSV's text, and files relative to the folder of the samples' file."""
    from hf_relearn.models.processing_downloads import is_address

    if isinstance(value, list) and kind != "features":
        return [_from_file(item, kind, folder) for item in value]
    if not isinstance(value, str) or kind == "text":
        return value
    if kind == "features":
        return _numbers(kind, value)
    if kind == "table":
        return _row(kind, value)
    return value if is_address(value) else str(folder / value)


def _row(name: str, text: str) -> dict[str, Any]:
    from hf_relearn.models.processing_table import read_row

    try:
        return read_row(name, text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _numbers(name: str, text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise UsageError(f"{name}={text}: features are numbers in brackets, such as [0.1,0.2]")
    return value
