"""`from_backbones`: what it takes, what it leaves alone and what it refuses."""

import copy
import shutil

import pages
import pytest
import torch
from tiny import ast_config, resnet_config, vit_config
from tiny_backbones import BACKBONES
from transformers import (
    AutoConfig,
    AutoModel,
    BartConfig,
    BartModel,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    DetrConfig,
    Dinov2Config,
    GPT2Config,
    GPT2LMHeadModel,
    LayoutLMv3Config,
    PreTrainedConfig,
    PreTrainedModel,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTMAEConfig,
    ViTModel,
    WhisperConfig,
)
from transformers.modeling_outputs import BaseModelOutput

from hf_relearn import MultimodalForClassification, MultimodalModel, MultimodalProcessor

build = MultimodalForClassification.from_backbones
AUDIO = {"kind": "audio"}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def state(module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def pretrained(tmp_path):
    """A folder with weights that a random initialisation does not give, and a preprocessor beside them."""
    backbone = ViTModel(vit_config(), add_pooling_layer=False)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(3.0)
    backbone.save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(
        tmp_path / "vit"
    )
    return backbone, tmp_path / "vit"


def test_a_folder_gives_its_weights_and_its_preprocessor(pretrained):
    backbone, folder = pretrained

    for source in (folder, str(folder)):
        model = build({"vision": source, "audio": ast_config()})
        assert same(state(model.encoders["vision"].backbone), state(backbone))

    processor = MultimodalProcessor.from_model(model.config, {"vision": folder})
    settings = processor.modalities["vision"]["image_processor"]
    assert settings["image_mean"] == [0.1, 0.2, 0.3]
    smaller = MultimodalProcessor.from_model(model.config, {"vision": folder}, {"vision": {"image_size": 8}})
    settings = smaller.modalities["vision"]["image_processor"]
    assert (settings["image_mean"], settings["size"]) == ([0.1, 0.2, 0.3], {"height": 8, "width": 8})


def test_a_given_preprocessor_is_taken_without_looking_for_another():
    model = build({"vision": vit_config()})
    settings = {"image_processor_type": "ViTImageProcessorPil", "size": {"height": 4, "width": 4}}

    # the Hub id does not exist, and nothing is asked of it
    processor = MultimodalProcessor.from_model(
        model.config, {"vision": "nobody/no-such-model"}, {"vision": {"image_processor": settings}}
    )

    assert processor.modalities["vision"]["image_processor"] == settings


def test_a_folder_with_a_configuration_only_gives_random_weights(pretrained):
    backbone, folder = pretrained
    (folder / "model.safetensors").unlink()

    torch.manual_seed(0)
    first = build({"vision": folder})
    torch.manual_seed(0)
    again = build({"vision": vit_config()})

    assert same(state(first), state(again))
    assert not same(state(first.encoders["vision"].backbone), state(backbone))


def test_weights_in_another_format_are_not_mistaken_for_none(pretrained):
    _, folder = pretrained
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")

    with pytest.raises(OSError, match="safetensors"):
        build({"vision": folder})


@pytest.mark.parametrize("config", [vit_config(), ast_config(), resnet_config()], ids=["vit", "ast", "resnet"])
def test_a_model_object_is_used_as_it_is(config):
    backbone = AutoModel.from_config(config)
    before = state(backbone)

    model = build({"m": backbone}, unimodal_loss_weight=1.0)

    after = state(model.encoders["m"].backbone)
    assert model.encoders["m"].backbone is backbone
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert {name for name in before if not name.startswith("pooler.")} == after.keys()


def test_a_saved_model_has_the_tensors_of_the_one_built_from_an_object_with_a_pooling_layer(tmp_path):
    backbone = ViTModel(vit_config())
    assert backbone.pooler is not None

    model = build({"vision": backbone})
    model.save_pretrained(tmp_path)

    assert same(state(MultimodalForClassification.from_pretrained(tmp_path)), state(model))


def test_a_pooling_layer_that_is_used_stays():
    model = build({"vision": vit_config()}, modality_options={"vision": {"pooling": "pooler"}})

    assert any(name.startswith("pooler.") for name in state(model.encoders["vision"].backbone))


def test_the_model_comes_in_evaluation_mode_and_random_generators_decide_new_weights_only():
    torch.manual_seed(1)
    first = build({"a": ast_config(), "v": vit_config()})
    torch.manual_seed(1)
    again = build({"a": ast_config(), "v": vit_config()})
    torch.manual_seed(2)
    other = build({"a": ast_config(), "v": vit_config()})

    assert not any(module.training for module in first.modules())
    assert same(state(first), state(again))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_backbone_kwargs_reach_folders_and_configurations(pretrained):
    _, folder = pretrained
    kwargs = {"dtype": torch.bfloat16, "attn_implementation": "eager"}

    model = build({"vision": folder, "audio": ast_config()}, backbone_kwargs=kwargs, unimodal_loss_weight=1.0)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for encoder in model.encoders.values():
        assert encoder.backbone.config._attn_implementation == "eager"
    inputs = {"vision_pixel_values": torch.zeros(2, 3, 16, 16), "audio_input_values": torch.zeros(2, 16, 16)}
    output = model(**{name: value.bfloat16() for name, value in inputs.items()}, labels=torch.tensor([0, 1]))
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32


def test_backbones_saved_in_half_precision_come_in_float32(pretrained):
    _, folder = pretrained
    ViTModel(vit_config(), add_pooling_layer=False).half().save_pretrained(folder)

    model = build({"vision": folder, "random": vit_config(dtype="bfloat16"), "audio": ast_config()})

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_model_objects_of_two_dtypes_are_refused():
    half = AutoModel.from_config(vit_config()).bfloat16()

    with pytest.raises(ValueError, match="'vision': 'torch.bfloat16'.*one"):
        build({"audio": ast_config(), "vision": half})


def test_the_base_model_is_built_alike():
    model = MultimodalModel.from_backbones({"audio": ast_config(), "vision": vit_config(hidden_size=8)})

    output = model(audio_input_values=torch.zeros(2, 16, 16), vision_pixel_values=torch.zeros(2, 3, 16, 16))

    assert output.fused.shape == (2, 24)
    assert torch.equal(output.fused, torch.cat([output.features["audio"], output.features["vision"]], dim=1))


def test_an_image_backbone_may_hear():
    options = {"audio": {"kind": "audio"}}
    model = build({"audio": resnet_config(num_channels=1)}, modality_options=options)

    assert model.config.modalities["audio"].kind == "audio"
    assert model(audio_pixel_values=torch.zeros(2, 1, 30, 20)).logits.shape == (2, 2)


def test_what_is_no_backbone_is_refused():
    with pytest.raises(ValueError, match="at least one modality"):
        build({})
    with pytest.raises(TypeError, match="'vision': a backbone is a Hub id.*not int"):
        build({"vision": 3})
    with pytest.raises(TypeError, match="Linear is a torch module"):
        build({"vision": torch.nn.Linear(2, 2)})
    with pytest.raises(OSError, match="no-such-folder"):
        build({"vision": "./no-such-folder"})


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match=r"modality_options names \['sound'\], but the modalities are \['vision'\]"):
        build({"vision": vit_config()}, modality_options={"sound": {}})
    with pytest.raises(ValueError, match=r"'vision': unknown options \['frames'\]; known are kind, pooling"):
        build({"vision": vit_config()}, modality_options={"vision": {"frames": 2}})
    with pytest.raises(ValueError, match="'audio': num_frames is 2, but ASTModel sees no images"):
        build({"audio": ast_config()}, modality_options={"audio": {"num_frames": 2}})
    with pytest.raises(ValueError, match="num_frames is 2, but Siglip2VisionModel takes patches of one image"):
        build({"vision": BACKBONES["siglip2-vision"].make()}, modality_options={"vision": {"num_frames": 2}})
    with pytest.raises(ValueError, match="'vision': kind is 'text', but ViTModel encodes vision"):
        build({"vision": vit_config()}, modality_options={"vision": {"kind": "text"}})


@pytest.mark.parametrize("name", ["front view", "labels", "keys", 3])
def test_a_name_is_checked_before_anything_is_loaded(name):
    with pytest.raises(ValueError, match=repr(name)):
        build({name: "nobody/no-such-model"})


def test_one_object_under_two_names_is_refused():
    backbone = AutoModel.from_config(vit_config())

    with pytest.raises(ValueError, match="'left' and 'right' share one backbone object"):
        build({"left": backbone, "right": backbone})
    assert build({"left": backbone, "right": copy.deepcopy(backbone)}).config.modalities.keys() == {"left", "right"}


CLIP_TOWERS = {"text_config": {**TINY, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}, "vision_config": TINY}


class Blind(PreTrainedModel):
    config_class = BertConfig

    def forward(self, smells):
        return smells


def test_what_cannot_encode_one_modality_is_refused_with_its_reason():
    detr = DetrConfig(backbone_config=resnet_config(out_features=["stage2"]), use_timm_backbone=False, d_model=16)
    layout = LayoutLMv3Config(**TINY, vocab_size=50, input_size=16, coordinate_size=2, shape_size=4)
    words = BertConfig(**TINY, vocab_size=50)
    for source, message in (
        (Blind(words), "Blind takes smells: none of them is one of pixel_values.*its modality is unknown"),
        (
            CLIPConfig(**CLIP_TOWERS),
            r"CLIPModel takes several kinds of input \(text, vision\), and its towers encode text",
        ),
        (layout, r"LayoutLMv3Model takes several kinds of input \(text, vision\) and has no part that encodes one"),
        (detr, "DetrModel has no encoder that takes its vision input alone"),
        (
            GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50)),
            "GPT2LMHeadModel is not what Auto",
        ),
        (
            ViTMAEConfig(**TINY, image_size=32, patch_size=8),
            "ViTMAEModel gives other features each.*mask_ratio=0.0",
        ),
    ):
        with pytest.raises(ValueError, match=f"modality 'm': {message}"):
            build({"m": source})


def test_a_masked_autoencoder_without_its_mask_is_a_backbone():
    model = build({"m": ViTMAEConfig(**TINY, image_size=32, patch_size=8, mask_ratio=0.0)})

    assert model.config.modalities["m"].pooling == "cls"


@pytest.fixture
def two_towers(tmp_path):
    whole = CLIPModel(CLIPConfig(**CLIP_TOWERS))
    whole.save_pretrained(tmp_path / "clip")
    return whole, tmp_path / "clip"


def test_each_tower_of_one_checkpoint_becomes_a_modality(two_towers, tmp_path):
    whole, folder = two_towers

    model = build({"vision": folder, "text": folder})

    for name, tower in (("vision", whole.vision_model), ("text", whole.text_model)):
        assert same(state(model.encoders[name].backbone), state(tower))
        assert model.config.modalities[name].kind == name
    assert type(model.config.modalities["text"].backbone_config).__name__ == "CLIPTextConfig"
    model.save_pretrained(tmp_path / "fused")
    assert same(state(MultimodalForClassification.from_pretrained(tmp_path / "fused")), state(model))


def test_the_option_kind_chooses_a_tower(two_towers):
    whole, folder = two_towers

    model = build({"caption": folder, "sound": whole}, modality_options={"caption": {"kind": "text"}, "sound": AUDIO})

    assert same(state(model.encoders["caption"].backbone), state(whole.text_model))
    assert model.encoders["sound"].backbone is whole.vision_model  # which looks at a spectrogram
    assert model.config.modalities["sound"].kind == "audio"
    with pytest.raises(ValueError, match="'m': CLIPModel .* its towers encode text, vision: choose one by the option"):
        build({"m": folder}, modality_options={"m": {"kind": "video"}})


def test_the_two_towers_of_one_object_are_apart_but_one_tower_is_not_given_twice(two_towers):
    whole, _ = two_towers

    assert list(build({"vision": whole, "text": whole}).encoders) == ["vision", "text"]
    with pytest.raises(ValueError, match="'vision' and 'image' share one backbone object"):
        build({"vision": whole, "image": whole}, modality_options={"image": {"kind": "vision"}})


def test_two_backbones_that_share_one_table_are_refused():
    first, second = (AutoModel.from_config(BertConfig(**TINY, vocab_size=50)) for _ in range(2))
    second.embeddings.word_embeddings = first.embeddings.word_embeddings

    with pytest.raises(ValueError, match="'left' and 'right' share .*embeddings.word_embeddings.weight"):
        build({"left": first, "right": second})


def test_an_encoder_decoder_gives_its_encoder_and_nothing_of_the_rest(tmp_path):
    whole = BartModel(
        BartConfig(d_model=16, vocab_size=50, encoder_layers=1, decoder_layers=1, max_position_embeddings=9)
    )
    whole.save_pretrained(tmp_path)

    for source in (whole, tmp_path):
        model = build({"text": source})
        assert same(state(model.encoders["text"].backbone), state(whole.encoder))


def test_the_readmes_example_runs(two_towers, tmp_path):
    whisper = WhisperConfig(
        d_model=16, vocab_size=50, num_mel_bins=8, max_source_positions=10, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(whisper).save_pretrained(tmp_path / "whisper")
    code = pages.block_with("whisper-tiny").replace("openai/clip-vit-base-patch32", str(two_towers[1]))

    model = pages.run_block(code.replace("openai/whisper-tiny", str(tmp_path / "whisper")))["model"]

    kinds = {name: modality.kind for name, modality in model.config.modalities.items()}
    assert kinds == {"vision": "vision", "text": "text", "speech": "audio"}
    assert not any(parameter.requires_grad for parameter in model.encoders["vision"].parameters())


def test_a_width_that_is_given_is_checked():
    assert build({"m": vit_config()}, modality_options={"m": {"feature_size": 16, "token_size": 16}})
    with pytest.raises(ValueError, match="'m': feature_size is 24, but ViTModel gives 16"):
        build({"m": vit_config()}, modality_options={"m": {"feature_size": 24}})

    config = build({"m": vit_config()}).config
    config.modalities["m"].feature_size = 24
    with pytest.raises(
        ValueError, match="ViTModel gives features of width 16, but the configuration says feature_size 24"
    ):
        MultimodalForClassification(config)(m_pixel_values=torch.zeros(1, 3, 16, 16))


def test_a_model_with_a_head_is_refused_since_its_saved_form_could_not_be_read():
    with pytest.raises(ValueError, match="ViTForImageClassification is not what AutoModel builds.*without a head"):
        build({"vision": ViTForImageClassification(vit_config())})


def test_properties_that_live_in_the_backbones_are_gathered():
    model = build({"audio": ast_config(), "vision": vit_config(), "image": Dinov2Config(**TINY, image_size=28)})

    assert {"ASTLayer", "ViTLayer", "Dinov2Layer"} <= set(model._no_split_modules)
    assert "ASTLayer" not in set(build({"vision": vit_config()})._no_split_modules)  # not kept on the class
    assert model.main_input_name == "audio_input_values"


def test_no_parameter_belongs_to_two_encoders_and_none_is_counted_twice():
    model = build({"left": vit_config(), "right": vit_config(), "audio": ast_config()}, unimodal_loss_weight=1.0)

    by_encoder = [{id(parameter) for parameter in encoder.parameters()} for encoder in model.encoders.values()]
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]

    assert len(set().union(*by_encoder)) == sum(map(len, by_encoder))
    assert len(names) == len(list(model.parameters()))
    heads = sum(parameter.numel() for parameter in model.unimodal_heads.parameters())
    encoders = sum(encoder.backbone.num_parameters() for encoder in model.encoders.values())
    classifier = model.classifier.weight.numel() + model.classifier.bias.numel()
    assert model.num_parameters() == encoders + heads + classifier


def test_the_modality_is_named_whose_model_cannot_be_had():
    with pytest.raises(OSError, match="modality 'words': the model nobody/no-such-model cannot be had: "):
        MultimodalForClassification.from_backbones({"words": "nobody/no-such-model"}, num_labels=2)


class OwnConfig(PreTrainedConfig):
    model_type = "own-of-this-test"
    hidden_size = 8


class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, config.hidden_size)
        self.post_init()

    def forward(self, pixel_values):
        return BaseModelOutput(last_hidden_state=self.layer(pixel_values.flatten(2).transpose(1, 2)))


def test_a_model_that_transformers_does_not_know_names_the_calls(tmp_path):
    build = MultimodalForClassification.from_backbones
    first = r"AutoConfig.register\('own-of-this-test', OwnConfig\) and "
    with pytest.raises(ValueError, match=first + r"AutoModel.register\(OwnConfig, OwnModel\) first"):
        build({"face": OwnModel(OwnConfig())}, num_labels=2)
    with pytest.raises(ValueError, match=first + r"AutoModel.register\(OwnConfig, YourModel\) first"):
        build({"face": OwnConfig()}, num_labels=2)
    with pytest.raises(TypeError, match=r"Linear is a torch module.*ModuleBackbone\(module"):
        build({"face": torch.nn.Linear(3, 4)}, num_labels=2)
    AutoConfig.register("own-of-this-test", OwnConfig)
    AutoModel.register(OwnConfig, OwnModel)
    model = build({"face": OwnModel(OwnConfig())}, num_labels=2)
    model.save_pretrained(tmp_path)
    again = MultimodalForClassification.from_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 4, 4)
    assert torch.equal(model.eval()(face_pixel_values=pixels).logits, again.eval()(face_pixel_values=pixels).logits)
