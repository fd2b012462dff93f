"""The folder of a Space, and what is refused."""

import importlib.metadata
import json
import sys

import pytest
import yaml

import hf_relearn
from hf_relearn.cli.main import main

pytest.importorskip("gradio", reason="gradio is absent: pip install '.[demo]'")

from hf_relearn.demo.space import write_space  # noqa: E402


def front_of(folder) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_a_space_of_a_model_on_the_hub_names_it(tmp_path, capsys):
    folder = tmp_path / "space"
    assert main(["space", "ann/moods", "--folder", str(folder), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"folder": str(folder), "files": ["README.md", "app.py", "requirements.txt"], "space": None}
    assert 'MODEL = "ann/moods"' in (folder / "app.py").read_text()
    assert (folder / "requirements.txt").read_text() == f"hf_relearn[demo]=={hf_relearn.__version__}\n"
    front = front_of(folder)
    assert (front["sdk"], front["sdk_version"]) == ("gradio", importlib.metadata.version("gradio"))
    assert (front["models"], front["app_file"], front["title"]) == (["ann/moods"], "app.py", "moods")


def test_a_space_of_a_local_model_holds_its_files_and_replaces_an_earlier_one(tmp_path, model_folder):
    (tmp_path / "space" / "model").mkdir(parents=True)
    (tmp_path / "space" / "model" / "old.safetensors").touch()
    files = write_space(str(model_folder), tmp_path / "space", package="hf_relearn[demo] @ git+https://example.org/me")
    assert {"app.py", "model/config.json", "model/model.safetensors", "model/words/tokenizer.json"} <= set(files)
    assert "model/old.safetensors" not in files and "models" not in front_of(tmp_path / "space")
    assert 'MODEL = "model"' in (tmp_path / "space" / "app.py").read_text()
    assert str(model_folder) not in (tmp_path / "space" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["space"]


def test_a_folder_with_other_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "diary.txt").write_text("private")
    assert main(["space", "ann/moods", "--folder", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_model_that_is_not_there_is_told(tmp_path, capsys):
    for command in ("space", "demo"):
        assert main([command, str(tmp_path / "nowhere")]) == 1
        assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "space"])
def test_without_gradio_the_extra_is_named(command, monkeypatch, capsys, model_folder):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main([command, str(model_folder)]) == 1
    assert "pip install 'hf_relearn[demo]'" in capsys.readouterr().err
