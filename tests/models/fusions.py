"""A three-modality model, its inputs and a fusion of the user's own, that the tests of fusion share."""

import torch
from tiny import ast_config, vit_config
from torch import Tensor, nn

from hf_relearn import FeaturesConfig, MultimodalForClassification
from hf_relearn.models.configuration_multimodal import FUSION_OPTIONS

NAMES = ["audio", "vision", "gaze"]
BATCH = 5


class Average(nn.Module):
    """A user's own fusion, of the features, with a parameter and a buffer of its own."""

    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(m.feature_size, 6) for name, m in config.modalities.items()})
        self.scale = nn.Parameter(torch.full((6,), 1.5))
        self.register_buffer("shift", torch.full((6,), 0.25), persistent=False)

    def forward(self, encoded, present):
        total = sum(self.layers[name](output.feature) * present[name][:, None] for name, output in encoded.items())
        return total * self.scale + self.shift


FUSIONS = [*FUSION_OPTIONS, Average]


def small(fusion) -> dict:
    """Options that make a fusion tiny."""
    options = {} if not isinstance(fusion, str) else FUSION_OPTIONS[fusion]
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_bottlenecks": 2, "rank": 3}
    return {name: value for name, value in sizes.items() if name in options}


def gaze_config(**changes) -> FeaturesConfig:
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return FeaturesConfig(**{"input_size": 7, **sizes, **changes})


def model_with(fusion, seed: int = 0, **kwargs) -> MultimodalForClassification:
    """Three encoders of different widths, one of which has padding, in evaluation mode, not as initialised."""
    torch.manual_seed(seed)
    backbones = {"audio": ast_config(), "vision": vit_config(hidden_size=20), "gaze": gaze_config()}
    model = MultimodalForClassification.from_backbones(
        backbones, fusion=fusion, fusion_kwargs=small(fusion), id2label={0: "a", 1: "b", 2: "c", 3: "d"}, **kwargs
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(seed: int = 0, batch: int = BATCH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([4, 2, 1, 3, 4])[:batch]
    return {
        "audio_input_values": torch.randn(batch, 16, 16, generator=generator),
        "vision_pixel_values": torch.randn(batch, 3, 16, 16, generator=generator),
        "gaze_feature_values": torch.randn(batch, 4, 7, generator=generator),
        "gaze_attention_mask": (torch.arange(4) < lengths[:, None]).long(),
    }


# Every modality is missing somewhere, and the last row has none.
PRESENT = {
    "audio_present": torch.tensor([True, False, True, True, False]),
    "vision_present": torch.tensor([True, True, False, True, False]),
    "gaze_present": torch.tensor([True, True, True, False, False]),
}


def close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-4, atol=1e-6)
