"""The types of input that the processor knows, by name."""

from .processing_features import FeaturesInput
from .processing_images import ImageInput, VideoInput
from .processing_sounds import SpectrogramInput, WaveformInput
from .processing_text import TextInput

ModalityInput = ImageInput | VideoInput | WaveformInput | SpectrogramInput | TextInput | FeaturesInput
INPUT_TYPES: dict[str, type] = {
    cls.type: cls for cls in (ImageInput, VideoInput, WaveformInput, SpectrogramInput, TextInput, FeaturesInput)
}
