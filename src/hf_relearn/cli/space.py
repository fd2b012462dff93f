"""`hf-relearn space`: a model's page as a Space of the Hub."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from hf_relearn.cli.output import print_json, quiet

HELP = "Make a Space of a model's page, and push it."
DESCRIPTION = """Write the folder of a Space that serves the page of 'hf-relearn demo', and push it with --name.

A model on the Hub is loaded from there by the Space; one in a local folder goes into the Space with its files. A push
that fails leaves the folder, exits with 1 and tells the command that pushes it later."""
EXAMPLES = """  hf-relearn space me/my-model --name me/my-demo
  hf-relearn space my-model --folder my-demo
  hf-relearn space my-model --name my-demo --private --package hf_relearn[demo]==0.1.0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("model", metavar="MODEL", help="Folder of a saved model, or its name on the Hub.")
    parser.add_argument("--name", metavar="NAME", help="Space to push to (user/space, or a name of your own).")
    parser.add_argument("--folder", metavar="FOLDER", help="Folder to write (the model's name and '-space').")
    parser.add_argument("--title", metavar="TEXT", help="Title of the Space (the model's name).")
    parser.add_argument(
        "--package", metavar="TEXT", help="What pip installs there as this package (hf_relearn[demo] of this version)."
    )
    parser.add_argument("--private", action="store_true", help="Make a new Space private.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object: folder, files, space (or null).")


def run(args: argparse.Namespace) -> None:
    """Write, push, and tell where it is."""
    if find_spec("gradio") is None:
        raise ImportError("a Space is made for the Gradio that is installed: pip install 'hf_relearn[demo]'")
    if args.model.startswith((".", "/", "~")) and not Path(args.model).is_dir():
        raise FileNotFoundError(f"{args.model}: no such folder")
    folder = Path(args.folder or f"{Path(args.model).resolve().name}-space")
    with quiet(args.debug):
        from hf_relearn.demo.space import PACKAGE, write_space
        from hf_relearn.hub.upload import PushError, push_folder

        files = write_space(args.model, folder, title=args.title, package=args.package or PACKAGE)
        space = None
        if args.name:
            try:
                commit = push_folder(
                    folder,
                    args.name,
                    private=args.private or None,
                    commit_message="Page of a model",
                    repo_type="space",
                )
            except PushError as error:
                raise OSError(str(error)) from error
            space = commit.repo_url.url
    if args.json:
        print_json({"folder": str(folder), "files": files, "space": space})
    else:
        print(f"The Space is in {folder}" + (f", and at {space}" if space else ""))
