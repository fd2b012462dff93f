"""Measure in an evaluation how well each modality predicts a number, and what the model predicts without it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from hf_relearn.method.regression import r_squared
from hf_relearn.models.modeling_missing import ablations
from hf_relearn.training.imbalance import shapley_values


class NumberMeasures:
    """Gather a regression's predictions with all modalities and with some of them, and judge them by R².

    Samples without a target (NaN) are left out. The measures are:

    - `unimodal_<modality>_r2`: of the predictions of its uni-modal head;
    - `only_<modality>_r2`, `without_<modality>_r2`: of the fused prediction with this modality alone and without it.
      Samples that lack the modality, or all others, do not count;
    - `shapley_r2_<modality>`: the modality's Shapley value of R², as `ImbalanceMeasures` has it of accuracy. No
      modality counts as predicting the mean target, whose R² is 0.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._batches: dict[str, list[np.ndarray]] = {}

    def add(self, outputs: Mapping[str, Any], labels: Tensor, accelerator: Accelerator) -> None:
        """Look at one batch; every process has to call this."""
        self._names = list(outputs["features"])
        everywhere = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        columns = {"target": labels, "fused": outputs["logits"]}
        for name in self._names:
            columns[f"has {name}"] = (outputs.get("present") or {}).get(name, everywhere)
        columns |= {f"unimodal_{name}": values for name, values in (outputs.get("unimodal_logits") or {}).items()}
        columns |= outputs.get("ablation_logits") or {}
        rows = torch.stack([values.detach().float().reshape(len(labels)) for values in columns.values()], dim=1)
        gathered = accelerator.gather_for_metrics(rows).cpu().double().numpy()
        for name, column in zip(columns, gathered.T, strict=True):
            self._batches.setdefault(name, []).append(column)

    def finish(self) -> dict[str, float]:
        """Compute the measures by name; empty if there was no target."""
        columns = {name: np.concatenate(batches) for name, batches in self._batches.items()}
        if not columns or np.isnan(columns["target"]).all():
            return {}
        kept = ~np.isnan(columns["target"])
        columns = {name: column[kept] for name, column in columns.items()}
        having = {name: columns[f"has {name}"] > 0 for name in self._names}
        subsets = {name: kept for name, kept in ablations(self._names).items() if name in columns}
        counted = {f"unimodal_{name}": own for name, own in having.items()}
        counted |= {name: np.any([having[each] for each in kept], axis=0) for name, kept in subsets.items()}
        metrics = {
            f"{name}_r2": r_squared(columns[name][rows], columns["target"][rows])
            for name, rows in counted.items()
            if name in columns and "+" not in name and rows.any()
        }
        if subsets:
            values = shapley_values(self._names, self._worth(columns, subsets, counted))
            metrics |= {name.replace("shapley_", "shapley_r2_", 1): value for name, value in values.items()}
        return metrics

    def _worth(
        self,
        columns: Mapping[str, np.ndarray],
        subsets: Mapping[str, frozenset[str]],
        counted: Mapping[str, np.ndarray],
    ) -> dict[frozenset[str], float]:
        """Compute R² by the set of modalities that are given."""
        target = columns["target"]
        worth = {
            kept: r_squared(np.where(counted[name], columns[name], target.mean()), target)
            for name, kept in subsets.items()
        }
        return {**worth, frozenset(self._names): r_squared(columns["fused"], target), frozenset(): 0.0}
