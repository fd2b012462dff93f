"""The code that goes with a pushed model, so that it loads without this package, by `trust_remote_code=True`."""

from pathlib import Path

import hf_relearn.models

# What the Auto classes build from the pushed code. The classifier stands beside the base model, as in transformers.
MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_multimodal.MultimodalConfig",
    "AutoModel": "modeling_multimodal.MultimodalModel",
    "AutoModelForSequenceClassification": "modeling_multimodal.MultimodalForClassification",
    "AutoProcessor": "processing_multimodal.MultimodalProcessor",
}
# How `pipeline` finds its class in the pushed code.
CUSTOM_PIPELINES = {
    "multimodal-classification": {
        "impl": "pipeline_multimodal.MultimodalClassificationPipeline",
        "pt": ["AutoModelForSequenceClassification"],
    }
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": MODEL_AUTO_MAP["AutoProcessor"]}


def code_files() -> list[Path]:
    """The modules that are put side by side into a repository: configuration, model, processor and pipeline."""
    folder = Path(hf_relearn.models.__file__).parent
    kinds = ("configuration", "modeling", "processing", "pipeline")
    return sorted(path for kind in kinds for path in folder.glob(f"{kind}_*.py"))
