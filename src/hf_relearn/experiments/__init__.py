"""Floor 5: the parts that recipes share, from flags to report. They are imported when used: help stays quick."""

from typing import TYPE_CHECKING

from hf_relearn.lazy import lazy_names

if TYPE_CHECKING:
    from hf_relearn.experiments.arguments import PRESETS, RunArguments, TableArguments, preset_defaults
    from hf_relearn.experiments.comparison import run_or_compare
    from hf_relearn.experiments.experiment import Experiment
    from hf_relearn.experiments.launch import run_recipe
    from hf_relearn.experiments.modalities import Modality
    from hf_relearn.experiments.model_arguments import (
        InputArguments,
        ModelArguments,
        find_backbone,
        fine_tuning_defaults,
        pretrained_backbones,
        refuse_small_networks,
    )
    from hf_relearn.experiments.parsing import parse_recipe_arguments
    from hf_relearn.experiments.running import RunResult, run_experiment, show_progress

__getattr__ = lazy_names(
    __name__,
    {
        "PRESETS": "hf_relearn.experiments.arguments",
        "preset_defaults": "hf_relearn.experiments.arguments",
        "RunArguments": "hf_relearn.experiments.arguments",
        "run_or_compare": "hf_relearn.experiments.comparison",
        "Modality": "hf_relearn.experiments.modalities",
        "InputArguments": "hf_relearn.experiments.model_arguments",
        "ModelArguments": "hf_relearn.experiments.model_arguments",
        "find_backbone": "hf_relearn.experiments.model_arguments",
        "fine_tuning_defaults": "hf_relearn.experiments.model_arguments",
        "pretrained_backbones": "hf_relearn.experiments.model_arguments",
        "refuse_small_networks": "hf_relearn.experiments.model_arguments",
        "parse_recipe_arguments": "hf_relearn.experiments.parsing",
        "run_recipe": "hf_relearn.experiments.launch",
        "Experiment": "hf_relearn.experiments.experiment",
        "RunResult": "hf_relearn.experiments.running",
        "run_experiment": "hf_relearn.experiments.running",
        "show_progress": "hf_relearn.experiments.running",
        "TableArguments": "hf_relearn.experiments.arguments",
    },
)

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
    "fine_tuning_defaults",
    "parse_recipe_arguments",
    "preset_defaults",
    "pretrained_backbones",
    "refuse_small_networks",
    "run_experiment",
    "run_or_compare",
    "run_recipe",
    "show_progress",
]
