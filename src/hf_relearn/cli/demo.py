"""`hf-relearn demo`: a page to try a model in the browser."""

import argparse
from importlib.util import find_spec

from hf_relearn.cli.loading import add_model_arguments, check_model
from hf_relearn.cli.output import quiet

HELP = "Try a model on a page in the browser."
DESCRIPTION = """Open a page with an input for each modality, the model's scores, and what each modality contributed.

The page is served until Ctrl+C, and only to this machine unless --host says otherwise: whoever reaches it can use the
model. Needs the extra 'demo' (pip install 'hf_relearn[demo]')."""
EXAMPLES = """  hf-relearn demo my-model
  hf-relearn demo me/my-model --port 8080 --no_browser"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_model_arguments(parser)
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="Address to listen on (127.0.0.1).")
    parser.add_argument("--port", metavar="N", type=int, help="Port (the first that is free from 7860 on).")
    parser.add_argument("--no_browser", action="store_true", help="Do not open a browser.")


def run(args: argparse.Namespace) -> None:
    """Serve the page."""
    if find_spec("gradio") is None:
        raise ImportError("the page needs gradio: pip install 'hf_relearn[demo]'")
    with quiet(args.debug):
        check_model(args.model, args.revision)
        from hf_relearn.demo.serving import serve

        serve(
            args.model,
            revision=args.revision,
            host=args.host,
            port=args.port,
            open_browser=not args.no_browser,
            device=-1 if args.cpu else None,
        )
