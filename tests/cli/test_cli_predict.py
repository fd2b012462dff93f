"""`hf-relearn predict`."""

import io
import json
import subprocess
import sys

import pytest
import torch
from tiny import tiny_model, training_arguments, vit_config

from hf_relearn import (
    FeaturesConfig,
    MultimodalCollator,
    MultimodalForClassification,
    MultimodalProcessor,
    MultimodalRelearnTrainer,
)
from hf_relearn.data.tables import load_table


def test_a_sample_in_a_process_of_its_own(model_folder, clips):
    argv = ["predict", str(model_folder), f"audio={clips}/train0.wav", f"image={clips}/train0.png", "--top_k", "2"]
    done = subprocess.run([sys.executable, "-m", "hf_relearn", *argv], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["label", "score"] and len(rows) == 2
    assert rows[0][0] == "class" and float(rows[0][-1]) >= float(rows[1][-1])


def test_a_file_of_samples_as_json_with_contributions(model_folder, clips, run):
    code, out, err = run("predict", model_folder, "--file", clips / "samples.jsonl", "--json", "--contributions")
    assert (code, err) == (0, "")
    first, second = [json.loads(line) for line in out.splitlines()]
    assert (first["sample"], second["sample"]) == (0, 1)
    assert sum(entry["score"] for entry in first["predictions"]) == pytest.approx(1)
    assert set(first["predictions"][0]["contributions"]) == {"audio", "vision"}
    assert second["predictions"][0]["contributions"]["vision"] == 0  # which this sample lacks
    given = run("predict", model_folder, f"audio={clips}/train0.wav", f"vision={clips}/train0.png", "--json")[1]
    scores = [entry["score"] for entry in json.loads(given)["predictions"]]
    assert scores == pytest.approx([entry["score"] for entry in first["predictions"]], abs=1e-5)


def test_a_table_of_contributions(model_folder, clips, run):
    code, out, _ = run("predict", model_folder, f"audio={clips}/train0.wav", "--contributions", "--top_k", 1)
    assert code == 0
    assert out.splitlines()[0].split() == ["label", "score", "audio", "vision"]
    assert out.splitlines()[1].endswith("+0.0000")


def test_a_csv_and_its_other_columns(model_folder, clips, run, tmp_path):
    lines = [f"audio,vision,emotion\n{clips}/train0.wav,,happy\n,{clips}/train0.png,sad\n"]
    (tmp_path / "samples.csv").write_text(lines[0])
    code, out, err = run("predict", model_folder, "--file", tmp_path / "samples.csv", "--batch_size", 2)
    assert code == 0 and out.count("label") == 2 and "sample 1" in out
    assert err == f"hf-relearn predict: note: {tmp_path}/samples.csv: 'emotion' is no modality, left out\n"


def test_samples_from_stdin(model_folder, clips, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"audio": f"{clips}/train0.wav"}) + "\n"))
    code, out, _ = run("predict", model_folder, "--file", "-", "--json")
    assert code == 0 and json.loads(out)["sample"] == 0


def test_given_features_and_several_pictures(tmp_path, clips, run):
    torch.manual_seed(0)
    backbones = {"gaze": FeaturesConfig(input_size=2, hidden_size=8, architecture="mlp"), "face": vit_config()}
    model = MultimodalForClassification.from_backbones(
        backbones, modality_options={"face": {"num_frames": 2}}, id2label={0: "no", 1: "yes"}
    )
    model.save_pretrained(tmp_path)
    MultimodalProcessor.from_model(model.config).save_pretrained(tmp_path)
    faces = [f"face={clips}/train{index}.png" for index in range(2)]
    code, out, _ = run("predict", tmp_path, "gaze=[0.5, -1]", *faces, "--json")
    assert code == 0 and {entry["label"] for entry in json.loads(out)["predictions"]} == {"no", "yes"}
    code, _, err = run("predict", tmp_path, "gaze=0.5", *faces)
    assert code == 2 and err.endswith("gaze=0.5: features are numbers in brackets, such as [0.1,0.2]\n")


@pytest.mark.parametrize(
    ("argv", "code", "reason"),
    [
        ([], 2, "give either a sample (MODALITY=VALUE ...) or --file"),
        (["audio=a.wav", "--file", "b.csv"], 2, "give either a sample"),
        (["sound=a.wav"], 2, "names 'sound', but the modalities are audio, vision"),
        (["audio=a.wav", "audio=b.wav"], 2, "the modality 'audio' is given twice"),
        (["audio=nowhere.wav"], 1, "sample 0: modality 'audio': nowhere.wav: no such file"),
        (["--file", "nowhere.csv"], 1, "nowhere.csv: no such file"),
    ],
)
def test_what_is_wrong_is_told(model_folder, run, argv, code, reason):
    found, out, err = run("predict", model_folder, *argv)
    assert (found, out, err.count("\n")) == (code, "", 1) and reason in err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"audio": "a.wav"', "line 1: no JSON"),
        ('\n["a.wav"]', "line 2: no JSON object"),
        ('{"sound": "a.wav"}', "sample 0 has none of the modalities audio, vision"),
        ("", "holds no samples"),
    ],
)
def test_a_file_that_holds_no_samples(model_folder, run, tmp_path, content, reason):
    (tmp_path / "samples.jsonl").write_text(content)
    code, out, err = run("predict", model_folder, "--file", tmp_path / "samples.jsonl")
    assert (code, out) == (1, "") and reason in err.splitlines()[-1]


def test_models_that_are_none_of_ours(run, tmp_path):
    vit_config().save_pretrained(tmp_path)
    assert "a model of the type 'vit', which is no fusion model" in run("predict", tmp_path, "audio=a.wav")[2]
    missing = tmp_path / "nowhere"
    assert f"{missing}: no such folder" in run("predict", missing, "audio=a.wav")[2]


def test_private_addresses_need_a_flag(model_folder, run):
    code, _, err = run("predict", model_folder, "audio=http://127.0.0.1:9/clip.wav")
    assert code != 0 and "an address of this machine or of a private network" in err
    code, _, err = run("predict", model_folder, "audio=http://127.0.0.1:9/clip.wav", "--allow_private_addresses")
    assert code != 0 and "cannot be fetched" in err


def test_absurd_lines_are_named(model_folder, run, tmp_path):
    (tmp_path / "samples.jsonl").write_text("[" * 100_000 + "\n")
    code, _, err = run("predict", model_folder, "--file", tmp_path / "samples.jsonl")
    assert code != 0 and "samples.jsonl, line 1: no JSON" in err and "Traceback" not in err


def test_the_table_of_training_needs_no_flags(tmp_path, clips, run):
    model = tiny_model()
    processor = MultimodalProcessor.from_model(model.config)
    columns = {"audio": "sound", "vision": "picture"}
    table = load_table(
        str(clips), columns=columns, label_column="emotion", splits={"train": "train", "validation": "validation"}
    )
    arguments = training_arguments(tmp_path, max_steps=1, relearn_strategy="no", diagnosis_source="auto")
    collator = MultimodalCollator(processor, columns, "emotion")
    trainer = MultimodalRelearnTrainer(model, arguments, collator, table["train"], processing_class=processor)
    trainer.train()
    trainer.save_model()
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["columns"] == columns and saved["label_column"] == "emotion"

    code, out, err = run("predict", tmp_path, "--file", clips / "validation.csv", "--json")
    assert code == 0 and err == ""
    given = run(*("predict", tmp_path, f"audio={clips}/validation0.wav", f"vision={clips}/validation0.png", "--json"))[
        1
    ]
    first, alone = (
        [entry["score"] for entry in json.loads(line)["predictions"]] for line in (out.split("\n")[0], given)
    )
    assert first == pytest.approx(alone, abs=1e-5)
    renamed = tmp_path / "other.csv"
    renamed.write_text(f"tone;face\n{clips}/train0.wav;{clips}/train0.png\n")
    code, _, err = run("predict", tmp_path, "--file", renamed, "--columns", "audio=tone", "vision=face", "--json")
    assert code == 0 and err == ""
    code, out, err = run("predict", tmp_path, "--file", renamed, "--columns", "audio=tone", "--json")
    assert code == 1 and out == ""
    assert "no sample has the modality 'vision' (looked for the column 'picture'): name its column" in err


def test_a_folder_that_is_not_there_is_said_without_asking_the_hub(model_folder, run, monkeypatch):
    monkeypatch.chdir(model_folder.parents[1])
    name = f"{model_folder.parent.name}/my-modle"
    code, _, err = run("predict", name, "audio=a.wav")
    assert code == 1 and err.endswith(f"{name}: no such folder; models in {model_folder.parent.name} are my-model\n")
