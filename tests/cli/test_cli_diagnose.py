"""`hf-relearn diagnose`."""

import json

import pytest
from tiny import FEW_SAMPLES

from hf_relearn import MultimodalCollator, MultimodalForClassification, MultimodalProcessor, diagnose
from hf_relearn.data.tables import load_table
from hf_relearn.method import linear_probe_accuracy
from hf_relearn.training.saved_model import diagnose_saved_model

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


@FEW_SAMPLES
@pytest.mark.parametrize("estimator", ["separability", "purity"])
def test_all_of_a_data_set_as_json(model_folder, clips, features, run, estimator):
    how = ["--estimator", estimator, "--sampling", "all", "--json"]
    code, out, err = run("diagnose", model_folder, "--dataset_name", clips, *FLAGS, *how)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["num_classes"] == 3
    expected = diagnose(*features["train"], *features["validation"], 3, estimator=estimator)
    for name, diagnosis in expected.items():
        entry = found["modalities"][name]
        for part in ("train", "val"):
            value = f"{part}_{estimator}"
            assert entry[value] == pytest.approx(getattr(diagnosis, value), abs=1e-5)
        assert entry["gap"] == pytest.approx(diagnosis.gap, abs=1e-5)
        assert (entry["train_size"], entry["val_size"]) == (18, 12)
        (train, train_labels), (held_out, labels) = features["train"], features["validation"]
        assert entry["probe_accuracy"] == linear_probe_accuracy(train[name], train_labels, held_out[name], labels)


@pytest.mark.parametrize(
    ("how", "sizes"), [([], "18 / 12"), (["--estimator", "purity"], "12 / 12")]
)  # matched in size
def test_a_table_for_people(model_folder, clips, run, how, sizes):
    code, out, err = run("diagnose", model_folder, "--dataset_name", clips, *FLAGS, *how)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[0] == "modality" and [line.split()[0] for line in lines[1:3]] == ["audio", "vision"]
    assert lines[1].endswith(sizes)
    assert "3 classes" in lines


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
        model,
        collate,
        tables["train"],
        tables["validation"],
        estimator="purity",
        max_samples=2,
        use_cpu=True,
        progress=False,
    )
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert any("2 samples for 3 classes" in note for note in found.notes)
