"""What a recipe prints while it runs."""

import logging

from transformers import TrainingArguments


def show_progress(args: TrainingArguments) -> None:
    """Print the library's own lines on the main process; warnings only on the others."""
    level = logging.INFO if args.process_index == 0 else logging.WARNING
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_relearn").setLevel(level)
    logging.getLogger("__main__").setLevel(level)
