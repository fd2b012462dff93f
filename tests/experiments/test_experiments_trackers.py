"""Trackers receive a report's verdict and figures, under the run that received the numbers."""

import logging

import numpy as np
import pytest
from PIL import Image
from tiny import make_trainer

from hf_relearn.experiments.trackers import TrackedRun, send_report

VERDICT = "The *model* reaches an accuracy of 90 %."
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains", "ignore::DeprecationWarning")


@pytest.fixture
def report(tmp_path):
    """A report with one figure, and another figure beside it that is not of the report."""
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (30, 20), (200, 10, 10)).save(tmp_path / "figures" / "accuracy.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "figures" / "mine.png")
    (tmp_path / "report.md").write_text("![Figure](figures/accuracy.png)")
    return tmp_path / "report.md"


def tracked(tracker, report):
    """A run that logs to a tracker, tests, and sends its report."""
    module = pytest.importorskip(tracker)
    trainer = make_trainer(report.parent / "run", report_to=[tracker])
    trainer.add_callback(TrackedRun())
    trainer.train()
    trainer.predict(trainer.eval_dataset, metric_key_prefix="test")
    trainer.log({"test_accuracy": 0.5})
    send_report(trainer, report, VERDICT)
    return module


def test_tensorboard(report, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    tracked("tensorboard", report)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    (text,) = events.Tensors("report/verdict/text_summary")
    assert text.tensor_proto.string_val[0].decode() == VERDICT
    assert events.Tags()["images"] == ["report/accuracy"]
    (picture,) = events.Images("report/accuracy")
    assert (picture.width, picture.height) == (30, 20)


def test_trackio(report, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    tracked("trackio", report)
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("huggingface")
    logged = {key: value for row in SQLiteStorage.get_logs("huggingface", run) for key, value in row.items()}
    assert logged["report/verdict"]["_value"] == VERDICT
    assert "report/mine" not in logged and logged["test/accuracy"] == 0.5
    assert any(path.suffix == ".png" for path in (tmp_path / "trackio").rglob("*"))


def test_wandb(report, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb = tracked("wandb", report)
    assert wandb.run.summary["report/verdict"] == VERDICT
    wandb.finish()
    (picture,) = tmp_path.glob("wandb/offline-run-*/files/media/images/report/accuracy*.png")
    assert np.array_equal(np.asarray(Image.open(picture)), np.full((20, 30, 3), (200, 10, 10)))


def test_mlflow(report, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    mlflow = tracked("mlflow", report)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED" and run.data.metrics["test_accuracy"] == 0.5
    assert {file.path for file in client.list_artifacts(run.info.run_id, "report")} == {
        "report/verdict.md",
        "report/accuracy.png",
    }


def test_a_tracker_that_fails_is_one_warning(report, tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    trainer = make_trainer(tmp_path / "run", report_to=["tensorboard"])
    (tmp_path / "file").write_text("")
    for callback in trainer.callback_handler.callbacks:
        callback.logging_dir = str(tmp_path / "file" / "board")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        send_report(trainer, report, VERDICT)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("--report_to tensorboard: it did not take")
