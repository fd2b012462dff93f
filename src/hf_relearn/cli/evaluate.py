"""`hf-relearn evaluate`: metrics of a saved model on a data set."""

import sys
from typing import Annotated

import typer

from hf_relearn.cli.shared import (
    BatchSize,
    Cpu,
    DatasetConfigName,
    DatasetName,
    LabelColumn,
    ModelName,
    Revision,
    Unreadable,
    epilog,
    given_columns,
    load_labelled,
    load_model,
    print_json,
    quiet,
)
from hf_relearn.text_table import text_table

EPILOG = epilog(
    "hf-relearn evaluate my-model --dataset_name clips.csv",
    "hf-relearn evaluate me/my-model --dataset_name me/my-clips --split validation --output validation",
)


def evaluate(
    context: typer.Context,
    model: ModelName,
    dataset_name: DatasetName,
    revision: Revision = "main",
    cpu: Cpu = False,
    dataset_config_name: DatasetConfigName = None,
    unreadable: Unreadable = "error",
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="Split to evaluate.")] = "test",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="MODALITY=COLUMN ...",
            help="Columns of the modalities; unset, those of the table that the model was trained on.",
        ),
    ] = None,
    label_column: LabelColumn = None,
    output: Annotated[
        str, typer.Option("--output", metavar="FOLDER", help="Folder to write the files into.")
    ] = "evaluation",
    batch_size: BatchSize = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: metrics, per_class, files.")] = False,
) -> None:
    """Evaluate a saved model on a data set with labels.

    Prints the metrics, those of each class too, and writes metrics.json, predictions.csv and, of classes, the
    confusion matrix as confusion.png.
    """
    with quiet(context):
        from hf_relearn.data.table_labels import with_classes_of
        from hf_relearn.experiments.saved_model import class_names, evaluate_saved_model
        from hf_relearn.training import MultimodalCollator
        from hf_relearn.training.targets import is_regression

        loaded, processor = load_model(model, revision)
        column_of = given_columns(columns, processor)
        label = label_column or processor.label_column or "label"
        both = {"train": split, "validation": split}  # neither is drawn from the other
        table = load_labelled(dataset_name, dataset_config_name, loaded, column_of, label, both, unreadable)["train"]
        names = class_names(loaded)
        if not is_regression(loaded):
            table = with_classes_of(table, label, names, dataset_name)
        found = evaluate_saved_model(
            loaded,
            MultimodalCollator(processor, column_of, label, num_labels=len(names)),
            table,
            batch_size=batch_size,
            use_cpu=cpu,
            progress=sys.stderr.isatty() and not as_json,
        )
        files = [str(path) for path in found.write(output)]
    if as_json:
        print_json({"metrics": found.metrics, "per_class": found.per_class, "files": files})
        return
    print(text_table(["metric", "value"], [[name, f"{value:.4f}"] for name, value in found.metrics.items()]))
    if not found.per_class:
        print(f"\nWritten: {', '.join(files)}")
        return
    header = ["class", "precision", "recall", "f1", "samples"]
    rows = [
        [name, *(f"{values[key]:.3f}" for key in ("precision", "recall", "f1")), f"{values['support']:.0f}"]
        for name, values in found.per_class.items()
    ]
    print(f"\n{text_table(header, rows)}\n\nWritten: {', '.join(files)}")
