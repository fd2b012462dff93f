"""`hf-relearn report` and `hf-relearn card`: the pages of a run or a saved model, made anew from its folder."""

import json
from typing import Annotated

import typer

from hf_relearn.cli.shared import UsageError, epilog, print_json, quiet

REPORT_EPILOG = epilog(
    "hf-relearn report outputs/cremad",
    'hf-relearn report outputs/cremad --title "CREMA-D, seed 1" --json',
)
COMPARE_EPILOG = epilog(
    "hf-relearn compare outputs/multimodal",
    "hf-relearn compare outputs/multimodal --metric f1_macro --output f1",
    "hf-relearn compare monday tuesday --output both --json",
)
CARD_EPILOG = epilog(
    "hf-relearn card my-model",
    "hf-relearn card my-model --license apache-2.0 --language en de --repository me/my-model",
)


def report(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Output directory of the run.", show_default=False)],
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Heading; unset, that of the report that is there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: report, figures.")] = False,
) -> None:
    """Rebuild the report and figures of a run.

    Makes report.md and its figures anew from what a run left in its output directory, also if it was killed, or
    trained by a script of your own. The record of its diagnoses (relearn_history.jsonl), the Trainer's log
    (trainer_state.json, there or in the last checkpoint) and its results are read. Figures of features cannot be
    drawn without the model and its data; those that are there stay.
    """
    with quiet(context):
        from hf_relearn.training.rebuild import rebuild_report

        path = rebuild_report(folder, title=title)
    if as_json:
        figures = sorted(str(figure) for figure in (path.parent / "figures").glob("*.png"))
        print_json({"report": str(path), "figures": figures})
    else:
        print(f"The report is in {path}")


def compare(
    context: typer.Context,
    folders: Annotated[
        list[str], typer.Argument(metavar="FOLDER ...", help="Output folders of comparisons.", show_default=False)
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FOLDER", help="Folder to write to; unset, the folder, if there is one."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Metric on the test set; unset, accuracy, or R² of numbers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print comparison.json.")] = False,
) -> None:
    """Draw a comparison anew, or join several.

    Writes comparison.md, comparison.png and comparison.json from the runs of comparisons. A FOLDER is the output
    directory of a recipe that was started with --compare, also while it is at work. Several folders of the same data
    are joined: seeds and arms of all of them stand in one table.
    """
    if len(folders) > 1 and output is None:
        raise UsageError("several folders are joined in a folder of their own: give --output")
    with quiet(context):
        from hf_relearn.report import comparison_lines, write_comparison

        path = write_comparison(output or folders[0], folders, metric=metric)
    verdict = json.loads((path.parent / "comparison.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(verdict)
    else:
        print(f"{comparison_lines(verdict)}\n\nreport  {path}")


def card(
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="Folder of the saved model, as training left it.", show_default=False),
    ],
    repository: Annotated[
        str | None,
        typer.Option("--repository", metavar="NAME", help="Name on the Hub that the card's code loads from."),
    ] = None,
    model_name: Annotated[str | None, typer.Option("--model_name", metavar="TEXT", help="Heading.")] = None,
    license: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Licence, by the Hub's identifier (apache-2.0).")
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE ...", help="Languages in the data, by ISO 639 code (en)."),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tags", metavar="TAG ...", help="Further tags for the Hub's search.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: card, figures.")] = False,
) -> None:
    """Rebuild the model card of a saved model.

    Makes README.md, the model card, and its figures anew in a saved model's folder. The record of its run is read if
    it is there. The author's own words (heading, licence, languages, tags, data sets) are kept from the card that is
    there, unless flags say otherwise; other changes by hand are lost.
    """
    with quiet(context):
        from hf_relearn.cards import CardInfo, card_figures
        from hf_relearn.training.rebuild import rebuild_card

        try:
            CardInfo(license=license, language=language or [])
        except ValueError as error:
            raise UsageError(str(error)) from error
        path = rebuild_card(
            folder,
            repository=repository,
            model_name=model_name,
            license=license,
            language=language or [],
            tags=tags or [],
        )
    if as_json:
        figures = [str(path.parent / figure) for figure in card_figures(path.read_text(encoding="utf-8"))]
        print_json({"card": str(path), "figures": figures})
    else:
        print(f"The card is in {path}")
