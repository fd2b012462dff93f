"""What a stranger's folder names: code that is not run, weights that are not read; and weights that it lacks."""

import contextlib
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, vit_config
from tokenizers_of_words import bert_like
from transformers import AutoModel, BertConfig, pipeline

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.hub.onnx_export import export_onnx


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "model"
    model = tiny_model()
    model.save_pretrained(folder)
    MultimodalProcessor.from_model(model.config).save_pretrained(folder)
    return folder


@pytest.fixture
def ran(tmp_path, monkeypatch) -> Path:
    """The file that a stranger's code would write; a question on the terminal is answered with yes."""
    monkeypatch.setattr("builtins.input", lambda question: "y")
    return tmp_path / "ran"


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def as_index(folder: Path, name: str) -> None:
    """Replace the weights of a folder by an index that names a file."""
    weights = folder / "model.safetensors"
    names = load_file(weights)
    weights.rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("kind", ["model", "backbone", "adapter's base"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "../outside.safetensors", "weights/../../outside.safetensors"])
def test_an_index_names_safetensors_files_of_its_folder_only(saved, tmp_path, ran, kind, name):
    folder = saved
    if kind == "backbone":
        folder = tmp_path / "backbone"
        tiny_model().encoders["vision"].backbone.save_pretrained(folder)
    as_index(folder, name)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(ran)))
    if kind == "adapter's base":
        folder = tmp_path / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(saved)}))
        save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=f"index.json names the file '{name}'"):
        if kind == "backbone":
            MultimodalForClassification.from_backbones({"vision": str(folder)})
        else:
            MultimodalForClassification.from_pretrained(folder)
    assert not ran.exists()


def test_an_adapter_and_a_configuration_name_safetensors_files_only(saved, ran, tmp_path):
    change(saved / "config.json", transformers_weights="adapter_model.bin")
    (saved / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(ran)))
    with pytest.raises(ValueError, match="config.json names the file 'adapter_model.bin'"):
        MultimodalForClassification.from_pretrained(saved)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(saved)}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(ran)))
    with pytest.raises(ValueError, match="an adapter without adapter_model.safetensors"):
        MultimodalForClassification.from_pretrained(folder)
    assert not ran.exists()


@pytest.mark.parametrize("content", ["{", "[1]", '{"weight_map": [1]}', "[" * 100_000])
def test_an_index_that_is_none_is_named(saved, content):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="index.json is (no|not an) index of weights"):
        MultimodalForClassification.from_pretrained(saved)


def test_whole_weights_in_several_files_are_read(saved):
    model = MultimodalForClassification.from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    model.save_pretrained(saved, max_shard_size="10KB")
    again = MultimodalForClassification.from_pretrained(saved)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.missing_weights == ()


def test_weights_that_the_files_lack_are_listed_and_predict_nothing(saved, caplog, monkeypatch):
    path = saved / "model.safetensors"
    weights = load_file(path)
    lost = [name for name in weights if name.startswith("classifier") or name.endswith("layernorm_before.weight")]
    save_file({name: value for name, value in weights.items() if name not in lost}, path, {"format": "pt"})
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        model = MultimodalForClassification.from_pretrained(saved)
    (line,) = [text for text in caplog.messages if "new, random ones" in text]
    assert f"lacks {len(lost)} weights" in line and "classifier.weight" in line and "layernorm_before" in line
    assert len(model.missing_weights) == len(lost)
    with pytest.raises(ValueError, match=f"files lack {len(lost)} of its weights .*classifier.bias"):
        pipeline("multimodal-classification", model=str(saved), device=-1)
    with pytest.raises(ValueError, match=f"files lack {len(lost)} of its weights"):
        export_onnx(model, saved / "model.onnx", MultimodalProcessor.from_pretrained(saved))
    model.train()
    assert model.missing_weights == ()  # they are trained, then


def test_code_of_a_tokenizer_is_not_run(tmp_path, ran):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    folder, backbone = tmp_path / "model", tmp_path / "backbone"
    model = MultimodalForClassification.from_backbones(
        {"text": BertConfig(vocab_size=12, **sizes), "vision": vit_config()}, id2label={0: "no", 1: "yes"}
    )
    MultimodalProcessor.from_model(model.config, options={"text": {"tokenizer": bert_like()}}).save_pretrained(folder)
    model.encoders["text"].backbone.save_pretrained(backbone)
    bert_like().save_pretrained(backbone)
    for place in (folder / "text", backbone):
        evil_code(place, ran)
        change(
            place / "tokenizer_config.json",
            tokenizer_class="EvilTokenizer",
            auto_map={"AutoTokenizer": ["evil.EvilTokenizer", None]},
        )
    for load in (
        lambda: MultimodalProcessor.from_pretrained(folder),
        lambda: MultimodalProcessor.from_model(model.config, {"text": str(backbone)}),
    ):
        with contextlib.suppress(OSError, ValueError):  # some releases take a class of their own instead
            load()
    assert not ran.exists()


def evil_code(folder: Path, ran: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")


def test_code_of_a_backbone_and_of_its_preprocessors_is_not_run(tmp_path, ran):
    for part, file in (("vision", "preprocessor_config.json"), ("audio", "preprocessor_config.json")):
        folder = tmp_path / part
        tiny_model().encoders[part].backbone.save_pretrained(folder)
        evil_code(folder, ran)
        autos = {"AutoImageProcessor": "evil.P", "AutoFeatureExtractor": "evil.P"}
        settings = {"image_processor_type": "EvilP", "feature_extractor_type": "EvilP", "auto_map": autos}
        (folder / file).write_text(json.dumps(settings))
        model = MultimodalForClassification.from_backbones({part: str(folder)})
        with pytest.raises(ValueError, match="custom code|no preprocessor of this release"):
            MultimodalProcessor.from_model(model.config, {part: str(folder)})
        autos = {"AutoConfig": "evil.C", "AutoModel": "evil.M"}
        change(folder / "config.json", model_type="evil", auto_map=autos)
        with pytest.raises(ValueError, match="custom code"):
            MultimodalForClassification.from_backbones({part: str(folder)})
        with pytest.raises(ValueError, match="custom code"):
            MultimodalForClassification.from_backbones(
                {part: str(folder)}, backbone_kwargs={"trust_remote_code": None}
            )
    assert not ran.exists()


def test_a_sample_on_stdin_does_not_answer_for_the_user(saved, tmp_path):
    change(saved / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    evil_code(saved, tmp_path / "ran")
    done = subprocess.run(
        [sys.executable, "-m", "hf_relearn", "predict", str(saved), "--file", "-"],
        input='y\n{"text": "red cat"}\n',
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0 and not (tmp_path / "ran").exists()
    assert "of the type 'evil', which is no fusion model and brings code of its own, which is not run" in done.stderr


def test_our_own_classes_never_run_code_beside_them(saved, ran):
    autos = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoProcessor": "evil.P"}
    for name in ("config.json", "processor_config.json"):
        change(saved / name, auto_map=autos)
    evil_code(saved, ran)
    assert AutoModel.from_pretrained(saved).config.modalities
    MultimodalForClassification.from_pretrained(saved)
    MultimodalProcessor.from_pretrained(saved)
    assert not ran.exists()
