"""`hf-relearn compare`: the verdict of comparisons, made anew from their folders."""

import argparse

from hf_relearn.cli.output import print_json, quiet
from hf_relearn.cli.usage import UsageError

HELP = "Draw a comparison anew, or join several."
DESCRIPTION = """Write comparison.md, comparison.png and comparison.json from the runs of comparisons.

A FOLDER is the output directory of a recipe that was started with --compare, also while it is at work. Several folders
of the same data are joined: seeds and arms of all of them stand in one table."""
EXAMPLES = """  hf-relearn compare outputs/multimodal
  hf-relearn compare outputs/multimodal --metric f1_macro --output f1
  hf-relearn compare monday tuesday --output both --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("folders", metavar="FOLDER", nargs="+", help="Output directory of a comparison.")
    parser.add_argument("--output", metavar="FOLDER", help="Where to write; by default the folder, if there is one.")
    parser.add_argument(
        "--metric", default="accuracy", metavar="NAME", help="What is compared on the test set (default: accuracy)."
    )
    parser.add_argument("--json", action="store_true", help="Print comparison.json.")


def run(args: argparse.Namespace) -> None:
    """Write the verdict and tell what it says."""
    if len(args.folders) > 1 and args.output is None:
        raise UsageError("several folders are joined in a folder of their own: give --output")
    with quiet(args.debug):
        import json

        from hf_relearn.report import write_comparison

        path = write_comparison(args.output or args.folders[0], args.folders, metric=args.metric)
    verdict = json.loads((path.parent / "comparison.json").read_text(encoding="utf-8"))
    if args.json:
        print_json(verdict)
    else:
        print("\n".join([*verdict["epochs"].get("last", {}).get("conclusion", ()), f"The comparison is in {path}"]))
