"""Tiny random configurations of many families of backbones, and inputs for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
import transformers as hf
from torch import Tensor
from transformers import PreTrainedConfig

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {"image_size": 16, "patch_size": 8}
WORDS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODEL = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
MODEL |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
CONVOLUTIONS = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
WAVES = {**SIZES, **CONVOLUTIONS, "mask_time_length": 2, "vocab_size": 12, "feat_extract_norm": "layer"}
LAYERWISE = {"do_stable_layer_norm": True}
PYRAMID = {"depths": [1, 1], "num_heads": [2, 2], "embed_dim": 8, "window_size": 2, "image_size": 16, "patch_size": 2}
DECODER = {**SIZES, **WORDS, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, **WORDS}


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(batch: int, seed: int, size: int = 16, channels: int = 3) -> dict[str, Tensor]:
    return {"pixel_values": _random(batch, channels, size, size, seed=seed)}


def larger_images(batch: int, seed: int) -> dict[str, Tensor]:
    return images(batch, seed, size=64)


def patches(batch: int, seed: int) -> dict[str, Tensor]:
    """SigLIP 2: the patches of images of 2 by 3, and padding."""
    mask = torch.tensor([[1] * 6 + [0] * 2]).repeat(batch, 1)
    shapes = torch.tensor([[2, 3]]).repeat(batch, 1)
    values = _random(batch, 8, 3 * 8 * 8, seed=seed) * mask.unsqueeze(-1)
    return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def clips(batch: int, seed: int) -> dict[str, Tensor]:
    return {"pixel_values": _random(batch, 2, 3, 16, 16, seed=seed)}


def vjepa_clips(batch: int, seed: int) -> dict[str, Tensor]:
    return {"pixel_values_videos": _random(batch, 2, 3, 16, 16, seed=seed)}


def filter_banks(batch: int, seed: int) -> dict[str, Tensor]:
    return {"input_values": _random(batch, 16, 16, seed=seed)}


def waves(batch: int, seed: int, samples: int = 2400) -> dict[str, Tensor]:
    return {"input_values": _random(batch, samples, seed=seed)}


def spectra(*shape: int) -> Callable[[int, int], dict[str, Tensor]]:
    return lambda batch, seed: {"input_features": _random(batch, *shape, seed=seed)}


def texts(batch: int, seed: int) -> dict[str, Tensor]:
    ids = torch.randint(3, 40, (batch, 8), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@dataclass(frozen=True)
class Backbone:
    """One family.

    Attributes:
        make: gives its configuration.
        inputs: (batch, seed) -> arguments of the backbone.
        kind: that it must be found to be.
        pooling: that `"auto"` must become.
        options: of its modality.
        pads: whether a padded row must have the feature of the row by itself.
    """

    make: Callable[[], PreTrainedConfig]
    inputs: Callable[[int, int], dict[str, Tensor]]
    kind: str
    pooling: str
    options: dict[str, Any] = field(default_factory=dict)
    pads: bool = False


def _config(name: str, **settings: Any) -> Callable[[], PreTrainedConfig]:
    return lambda: getattr(hf, f"{name}Config")(**settings)


def _vision(name: str, pooling: str, inputs=images, **settings: Any) -> Backbone:
    return Backbone(_config(name, **settings), inputs, "vision", pooling)


def _audio(name: str, pooling: str, inputs=waves, pads: bool = False, **settings: Any) -> Backbone:
    return Backbone(_config(name, **settings), inputs, "audio", pooling, pads=pads)


def _text(name: str, pooling: str, pads: bool = True, **settings: Any) -> Backbone:
    return Backbone(_config(name, **settings), texts, "text", pooling, pads=pads)


def _video(name: str, pooling: str, inputs=clips, **settings: Any) -> Backbone:
    return Backbone(_config(name, **settings), inputs, "video", pooling)


def _tower(whole: str, kind: str, pooling: str, inputs, pads: bool = False, **towers: Any) -> Backbone:
    return Backbone(_config(whole, **towers), inputs, kind, pooling, {"kind": kind}, pads)


BERT = {**SIZES, **WORDS, "max_position_embeddings": 32}
_CLIP = {"text_config": BERT, "vision_config": {**SIZES, **IMAGE}, "projection_dim": 8}
_CLAP_SOUND = {"spec_size": 32, "num_mel_bins": 8, "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1]}
_CLAP_SOUND |= {"num_attention_heads": [2, 2], "window_size": 4, "num_hidden_layers": 2, "patch_stride": [4, 4]}
_CLAP_SOUND |= {"enable_fusion": False, "num_classes": 4}
_CLAP = {"text_config": BERT, "audio_config": _CLAP_SOUND, "projection_dim": 8}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, **WORDS, "decoder_start_token_id": 0}
_BART = {**MODEL, **WORDS, "max_position_embeddings": 32, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
_SEW = {**WAVES, "squeeze_factor": 2, "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2]}

BACKBONES: dict[str, Backbone] = {
    # images
    "vit": _vision("ViT", "cls", **SIZES, **IMAGE),
    "deit": _vision("DeiT", "cls", **SIZES, **IMAGE),
    "beit": _vision("Beit", "pooler", **SIZES, **IMAGE, use_relative_position_bias=True),
    "data2vec-vision": _vision("Data2VecVision", "pooler", **SIZES, **IMAGE),
    "dinov2": _vision("Dinov2", "pooler", **SIZES, **IMAGE),
    "dinov2-registers": _vision("Dinov2WithRegisters", "pooler", **SIZES, **IMAGE),
    "dinov3": _vision("DINOv3ViT", "pooler", **SIZES, **IMAGE, num_register_tokens=2),
    "dinov3-convnext": _vision("DINOv3ConvNext", "pooler", larger_images, hidden_sizes=[4, 8, 12, 16], depths=[1] * 4),
    "swin": _vision("Swin", "pooler", **PYRAMID),
    "swinv2": _vision("Swinv2", "pooler", **PYRAMID),
    "convnext": _vision("ConvNext", "pooler", larger_images, hidden_sizes=[4, 8, 12, 16], depths=[1] * 4),
    "convnextv2": _vision("ConvNextV2", "pooler", larger_images, hidden_sizes=[4, 8, 12, 16], depths=[1] * 4),
    "resnet": _vision(
        "ResNet", "pooler", larger_images, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    ),
    "regnet": _vision(
        "RegNet", "pooler", larger_images, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4
    ),
    "bit": _vision(
        "Bit", "pooler", larger_images, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=4
    ),
    "efficientnet": _vision(
        "EfficientNet",
        "pooler",
        larger_images,
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=0.2,
        hidden_dim=320,
    ),
    "mobilenet-v1": _vision("MobileNetV1", "pooler", larger_images, image_size=64, depth_multiplier=0.25),
    "mobilenet-v2": _vision("MobileNetV2", "pooler", larger_images, image_size=64, depth_multiplier=0.25),
    "mobilevit": _vision(
        "MobileViT",
        "pooler",
        larger_images,
        image_size=64,
        hidden_sizes=[8, 12, 16],
        num_attention_heads=2,
        neck_hidden_sizes=[4, 8, 8, 12, 12, 16, 16],
    ),
    "mobilevitv2": _vision(
        "MobileViTV2", "pooler", larger_images, image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1]
    ),
    "pvt": _vision(
        "Pvt",
        "mean",
        larger_images,
        image_size=64,
        hidden_sizes=[4, 8, 12, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 2, 2, 2],
    ),
    "pvt-v2": _vision(
        "PvtV2",
        "mean",
        larger_images,
        image_size=64,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 2, 2, 2],
    ),
    "levit": _vision(
        "Levit",
        "pooler",
        larger_images,
        image_size=64,
        hidden_sizes=[8, 12, 16],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[4, 4, 4],
    ),
    "hiera": _vision(
        "Hiera",
        "pooler",
        larger_images,
        image_size=[64, 64],
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
    ),
    "ijepa": _vision("IJepa", "mean", **SIZES, **IMAGE),
    "segformer": _vision(
        "Segformer",
        "mean",
        larger_images,
        hidden_sizes=[4, 8, 12, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 2, 2, 2],
    ),
    "poolformer": _vision("PoolFormer", "mean", larger_images, hidden_sizes=[4, 8, 12, 16], depths=[1] * 4),
    "focalnet": _vision(
        "FocalNet",
        "pooler",
        larger_images,
        image_size=64,
        embed_dim=8,
        depths=[1, 1],
        hidden_sizes=[8, 16],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    "swiftformer": _vision(
        "SwiftFormer", "mean", larger_images, image_size=64, depths=[1] * 4, embed_dims=[8, 8, 16, 16]
    ),
    "cvt": _vision("Cvt", "mean", larger_images, embed_dim=[8, 8, 16], num_heads=[1, 2, 2], depth=[1, 2, 3]),
    "timm": _vision("TimmWrapper", "pooler", larger_images, architecture="test_convnext"),
    "clip-vision": _vision("CLIPVision", "pooler", **SIZES, **IMAGE),
    "siglip-vision": _vision("SiglipVision", "pooler", **SIZES, **IMAGE),
    "siglip2-vision": _vision("Siglip2Vision", "pooler", patches, **SIZES, patch_size=8, num_patches=16),
    "clip-vision-tower": _tower("CLIP", "vision", "pooler", images, **_CLIP),
    # sounds
    "ast": _audio(
        "AST",
        "pooler",
        filter_banks,
        **SIZES,
        max_length=16,
        num_mel_bins=16,
        patch_size=8,
        time_stride=8,
        frequency_stride=8,
    ),
    "wav2vec2": _audio("Wav2Vec2", "mean", pads=True, **WAVES, **LAYERWISE),
    "wav2vec2-group": _audio("Wav2Vec2", "mean", **{**WAVES, "feat_extract_norm": "group"}),
    "wav2vec2-conformer": _audio("Wav2Vec2Conformer", "mean", **WAVES, position_embeddings_type="rotary"),
    "wav2vec2-bert": _audio(
        "Wav2Vec2Bert", "mean", spectra(20, 12), **SIZES, feature_projection_input_dim=12, mask_time_length=2
    ),
    "hubert": _audio("Hubert", "mean", pads=True, **WAVES, **LAYERWISE),
    "wavlm": _audio("WavLM", "mean", pads=True, **WAVES, **LAYERWISE),
    "data2vec-audio": _audio(
        "Data2VecAudio",
        "mean",
        **SIZES,
        conv_dim=[8] * 7,
        num_conv_pos_embedding_groups=2,
        conv_pos_kernel_size=3,
        mask_time_length=2,
        vocab_size=12,
    ),
    "sew": _audio("SEW", "mean", **_SEW),
    "sew-d": _audio("SEWD", "mean", **_SEW),
    "unispeech": _audio("UniSpeech", "mean", pads=True, **WAVES, **LAYERWISE, num_codevectors_per_group=4),
    "unispeech-sat": _audio("UniSpeechSat", "mean", pads=True, **WAVES, **LAYERWISE, num_codevectors_per_group=4),
    "whisper": _audio(
        "Whisper",
        "mean",
        spectra(8, 20),
        **MODEL,
        **WORDS,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=8,
        decoder_start_token_id=1,
    ),
    "speech-to-text": _audio(
        "Speech2Text",
        "mean",
        spectra(20, 8),
        **MODEL,
        **WORDS,
        input_feat_per_channel=8,
        conv_channels=8,
        max_source_positions=60,
        max_target_positions=8,
    ),
    "moonshine": _audio(
        "Moonshine",
        "mean",
        **WORDS,
        hidden_size=16,
        intermediate_size=32,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
    ),
    "encodec": _audio(
        "Encodec",
        "mean",
        hidden_size=16,
        num_filters=4,
        num_lstm_layers=1,
        codebook_size=8,
        upsampling_ratios=[8, 5],
    ),
    "dac": _audio(
        "Dac",
        "mean",
        encoder_hidden_size=4,
        downsampling_ratios=[4, 8],
        decoder_hidden_size=16,
        upsampling_ratios=[8, 4],
        codebook_size=8,
        n_codebooks=2,
        codebook_dim=4,
    ),
    "clap-audio-tower": _tower("Clap", "audio", "pooler", spectra(1, 100, 8), **_CLAP),
    # texts
    "bert": _text("Bert", "mean", **BERT),
    "distilbert": _text("DistilBert", "mean", dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=40),
    "roberta": _text("Roberta", "mean", **BERT),
    "xlm-roberta": _text("XLMRoberta", "mean", **BERT),
    "albert": _text("Albert", "mean", **BERT, embedding_size=8),
    "electra": _text("Electra", "mean", **BERT, embedding_size=8),
    "deberta": _text("Deberta", "mean", **BERT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "deberta-v2": _text("DebertaV2", "mean", **BERT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "mpnet": _text("MPNet", "mean", **BERT),
    "modernbert": _text("ModernBert", "mean", **BERT, cls_token_id=1, sep_token_id=2),
    "longformer": _text("Longformer", "mean", pads=False, **BERT, attention_window=4),
    "fnet": _text("FNet", "mean", pads=False, **BERT),
    "squeezebert": _text(
        "SqueezeBert",
        "mean",
        **BERT,
        embedding_size=16,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    "roformer": _text("RoFormer", "mean", **BERT, embedding_size=16),
    "xlnet": _text("XLNet", "mean", vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=32),
    "t5": _text("T5", "mean", **_T5),
    "mt5": _text("MT5", "mean", **_T5),
    "umt5": _text("UMT5", "mean", **_T5),
    "bart": _text("Bart", "mean", **_BART),
    "pegasus": _text("Pegasus", "mean", **_BART),
    "clip-text": _text("CLIPText", "last", **BERT),
    "clip-text-tower": _tower("CLIP", "text", "last", texts, True, **_CLIP),
    "siglip-text-tower": _tower("Siglip", "text", "pooler", texts, **_CLIP),
    "clap-text-tower": _tower("Clap", "text", "mean", texts, True, **_CLAP),
    "gpt2": _text("GPT2", "last", **GPT),
    "opt": _text("OPT", "last", **{**DECODER, "ffn_dim": 32, "word_embed_proj_dim": 12}),
    "bloom": _text("Bloom", "last", hidden_size=16, n_layer=2, n_head=2, **WORDS),
    "llama": _text("Llama", "last", **DECODER),
    "mistral": _text("Mistral", "last", **DECODER, sliding_window=16),
    "qwen2": _text("Qwen2", "last", **DECODER),
    "qwen3": _text("Qwen3", "last", **DECODER),
    "gemma": _text("Gemma", "last", **DECODER),
    "gemma3": _text("Gemma3Text", "last", **DECODER),
    "gemma3-bidirectional": _text("Gemma3Text", "mean", **DECODER, use_bidirectional_attention=True),
    # videos
    "videomae": _video("VideoMAE", "mean", **SIZES, **IMAGE, num_frames=2),
    "timesformer": _video("Timesformer", "cls", **SIZES, **IMAGE, num_frames=2),
    "vivit": _video("Vivit", "cls", **SIZES, image_size=16, num_frames=2, tubelet_size=[2, 8, 8]),
    "vjepa2": _video(
        "VJEPA2",
        "mean",
        vjepa_clips,
        **SIZES,
        crop_size=16,
        patch_size=8,
        frames_per_clip=2,
        mlp_ratio=2.0,
        pred_hidden_size=16,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    ),
}

# timm needs torchvision, of which there is no build for a CPU alone.
INSTALLED = [name for name in BACKBONES if name != "timm" or find_spec("timm")]
