"""Test accuracy of pictures alone, texts alone, both, and both with re-learning, for several seeds.

    python benchmarks/image_text.py --dataset_name PATH_OR_HUB_ID --vision_model FOLDER --text_model HUB_ID \\
        [--vision_learning_rate 1e-3] [--text_learning_rate 5e-5] [flags of recipes/train_multimodal.py]

Every arm is a run of `recipes/train_multimodal.py` with the same flags, in which each encoder keeps its learning rate;
the fusion's is --learning_rate. Runs that are there already are not repeated. Selection never sees the test set: each
run's last model counts. Prints each arm's mean and standard deviation over the seeds, and the paired differences to
both without re-learning in points.
"""

from presets import compare, make_parser

JOINT = ["--relearn_strategy", "no", "--unimodal_loss_weight", "0"]
ARMS = {
    "both, jointly": (("vision", "text"), JOINT),
    "picture alone": (("vision",), JOINT),
    "text alone": (("text",), JOINT),
    "both, uni-modal heads alone": (("vision", "text"), ["--relearn_strategy", "no"]),
    "both, `paper`": (("vision", "text"), ["--preset", "paper"]),
    "both, `balanced`": (("vision", "text"), []),
}


def main() -> None:
    parser = make_parser(__doc__, "outputs/image_text_arms")
    for modality, rate in (("vision", 1e-3), ("text", 5e-5)):
        parser.add_argument(f"--{modality}_model", required=True, help=f"backbone of the {modality} modality")
        parser.add_argument(f"--{modality}_learning_rate", default=rate, help=f"its learning rate (default: {rate})")
        column = {"vision": "image"}.get(modality, modality)
        parser.add_argument(f"--{modality}_column", default=column, help=f"its column (default: {column})")
    arguments, flags = parser.parse_known_args()
    arms = {}
    for name, (modalities, changes) in ARMS.items():
        chosen = {
            flag: [f"{modality}={getattr(arguments, f'{modality}_{suffix}')}" for modality in modalities]
            for flag, suffix in (("models", "model"), ("columns", "column"), ("learning_rates", "learning_rate"))
        }
        pairs = [word for flag, values in chosen.items() for word in (f"--{flag}", *values)]
        arms[name] = ["--modalities", *modalities, *pairs, *changes]
    compare(arguments, arms, flags)


if __name__ == "__main__":
    main()
