"""The Python of README and of the pages under docs/, run as it stands there."""

from pathlib import Path

import datasets
import numpy as np
import pages
import pytest
import soundfile
import torch
from PIL import Image
from tiny import ast_config, vit_config
from tokenizers_of_words import WORDS, bert_like
from transformers import ASTFeatureExtractor, AutoModel, DistilBertConfig, TrainingArguments
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_relearn import FeaturesConfig, MultimodalForClassification
from hf_relearn.training import read_history


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


def save_clips(folder: Path) -> Path:
    """Tones and grey pictures of three classes, as a data set with two splits."""
    clips = folder / "clips"
    clips.mkdir()
    generator = np.random.default_rng(0)
    path = datasets.Value("string")
    names = datasets.ClassLabel(names=["low", "middle", "high"])
    features = datasets.Features({"audio": path, "image": path, "label": names})
    for split, size in (("train", 48), ("validation", 24)):
        rows: dict[str, list] = {"audio": [], "image": [], "label": []}
        for index in range(size):
            tone = np.sin(np.arange(8000) * (index % 3 + 1) / 20) + generator.normal(scale=0.1, size=8000)
            soundfile.write(clips / f"{split}{index}.wav", tone / 2, 16000)
            Image.new("L", (16, 16), 80 * (index % 3) + index % 7).convert("RGB").save(clips / f"{split}{index}.png")
            rows["audio"].append(str(clips / f"{split}{index}.wav"))
            rows["image"].append(str(clips / f"{split}{index}.png"))
            rows["label"].append(index % 3)
        table = datasets.Dataset.from_dict(rows, features=features)
        (folder / "data").mkdir(exist_ok=True)
        table.to_parquet(folder / "data" / f"{split}.parquet")
    return folder / "data"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder in which the README's example has run."""
    folder = tmp_path_factory.mktemp("readme")
    code = pages.block_with("load_dataset(")
    replaced = {
        **save_backbones(folder),
        "me/my-clips": str(save_clips(folder)),
        "num_train_epochs=8": "num_train_epochs=4, use_cpu=True, disable_tqdm=True, save_strategy='no'",
    }
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        pages.run_block(code)
    return folder


@pytest.mark.filterwarnings("ignore:.*standard error of the gap", "ignore:before training the held-out")
def test_example_of_the_readme_trains_with_two_relearning_steps(trained):
    assert len([line for line in pages.block_with("load_dataset(").splitlines() if line]) <= 13
    records = read_history(trained / "my-model")
    assert [record["kind"] for record in records] == ["start", "point", "point"]
    assert set(records[0]["modalities"]) == {"audio", "image"}


def test_example_reads_the_record(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    pages.run_block(pages.block_with("read_history("))
    assert capsys.readouterr().out.count("point") == 4


def test_example_with_any_mix_of_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    code = pages.block_with("load_table(")
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

    model, data, collator = pages.run_block(code)["prepare"](tmp_path / "table.csv", num_labels=2)
    batch = collator([data["train"][index] for index in range(8)])

    assert len(data["validation"]) == 4
    assert set(batch["caption_present"].tolist()) == {True, False}
    assert model(**batch).loss.isfinite()


def test_example_with_a_fusion_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = pages.run_block(pages.block_with("fusion_module="))["output"]
    assert set(output.ablation_logits) == {"only_gaze", "only_sensors", "without_gaze", "without_sensors"}
    assert output.logits.isfinite().all()


def test_example_with_rows_of_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AutoModel.from_config(vit_config()).save_pretrained(tmp_path / "vit")
    build = pages.run_block(pages.block_with("TableInput.fit(").replace("facebook/dinov2-small", "vit"))["build"]
    picture = np.zeros((16, 16, 3), np.uint8)
    rows = [{"age": None if n == 1 else n, "city": "ab"[n % 2], "image": picture, "label": n % 2} for n in range(6)]
    train = {column: [row[column] for row in rows] for column in ("age", "city")}
    model, collator = build(train, ["age", "city"], num_labels=2)
    assert model(**collator(rows)).loss.isfinite()


def test_example_with_a_module_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = pages.block_with("ModuleBackbone(")
    AutoModel.from_config(vit_config()).save_pretrained(tmp_path / "vit")
    model = pages.run_block(code.replace("facebook/dinov2-small", "vit"))["model"]
    assert model.config.modalities["sensors"].feature_size == 16 and not model.missing_weights


def test_example_without_a_trainer_moves_an_encoder_that_has_memorised(tmp_path):
    names = pages.run_block(pages.block_with("gate_alpha("))
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"eye": torch.nn.Linear(6, 6, bias=False), "ear": torch.nn.Linear(6, 6)})
    initial = names["begin"](model, tmp_path)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    labels = torch.arange(120) % 3
    parts = [(torch.randn(120, 6) + told * 4 * torch.eye(6)[labels], labels) for told in (1, 0)]
    with torch.no_grad():
        model["eye"].weight.copy_(torch.eye(6))

    found, alpha = names["relearn"](model, "eye", *parts, initial)

    assert found.memorised > 0.8 and alpha == 0.9
    expected = torch.lerp(torch.eye(6), before["eye.weight"], 0.9)
    torch.testing.assert_close(model["eye"].weight.detach(), expected)
    assert torch.equal(model["ear"].weight, before["ear.weight"])


def test_example_of_another_balancing_method_in_a_stock_trainer(tmp_path):
    train = pages.run_block(pages.block_with("OgmGe("))["train_with_ogm_ge"]
    args = TrainingArguments(
        str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, save_strategy="no", remove_unused_columns=False
    )
    backbones = {name: FeaturesConfig(input_size=4, architecture="mlp") for name in "ab"}
    model = MultimodalForClassification.from_backbones(backbones, num_labels=2)
    rows = [
        {"a_feature_values": torch.randn(4), "b_feature_values": torch.randn(4), "labels": i % 2} for i in range(8)
    ]
    before = [value.detach().clone() for value in model.parameters()]
    assert train(model, args, None, rows).state.global_step == 2
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_every_python_block_has_its_test():
    tested = {
        "load_dataset(": "test_docs_python.py",
        "load_table(": "test_docs_python.py",
        "fusion_module=": "test_docs_python.py",
        "read_history(": "test_docs_python.py",
        "gate_alpha(": "test_docs_python.py",
        "OgmGe(": "test_docs_python.py",
        "ModuleBackbone(": "test_docs_python.py",
        "TableInput.fit(": "test_docs_python.py",
        "whisper-tiny": "test_models_backbones.py",
        "RelearnCallback(": "two_towers.py",
        "pipeline(": "test_pipeline.py",
        "CardInfo(": "test_cards_trainer.py",
        "export_onnx(": "test_onnx.py",
    }
    for page, block in pages.blocks("python"):
        marks = [mark for mark in tested if mark in block]
        assert len(marks) == 1, f"{page}: {len(marks)} tests for\n{block}"
        (file,) = Path(__file__).parents[1].rglob(tested.pop(marks[0]))
        assert "pages.block_with(" in file.read_text(), file
    assert not tested
