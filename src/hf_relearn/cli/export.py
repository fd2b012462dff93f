"""`hf-relearn export`: a saved model in another format."""

import argparse
from pathlib import Path

from hf_relearn.cli.loading import add_model_arguments, load_model
from hf_relearn.cli.output import print_json, quiet

HELP = "Export a model to ONNX."
DESCRIPTION = """Export a model to one ONNX file, whose inputs are those that the model's processor makes.

The file is written only if ONNX Runtime gives the model's logits on another batch, to 1e-4; where a backbone cannot be
exported, the modality is named. The size of the batch and the length of texts and waveforms are free. Needs the extra
'onnx' (pip install 'hf_relearn[onnx]')."""
EXAMPLES = """  hf-relearn export my-model
  hf-relearn export me/my-model --format onnx --output exported/my-model.onnx --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_model_arguments(parser)
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="Format (onnx).")
    parser.add_argument(
        "--output", metavar="PATH", help="A file ending in .onnx, or a folder (the model's name, here)."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object: file.")


def run(args: argparse.Namespace) -> None:
    """Export and tell where the file is."""
    with quiet(args.debug):
        from hf_relearn.hub.onnx_export import export_onnx

        model, processor = load_model(args.model, args.revision)
        target = args.output or f"{Path(args.model).resolve().name}.onnx"
        file = export_onnx(model.float(), target, processor)
    if args.json:
        print_json({"file": str(file)})
    else:
        print(f"The model is in {file}")
