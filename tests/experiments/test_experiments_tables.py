"""The recipe on a CSV file of pictures and rows with empty cells: trained, reported, predicted and evaluated."""

import json
import re
import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from tiny import FEW_SAMPLES

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.cli.main import main
from hf_relearn.data.corruption import corrupt_splits, parse_corruptions
from hf_relearn.data.tables import load_table

RECIPE = Path(__file__).parents[2] / "recipes" / "train_multimodal.py"
FLAGS = [
    *("--modalities", "photo:vision", "patient:table", "--label_column", "outcome", "--from_scratch"),
    *("--columns", "photo=path", "patient=age,postcode,city,member", "--category_columns", "postcode"),
]
TINY = [
    *("--use_cpu", "--disable_tqdm", "true", "--num_train_epochs", "2", "--per_device_train_batch_size", "9"),
    *("--save_strategy", "no", "--image_size", "16", "--relearn_points", "0.5", "--learning_rate", "0.01"),
]
pytestmark = FEW_SAMPLES


def write_patients(tmp_path, member=lambda index: "true"):
    """90 rows: the age tells the outcome; every third has no age, every tenth no cell at all."""
    generator = np.random.default_rng(0)
    lines = ["path,age,postcode,city,member,outcome"]
    for index in range(90):
        name = f"{index % 4}.png"
        Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
        age = "" if index % 3 == 0 else 20 + 40 * (index % 2) + index % 7
        cells = (
            f"{age},{1000 + index % 5},{'' if index % 8 == 0 else 'Rome Oslo Bern'.split()[index % 3]},{member(index)}"
        )
        outcome = "well" if index % 2 else "ill"
        lines.append(f"{name},{',,,' if index % 10 == 0 else cells},{outcome}")
    (tmp_path / "patients.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "patients.csv"


@pytest.fixture
def patients(tmp_path):
    return write_patients(tmp_path)


def run_here(monkeypatch, *flags):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["train_multimodal.py", *map(str, flags)])
        runpy.run_path(str(RECIPE), run_name="__main__")


def test_a_run_on_pictures_and_rows_learns_and_its_model_reads_the_same_file(patients, tmp_path, monkeypatch, capsys):
    output = tmp_path / "run"
    run_here(monkeypatch, "--dataset_name", patients, "--output_dir", output, *FLAGS, *TINY)
    printed = capsys.readouterr().out
    lacking = [int(count) for count in re.findall(r"(?:train|validation): .*, of which (\d+) .*lack patient", printed)]
    assert sum(lacking) == 9 and "validation: 9 samples" in printed and "So few say nothing" in printed
    assert "lack patient" in (output / "report.md").read_text()
    table = MultimodalProcessor.from_pretrained(output).inputs["patient"]
    assert [each["column"] for each in table.numbers] == ["age"]
    assert [each["column"] for each in table.categories] == ["postcode", "city", "member"]
    assert set(table.categories[0]["values"]) == {"1000", "1001", "1002", "1003", "1004"}
    model = MultimodalForClassification.from_pretrained(output)
    assert model.config.modalities["patient"].kind == "table"
    assert '"patient": [{"age": 1.0, "postcode": "a"' in (output / "README.md").read_text()

    assert main(["predict", str(output), "--file", str(patients), "--json", "--cpu"]) == 0
    found = [json.loads(line)["predictions"][0]["label"] for line in capsys.readouterr().out.splitlines()]
    truth = [line.rpartition(",")[2] for line in patients.read_text().splitlines()[1:]]
    aged = [place for place in range(90) if place % 3 and place % 10]
    assert np.mean([found[place] == truth[place] for place in aged]) > 0.9
    evaluated = ["--dataset_name", str(patients), "--output", str(tmp_path / "evaluation"), "--json", "--cpu"]
    assert main(["evaluate", str(output), *evaluated]) == 0
    accuracy = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
    assert accuracy == pytest.approx(np.mean([one == other for one, other in zip(found, truth, strict=True)]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--columns", "photo=path", "patient=age,height", "--category_columns", "age"],
            "has no column 'height'; it has path, age",
        ),
        (["--category_columns", "age", "town"], "--category_columns names 'town', but the columns of tables are age"),
        (["--corrupt", "patient=noise:1"], "--corrupt patient=noise: noise is not for rows of a table"),
    ],
)
def test_flags_that_do_not_fit_are_refused(patients, tmp_path, monkeypatch, capsys, flags, message):
    with pytest.raises(SystemExit):
        run_here(monkeypatch, "--dataset_name", patients, "--output_dir", tmp_path / "run", *FLAGS, *TINY, *flags)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (lambda index: "", "modality 'patient': the column 'member' is empty in all 81 training rows: leave it out"),
        (lambda index: f"Mr {index}", "modality 'patient': the column 'member' has 7. different values in 7. filled"),
    ],
)
def test_columns_that_teach_nothing_are_refused_by_name(tmp_path, monkeypatch, capsys, member, message):
    patients = write_patients(tmp_path, member)
    with pytest.raises(SystemExit):
        run_here(monkeypatch, "--dataset_name", patients, "--output_dir", tmp_path / "run", *FLAGS, *TINY)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_columns_of_a_hub_data_set_become_cells_and_missing_spoils_whole_rows(tmp_path):
    names = datasets.ClassLabel(names=["Oslo", "Rome"])
    features = datasets.Features({"city": names, "age": datasets.Value("int32"), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict(
        {"city": [0, 1] * 6, "age": [*range(12)], "label": [0, 1] * 6}, features=features
    )
    data = data.add_column("day", [None] * 12, feature=datasets.Value("date32"))
    data.to_parquet(tmp_path / "train.parquet")

    def load(columns):
        splits = {"train": "train"}
        return load_table(
            str(tmp_path),
            columns={"row": columns},
            kinds={"row": "table"},
            label_column="label",
            splits=splits,
            validation_fraction=0.5,
        )

    loaded = load(["city", "age"])
    assert set(loaded["train"]["city"]) == {"Oslo", "Rome"}
    with pytest.raises(ValueError, match="the column 'day' holds Value.*date32.*dates into numbers"):
        load(["city", "day"])
    spoilt = corrupt_splits(
        {"train": loaded["train"]},
        parse_corruptions(["row=missing:0.5"], ["row"]),
        columns={"row": ["city", "age"]},
        kinds={"row": "table"},
        label_column="label",
        seed=0,
    )["train"]
    empty = [row["city"] is None for row in spoilt]
    assert sum(empty) == 3 and empty == [row["age"] is None for row in spoilt]
