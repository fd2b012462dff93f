"""hf_relearn: Diagnosing & Re-learning for multimodal models of the Hugging Face Trainer.

While a fusion model trains, the separability of each modality's own features is measured on training samples and on
held-out ones. An encoder that has memorised is moved softly back towards its initial weights (after Wei, Li, Feng, Hu:
"Diagnosing and Re-learning for Balanced Multimodal Learning", ECCV 2024, arXiv 2407.09705).
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from hf_relearn.lazy import lazy_names

if TYPE_CHECKING:
    from hf_relearn.hub.onnx_export import export_onnx
    from hf_relearn.method import InitialWeights, ModalityDiagnosis, diagnose, purity_score, separability, soft_reinit_
    from hf_relearn.models import (
        Augmentation,
        FeaturesConfig,
        FeaturesModel,
        ModuleBackbone,
        MultimodalConfig,
        MultimodalForClassification,
        MultimodalModel,
        MultimodalProcessor,
        TableConfig,
        TableInput,
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
    "InitialWeights": "hf_relearn.method",
    "ModalityDiagnosis": "hf_relearn.method",
    "diagnose": "hf_relearn.method",
    "purity_score": "hf_relearn.method",
    "separability": "hf_relearn.method",
    "soft_reinit_": "hf_relearn.method",
    "export_onnx": "hf_relearn.hub.onnx_export",
    "Augmentation": "hf_relearn.models",
    "FeaturesConfig": "hf_relearn.models",
    "FeaturesModel": "hf_relearn.models",
    "ModuleBackbone": "hf_relearn.models",
    "MultimodalConfig": "hf_relearn.models",
    "MultimodalForClassification": "hf_relearn.models",
    "MultimodalModel": "hf_relearn.models",
    "MultimodalProcessor": "hf_relearn.models",
    "TableConfig": "hf_relearn.models",
    "TableInput": "hf_relearn.models",
    "MultimodalCollator": "hf_relearn.training",
    "MultimodalRelearnTrainer": "hf_relearn.training",
    "RelearnCallback": "hf_relearn.training",
    "RelearnTrainingArguments": "hf_relearn.training",
}

__all__ = [
    "Augmentation",
    "FeaturesConfig",
    "FeaturesModel",
    "InitialWeights",
    "ModalityDiagnosis",
    "ModuleBackbone",
    "MultimodalCollator",
    "MultimodalConfig",
    "MultimodalForClassification",
    "MultimodalModel",
    "MultimodalProcessor",
    "MultimodalRelearnTrainer",
    "RelearnCallback",
    "RelearnTrainingArguments",
    "TableConfig",
    "TableInput",
    "diagnose",
    "export_onnx",
    "purity_score",
    "separability",
    "soft_reinit_",
]


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)


# `hf_relearn.models` registers with the Auto classes and pipelines, and takes seconds to import. Who has transformers
# loaded already gets it at once; anyone else by importing a model's name from here, or `hf_relearn.models`.
if "transformers" in sys.modules:
    import_module("hf_relearn.models")
