"""A hostile repository is refused with a clear error, and runs nothing."""

import json
import pickle

import pytest
from hub_client import error_of, stage_tiny
from hub_server import USER

from hf_relearn.models.configuration_multimodal import ModalityConfig
from hf_relearn.models.modeling_backbones import build_backbone


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def honest(client, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("honest") / "model"
    return {name: (folder / name).read_bytes() for name in client(stage_tiny, str(folder))}


def test_code_runs_only_with_the_users_word(client, hub, honest, tmp_path):
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\n".encode()
    config = {
        **json.loads(honest["config.json"]),
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"},
    }
    hub.put(f"{USER}/evil", {**honest, "config.json": json.dumps(config).encode(), "evil.py": code})
    assert "trust_remote_code=True" in client(error_of, "auto", f"{USER}/evil")
    client(error_of, "ours", f"{USER}/evil")
    client(error_of, "processor", f"{USER}/evil")
    # With our own type, and code that claims to be ours: the installed classes are taken.
    files = {name: (code + data if name.endswith(".py") else data) for name, data in honest.items()}
    hub.put(f"{USER}/disguised", files)
    for loader in ("auto", "ours", "processor", "auto processor"):
        assert client(error_of, loader, f"{USER}/disguised") == "nothing was raised"
    assert not ran.exists()


def test_code_that_a_backbones_configuration_names_is_not_asked_for(monkeypatch):
    from transformers import BarkSemanticConfig  # a type of transformers without a model among the Auto classes

    config = BarkSemanticConfig()
    config.auto_map = {"AutoModel": "evil--evil.Model"}
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail(f"a person was asked: {question}"))
    with pytest.raises(ValueError, match="contains custom code|references custom code"):
        build_backbone(config, "audio", "auto")
    with pytest.raises(ValueError, match="does not know"):
        ModalityConfig({"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}, "audio", 1, 1)


@pytest.mark.parametrize("place", ["hub", "folder"])
def test_a_pickle_is_refused(client, hub, honest, tmp_path, place):
    ran = tmp_path / "ran"
    files = {name: data for name, data in honest.items() if not name.endswith(".safetensors")}
    files["pytorch_model.bin"] = pickle.dumps(Bomb(ran))
    source = f"{USER}/pickled"
    hub.put(source, files)
    if place == "folder":
        source = str(tmp_path)
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    for loader in ("ours", "auto"):
        error = client(error_of, loader, source)
        assert "holds no weights as safetensors" in error and "a pickle (.bin, .pt) could run any code" in error
    assert "safetensors files only" in client(error_of, "ours", source, use_safetensors=False)
    assert not ran.exists()


def test_an_index_of_weights_cannot_climb_out_of_its_folder(client, hub, honest, tmp_path):
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(honest["model.safetensors"])
    folder = tmp_path / "model"
    folder.mkdir()
    files = {name: data for name, data in honest.items() if name != "model.safetensors"}
    index = {"metadata": {}, "weight_map": {"classifier.weight": "../outside.safetensors"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for loader in ("ours", "auto"):
        assert "'../outside.safetensors', which lies outside its folder" in client(error_of, loader, str(folder))
    hub.put(f"{USER}/climbing", files)
    assert "'../outside.safetensors', which lies outside its folder" in client(error_of, "ours", f"{USER}/climbing")


def test_an_index_and_an_adapter_of_the_hub_name_safetensors_only(client, hub, honest, tmp_path):
    ran = tmp_path / "ran"
    files = {name: data for name, data in honest.items() if name != "model.safetensors"}
    index = {"metadata": {}, "weight_map": {"classifier.weight": "pytorch_model.bin"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files["pytorch_model.bin"] = pickle.dumps(Bomb(ran))
    hub.put(f"{USER}/indexed", files)
    adapter = {"base_model_name_or_path": f"{USER}/indexed", "peft_type": "LORA"}
    weights = honest["model.safetensors"]
    for name, base in (("adapted", f"{USER}/indexed"), ("local", str(tmp_path))):
        content = json.dumps({**adapter, "base_model_name_or_path": base}).encode()
        hub.put(f"{USER}/{name}", {"adapter_config.json": content, "adapter_model.safetensors": weights})
    hub.put(f"{USER}/pickled-adapter", {"adapter_config.json": json.dumps(adapter).encode()})
    for name in ("indexed", "adapted"):
        assert "names the file 'pytorch_model.bin'" in client(error_of, "ours", f"{USER}/{name}")
    assert "of this machine as its base" in client(error_of, "ours", f"{USER}/local")
    assert "an adapter without adapter_model.safetensors" in client(error_of, "ours", f"{USER}/pickled-adapter")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b", "..", "labels"])
def test_names_of_modalities_cannot_climb_out_of_the_folder(client, honest, tmp_path, name):
    for path, data in honest.items():
        (tmp_path / path).write_bytes(data)
    for path, loader in (("config.json", "ours"), ("processor_config.json", "processor")):
        settings = json.loads(honest[path])
        settings["modalities"][name] = settings["modalities"].pop("audio")
        if "modality_order" in settings:
            settings["modality_order"] = [name, "vision"]
        (tmp_path / path).write_text(json.dumps(settings))
        assert f"the modality name {name!r}" in client(error_of, loader, str(tmp_path))
    settings["modalities"][name] = {"type": "text"}  # whose tokenizer is looked for in a folder of that name
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    assert f"the modality name {name!r}" in client(error_of, "processor", str(tmp_path))


def test_settings_of_a_processor_build_preprocessors_only(client, honest, tmp_path):
    for path, data in honest.items():
        (tmp_path / path).write_bytes(data)
    settings = json.loads(honest["processor_config.json"])
    settings["modalities"]["vision"]["image_processor"]["image_processor_type"] = "PreTrainedModel"
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    assert "is no preprocessor" in client(error_of, "processor", str(tmp_path))


def test_our_trainer_keeps_no_pickle_of_its_arguments(tmp_path):
    from tiny import make_trainer

    trainer = make_trainer(tmp_path / "run", save_strategy="epoch", num_train_epochs=1, relearn_strategy="no")
    trainer.train()
    trainer.save_model()
    assert list(tmp_path.rglob("training_args.bin")) == []
    for folder in (tmp_path / "run", *(tmp_path / "run").glob("checkpoint-*")):
        arguments = json.loads((folder / "training_arguments.json").read_text())
        assert arguments["learning_rate"] == 0.01 and "output_dir" not in arguments
