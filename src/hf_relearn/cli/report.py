"""`hf-relearn report`: a run's report and figures, made anew from its folder."""

import argparse

from hf_relearn.cli.output import print_json, quiet

HELP = "Rebuild the report and figures of a run."
DESCRIPTION = """Rebuild report.md and its figures from what a run left in its output directory.

Also for a run that was killed, or trained by a script of your own: the record of its diagnoses
(relearn_history.jsonl), the Trainer's log (trainer_state.json, there or in the last checkpoint) and its results are
read. Figures of features cannot be drawn without the model and its data; those that are there stay."""
EXAMPLES = """  hf-relearn report outputs/cremad
  hf-relearn report outputs/cremad --title "CREMA-D, seed 1" --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="Output directory of the run.")
    parser.add_argument("--title", metavar="TEXT", help="Heading; by default that of the report that is there.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object: report, figures.")


def run(args: argparse.Namespace) -> None:
    """Rebuild and tell where the report is."""
    with quiet(args.debug):
        from hf_relearn.training.rebuild import rebuild_report

        path = rebuild_report(args.folder, title=args.title)
    if args.json:
        figures = sorted(str(figure) for figure in (path.parent / "figures").glob("*.png"))
        print_json({"report": str(path), "figures": figures})
    else:
        print(f"The report is in {path}")
