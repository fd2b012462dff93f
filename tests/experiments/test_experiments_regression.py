"""A regression from a table to its report, card, predictions and evaluation."""

import csv
import io
import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from tiny import FEW_SAMPLES

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.cli.main import main
from hf_relearn.data.tables import TableError, load_table
from hf_relearn.models import MultimodalClassificationPipeline
from hf_relearn.models.pipeline_multimodal import TASK

pytestmark = FEW_SAMPLES
RECIPE = Path(__file__).parents[2] / "recipes" / "train_multimodal.py"
COLUMNS = ("--modalities", "left:features", "right:features", "--columns", "left=a,b", "right=c,d")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Numbers of both signs that four columns tell, two of them under noise; some cells are empty."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "ratings.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "d", "rating", "kind"])
        for row in range(160):
            a, b, c, d = generator.normal(size=4)
            rating = "" if row % 20 == 3 else f"{3 * a - 2 * b + 0.3 * c:.4f}"
            writer.writerow([a, b, c, d, rating, "x" if a > 0 else "y"])
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def loaded(table, label="rating", **kwargs):
    columns = {"left": ["a", "b"]}
    splits = {"train": "train", "validation": "validation", "test": None}
    return load_table(
        str(table), columns=columns, label_column=label, splits=splits, kinds={"left": "features"}, **kwargs
    )


def start(*flags: object) -> None:
    """Run the recipe in this process, which has everything imported already."""
    with pytest.MonkeyPatch.context() as patch:
        words = ["train_multimodal.py", "--use_cpu", "--disable_tqdm", "true", *COLUMNS, *map(str, flags)]
        patch.setattr(sys, "argv", words)
        runpy.run_path(str(RECIPE), run_name="__main__")


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory) -> Path:
    """A run by the recipe, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "rating-model"
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("ignore")
        start(
            *("--dataset_name", table, "--problem_type", "regression", "--regression_loss", "l1"),
            *("--output_dir", folder, "--num_train_epochs", 8, "--learning_rate", 0.02, "--preset", "balanced"),
            *("--per_device_train_batch_size", 16, "--label_column", "rating"),
        )
    (folder / "terminal.txt").write_text(printed.getvalue())
    return folder


def test_report_and_card_tell_of_numbers(finished):
    results = json.loads((finished / "all_results.json").read_text())
    assert results["validation_r2"] > 0.7
    assert results["validation_sign_accuracy"] > 0.7
    report = (finished / "report.md").read_text()
    assert re.search(r"On \*validation\* the model reaches an R² of 0\.\d+ .* and a mean absolute error of", report)
    assert "R² of the number by each modality's features" in report and "| left alone: R² |" in report
    assert "| R² train | held out |" in report and "Figure of the R² of the features" in report
    wrong = ("accuracy of 0", "standard error of an accuracy", "0 classes", "Shapley value of accuracy", " class")
    for words in (*wrong, "eparability train", "the separability", "training separability"):
        assert words not in report
    terminal = (finished / "terminal.txt").read_text()
    assert re.search(r"^epoch 8/8  loss \S+  R² 0\.\d+  alone: left ", terminal, re.MULTILINE)
    assert "r2" not in terminal and "eparability" not in terminal
    assert len(re.findall(r"\b144\b", terminal)) == 1  # the size of the training split
    card = (finished / "README.md").read_text()
    assert "that predicts a number (rating)" in card and "pipeline_tag: tabular-regression" in card
    measured = re.findall(r"- type: (\w+)\n *value: (\S+)", card)
    assert [name for name, _ in measured] == ["mae", "pearsonr"]
    assert float(measured[0][1]) == pytest.approx(results["validation_mae"], abs=1e-5)
    assert not re.search(r"[Cc]lassifier|classes", card)
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert {"accuracy.png", "separability.png", "features_left.png"} <= figures


def test_pipeline_and_predict_give_the_number(finished, table, capsys):
    model = MultimodalForClassification.from_pretrained(finished)
    assert model.config.regression_loss == "l1" and model.config.signed_targets
    classify = MultimodalClassificationPipeline(
        model=model, processor=MultimodalProcessor.from_pretrained(finished), task=TASK, device=-1
    )
    (entry,) = classify({"left": [2.0, -1.0], "right": [0.0, 0.0]}, return_contributions=True)
    assert entry["label"] == "rating"
    assert 4 < entry["score"] < 12  # 3 · 2 + 2 · 1
    assert set(entry["contributions"]) == {"left", "right"}
    assert main(["predict", str(finished), "--file", str(table), "--json", "--cpu"]) == 0
    found = [json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines()]
    rows = rows_of(table)
    pairs = [(each[0]["score"], float(row["rating"])) for each, row in zip(found, rows, strict=True) if row["rating"]]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.8


def test_evaluate_and_diagnose_a_saved_model(finished, table, tmp_path, capsys):
    flags = ["--dataset_name", str(table), "--cpu"]
    written = tmp_path / "out"
    assert main(["evaluate", str(finished), *flags, "--split", "train", "--output", str(written), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["per_class"] == {}
    assert {path.name for path in written.iterdir()} == {"metrics.json", "predictions.csv"}
    rows = rows_of(written / "predictions.csv")
    known = [row for row in rows if row["label"]]
    assert (len(rows), len(known)) == (160, 152)
    errors = [abs(float(row["label"]) - float(row["prediction"])) for row in known]
    assert found["metrics"]["mae"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert main(["diagnose", str(finished), *flags, "--json"]) == 0
    diagnosed = json.loads(capsys.readouterr().out)
    assert diagnosed["num_classes"] == 0
    assert diagnosed["modalities"]["left"]["train_separability"] > 0.7
    assert diagnosed["modalities"]["left"]["probe_accuracy"] is None
    assert main(["diagnose", str(finished), *flags]) == 0
    shown = capsys.readouterr().out
    assert shown.split()[:3] == ["modality", "R²", "train"] and "separability" not in shown.splitlines()[0]


def test_parts_are_drawn_by_quantiles(table):
    splits = loaded(table, problem_type="regression", validation_fraction=0.25, max_train_samples=60)
    ratings = np.array(splits["validation"]["rating"], dtype=float)
    everything = [float(row["rating"]) for row in rows_of(table) if row["rating"]]
    below = (ratings < np.median(everything)).sum() / np.isfinite(ratings).sum()
    assert below == pytest.approx(0.5, abs=0.06)
    assert len(splits["train"]) == 60


def test_labels_that_are_of_the_other_kind_say_so(table):
    with pytest.raises(TableError, match="'rating' .*holds .*; to predict the number, add --problem_type regression"):
        loaded(table)
    with pytest.raises(TableError, match="'kind' holds .*predicts one number per sample: for classes leave out"):
        loaded(table, "kind", problem_type="regression")


def compare(table, output, *arms):
    """Start a comparison as a user does; returns what it prints."""
    command = [sys.executable, RECIPE, "--use_cpu", "--disable_tqdm", "true", *COLUMNS, "--dataset_name", table]
    command += ["--label_column", "rating", "--problem_type", "regression", "--num_train_epochs", 4]
    command += ["--learning_rate", 0.02, "--per_device_train_batch_size", 16, "--output_dir", output]
    command += ["--compare", "--compare_seeds", 1, "--compare_jobs", 2, "--compare_arms", *arms]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_comparison_is_one_of_r2_and_goes_on(table, tmp_path):
    assert "seed 42) is done: test R² 0." in compare(table, tmp_path, "heads")
    written = (tmp_path / "heads" / "seed-42" / "result.json").read_bytes()
    text = compare(table, tmp_path, "heads", "heads_ensemble", "ensemble_weighted")
    assert "1 of 5 runs are done already" in text and "test R²" in text and "accuracy" not in text
    assert (tmp_path / "heads" / "seed-42" / "result.json").read_bytes() == written
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["metric"] == "r2" and not comparison["failures"]
    arms = {epoch: found["arms"] for epoch, found in comparison["epochs"].items()}
    expected = {"heads", "heads_ensemble", "only_left", "only_right", "ensemble_weighted"}
    assert set(arms["last"]) == set(arms["best"]) == expected
    # Only the left columns tell of the number, and validation says so.
    weighted, left, right = (arms["last"][name]["mean"] for name in ("ensemble_weighted", "only_left", "only_right"))
    assert left > 0.5 > right and weighted > left - 0.1
    results = json.loads((tmp_path / "ensemble_weighted" / "seed-42" / "result.json").read_text())["results"]
    assert {"mae", "r2", "pearson", "sign_accuracy"} == set(results["last"]["test"])


def test_a_comparison_refuses_arms_that_need_classes(table, tmp_path, capsys):
    with pytest.raises(SystemExit):
        start(
            *("--dataset_name", table, "--label_column", "rating", "--problem_type", "regression"),
            *("--compare", "--compare_arms", "joint", "ogm_ge", "--output_dir", tmp_path),
        )
    assert "'ogm_ge', which needs classes, but the model predicts a number" in capsys.readouterr().err
