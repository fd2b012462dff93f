"""`hf-relearn diagnose`: how well each modality of a saved model has learnt, without training."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    UsageError,
    epilog,
    given_columns,
    load_labelled,
    load_model,
    print_json,
    quiet,
)
from hf_relearn.text_table import text_table

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_relearn.experiments.saved_model import SavedModelDiagnosis
    from hf_relearn.models import MultimodalForClassification

EPILOG = epilog(
    "hf-relearn diagnose my-model --dataset_name me/my-clips",
    "hf-relearn diagnose my-model --dataset_name clips.csv --columns audio=sound vision=picture --label_column mood",
    "hf-relearn diagnose my-model --dataset_name me/my-clips --held_out_split test --max_samples 500 --json",
)


def diagnose(
    context: typer.Context,
    model: ModelName,
    dataset_name: DatasetName,
    revision: Revision = "main",
    cpu: Cpu = False,
    dataset_config_name: DatasetConfigName = None,
    unreadable: Unreadable = "error",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="MODALITY=COLUMN ...",
            help="Columns of the modalities that have another name; several, joined by commas, make one "
            "vector of numbers or one row.",
        ),
    ] = None,
    label_column: LabelColumn = None,
    train_split: Annotated[
        str, typer.Option("--train_split", metavar="SPLIT", help="Split that the model was trained on.")
    ] = "train",
    held_out_split: Annotated[
        str | None,
        typer.Option(
            "--held_out_split",
            metavar="SPLIT",
            help="Split that it was not trained on; unset, 'validation', or a part of the training split.",
        ),
    ] = None,
    held_out_fraction: Annotated[
        float, typer.Option("--held_out_fraction", metavar="SHARE", help="Size of that part.")
    ] = 0.1,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", metavar="N", min=1, help="Samples of each part at most.")
    ] = None,
    estimator: Annotated[
        Literal["separability", "purity"],
        typer.Option(
            "--estimator",
            help="Leave-one-out separability, which has a standard error and a memorised share, or K-means "
            "purity (the paper).",
        ),
    ] = "separability",
    sampling: Annotated[
        Literal["matched", "all"],
        typer.Option(
            "--sampling",
            help="Training samples of a purity: as many as held-out ones, so that chance lifts both purities alike "
            "(matched), or all.",
        ),
    ] = "matched",
    n_init: Annotated[int, typer.Option("--n_init", metavar="N", min=1, help="K-means starts of a purity.")] = 1,
    batch_size: BatchSize = 32,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the samples drawn and of K-means.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: modalities, num_classes, notes.")
    ] = False,
) -> None:
    """Diagnose a saved model on a data set, without training.

    Separability is how well a modality's features alone tell the classes apart. The memorised share is the part of it
    that held-out samples lack; a modality that surely lacks more than 30 % has memorised. A held-out separability at
    chance says that the modality is uninformative. The probe is the held-out accuracy of a linear classifier on that
    modality's features.
    """
    if not 0 < held_out_fraction < 1:
        raise UsageError(f"--held_out_fraction is {held_out_fraction:g}: give a number between 0 and 1")
    with quiet(context):
        from hf_relearn.experiments.saved_model import diagnose_saved_model
        from hf_relearn.training import MultimodalCollator

        loaded, processor = load_model(model, revision)
        column_of = given_columns(columns, processor)
        label_column = label_column or processor.label_column or "label"
        splits, notes = _load_splits(
            loaded,
            column_of,
            dataset_name,
            dataset_config_name,
            label_column=label_column,
            train_split=train_split,
            held_out_split=held_out_split,
            held_out_fraction=held_out_fraction,
            seed=seed,
            unreadable=unreadable,
        )
        found = diagnose_saved_model(
            loaded,
            MultimodalCollator(processor, column_of, label_column),
            splits["train"],
            splits["validation"],
            estimator=estimator,
            sampling=sampling,
            max_samples=max_samples,
            n_init=n_init,
            batch_size=batch_size,
            seed=seed,
            use_cpu=cpu,
            progress=sys.stderr.isatty() and not as_json,
        )
    notes += found.notes
    if as_json:
        modalities = {
            name: {**asdict(diagnosis), "probe_accuracy": found.probe_accuracies.get(name)}
            for name, diagnosis in found.modalities.items()
        }
        print_json({"modalities": modalities, "num_classes": found.num_classes, "notes": notes})
    else:
        print(_table(found))
        for note in notes:
            print(f"note: {note}")


def _load_splits(
    model: "MultimodalForClassification",
    columns: dict[str, Any],
    dataset_name: str,
    config_name: str | None,
    *,
    label_column: str,
    train_split: str,
    held_out_split: str | None,
    held_out_fraction: float,
    seed: int,
    unreadable: str,
) -> tuple["DatasetDict", list[str]]:
    """Load the parts `train` and `validation` (the held-out one), with notes for the reader."""
    from hf_relearn.data.tables import TableError, read_table

    names = {"train": train_split, "validation": held_out_split or "validation"}
    there = read_table(dataset_name, config_name, names)[0]
    drawn = names["validation"] not in there
    if drawn and held_out_split is not None:
        raise TableError(f"{dataset_name} has no split {held_out_split!r} to hold out; it has {', '.join(there)}")
    splits = load_labelled(
        dataset_name,
        config_name,
        model,
        columns,
        label_column,
        names,
        unreadable,
        validation_fraction=held_out_fraction,
        seed=seed,
    )
    if not drawn:
        return splits, []
    part = f"{held_out_fraction:g} of the split {train_split!r} was drawn as held-out part"
    return splits, [f"{part}: if the model was trained on it, the gaps say nothing"]


def _table(found: "SavedModelDiagnosis") -> str:
    names = {
        "train_separability": "separability train" if found.num_classes else "R² train",
        "val_separability": "held out",
        "chance": "chance",
        "train_purity": "purity train",
        "val_purity": "held out",
        "train_chance_purity": "chance train",
        "val_chance_purity": "held out",
        "gap": "gap",
        "standard_error": "± gap",
    }
    items = found.modalities
    shown = {
        key: title for key, title in names.items() if any(getattr(item, key) is not None for item in items.values())
    }
    shared = all(item.memorised is not None for item in items.values())
    probes = ["probe"] if found.probe_accuracies else []
    header = ["modality", *shown.values(), "memorised" if shared else "alpha", *probes, "samples"]
    rows = [
        [
            name,
            *(f"{getattr(item, key):.3f}" for key in shown),
            f"{min(item.memorised or 0.0, 1.0):.0%} ± {item.memorised_error or 0.0:.0%}"
            if shared
            else f"{item.alpha:.3f}",
            *(f"{found.probe_accuracies[name]:.3f}" for _ in probes),
            f"{item.train_size} / {item.val_size}",
        ]
        for name, item in items.items()
    ]
    measured = f"{found.num_classes} classes" if found.num_classes else "R² of the number by the modality's features"
    return f"{text_table(header, rows)}\n{measured}"
