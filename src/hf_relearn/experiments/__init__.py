"""Floor 5: what the recipes share, from flags to report."""

from hf_relearn.experiments.arguments import PRESETS, RunArguments
from hf_relearn.experiments.comparison import run_or_compare
from hf_relearn.experiments.modalities import Modality
from hf_relearn.experiments.model_arguments import InputArguments, ModelArguments, find_backbone, read_pairs
from hf_relearn.experiments.parsing import parse_recipe_arguments
from hf_relearn.experiments.running import Experiment, RunResult, run_experiment, show_progress
from hf_relearn.experiments.table_arguments import TableArguments

__all__ = [
    "PRESETS",
    "Experiment",
    "InputArguments",
    "Modality",
    "ModelArguments",
    "RunArguments",
    "RunResult",
    "TableArguments",
    "find_backbone",
    "parse_recipe_arguments",
    "read_pairs",
    "run_experiment",
    "run_or_compare",
    "show_progress",
]
