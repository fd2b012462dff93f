"""ONNX export: the same logits in ONNX Runtime for batches of other sizes and lengths, and what is refused."""

import json
import logging
import sys
from pathlib import Path

import pages
import pytest
import torch
from tiny import ast_config, tiny_model, vit_config
from tiny_backbones import BACKBONES
from tokenizers_of_words import bert_like

from hf_relearn import FeaturesConfig, MultimodalForClassification, MultimodalProcessor, export_onnx
from hf_relearn.cli.main import main

onnx = pytest.importorskip("onnx", reason="onnx is absent: pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is absent: pip install '.[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is absent: pip install '.[onnx]'")

logging.getLogger("torch.__trace").setLevel(logging.WARNING)  # pytest would keep each of its thousand lines
LABELS = {0: "/m/0dgw9r", 1: "cats /dogs", 2: "class 2"}


def assert_same_logits(file: Path, model, inputs) -> None:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    values = {argument.name: inputs[argument.name].numpy() for argument in session.get_inputs()}
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
    torch.testing.assert_close(torch.from_numpy(session.run(["logits"], values)[0]), expected, atol=1e-4, rtol=0)


def axes_of(file: Path) -> dict[str, list[int | str]]:
    return {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in onnx.load(file).graph.input
    }


def batch(names: dict[str, str], size: int, seed: int) -> dict[str, torch.Tensor]:
    """modality -> family of `BACKBONES` to inputs."""
    return {
        f"{modality}_{argument}": value
        for modality, family in names.items()
        for argument, value in BACKBONES[family].inputs(size, seed).items()
    }


def mixed_model(names: dict[str, str], **options) -> MultimodalForClassification:
    torch.manual_seed(0)
    backbones = {modality: BACKBONES[family].make() for modality, family in names.items()}
    model = MultimodalForClassification.from_backbones(backbones, id2label=LABELS, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("names", "fusion"),
    [
        ({"image": "resnet", "speech": "wav2vec2"}, "gated"),
        ({"text": "bert", "image": "vit"}, "bottleneck"),
    ],
)
def test_logits_for_another_size_of_batch_and_length(names, fusion, tmp_path):
    model = mixed_model(names, fusion=fusion, fusion_kwargs={"hidden_size": 8}).train()
    file = export_onnx(model, tmp_path / "new" / "fused.onnx", inputs=batch(names, 2, seed=1))

    assert [path.name for path in file.parent.iterdir()] == ["fused.onnx"]
    assert model.training and model.encoders["image"].training
    assert all(sizes[0] == "batch" for sizes in axes_of(file).values())
    assert_same_logits(file, model, batch(names, 1, seed=2))
    other = batch(names, 5, seed=3)
    for name, value in other.items():
        if name.startswith("text_"):
            other[name] = torch.cat([value, value[:, :4]], dim=1)
        if name == "text_attention_mask":
            other[name][2:, 7:] = 0
        if name == "speech_input_values":
            other[name] = value[:, :2000]
    assert_same_logits(file, model, other)
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(metadata["id2label"]) == {str(index): label for index, label in LABELS.items()}


def test_the_command_exports_what_the_processor_makes(tmp_path, capsys):
    torch.manual_seed(0)
    backbones = {
        "sound": ast_config(),
        "photos": vit_config(),
        "words": BACKBONES["bert"].make(),
        "gaze": FeaturesConfig(input_size=3, hidden_size=8, num_hidden_layers=1),
        "pulse": FeaturesConfig(input_size=2, hidden_size=8, architecture="mlp"),
    }
    model = MultimodalForClassification.from_backbones(
        backbones, id2label=LABELS, modality_options={"photos": {"num_frames": 2}}
    )
    processor = MultimodalProcessor.from_model(model.config, options={"words": {"tokenizer": bert_like()}})
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    capsys.readouterr()
    assert main(["export", str(tmp_path / "saved"), "--output", str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == ({"file": str(tmp_path / "out" / "model.onnx")}, "")
    generator = torch.Generator().manual_seed(0)
    samples = {
        "sound": [torch.rand(8000, generator=generator).numpy() for _ in range(3)],
        "photos": [list((255 * torch.rand(2, 20, 20, 3, generator=generator)).byte().numpy()) for _ in range(3)],
        "words": ["a red cat", "a dog", "a dog sits a cat runs a red dog"],
        "gaze": [torch.rand(steps, 3, generator=generator).numpy() for steps in (7, 2, 5)],
        "pulse": [torch.rand(2, generator=generator).numpy() for _ in range(3)],
    }
    assert_same_logits(tmp_path / "out" / "model.onnx", model, dict(processor(samples)))


def two_backbones() -> tuple[MultimodalForClassification, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    backbones = {name: FeaturesConfig(input_size=3, hidden_size=8, architecture="mlp") for name in ("gaze", "pulse")}
    model = MultimodalForClassification.from_backbones(backbones, id2label=LABELS)
    return model, {f"{name}_feature_values": torch.randn(2, 3) for name in backbones}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda output: 1 / 0, "FeaturesModel fails with ZeroDivisionError: division by zero"),
        (lambda output: output + 1, "FeaturesModel gives other values in ONNX Runtime .by 1.0"),
    ],
)
def test_a_backbone_that_cannot_be_exported_is_named_and_leaves_nothing(change, said, tmp_path):
    model, inputs = two_backbones()
    backbone = model.encoders["pulse"].backbone
    inside = backbone.forward

    def forward(feature_values):
        output = inside(feature_values)
        if torch.compiler.is_exporting():
            output["last_hidden_state"] = change(output["last_hidden_state"])
        return output

    backbone.forward = forward
    model.encoders["pulse"].pooling = "mean"
    with pytest.raises(ValueError, match=f"modality 'pulse' cannot be exported: {said}"):
        export_onnx(model, tmp_path, inputs=inputs)
    assert not list(tmp_path.iterdir())


def test_the_example_of_the_pages(tmp_path, monkeypatch):
    model, inputs = two_backbones()
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("my-model")
    MultimodalProcessor.from_model(model.config).save_pretrained("my-model")
    pages.run_block(pages.block_with("export_onnx("))
    assert axes_of(Path("my-model.onnx")) == {name: ["batch", 3] for name in inputs}
    assert_same_logits(Path("my-model.onnx"), model, inputs)


def test_a_number_is_predicted_in_its_own_unit_from_columns_of_a_table(tmp_path):
    torch.manual_seed(0)
    backbones = {name: FeaturesConfig(input_size=2, hidden_size=8, num_hidden_layers=1) for name in ("left", "right")}
    model = MultimodalForClassification.from_backbones(backbones, num_labels=1, unimodal_loss_weight=1.0)
    model.config.target_mean, model.config.target_deviation = 40.0, 3.0
    processor = MultimodalProcessor.from_model(model.config)
    processor.columns = {"left": ["a", "b"], "right": ["c", "d"]}
    file = export_onnx(model, tmp_path, processor)
    batch = dict(processor({name: torch.randn(5, 2).tolist() for name in backbones}))
    assert set(axes_of(file)) == set(batch) == {"left_feature_values", "right_feature_values"}
    assert_same_logits(file, model, batch)
    with torch.no_grad():
        assert (model(**batch).logits - 40).abs().max() < 20


def test_what_no_example_can_be_made_of_is_refused(tmp_path, monkeypatch):
    model, inputs = tiny_model(), batch({"audio": "ast", "vision": "vit"}, 2, seed=1)
    present = {"audio_present": torch.tensor([True, False])}
    for given, said in (
        ({"inputs": {name: value[:1] for name, value in inputs.items()}}, "1 row of audio_input_values"),
        ({"inputs": {**inputs, **present}}, "audio_present: an exported model needs all modalities"),
        ({}, "give the model's processor"),
    ):
        with pytest.raises(ValueError, match=said):
            export_onnx(model, tmp_path, **given)
    with pytest.raises(ValueError, match="weights of torch.bfloat16: load it with dtype=torch.float32"):
        export_onnx(tiny_model().bfloat16(), tmp_path, inputs=inputs)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'hf_relearn\[onnx\]'"):
        export_onnx(model, tmp_path, inputs=inputs)
    assert not list(tmp_path.iterdir())
