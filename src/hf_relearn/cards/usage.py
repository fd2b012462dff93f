"""How to use a model: the code that its card shows."""

from collections.abc import Sequence
from typing import Any

from hf_relearn.cards.facts import EncoderFacts

_FILES = {"audio": "clip.wav", "vision": "image.jpg", "video": "clip.mp4", "text": "What a surprise!"}


def usage_code(repository: str, encoders: Sequence[EncoderFacts]) -> str:
    """Python that classifies one sample, in five lines.

    The files that it names (`clip.wav`, `image.jpg`, `clip.mp4`) are the reader's.
    """
    values = ", ".join(f'"{encoder.modality}": {_example(encoder)}' for encoder in encoders)
    return "\n".join(
        [
            "from hf_relearn import MultimodalForClassification, MultimodalProcessor",
            "",
            f'model = MultimodalForClassification.from_pretrained("{repository}")',
            f'processor = MultimodalProcessor.from_pretrained("{repository}")',
            f"logits = model(**processor({{{values}}})).logits",
            "print(model.config.id2label[logits.argmax(-1).item()])",
        ]
    )


def _example(encoder: EncoderFacts) -> str:
    """A batch of one raw value."""
    if encoder.kind == "features":
        return f"[[0.0] * {encoder.input_size}]"
    value: Any = _FILES[encoder.kind]
    if encoder.kind == "vision" and encoder.num_frames > 1:
        value = [f"image{number}.jpg" for number in range(1, encoder.num_frames + 1)]
    return str([value]).replace("'", '"')
