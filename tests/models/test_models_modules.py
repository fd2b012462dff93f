"""Modules of the user's own as backbones: built, trained, saved, and handed over again."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONSTANT_STRENGTH, make_trainer, vit_config
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from hf_relearn import ModuleBackbone, MultimodalForClassification, MultimodalProcessor


class Sensors(nn.Module):
    """(batch, 4) -> (batch, 6), with a buffer that is in no file."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))
        self.register_buffer("scale", torch.full((4,), 3.0), persistent=False)

    def forward(self, values):
        return self.layers(values * self.scale)


class Rows(Dataset):
    def __init__(self, size=24):
        generator = torch.Generator().manual_seed(1)
        self.values = torch.randn(size, 4, generator=generator)
        self.pictures = torch.randn(size, 3, 16, 16, generator=generator)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        values, pictures = self.values[index], self.pictures[index]
        return {"sensors_feature_values": values, "face_pixel_values": pictures, "labels": int(values[0] > 0)}


def build(module=None, **kwargs):
    torch.manual_seed(0)
    backbones = {"sensors": ModuleBackbone(module or Sensors(), input_shape=(4,)), "face": vit_config()}
    return MultimodalForClassification.from_backbones(backbones, num_labels=2, unimodal_loss_weight=1.0, **kwargs)


INPUTS = {"sensors_feature_values": torch.randn(3, 4), "face_pixel_values": torch.randn(3, 3, 16, 16)}


def test_a_module_keeps_its_weights_and_gives_its_width():
    module = Sensors()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = build(module)

    modality = model.config.modalities["sensors"]
    assert (modality.kind, modality.pooling, modality.feature_size) == ("features", "mean", 6)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    features = model(**INPUTS).features["sensors"]
    assert torch.allclose(features, module(INPUTS["sensors_feature_values"]), atol=1e-6)


def test_a_module_is_handed_over_again_at_loading(tmp_path):
    model = build(fusion="gated")
    model.save_pretrained(tmp_path)
    assert "multimodal.encoders.sensors.backbone.module.layers.0.weight" in load_file(tmp_path / "model.safetensors")

    again = MultimodalForClassification.from_pretrained(tmp_path, backbones={"sensors": Sensors()})
    assert torch.equal(again(**INPUTS).logits, model(**INPUTS).logits)
    wanted = r"modality 'sensors'.*test_models_modules.Sensors\).*from_pretrained\(folder, backbones=\{'sensors'"
    with pytest.raises(ValueError, match=wanted):
        MultimodalForClassification.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="modality 'sensors' is a torch module, not str"):
        MultimodalForClassification.from_pretrained(tmp_path, backbones={"sensors": "Sensors"})


@CONSTANT_STRENGTH
@pytest.mark.filterwarnings("ignore::hf_relearn.method.DiagnosisWarning")  # so few samples are diagnosed
def test_a_run_trains_re_learns_and_comes_back_to_its_best_model(tmp_path):
    trainer = make_trainer(
        tmp_path,
        build(),
        Rows(),
        {"eval_dataset": Rows()},
        num_train_epochs=2,
        relearn_strength=0.5,
        relearn_points=[0.5],
        relearn_interval=None,
        diagnosis_source="eval",
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    start = trainer.model.encoders["sensors"].backbone.module.layers[0].weight.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.model.encoders["sensors"].backbone.module.layers[0].weight, start)
    again = MultimodalForClassification.from_pretrained(
        trainer.state.best_model_checkpoint, backbones={"sensors": Sensors()}
    )
    assert torch.equal(again(**INPUTS).logits, trainer.model.eval()(**INPUTS).logits)


def test_tokens_with_a_mask_and_pictures_work_from_raw_values():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, values, attention_mask=None):
            assert attention_mask is not None
            return {"last_hidden_state": self.layer(values)}

    picture = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4))
    backbones = {
        "gaze": ModuleBackbone(Sequence(), (6, 3)),
        "face": ModuleBackbone(picture, (3, 16, 16), "pixel_values"),
    }
    model = MultimodalForClassification.from_backbones(backbones, num_labels=2)
    processor = MultimodalProcessor.from_model(model.config)
    long, short = np.ones((6, 3), np.float32), np.ones((2, 3), np.float32)
    batch = processor({"gaze": [long, short, None], "face": [np.zeros((20, 20, 3), np.uint8)] * 3})
    features = model(**batch).features
    assert batch["face_pixel_values"].shape == (3, 3, 16, 16) and features["face"].shape == (3, 5)
    assert torch.allclose(features["gaze"][0], features["gaze"][1])  # padding does not count
    assert model(**{**batch, "gaze_present": torch.zeros(3, dtype=torch.bool)}).logits.shape == (3, 2)


class UnknownConfig(PreTrainedConfig):
    model_type = "unknown-of-this-test"
    hidden_size = 8


class Unknown(PreTrainedModel):
    config_class = UnknownConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Linear(3, config.hidden_size)
        self.post_init()

    def forward(self, pixel_values):
        return BaseModelOutput(last_hidden_state=self.layer(pixel_values.flatten(2).transpose(1, 2)))


def test_a_model_that_transformers_does_not_know_is_a_module_too(tmp_path):
    build = MultimodalForClassification.from_backbones
    with pytest.raises(
        ValueError, match=r"AutoModel.register\(UnknownConfig, Unknown\).*or give ModuleBackbone\(model"
    ):
        build({"face": Unknown(UnknownConfig())}, num_labels=2)
    unknown = Unknown(UnknownConfig())
    before = unknown.layer.weight.detach().clone()
    model = build({"face": ModuleBackbone(unknown, (3, 4, 4), "pixel_values")}, num_labels=2)
    assert torch.equal(unknown.layer.weight, before)
    model.save_pretrained(tmp_path)
    again = MultimodalForClassification.from_pretrained(tmp_path, backbones={"face": Unknown(UnknownConfig())})
    pixels = torch.randn(2, 3, 4, 4)
    assert torch.equal(again(face_pixel_values=pixels).logits, model(face_pixel_values=pixels).logits)


def test_weights_and_buffers_that_the_files_lack_are_the_modules_own(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = "multimodal.encoders.sensors.backbone.module.layers.2.bias"
    save_file({name: value for name, value in weights.items() if name != lost}, tmp_path / "model.safetensors")
    module = Sensors()
    module.layers[2].bias.data.fill_(5.0)
    again = MultimodalForClassification.from_pretrained(tmp_path, backbones={"sensors": module})
    inner = again.encoders["sensors"].backbone.module
    assert again.missing_weights == (lost,) and inner.layers[2].bias.tolist() == [5.0] * 6
    assert inner.scale.tolist() == [3.0] * 4 and torch.equal(
        inner.layers[0].bias, weights[lost.replace("2.bias", "0.bias")]
    )


def test_what_says_too_little_is_refused():
    with pytest.raises(TypeError, match=r"'face': Sensors is a torch module.*ModuleBackbone\(module, input_shape"):
        MultimodalForClassification.from_backbones({"face": Sensors()}, num_labels=2)
    with pytest.raises(ValueError, match=r"input_name 'values'.*feature_values"):
        ModuleBackbone(Sensors(), (4,), "values")
    with pytest.raises(ValueError, match="input_shape"):
        ModuleBackbone(Sensors(), ())
    with pytest.raises(
        ValueError, match=r"'face': ModuleBackbone makes no feature of feature_values of shape \(1, 5\)"
    ):
        MultimodalForClassification.from_backbones({"face": ModuleBackbone(Sensors(), (5,))}, num_labels=2)
    with pytest.raises(ValueError, match="'face': the module has no parameters"):
        MultimodalForClassification.from_backbones({"face": ModuleBackbone(nn.Flatten(), (5,))}, num_labels=2)
