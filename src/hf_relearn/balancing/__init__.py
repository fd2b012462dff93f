"""Floor 3: methods beside re-learning that balance modalities, one file each."""

from hf_relearn.balancing.base import BalancingMethod, ScoredMethod
from hf_relearn.balancing.detached import DetachedFusion
from hf_relearn.balancing.mlb import MultiLossBalancing
from hf_relearn.balancing.mmpareto import MMPareto
from hf_relearn.balancing.modality_dropout import ModalityDropout
from hf_relearn.balancing.ogm_ge import OgmGe

METHODS: dict[str, type[BalancingMethod]] = {
    "detached": DetachedFusion,
    "ogm_ge": OgmGe,
    "mlb": MultiLossBalancing,
    "modality_dropout": ModalityDropout,
    "mmpareto": MMPareto,
}


__all__ = [
    "METHODS",
    "BalancingMethod",
    "DetachedFusion",
    "MMPareto",
    "ModalityDropout",
    "MultiLossBalancing",
    "OgmGe",
    "ScoredMethod",
]
