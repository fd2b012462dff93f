"""Floor 5: what the recipes share, from flags to report."""

from hf_relearn.experiments.arguments import PRESETS, ModelArguments, RunArguments
from hf_relearn.experiments.arms import compare_arms, run_or_compare
from hf_relearn.experiments.parsing import parse_recipe_arguments
from hf_relearn.experiments.progress import show_progress
from hf_relearn.experiments.running import Experiment, RunResult, run_experiment

__all__ = [
    "PRESETS",
    "Experiment",
    "ModelArguments",
    "RunArguments",
    "RunResult",
    "compare_arms",
    "parse_recipe_arguments",
    "run_experiment",
    "run_or_compare",
    "show_progress",
]
