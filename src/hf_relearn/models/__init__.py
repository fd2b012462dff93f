"""Floor 2: the fusion model, its configuration and its processor."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_backbones import TableConfig
from .configuration_multimodal import FeaturesConfig, ModalityConfig, MultimodalConfig
from .modeling_features import FeaturesModel
from .modeling_modules import ModuleBackbone
from .modeling_multimodal import MultimodalForClassification, MultimodalModel
from .pipeline_multimodal import TASK, MultimodalClassificationPipeline
from .processing_augmentation import Augmentation
from .processing_multimodal import MultimodalProcessor
from .processing_table import TableInput

AutoConfig.register(MultimodalConfig.model_type, MultimodalConfig)
AutoModel.register(MultimodalConfig, MultimodalModel)
AutoModelForSequenceClassification.register(MultimodalConfig, MultimodalForClassification)
AutoProcessor.register(MultimodalConfig, MultimodalProcessor)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=MultimodalClassificationPipeline, pt_model=MultimodalForClassification, type="multimodal"
)

__all__ = [
    "Augmentation",
    "FeaturesConfig",
    "FeaturesModel",
    "ModalityConfig",
    "ModuleBackbone",
    "MultimodalClassificationPipeline",
    "MultimodalConfig",
    "MultimodalForClassification",
    "MultimodalModel",
    "MultimodalProcessor",
    "TableConfig",
    "TableInput",
]
