"""Test accuracy of pictures alone, texts alone, both, and both with re-learning, for several seeds.

    python benchmarks/image_text.py --dataset_name PATH_OR_HUB_ID --models vision=... text=... \
        [flags of recipes/train_multimodal.py]

Every arm is a run of `recipes/train_multimodal.py`, from the same flags; runs that are there already are not repeated.
Selection never sees the test set: each run's last model counts. Prints each arm's mean and standard deviation over the
seeds, and the paired differences to both without re-learning in points.
"""

from presets import main

JOINT = ["--relearn_strategy", "no", "--unimodal_loss_weight", "0"]
ARMS = {
    "both, jointly": ["--modalities", "vision", "text", *JOINT],
    "picture alone": ["--modalities", "vision", *JOINT],
    "text alone": ["--modalities", "text", *JOINT],
    "both, uni-modal heads alone": ["--modalities", "vision", "text", "--relearn_strategy", "no"],
    "both, `paper`": ["--modalities", "vision", "text", "--preset", "paper"],
    "both, `balanced`": ["--modalities", "vision", "text"],
}

if __name__ == "__main__":
    main(ARMS, __doc__, folder="outputs/image_text_arms")
