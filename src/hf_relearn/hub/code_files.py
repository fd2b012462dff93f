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
PROCESSOR_AUTO_MAP = {"AutoProcessor": MODEL_AUTO_MAP["AutoProcessor"]}


def code_files() -> list[Path]:
    """The modules that are put side by side into a repository: configuration, model and processor."""
    folder = Path(hf_relearn.models.__file__).parent
    return sorted(path for kind in ("configuration", "modeling", "processing") for path in folder.glob(f"{kind}_*.py"))
