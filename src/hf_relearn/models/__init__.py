"""Floor 2: the fusion model, its configuration and its processor."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor

from .configuration_features import FeaturesConfig
from .configuration_multimodal import ModalityConfig, MultimodalConfig
from .modeling_features import FeaturesModel
from .modeling_multimodal import MultimodalForClassification, MultimodalModel
from .processing_augmentation import Augmentation
from .processing_multimodal import MultimodalProcessor

AutoConfig.register(FeaturesConfig.model_type, FeaturesConfig)
AutoModel.register(FeaturesConfig, FeaturesModel)
AutoConfig.register(MultimodalConfig.model_type, MultimodalConfig)
AutoModel.register(MultimodalConfig, MultimodalModel)
AutoModelForSequenceClassification.register(MultimodalConfig, MultimodalForClassification)
AutoProcessor.register(MultimodalConfig, MultimodalProcessor)

__all__ = [
    "Augmentation",
    "FeaturesConfig",
    "FeaturesModel",
    "ModalityConfig",
    "MultimodalConfig",
    "MultimodalForClassification",
    "MultimodalModel",
    "MultimodalProcessor",
]
