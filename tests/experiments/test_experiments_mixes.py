"""The recipes on any mix of modalities, with every fusion, and with samples that lack a modality."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from PIL import Image
from tiny import FEW_SAMPLES, history
from tiny_backbones import BACKBONES
from tokenizers_of_words import bert_like
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.models.configuration_multimodal import FUSION_OPTIONS

pytestmark = FEW_SAMPLES

CLASSES = ("low", "middle", "high")
TINY = [
    *("--max_steps", "2", "--per_device_train_batch_size", "9", "--eval_strategy", "no", "--save_strategy", "no"),
    *("--diagnosis_interval", "0", "--relearn_strategy", "steps", "--relearn_interval", "1", "--image_size", "16"),
    *("--spectrogram_size", "16", "16", "--audio_seconds", "0.25"),
]


def make_rows(count: int, missing: str | None, rng: np.random.Generator) -> dict[str, list]:
    """Sounds, pictures, texts, sequences and numbers of three classes; one column is empty in 30 % of the rows."""
    rows: dict[str, list] = {name: [] for name in ("audio", "image", "text", "gaze", "x", "y", "label")}
    for index in range(count):
        label = index % 3
        sound = io.BytesIO()
        time = np.arange(4000) / 16000
        soundfile.write(sound, np.sin(2 * np.pi * 200 * (label + 1) * time).astype(np.float32), 16000, format="WAV")
        picture = io.BytesIO()
        pixels = rng.integers(0, 80, (16, 16, 3)) + 80 * label
        Image.fromarray(pixels.astype(np.uint8)).save(picture, format="PNG")
        rows["audio"].append({"bytes": sound.getvalue(), "path": None})
        rows["image"].append({"bytes": picture.getvalue(), "path": None})
        rows["text"].append(f"the level is {CLASSES[label]} today")
        rows["gaze"].append(rng.normal(label, 1, (int(rng.integers(2, 6)), 4)).tolist())
        rows["x"].append(float(label))
        rows["y"].append(float(rng.normal()))
        rows["label"].append(CLASSES[label])
    if missing:
        rows[missing] = [None if index % 10 < 3 else value for index, value in enumerate(rows[missing])]
    return rows


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, Path]:
    """A data set with all samples whole, and one in which 30 % have no sound."""
    rng = np.random.default_rng(0)
    folders = {}
    for name, missing in (("whole", None), ("some silent", "audio")):
        folders[name] = tmp_path_factory.mktemp("tables") / name.replace(" ", "_")
        folders[name].mkdir()
        for split, count in (("train", 36), ("validation", 18), ("test", 18)):
            Dataset.from_dict(make_rows(count, missing, rng)).to_parquet(folders[name] / f"{split}.parquet")
    return folders


SMALL = "--from_scratch"
THREE = ("--modalities", "audio", "image:vision", "text")


@pytest.mark.filterwarnings("ignore:chance alone explains", "ignore:the diagnosing part has no sample")
@pytest.mark.parametrize("data", [pytest.param("whole", marks=pytest.mark.slow), "some silent"])
@pytest.mark.parametrize("fusion", FUSION_OPTIONS)
def test_three_modalities_with_every_fusion(tables, tmp_path, run_here, fusion, data):
    output = tmp_path / "run"
    run_here(
        "train_multimodal.py",
        *("--dataset_name", str(tables[data]), "--output_dir", str(output), *THREE, *TINY, SMALL),
        *("--fusion", fusion, "--preset", "paper", "--diagnosis_fraction", "0.5"),
    )
    results = json.loads((output / "all_results.json").read_text())
    for name in ("audio", "image", "text"):
        assert 0 <= results[f"test_only_{name}_accuracy"] <= 1
        assert 0 <= results[f"test_without_{name}_accuracy"] <= 1
    assert np.isfinite(results["test_loss"])
    (point,) = [record for record in history(output) if record["kind"] == "point"]
    assert set(point["modalities"]) == {"audio", "image", "text"}
    model = MultimodalForClassification.from_pretrained(output)
    assert model.config.fusion == fusion
    assert list(MultimodalProcessor.from_pretrained(output).inputs) == ["audio", "image", "text"]


def test_spoilt_data_and_another_balancing_method_are_told_of_in_the_report(tables, tmp_path, run_here):
    output = tmp_path / "run"
    run_here(
        "train_multimodal.py",
        *("--dataset_name", str(tables["whole"]), "--output_dir", str(output), *THREE, *TINY, SMALL),
        *("--corrupt", "audio=noise:1.0", "text=missing:0.3", "labels:0.2", "--unimodal_loss_weight", "1"),
        *("--relearn_strategy", "no", "--balancing", "mlb", "--balancing_options", "alpha=0.5"),
    )
    report, card = (output / "report.md").read_text(), (output / "README.md").read_text()
    for line in ("audio has noise of 1 in all parts", "text has a share of 0.3 missing", "0.2 of the training labels"):
        assert line in report and line in card, line
    assert "| `balancing` | `mlb` |" in report and "alpha=0.5" in report
    assert "| image: Shapley value of accuracy |" in report and "| expected calibration error |" in report
    assert 0 <= json.loads((output / "all_results.json").read_text())["test_right_alone"] <= 1


@pytest.mark.filterwarnings("ignore:chance alone explains", "ignore:the diagnosing part has no sample")
def test_given_features_as_sequences_and_as_columns_of_numbers(tables, tmp_path, run_here):
    output = tmp_path / "run"
    run_here(
        "train_multimodal.py",
        *("--dataset_name", str(tables["whole"]), "--output_dir", str(output), *TINY, SMALL),
        *("--modalities", "gaze:features", "sensors:features", "text", "--columns", "sensors=x,y"),
    )
    config = MultimodalForClassification.from_pretrained(output).config
    architectures = {name: modality.backbone_config.architecture for name, modality in config.modalities.items()
                     if modality.kind == "features"}  # fmt: skip
    assert architectures == {"gaze": "transformer", "sensors": "mlp"}
    assert config.modalities["gaze"].backbone_config.input_size == 4
    processor = MultimodalProcessor.from_pretrained(output)
    # Standardised by the training part: class 0, 1, 2 in equal shares.
    assert processor({"sensors": [[1.0, 0.0]], "gaze": [[[0.0] * 4]], "text": ["so"]})["sensors_feature_values"][
        0, 0
    ] == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:chance alone explains")
def test_image_text_recipe_on_its_generated_pictures(tmp_path, run_here, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    run_here(
        "train_image_text.py",
        *("--max_steps", "4", "--eval_strategy", "no", "--save_strategy", "no", "--relearn_strategy", "steps"),
        *("--relearn_interval", "2", "--diagnosis_interval", "0", "--diagnosis_max_samples", "120"),
    )
    assert "SYNTHETIC" in caplog.text
    output = tmp_path / "outputs" / "image_text_sample_run"
    assert [record["step"] for record in history(output) if record["kind"] == "point"] == [2]
    assert "Image and text: generated shapes" in (output / "report.md").read_text()
    processor = MultimodalProcessor.from_pretrained(output)
    assert processor({"vision": [Image.new("RGB", (9, 9))], "text": ["a red disc"]})["text_input_ids"].shape[0] == 1


@pytest.mark.filterwarnings("ignore:chance alone explains", "ignore:the diagnosing part has no sample")
@pytest.mark.filterwarnings("ignore:none of the parameters of the encoder", "ignore:.*so the encoder is dead")
def test_image_text_recipe_on_the_two_towers_of_a_checkpoint(tables, tmp_path, run_here):
    clip, output = tmp_path / "clip", tmp_path / "run"
    torch.manual_seed(0)
    CLIPModel(BACKBONES["clip-text-tower"].make()).save_pretrained(clip)
    CLIPImageProcessorPil(size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        clip
    )
    bert_like(eos_token="[SEP]", model_max_length=16).save_pretrained(clip)
    run_here(
        "train_image_text.py",
        *("--dataset_name", str(tables["whole"]), "--output_dir", str(output), "--clip_model_name_or_path", str(clip)),
        *(*TINY, "--freeze", "text", "--learning_rates", "vision=1e-2", "--relearn_max_times", "1"),
    )
    whole, model = CLIPModel.from_pretrained(clip), MultimodalForClassification.from_pretrained(output)
    assert [type(encoder.backbone).__name__ for encoder in model.encoders.values()] == [
        "CLIPVisionModel",
        "CLIPTextModel",
    ]
    before, after = whole.text_model.state_dict(), model.encoders["text"].backbone.state_dict()
    assert after and all(torch.equal(value, before[name.removeprefix("text_model.")]) for name, value in after.items())
    before, after = whole.vision_model.state_dict(), model.encoders["vision"].backbone.state_dict()
    assert any(not torch.equal(value, before[name.removeprefix("vision_model.")]) for name, value in after.items())


def test_a_checkpoint_with_towers_and_single_backbones_exclude_each_other(tmp_path, run_here, capsys):
    flags = ("--clip_model_name_or_path", "a/clip", "--text_model_name_or_path", "a/bert")
    with pytest.raises(SystemExit) as end:
        run_here("train_image_text.py", *flags, "--output_dir", str(tmp_path / "run"))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "--clip_model_name_or_path gives both towers: leave out --vision_model_name_or_path" in said


def test_image_text_recipe_names_the_column_that_is_not_there(tables, tmp_path, run_here, capsys):
    flags = ("--dataset_name", str(tables["whole"]), "--text_column", "caption", SMALL)
    with pytest.raises(SystemExit) as end:
        run_here("train_image_text.py", *flags, "--output_dir", str(tmp_path / "run"))
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "has no column 'caption'; it has audio, image, text" in said
    assert "name the column that holds the modality 'text'" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "train_image_text.py",
            "no backbone is named for vision, text: name pretrained ones, as --vision_model_name_or_path "
            "facebook/dinov2-small --text_model_name_or_path",
        ),
        (
            "train_multimodal.py",
            "no backbone is named for audio, vision: name pretrained ones, as --models audio=facebook/wav2vec2-base",
        ),
    ],
)
def test_own_data_need_named_backbones(tables, tmp_path, run_here, capsys, recipe, message):
    with pytest.raises(SystemExit):
        run_here(recipe, "--dataset_name", str(tables["whole"]), "--output_dir", str(tmp_path / "run"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line and "with --from_scratch" in line
    assert not (tmp_path / "run").exists()


def test_from_scratch_sets_a_rate_that_fits_and_a_lower_one_warns(tables, tmp_path, run_here, caplog):
    flags = ("--dataset_name", str(tables["whole"]), *TINY, SMALL, "--relearn_strategy", "no")
    caplog.set_level(logging.WARNING, logger="hf_relearn")
    run_here("train_image_text.py", *flags, "--output_dir", str(tmp_path / "a"))
    assert json.loads((tmp_path / "a" / "training_arguments.json").read_text())["learning_rate"] == 1e-3
    assert "begins with random weights" not in caplog.text
    run_here(
        "train_image_text.py",
        *(*flags, "--output_dir", str(tmp_path / "b"), "--learning_rate", "2e-5", "--learning_rates", "text=1e-3"),
    )
    said = [record.message for record in caplog.records if "begins with random weights" in record.message]
    assert len(said) == 1 and said[0].startswith("the encoder of vision") and "--learning_rates vision=1e-3" in said[0]


def test_several_classes_per_sample_switch_re_learning_off(tmp_path, run_here, caplog):
    rows = make_rows(36, None, np.random.default_rng(0))
    rows["label"] = [["low"] if index % 2 else ["low", "high"] for index in range(36)]
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation"):
        Dataset.from_dict({name: rows[name] for name in ("image", "text", "label")}).to_parquet(
            data / f"{split}.parquet"
        )
    caplog.set_level(logging.INFO, logger="hf_relearn")
    run_here(
        "train_image_text.py",
        *("--dataset_name", str(data), SMALL, "--output_dir", str(tmp_path / "run"), "--max_steps", "2"),
        *("--eval_strategy", "no", "--save_strategy", "no", "--image_size", "16"),
    )
    assert "Samples have several classes, which cannot be diagnosed: --relearn_strategy no" in caplog.messages
    model = MultimodalForClassification.from_pretrained(tmp_path / "run")
    assert model.config.problem_type == "multi_label_classification" and model.config.num_labels == 2
