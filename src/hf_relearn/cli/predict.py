"""`hf-relearn predict`: labels and scores of samples."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_relearn.cli.loading import add_model_arguments, load_model
from hf_relearn.cli.output import print_json, quiet, text_table
from hf_relearn.cli.usage import UsageError, named_value, positive

if TYPE_CHECKING:
    from hf_relearn.models import MultimodalClassificationPipeline

HELP = "Classify samples: files, addresses or texts."
DESCRIPTION = """Classify a sample, or those of a file.

A sample is given as MODALITY=VALUE: a file or an http(s) address of a sound, picture or video, a text, or numbers in
brackets ([0.1,0.2]) for given features. The modalities are the model's; image, audio, video and text also name its
only one of that kind. One that is left out is missing. For several pictures, name the modality once for each."""
EXAMPLES = """  hf-relearn predict my-model audio=clip.wav image=face.jpg
  hf-relearn predict me/my-model image=https://example.org/cat.jpg text="a cat" --contributions
  hf-relearn predict my-model --file samples.csv --batch_size 16 --json > scores.jsonl"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_model_arguments(parser)
    parser.add_argument(
        "sample", metavar="MODALITY=VALUE", nargs="*", type=named_value, help="What a sample holds of a modality."
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="Samples: CSV with one column per modality, or JSON with one object per line (.jsonl; '-' reads such "
        "lines from stdin). Files named there are sought from the folder of FILE; an empty cell or null is a modality "
        "that the sample lacks.",
    )
    parser.add_argument("--top_k", metavar="N", type=positive, default=5, help="Labels per sample (5).")
    parser.add_argument(
        "--contributions",
        action="store_true",
        help="Tell each modality's share: how much a score falls when the modality is left out.",
    )
    parser.add_argument(
        "--allow_private_addresses",
        action="store_true",
        help="Also fetch http(s) addresses of this machine and of private networks.",
    )
    parser.add_argument("--batch_size", metavar="N", type=positive, default=8, help="Samples per forward pass (8).")
    parser.add_argument(
        "--json", action="store_true", help="Print one JSON object per sample and line: sample, predictions."
    )


def run(args: argparse.Namespace) -> None:
    """Classify and print."""
    if bool(args.sample) == bool(args.file):
        raise UsageError("give either a sample (MODALITY=VALUE ...) or --file")
    if args.file not in (None, "-") and not Path(args.file).is_file():
        raise FileNotFoundError(f"{args.file}: no such file")
    with quiet(args.debug):
        from hf_relearn.cli.samples import given_sample, read_samples
        from hf_relearn.models.pipeline_multimodal import TASK, MultimodalClassificationPipeline

        model, processor = load_model(args.model, args.revision)
        classify = MultimodalClassificationPipeline(
            model=model, processor=processor, task=TASK, device=-1 if args.cpu else None
        )
        samples = [given_sample(classify, args.sample)] if args.sample else read_samples(classify, args.file)
        for number, predictions in enumerate(_predictions(classify, samples, args)):
            if args.json:
                print_json({"sample": number, "predictions": predictions})
            else:
                if args.file:
                    print(f"{'' if number == 0 else chr(10)}sample {number}")
                print(_table(predictions))


def _predictions(classify: "MultimodalClassificationPipeline", samples: Any, args: argparse.Namespace) -> Any:
    """The pipeline's answers, one sample after the other."""
    return classify(
        (sample for sample in samples),
        batch_size=args.batch_size,
        top_k=args.top_k,
        return_contributions=args.contributions,
        allow_private_addresses=args.allow_private_addresses,
    )


def _table(predictions: list[dict[str, Any]]) -> str:
    names = list(predictions[0].get("contributions", {}))
    rows = [
        [
            str(entry["label"]),
            f"{entry['score']:.4f}",
            *(f"{share:+.4f}" for share in entry.get("contributions", {}).values()),
        ]
        for entry in predictions
    ]
    return text_table(["label", "score", *names], rows)
