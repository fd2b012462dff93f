"""`hf-relearn diagnose`."""

import json
import re
import shutil
import warnings
from dataclasses import asdict

import pytest

from hf_relearn import MultimodalCollator, MultimodalForClassification, MultimodalProcessor, diagnose
from hf_relearn.data.tables import load_table
from hf_relearn.experiments.saved_model import diagnose_saved_model
from hf_relearn.method import DiagnosisWarning, linear_probe_accuracy

COLUMNS = {"audio": "sound", "vision": "picture"}
FLAGS = ["--columns", "audio=sound", "vision=picture", "--label_column", "emotion", "--cpu"]


@pytest.fixture(scope="module")
def features(model_folder, clips) -> dict:
    """Features and labels of both splits, by hand."""
    model = MultimodalForClassification.from_pretrained(model_folder)
    kinds, splits = {"audio": "audio", "vision": "vision"}, {"train": "train", "validation": "validation"}
    tables = load_table(str(clips), columns=COLUMNS, kinds=kinds, label_column="emotion", splits=splits)
    collate = MultimodalCollator(MultimodalProcessor.from_pretrained(model_folder), COLUMNS, "emotion")
    parts = {}
    for split, table in tables.items():
        batch = collate(list(table))
        labels = batch.pop("labels").numpy()
        found = model(**batch).features
        parts[split] = ({name: value.detach().numpy() for name, value in found.items()}, labels)
    return parts


@pytest.mark.parametrize("estimator", ["separability", "purity"])
def test_all_of_a_data_set_as_json(model_folder, clips, features, run, estimator):
    flags = [*FLAGS, *([] if estimator == "separability" else ["--estimator", "purity", "--sampling", "all"])]
    code, out, err = run("diagnose", model_folder, "--dataset_name", clips, *flags, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["num_classes"] == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosisWarning)
        expected = diagnose(*features["train"], *features["validation"], 3, estimator=estimator)
    for name, diagnosis in expected.items():
        entry = found["modalities"][name]
        values = {key: value for key, value in asdict(diagnosis).items() if isinstance(value, float)}
        assert {key: entry[key] for key in values} == pytest.approx(values, abs=1e-5)
        measured = ("memorised_error" in values, "val_purity" in values)
        assert measured == (estimator == "separability", estimator == "purity")
        assert (entry["train_size"], entry["val_size"]) == (18, 12)
        (train, train_labels), (held_out, labels) = features["train"], features["validation"]
        assert entry["probe_accuracy"] == linear_probe_accuracy(train[name], train_labels, held_out[name], labels)


def test_a_table_for_people(model_folder, clips, run):
    code, out, err = run("diagnose", model_folder, "--dataset_name", clips, *FLAGS)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[0] == "modality" and [line.split()[0] for line in lines[1:3]] == ["audio", "vision"]
    assert "separability train" in lines[0] and "memorised" in lines[0] and re.search(r"\d% ± \d+%", lines[1])
    assert lines[1].endswith("18 / 12")
    assert "3 classes" in lines


def test_a_table_of_purities(model_folder, clips, run):
    code, out, _ = run("diagnose", model_folder, "--dataset_name", clips, *FLAGS, "--estimator", "purity")
    lines = out.splitlines()
    assert code == 0 and "purity train" in lines[0] and "alpha" in lines[0] and "memorised" not in lines[0]
    assert lines[1].endswith("12 / 12")  # matched in size


def test_a_held_out_part_that_had_to_be_drawn_is_told(model_folder, clips, run):
    table = clips / "train.csv"
    code, out, _ = run("diagnose", model_folder, "--dataset_name", table, *FLAGS, "--held_out_fraction", 0.5)
    assert code == 0 and "note: 0.5 of the split 'train' was drawn as held-out part" in out


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (["--held_out_split", "test"], 1, "has no split 'test' to hold out; it has train"),
        (["--columns", "sound=sound"], 2, "--columns names 'sound', but the modalities are audio, vision"),
        (["--label_column", "mood"], 1, "has no column 'mood'; it has sound, picture, emotion"),
    ],
)
def test_what_is_wrong_is_told(model_folder, clips, run, flags, code, reason):
    found, out, err = run("diagnose", model_folder, "--dataset_name", clips, *FLAGS, *flags)
    assert (found, out, err.count("\n")) == (code, "", 1) and reason in err


def test_the_model_is_left_as_it_was(model_folder, clips):
    model = MultimodalForClassification.from_pretrained(model_folder).train()
    kinds, splits = {"audio": "audio", "vision": "vision"}, {"train": "train", "validation": "validation"}
    tables = load_table(str(clips), columns=COLUMNS, kinds=kinds, label_column="emotion", splits=splits)
    collate = MultimodalCollator(MultimodalProcessor.from_pretrained(model_folder), COLUMNS, "emotion")
    found = diagnose_saved_model(
        model, collate, tables["train"], tables["validation"], max_samples=2, use_cpu=True, progress=False
    )
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert found.notes and all(item.memorised is not None for item in found.modalities.values())


@pytest.mark.parametrize("command", ["diagnose", "evaluate"])
def test_a_picture_that_cannot_be_read_is_named_before_anything_is_computed(
    model_folder, clips, run, tmp_path, command
):
    folder = shutil.copytree(clips, tmp_path / "clips")
    (folder / "validation5.png").write_bytes(b"no picture")
    flags = [model_folder, "--dataset_name", folder, *FLAGS]
    if command == "evaluate":
        labels = {f"emotion {index}": index for index in range(3)}
        model = MultimodalForClassification.from_pretrained(model_folder)
        model.config.id2label = {index: name for name, index in labels.items()}
        model.config.label2id = labels
        shutil.copytree(model_folder, tmp_path / "model")
        model.config.save_pretrained(tmp_path / "model")
        flags[0] = tmp_path / "model"
        flags += ["--split", "validation", "--output", tmp_path / "out"]
    code, out, err = run(command, *flags)
    assert (code, out, err.count("\n")) == (1, "", 1) and "row 5, column 'picture'" in err
    assert not (tmp_path / "out").exists()
    code, out, _ = run(command, *flags, "--unreadable", "skip", "--json")
    found = json.loads(out)
    if command == "diagnose":
        assert code == 0 and {entry["val_size"] for entry in found["modalities"].values()} == {11}
    else:
        assert code == 0 and sum(values["support"] for values in found["per_class"].values()) == 11
