"""`hf-relearn card`: a saved model's card, made anew from its folder."""

import argparse

from hf_relearn.cli.output import print_json, quiet
from hf_relearn.cli.usage import UsageError

HELP = "Rebuild the model card of a saved model."
DESCRIPTION = """Rebuild README.md, the model card, and its figures in a saved model's folder.

The record of its run is read where it is there. What only you know (heading, licence, languages, tags, data sets) is
kept from the card that is there, unless flags say otherwise; other changes by hand are lost."""
EXAMPLES = """  hf-relearn card my-model
  hf-relearn card my-model --license apache-2.0 --language en de --repository me/my-model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="Folder of the saved model, as training left it.")
    parser.add_argument("--repository", metavar="NAME", help="Name on the Hub that the card's code loads from.")
    parser.add_argument("--model_name", metavar="TEXT", help="Heading.")
    parser.add_argument("--license", metavar="ID", help="Licence, by the Hub's identifier (apache-2.0).")
    parser.add_argument(
        "--language", metavar="CODE", nargs="+", default=[], help="Languages in the data, by ISO 639 code (en)."
    )
    parser.add_argument("--tags", metavar="TAG", nargs="+", default=[], help="Further tags for the Hub's search.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object: card, figures.")


def run(args: argparse.Namespace) -> None:
    """Rebuild and tell where the card is."""
    with quiet(args.debug):
        from hf_relearn.cards import CardInfo, card_figures
        from hf_relearn.training.rebuild import rebuild_card

        try:
            CardInfo(license=args.license, language=args.language)
        except ValueError as error:
            raise UsageError(str(error)) from error
        path = rebuild_card(
            args.folder,
            repository=args.repository,
            model_name=args.model_name,
            license=args.license,
            language=args.language,
            tags=args.tags,
        )
    if args.json:
        figures = [str(path.parent / figure) for figure in card_figures(path.read_text(encoding="utf-8"))]
        print_json({"card": str(path), "figures": figures})
    else:
        print(f"The card is in {path}")
