"""Move pretrained encoders back towards their initial weights once, after training, as far as helps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from hf_relearn.quality import LOWER_IS_BETTER, main_metric
from hf_relearn.training.targets import is_regression

if TYPE_CHECKING:
    from hf_relearn.training.trainer import MultimodalRelearnTrainer

logger = logging.getLogger(__name__)

FINAL_ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)


def choose_final_strength(trainer: MultimodalRelearnTrainer) -> float:
    """Interpolate pretrained encoders and their initial weights by the strength that the evaluation set likes best.

    Each strength of `FINAL_ALPHAS` is evaluated once; 0 keeps the trained weights, so the chosen one is never worse on
    the evaluation set (after Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

    Returns:
        The strength chosen, with which the model is left. Of equally good ones the smallest counts.
    """
    callback, model = trainer.relearn_callback, trainer.model
    config = getattr(model, "config", None)
    modalities = getattr(config, "modalities", {})
    encoders = trainer.accelerator.unwrap_model(model).encoders
    chosen = [name for name in encoders if getattr(modalities.get(name), "pretrained", None) is not False]
    wanted = [
        name for name in chosen if not trainer.args.relearn_modalities or name in trainer.args.relearn_modalities
    ]
    if not wanted:
        logger.warning("--relearn_final moves pretrained encoders, and the model has none: nothing was done")
        return 0.0
    parameters = [value for name in wanted for value in encoders[name].parameters() if value.requires_grad]
    trained = [value.detach().clone() for value in parameters]
    named = trainer.args.metric_for_best_model or main_metric(is_regression(model))
    metric = f"eval_{named.removeprefix('eval_')}"
    sign = -1.0 if metric.endswith(LOWER_IS_BETTER) and not trainer.args.greater_is_better else 1.0
    scores: dict[float, float] = {}
    for alpha in FINAL_ALPHAS:
        _move(trainer, parameters, trained, dict.fromkeys(wanted, alpha))
        metrics = trainer.evaluate()
        if metric not in metrics:
            raise ValueError(
                f"--relearn_final looks for {metric} in the evaluation, which has {', '.join(sorted(metrics))}: name "
                "one of these by --metric_for_best_model"
            )
        scores[alpha] = sign * metrics[metric]
    best = max(FINAL_ALPHAS, key=lambda alpha: (scores[alpha], -alpha))
    _move(trainer, parameters, trained, dict.fromkeys(wanted, best))
    trainer.log({"relearn/final_alpha": best, "relearn/final_gain": sign * (scores[best] - scores[0.0])})
    logger.info("encoders were moved by α %g in the end: %s %+.4f", best, metric, sign * (scores[best] - scores[0.0]))
    callback.evaluated = None
    return best


def _move(
    trainer: MultimodalRelearnTrainer,
    parameters: list[torch.nn.Parameter],
    trained: list[torch.Tensor],
    alphas: dict[str, float],
) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, trained, strict=True):
            parameter.copy_(value)
    trainer.relearn_callback.move_back(trainer.accelerator.unwrap_model(trainer.model), alphas)
