"""Arguments, model loading and output that several commands share."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hf_relearn.pairs import read_pairs

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_relearn.models import MultimodalForClassification, MultimodalProcessor

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder of a saved model, or its name on the Hub.", show_default=False)
]
Revision = Annotated[
    str, typer.Option("--revision", metavar="NAME", help="Branch, tag or commit of a model on the Hub.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Leave accelerators alone.")]
DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset_name",
        metavar="NAME",
        help="Hub id, local folder (Parquet, CSV, JSON, or media with metadata), or one such file.",
        show_default=False,
    ),
]
DatasetConfigName = Annotated[
    str | None, typer.Option("--dataset_config_name", metavar="NAME", help="Configuration of the data set.")
]
Unreadable = Annotated[
    Literal["error", "skip", "missing"],
    typer.Option(
        "--unreadable",
        help="Sounds, images and videos that cannot be decoded are an error, before anything is computed; or their "
        "rows are left out, or their values count as missing.",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label_column", metavar="COLUMN", help="Column with classes; unset, as in training, or 'label'."),
]
BatchSize = Annotated[int, typer.Option("--batch_size", metavar="N", min=1, help="Samples per forward pass.")]


class UsageError(ValueError):
    """Report wrong usage that shows only once the model is known."""


EXIT_CODES = """\b
exit codes:
  0  everything went well
  1  the work failed; one line on stderr says why (--debug adds the traceback)
  2  wrong usage: an unknown flag, a value that does not fit, a modality that the model does not have"""


def epilog(*examples: str) -> str:
    """Format the end of a command's help: its examples, line by line, and the exit codes."""
    return "\b\nexamples:\n" + "\n".join(f"  {line}" for line in examples) + f"\n\n{EXIT_CODES}"


def load_model(name_or_path: str, revision: str) -> tuple["MultimodalForClassification", "MultimodalProcessor"]:
    """Load a fusion model and its processor.

    Raises:
        ValueError: for a model of another kind.
        OSError: if there is none.
    """
    check_model(name_or_path, revision)
    from hf_relearn.models import MultimodalForClassification, MultimodalProcessor

    model = MultimodalForClassification.from_pretrained(name_or_path, revision=revision)
    return model, MultimodalProcessor.from_pretrained(name_or_path, revision=revision)


def check_model(name_or_path: str, revision: str) -> None:
    """Check that there is a fusion model that a command can load, before it is loaded.

    Raises:
        ValueError: for a model of another kind, or one with a module of the user's own.
        OSError: if there is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id
    from transformers import PreTrainedConfig

    from hf_relearn.models import MultimodalConfig
    from hf_relearn.models.configuration_backbones import ModuleConfig

    if not Path(name_or_path).is_dir():
        try:
            validate_repo_id(name_or_path)
        except HFValidationError:
            message = f"{name_or_path}: no such folder, and not a name that a model on the Hub could have"
            raise FileNotFoundError(message) from None
        beside = Path(name_or_path).parent
        if beside != Path() and beside.is_dir():  # the Hub would be asked several times
            there = sorted(path.name for path in beside.iterdir() if (path / "config.json").is_file())
            raise FileNotFoundError(
                f"{name_or_path}: no such folder; models in {beside} are {', '.join(there[:10]) or 'not there'}"
            )
    config, _ = PreTrainedConfig.get_config_dict(name_or_path, revision=revision)
    if config.get("model_type") != MultimodalConfig.model_type:
        code = " and brings code of its own, which is not run" if "auto_map" in config else ""
        raise ValueError(
            f"{name_or_path} holds a model of the type {config.get('model_type')!r}, which is no fusion model{code}"
        )
    for name, modality in (config.get("modalities") or {}).items():
        backbone = modality.get("backbone_config") or {}
        if backbone.get("model_type") == ModuleConfig.model_type:
            raise ValueError(
                f"{name_or_path}: the backbone of the modality {name!r} is a module of your own "
                f"({backbone.get('module_class')}), whose code is not among the model's files, so a command cannot "
                f"load it: in Python use MultimodalForClassification.from_pretrained({name_or_path!r}, "
                f"backbones={{{name!r}: module}})"
            )


def given_columns(given: Sequence[str] | None, processor: "MultimodalProcessor") -> dict[str, str | list[str]]:
    """Return the column of each modality: as `--columns` says, as in training, or as the modality is called."""
    try:
        pairs = read_pairs("--columns", given, processor.inputs)
    except ValueError as error:
        raise UsageError(str(error)) from None
    columns: dict[str, str | list[str]] = {name: processor.columns.get(name, name) for name in processor.inputs}
    for name, column in pairs.items():
        several = processor.modalities[name]["type"] in ("features", "table") and "," in column
        columns[name] = column.split(",") if several else column
    return columns


def load_labelled(
    name: str,
    config_name: str | None,
    model: "MultimodalForClassification",
    columns: Mapping[str, str | list[str]],
    label_column: str,
    splits: Mapping[str, str],
    unreadable: str,
    **drawn: Any,
) -> "DatasetDict":
    """Load splits with labels of the model's kind; `load_table` tells of the rest, and what it raises."""
    from hf_relearn.data.tables import load_table
    from hf_relearn.training.targets import is_regression

    return load_table(
        name,
        config_name,
        columns=columns,
        kinds={name: modality.kind for name, modality in model.config.modalities.items()},
        label_column=label_column,
        splits=splits,
        unreadable=unreadable,
        max_unreadable_share=1.0,
        problem_type="regression" if is_regression(model) else "classification",
        **drawn,
    )


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


@contextmanager
def quiet(context: typer.Context) -> Iterator[None]:
    """Keep progress bars, logs and warnings of libraries off the terminal, unless `--debug` is given."""
    if context.obj:
        yield
        return
    import datasets
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    dataset_bars = datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if not dataset_bars:
            datasets.enable_progress_bars()
