"""What is gathered of a folder, and what is taken out of its texts."""

import json
from pathlib import Path

import pytest

from hf_relearn.hub.local_paths import local_roots, scrub_json, scrub_text
from hf_relearn.hub.staging import stage
from hf_relearn.training.pushing import shareable_arguments


def write(folder: Path, **contents) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def saved(tmp_path) -> Path:
    """A run's folder as it may lie about: a sharded model with a text modality, and much that is nobody's business."""
    folder = tmp_path / "run"
    config = {"model_type": "hf_relearn_multimodal", "modalities": {"caption": {}}, "modality_order": ["caption"]}
    write(folder, config_dot_json=config, processor_config_dot_json={"processor_class": "MultimodalProcessor"})
    write(folder, **{"model-00001-of-00002_dot_safetensors": "1", "model-00002-of-00002_dot_safetensors": "2"})
    write(folder, model_dot_safetensors_dot_index_dot_json={"weight_map": {}})
    tokenizer = {"name_or_path": str(tmp_path / "bert"), "model_max_length": 8}
    write(folder, caption__tokenizer_config_dot_json=tokenizer, caption__vocab_dot_txt=f"{tmp_path}\nhf_relearn")
    write(folder, README_dot_md=f"Trained in {folder}/deep/here.\n![](figures/purity.png) ![](figures/none.png)")
    write(folder, figures__purity_dot_png="png", figures__alpha_dot_png="png", report_dot_md="not pushed")
    write(folder, relearn_history_dot_jsonl=f'{{"note": "{folder}"}}\n', training_arguments_dot_json={"seed": 1})
    write(folder, **{"_initial_weights-1_dot_safetensors": "0", "optimizer_dot_pt": "p", "training_args_dot_bin": "p"})
    write(folder, **{"checkpoint-1__model_dot_safetensors": "1", "pytorch_model_dot_bin": "p", "runs__events": "e"})
    write(folder, evil_dot_py="raise SystemExit", other__notes_dot_json={}, trainer_state_dot_json={})
    (folder / "caption" / "stolen.json").symlink_to("/etc/hostname")
    return folder


def test_what_is_gathered_and_what_is_not(saved, tmp_path):
    gathered = [name for name in stage(saved, tmp_path / "staged") if not name.endswith(".py")]
    assert gathered == [
        "README.md",
        "caption/tokenizer_config.json",
        "caption/vocab.txt",
        "config.json",
        "figures/purity.png",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "processor_config.json",
        "relearn_history.jsonl",
        "training_arguments.json",
    ]
    assert not (tmp_path / "staged" / "evil.py").exists()
    assert [path.name for path in tmp_path.iterdir()] in (["run", "staged"], ["staged", "run"])


def test_texts_lose_local_paths_and_vocabularies_stay_as_they_are(saved, tmp_path):
    stage(saved, tmp_path / "staged")
    for name in ("README.md", "caption/tokenizer_config.json", "relearn_history.jsonl"):
        assert str(tmp_path) not in (tmp_path / "staged" / name).read_text(), name
    assert "Trained in …/here." in (tmp_path / "staged" / "README.md").read_text()
    assert (tmp_path / "staged" / "caption" / "vocab.txt").read_text() == (saved / "caption/vocab.txt").read_text()


def test_the_auto_classes_are_named(saved, tmp_path):
    stage(saved, tmp_path / "staged")
    config = json.loads((tmp_path / "staged" / "config.json").read_text())
    assert config["auto_map"]["AutoModelForSequenceClassification"].endswith(".MultimodalForClassification")
    processor = json.loads((tmp_path / "staged" / "processor_config.json").read_text())
    assert processor["auto_map"] == {"AutoProcessor": "processing_multimodal.MultimodalProcessor"}


def test_a_folder_without_a_model_is_refused_and_the_target_stays(saved, tmp_path):
    write(tmp_path / "staged", kept_dot_txt="of an earlier push")
    for path in saved.glob("model*"):
        path.unlink()
    with pytest.raises(ValueError, match=f"{saved} holds no weights as safetensors"):
        stage(saved, tmp_path / "staged")
    assert [path.name for path in (tmp_path / "staged").iterdir()] == ["kept.txt"]


def test_values_of_json_lose_paths_and_tokens_but_not_labels(tmp_path):
    value = {
        "_name_or_path": "/data/models/bert",
        "id2label": {"0": "/m/0dgw9r"},
        "cache": str(tmp_path),
        "ids": ["google/vit", "https://hf.co/tmp/x", f"see {tmp_path}/a b"],
        "home": str(Path.home()),
        "note": "token hf_" + "A" * 30,
    }
    scrubbed = scrub_json(value, local_roots(tmp_path))
    assert scrubbed == {
        "_name_or_path": "…/bert",
        "id2label": {"0": "/m/0dgw9r"},
        "cache": "…",
        "ids": ["google/vit", "https://hf.co/tmp/x", "see …/a b"],
        "home": "…",
        "note": "token <token>",
    }


def test_roots_are_cut_where_they_end():
    assert scrub_text("/srv/run/x.txt and /srv/runs/y", ("/srv/run",)) == "…/x.txt and /srv/runs/y"


def test_training_arguments_are_shared_without_folders_and_tokens(tmp_path):
    from tiny import training_arguments

    token = "hf_" + "B" * 30
    args = training_arguments(tmp_path, hub_token=token, hub_model_id="ann/x", deepspeed=None, seed=7)
    args.fsdp_config = {"transformer_layer_cls_to_wrap": ["A"], "state": f"{tmp_path}/fsdp.json"}
    shared = json.loads(shareable_arguments(args))
    assert shared["seed"] == 7 and shared["relearn_lambda"] == 3.0
    assert not [name for name in shared if name.startswith(("hub_", "push_to_hub", "output_dir"))]
    assert token not in json.dumps(shared) and str(tmp_path) not in json.dumps(shared)


@pytest.mark.parametrize(
    "what", ["caption", "figures", "README.md", "relearn_history.jsonl", "training_arguments.json"]
)
def test_links_out_of_the_folder_are_not_followed(saved, tmp_path, what):
    outside = tmp_path / "outside" / what
    outside.parent.mkdir()
    (saved / what).rename(outside)
    (saved / what).symlink_to(outside)
    gathered = stage(saved, tmp_path / "staged")
    assert not [name for name in gathered if name.startswith(what)]
    assert "model-00001-of-00002.safetensors" in gathered


def test_links_within_the_folder_are_followed(saved, tmp_path):
    (saved / "caption").rename(saved / "tokenizer")
    (saved / "caption").symlink_to(saved / "tokenizer")
    link = tmp_path / "link"
    link.symlink_to(saved)
    assert "caption/vocab.txt" in stage(link, tmp_path / "staged")


def test_weights_behind_a_link_out_of_the_folder_are_not_pushed(saved, tmp_path):
    for path in saved.glob("*.safetensors"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    (saved / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="holds no weights as safetensors"):
        stage(saved, tmp_path / "staged")
