"""`hf-relearn report`."""

import json
import shutil

import pytest
from tiny import FEW_SAMPLES, make_trainer

from hf_relearn.report import write_report
from hf_relearn.training import read_history

pytestmark = FEW_SAMPLES


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The output directory of a run with its report, as the recipes leave it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trainer = make_trainer(folder, num_train_epochs=2, save_strategy="epoch", eval_strategy="epoch")
    trainer.train()
    metrics = trainer.evaluate(metric_key_prefix="validation")
    trainer.save_metrics("validation", metrics)
    trainer.save_state()
    parts = trainer.part_features()
    write_report(
        folder,
        title="Digits",
        records=read_history(folder),
        log_history=trainer.state.log_history,
        results={"validation": {"accuracy": metrics["validation_accuracy"]}},
        settings={"learning_rate": 0.01, "data": str(folder / "data")},
        features={"train": (dict(parts["training"].features), parts["training"].labels)},
        notes=["Made up."],
        samples=trainer.samples,
    )
    return folder


def test_a_rebuilt_report_is_the_one_that_the_run_wrote(run_folder, run, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    for name in ("report.md", "figures/purity.png", "figures/alpha.png"):
        (folder / name).unlink()
    code, out, err = run("report", folder, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["report"] == str(folder / "report.md")
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == before
    old, new = [(place / "report.md").read_text().splitlines() for place in (run_folder, folder)]
    changed = [line for line in new if line not in old]
    assert changed and all("as drawn by an earlier report" in line for line in changed)
    assert str(run_folder) not in (folder / "report.json").read_text()


def test_a_run_that_was_killed_gets_a_report_from_its_last_checkpoint(run_folder, run, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "killed")
    for name in ("report.md", "report.json", "trainer_state.json", "validation_results.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "figures")
    steps = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    code, out, err = run("report", folder, "--title", "What came of it")
    assert (code, out, err) == (0, f"The report is in {folder / 'report.md'}\n", "")
    report = (folder / "report.md").read_text()
    assert report.startswith("# What came of it\n") and f"({steps[-1]} steps)" in report
    assert (folder / "figures" / "accuracy.png").is_file()


def test_saved_results_stand_in_for_those_of_a_report(run_folder, run, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "scripted")
    (folder / "report.json").unlink()
    assert run("report", folder)[0] == 0
    report = (folder / "report.md").read_text()
    assert report.startswith("# scripted\n") and "| metric | validation |" in report and "runtime" not in report


def test_a_folder_without_a_run_and_a_damaged_one(run, run_folder, tmp_path):
    code, _, err = run("report", tmp_path)
    assert code == 1 and "holds no run: neither relearn_history.jsonl nor trainer_state.json" in err
    assert list(tmp_path.iterdir()) == []
    folder = shutil.copytree(run_folder, tmp_path / "damaged")
    (folder / "trainer_state.json").write_text("{")
    code, _, err = run("report", folder)
    assert code == 1 and f"{folder / 'trainer_state.json'} is not valid JSON" in err
