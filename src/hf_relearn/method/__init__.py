"""Diagnose and re-learn as pure functions, for any model and any training loop.

The method of "Diagnosing and Re-learning for Balanced Multimodal Learning" (Wei, Li, Feng, Hu, ECCV 2024,
arXiv 2407.09705): `diagnose` measures each modality's learning state, `soft_reinit_` moves its encoder part of the
way back to the weights that an `InitialWeights` file keeps.
"""

from hf_relearn.method.alpha import learning_state_alpha
from hf_relearn.method.diagnosis import DiagnosisWarning, ModalityDiagnosis, diagnose
from hf_relearn.method.initial_weights import InitialWeights
from hf_relearn.method.probe import linear_probe_accuracy
from hf_relearn.method.purity import chance_purity, purity_score
from hf_relearn.method.regression import numbers_separability, quantile_strata
from hf_relearn.method.relearn import interpolate_buffers_, soft_reinit_, soft_reinit_with_distance_
from hf_relearn.method.samples import (
    NonFiniteFeaturesError,
    diagnosed_rows,
    stratified_indices,
    stratified_split,
)
from hf_relearn.method.separability import Separability, separability
from hf_relearn.method.weights_file import InitialWeightsError

__all__ = [
    "DiagnosisWarning",
    "InitialWeights",
    "InitialWeightsError",
    "ModalityDiagnosis",
    "NonFiniteFeaturesError",
    "Separability",
    "chance_purity",
    "diagnose",
    "diagnosed_rows",
    "interpolate_buffers_",
    "learning_state_alpha",
    "linear_probe_accuracy",
    "numbers_separability",
    "purity_score",
    "quantile_strata",
    "separability",
    "soft_reinit_",
    "soft_reinit_with_distance_",
    "stratified_indices",
    "stratified_split",
]
