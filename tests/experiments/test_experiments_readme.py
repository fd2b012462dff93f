"""The README's Python, run as it stands there."""

import ast
import re
import runpy
import shlex
import sys
from pathlib import Path

import datasets
import pytest
from PIL import Image
from tiny import ast_config, vit_config
from tokenizers_of_words import WORDS, bert_like
from transformers import ASTFeatureExtractor, AutoModel, DistilBertConfig
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.main import get_command

import hf_relearn.experiments
from hf_relearn.cli.main import COMMANDS, app, one_value_a_flag
from hf_relearn.experiments import parse_recipe_arguments

RECIPES = Path(__file__).parents[2] / "recipes"
README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def save_backbones(folder: Path) -> dict[str, str]:
    """Tiny stand-ins for the README's pretrained backbones, each with its preprocessor."""
    audio, vision = folder / "ast", folder / "vit"
    AutoModel.from_config(ast_config()).save_pretrained(audio)
    ASTFeatureExtractor(max_length=16, num_mel_bins=16).save_pretrained(audio)
    AutoModel.from_config(vit_config()).save_pretrained(vision)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(vision)
    return {
        "MIT/ast-finetuned-audioset-10-10-0.4593": str(audio),
        "google/vit-base-patch16-224-in21k": str(vision),
    }


@pytest.fixture
def small_digits(shared_data, tmp_path) -> Path:
    splits = datasets.load_dataset(str(shared_data / "av_digits"))
    for split, size in (("train", 40), ("validation", 20)):
        (tmp_path / "digits").mkdir(exist_ok=True)
        part = splits[split].shuffle(seed=0).select(range(size))
        part = part.cast_column("audio", datasets.Audio(decode=False)).cast_column(
            "image", datasets.Image(decode=False)
        )
        part.to_parquet(tmp_path / "digits" / f"{split}.parquet")
    return tmp_path / "digits"


@pytest.mark.filterwarnings("ignore:chance alone explains", "ignore:the diagnosing part has no sample")
def test_example_with_own_data(small_digits, tmp_path, monkeypatch):
    code = next(block for block in BLOCKS if "load_dataset" in block)
    assert len(code.strip().splitlines()) <= 25
    replaced = {
        **save_backbones(tmp_path),
        "me/my-clips": str(small_digits),
        "num_train_epochs=8": "num_train_epochs=2, use_cpu=True, disable_tqdm=True, relearn_interval=1",
    }
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
    assert (tmp_path / "my-model" / "relearn_history.jsonl").read_text().count('"point"') == 1


def test_example_with_any_mix_of_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    code = next(block for block in BLOCKS if "load_table" in block)
    words = DistilBertConfig(vocab_size=len(WORDS) + 4, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    AutoModel.from_config(words).save_pretrained(tmp_path / "words")
    bert_like().save_pretrained(tmp_path / "words")
    AutoModel.from_config(vit_config()).save_pretrained(tmp_path / "vit")
    for old, new in {"facebook/dinov2-small": "vit", "distilbert/distilbert-base-uncased": "words"}.items():
        assert old in code
        code = code.replace(old, str(tmp_path / new))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    rows = [f"a.png,{'a cat' if index % 2 else ''},{index},{index / 2},{'ab'[index % 2]}" for index in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["image_path,title,temperature,pressure,label", *rows]))
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)

    model, data, collator = names["prepare"](tmp_path / "table.csv", num_labels=2)
    batch = collator([data["train"][index] for index in range(8)])

    assert len(data["validation"]) == 4
    assert set(batch["caption_present"].tolist()) == {True, False}
    assert model(**batch).loss.isfinite()


def test_example_with_a_fusion_of_ones_own(tmp_path, monkeypatch):
    code = next(block for block in BLOCKS if "fusion_module" in block)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    output = names["output"]
    assert set(output.ablation_logits) == {"only_gaze", "only_sensors", "without_gaze", "without_sensors"}
    assert output.logits.isfinite().all()


class Parsed(Exception):
    """The flags of a recipe were understood."""


def shell_commands(script: str) -> list[list[str]]:
    """What the README's shell blocks give to a script, one list of arguments per command."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if script in line]
    return [shlex.split(line.split(script, 1)[1], comments=True) for line in lines]


@pytest.mark.parametrize("recipe", sorted(path.name for path in RECIPES.glob("*.py")))
def test_flags_of_the_recipes_in_readme_and_their_own_text_are_understood(recipe, tmp_path, monkeypatch):
    def parse(main, *args):
        parse_recipe_arguments(*args)
        raise Parsed

    monkeypatch.setattr(hf_relearn.experiments, "run_recipe", parse, raising=False)
    monkeypatch.chdir(tmp_path)
    own = ast.get_docstring(ast.parse((RECIPES / recipe).read_text())) or ""
    own_commands = [line for line in own.replace("\\\n", " ").splitlines() if "accelerate launch" in line]
    commands = shell_commands(recipe) + [shlex.split(line.split(recipe, 1)[1]) for line in own_commands]
    assert len(own_commands) >= 2 and len(commands) > len(own_commands)
    for flags in commands:
        monkeypatch.setattr(sys, "argv", [recipe, *flags, "--use_cpu"])
        with pytest.raises(Parsed):
            runpy.run_path(str(RECIPES / recipe), run_name="__main__")


def test_commands_of_the_command_line_in_readme_are_understood():
    commands = shell_commands("hf-relearn ")
    assert {flags[0] for flags in commands} == set(COMMANDS)
    for command, *flags in commands:
        get_command(app).commands[command].make_context(command, list(one_value_a_flag(flags)))


def test_every_python_block_has_its_test():
    tested = {
        "load_dataset(": "test_experiments_readme.py",
        "load_table(": "test_experiments_readme.py",
        "fusion_module=": "test_experiments_readme.py",
        "whisper-tiny": "test_models_backbones.py",
        "RelearnCallback(": "test_training_stock_trainer.py",
        "pipeline(": "test_pipeline.py",
        "CardInfo(": "test_cards_trainer.py",
        "export_onnx(": "test_onnx.py",
    }
    for block in BLOCKS:
        (mark,) = [mark for mark in tested if mark in block]
        (file,) = Path(__file__).parents[1].rglob(tested.pop(mark))
        assert "README" in file.read_text(), file
