"""`hf-relearn diagnose`: how well each modality of a saved model has learnt, without training."""

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hf_relearn.cli.loading import add_model_arguments, load_model
from hf_relearn.cli.output import print_json, quiet, text_table
from hf_relearn.cli.usage import by_name, fraction, named_value, positive

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_relearn.models import MultimodalForClassification
    from hf_relearn.training.saved_model import SavedModelDiagnosis

HELP = "Diagnose a saved model on a data set, without training."
DESCRIPTION = """Diagnose each modality of a saved model on a data set; nothing is trained.

Purity tells how well K-means clusters of a modality's features agree with the classes. Much more of it on samples that
the model was trained on than on held-out ones is over-training; alpha is how far re-learning would move the encoder
back. The probe is the held-out accuracy of a linear classifier on that modality's features alone."""
EXAMPLES = """  hf-relearn diagnose my-model --dataset_name me/my-clips
  hf-relearn diagnose my-model --dataset_name clips.csv --columns audio=sound vision=picture --label_column emotion
  hf-relearn diagnose my-model --dataset_name me/my-clips --held_out_split test --max_samples 500 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_model_arguments(parser)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset_name",
        metavar="NAME",
        required=True,
        help="Hub id, local folder (Parquet, CSV, JSON, or media with metadata), or one such file.",
    )
    data.add_argument("--dataset_config_name", metavar="NAME", help="Configuration of the data set.")
    data.add_argument(
        "--columns",
        metavar="MODALITY=COLUMN",
        nargs="+",
        type=named_value,
        default=[],
        help="Columns of the modalities, where they are called otherwise; several with numbers, joined by commas, "
        "make one vector.",
    )
    data.add_argument("--label_column", metavar="COLUMN", default="label", help="Column with classes (label).")
    data.add_argument("--train_split", metavar="SPLIT", default="train", help="What the model was trained on (train).")
    data.add_argument(
        "--held_out_split",
        metavar="SPLIT",
        help="What it was not trained on (validation; where there is none, a part of the training split).",
    )
    data.add_argument(
        "--held_out_fraction", metavar="SHARE", type=fraction, default=0.1, help="Size of that part (0.1)."
    )
    measure = parser.add_argument_group("measurement")
    measure.add_argument("--max_samples", metavar="N", type=positive, help="Bound on the samples of each part.")
    measure.add_argument(
        "--sampling",
        choices=("matched", "all"),
        default="matched",
        help="Training samples looked at: as many as held-out ones, so that chance lifts both purities alike "
        "(matched), or all.",
    )
    measure.add_argument("--n_init", metavar="N", type=positive, default=1, help="K-means starts (1).")
    measure.add_argument("--batch_size", metavar="N", type=positive, default=32, help="Samples per forward pass (32).")
    measure.add_argument("--seed", metavar="N", type=int, default=0, help="Of the samples drawn and K-means (0).")
    parser.add_argument("--json", action="store_true", help="Print one JSON object: modalities, num_classes, notes.")


def run(args: argparse.Namespace) -> None:
    """Diagnose and print."""
    with quiet(args.debug):
        from hf_relearn.training import MultimodalCollator
        from hf_relearn.training.saved_model import diagnose_saved_model

        model, processor = load_model(args.model, args.revision)
        columns = _columns(args, model)
        splits, notes = _load_splits(args, model, columns)
        found = diagnose_saved_model(
            model,
            MultimodalCollator(processor, columns, args.label_column),
            splits["train"],
            splits["validation"],
            sampling=args.sampling,
            max_samples=args.max_samples,
            n_init=args.n_init,
            batch_size=args.batch_size,
            seed=args.seed,
            use_cpu=args.cpu,
            progress=sys.stderr.isatty() and not args.json,
        )
    notes += found.notes
    if args.json:
        modalities = {
            name: {**asdict(diagnosis), "probe_accuracy": found.probe_accuracies[name]}
            for name, diagnosis in found.modalities.items()
        }
        print_json({"modalities": modalities, "num_classes": found.num_classes, "notes": notes})
    else:
        print(_table(found))
        for note in notes:
            print(f"note: {note}")


def _columns(args: argparse.Namespace, model: "MultimodalForClassification") -> dict[str, str | list[str]]:
    modalities = model.config.modalities
    given = by_name(args.columns, modalities, "--columns")
    columns: dict[str, str | list[str]] = {name: given.get(name, name) for name in modalities}
    for name, column in given.items():
        if modalities[name].kind == "features" and "," in column:
            columns[name] = column.split(",")
    return columns


def _load_splits(
    args: argparse.Namespace, model: "MultimodalForClassification", columns: dict[str, Any]
) -> tuple["DatasetDict", list[str]]:
    """The parts `train` and `validation` (the held-out one), and what is to be noted of them."""
    from hf_relearn.data.tables import TableError, load_table, read_table

    names = {"train": args.train_split, "validation": args.held_out_split or "validation"}
    there = read_table(args.dataset_name, args.dataset_config_name, names)[0]
    drawn = names["validation"] not in there
    if drawn and args.held_out_split is not None:
        has = ", ".join(there)
        raise TableError(f"{args.dataset_name} has no split {args.held_out_split!r} to hold out; it has {has}")
    splits = load_table(
        args.dataset_name,
        args.dataset_config_name,
        columns=columns,
        kinds={name: modality.kind for name, modality in model.config.modalities.items()},
        label_column=args.label_column,
        splits=names,
        validation_fraction=args.held_out_fraction,
        seed=args.seed,
    )
    if not drawn:
        return splits, []
    part = f"{args.held_out_fraction:g} of the split {args.train_split!r} was drawn as held-out part"
    return splits, [f"{part}: if the model was trained on it, the gaps say nothing"]


def _table(found: "SavedModelDiagnosis") -> str:
    header = ["modality", "purity train", "held out", "chance train", "held out", "gap", "alpha", "probe", "samples"]
    rows = [
        [
            name,
            *(
                f"{value:.3f}"
                for value in (
                    item.train_purity,
                    item.val_purity,
                    item.train_chance_purity,
                    item.val_chance_purity,
                    item.gap,
                    item.alpha,
                    found.probe_accuracies[name],
                )
            ),
            f"{item.train_size} / {item.val_size}",
        ]
        for name, item in found.modalities.items()
    ]
    return f"{text_table(header, rows)}\n{found.num_classes} classes"
