"""The configuration of a fusion model: what it keeps, and what it refuses."""

import json

import pytest
from tiny import ast_config, tiny_model, vit_config
from transformers import AutoConfig, ViTConfig

from hf_relearn import MultimodalConfig, MultimodalModel
from hf_relearn.models import ModalityConfig


def modality(**changes) -> ModalityConfig:
    return ModalityConfig(
        **{"backbone_config": vit_config(), "kind": "vision", "feature_size": 16, "token_size": 16, **changes}
    )


def test_saved_configuration_comes_back_equal(tmp_path):
    config = MultimodalConfig(
        modalities={"zebra": modality(num_frames=2, pooling="mean"), "ant": modality(backbone_config=ast_config())},
        id2label={0: "no", 1: "yes", 2: "maybe"},
        classifier_dropout=0.3,
        unimodal_loss_weight=0.5,
        fusion="bottleneck",
        fusion_kwargs={"hidden_size": 12, "num_attention_heads": 3},
        missing_placeholder="learnt",
        class_weights=[1, 2.5, 0.5],
        label_smoothing=0.1,
        problem_type="multi_label_classification",
    )
    config.save_pretrained(tmp_path)

    loaded = AutoConfig.from_pretrained(tmp_path)

    assert type(loaded) is MultimodalConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    assert list(loaded.modalities) == ["zebra", "ant"]  # the order of fusion
    assert isinstance(loaded.modalities["zebra"].backbone_config, ViTConfig)
    assert loaded.modalities["zebra"].num_frames == 2
    assert loaded.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert loaded.label2id == {"no": 0, "yes": 1, "maybe": 2}
    assert loaded.unimodal_loss_weight == 0.5
    assert (loaded.fusion, loaded.missing_placeholder, loaded.label_smoothing) == ("bottleneck", "learnt", 0.1)
    assert loaded.fusion_kwargs == {
        "hidden_size": 12,
        "num_layers": 2,
        "num_attention_heads": 3,
        "num_bottlenecks": 4,
        "dropout": 0.1,
    }
    assert loaded.class_weights == [1.0, 2.5, 0.5]
    assert loaded.problem_type == "multi_label_classification"


def test_file_of_a_bfloat16_configuration_is_plain_json(tmp_path):
    model = tiny_model(backbone_kwargs={"dtype": "bfloat16"})
    model.save_pretrained(tmp_path)

    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))

    assert settings["model_type"] == "hf_relearn_multimodal"
    assert settings["modalities"]["vision"]["backbone_config"]["model_type"] == "vit"


def test_two_configurations_do_not_share_their_modalities():
    first, second = MultimodalConfig(), MultimodalConfig()
    first.modalities["audio"] = modality()

    first.fusion_kwargs["hidden_size"] = 3

    assert second.modalities == {} and second.fusion_kwargs == {}


@pytest.mark.parametrize("name", ["my audio", "front-view", "3d", ""])
def test_a_name_that_cannot_be_a_prefix_is_refused(name):
    with pytest.raises(ValueError, match="no Python identifier"):
        MultimodalConfig(modalities={name: modality()})


@pytest.mark.parametrize("name", ["labels", "fused", "keys", "items", "training", "forward"])
def test_a_reserved_name_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is reserved"):
        MultimodalConfig(modalities={name: modality()})


def test_values_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown fusion 'product': use one of concat"):
        MultimodalConfig(modalities={"a": modality()}, fusion="product")
    with pytest.raises(ValueError, match=r"modality_order is \['b'\], but the modalities are \['a'\]"):
        MultimodalConfig(modalities={"a": modality()}, modality_order=["b"])
    with pytest.raises(ValueError, match="unimodal_loss_weight is -1.0"):
        MultimodalConfig(modalities={"a": modality()}, unimodal_loss_weight=-1.0)
    with pytest.raises(ValueError, match="unknown kind of modality 'smell'"):
        modality(kind="smell")
    with pytest.raises(ValueError, match="num_frames is 0"):
        modality(num_frames=0)
    with pytest.raises(ValueError, match="model_type 'unheard_of'.*install the release"):
        modality(backbone_config={"model_type": "unheard_of"})


def test_a_model_without_modalities_is_refused():
    with pytest.raises(ValueError, match="at least one modality"):
        MultimodalModel(MultimodalConfig())
