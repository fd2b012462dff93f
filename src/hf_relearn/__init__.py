"""hf_relearn: Diagnosing & Re-learning for multimodal models of the Hugging Face Trainer.

While a fusion model trains, it is measured how well each modality has learnt (K-means purity of its own features),
and each encoder is moved softly back towards its initial weights by that measure (Wei, Li, Feng, Hu: "Diagnosing and
Re-learning for Balanced Multimodal Learning", ECCV 2024, arXiv 2407.09705).
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_relearn.hub.onnx_export import export_onnx
    from hf_relearn.method import InitialWeights, ModalityDiagnosis, diagnose, purity_score, soft_reinit_
    from hf_relearn.models import (
        Augmentation,
        FeaturesConfig,
        FeaturesModel,
        MultimodalConfig,
        MultimodalForClassification,
        MultimodalModel,
        MultimodalProcessor,
    )
    from hf_relearn.training import (
        MultimodalCollator,
        MultimodalRelearnTrainer,
        RelearnCallback,
        RelearnTrainingArguments,
    )

__version__ = "0.1.0"

# The method alone needs neither transformers nor datasets, whose imports take seconds: names are looked up when used.
_HOME = {
    "InitialWeights": "method",
    "ModalityDiagnosis": "method",
    "diagnose": "method",
    "purity_score": "method",
    "soft_reinit_": "method",
    "export_onnx": "hub.onnx_export",
    "Augmentation": "models",
    "FeaturesConfig": "models",
    "FeaturesModel": "models",
    "MultimodalConfig": "models",
    "MultimodalForClassification": "models",
    "MultimodalModel": "models",
    "MultimodalProcessor": "models",
    "MultimodalCollator": "training",
    "MultimodalRelearnTrainer": "training",
    "RelearnCallback": "training",
    "RelearnTrainingArguments": "training",
}

__all__ = [
    "Augmentation",
    "FeaturesConfig",
    "FeaturesModel",
    "InitialWeights",
    "ModalityDiagnosis",
    "MultimodalCollator",
    "MultimodalConfig",
    "MultimodalForClassification",
    "MultimodalModel",
    "MultimodalProcessor",
    "MultimodalRelearnTrainer",
    "RelearnCallback",
    "RelearnTrainingArguments",
    "diagnose",
    "export_onnx",
    "purity_score",
    "soft_reinit_",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hf_relearn' has no attribute {name!r}")
    return getattr(import_module(f"hf_relearn.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# `hf_relearn.models` registers with the Auto classes and pipelines, and takes seconds to import. Who has transformers
# loaded already gets it at once; anyone else by importing a model's name from here, or `hf_relearn.models`.
if "transformers" in sys.modules:
    import_module("hf_relearn.models")
