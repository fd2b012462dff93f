"""When points come, and what is kept in the record of a run: functions without a model."""

import errno
import json
import os
import sys

import numpy as np
import pytest
from tiny import FEW_SAMPLES

from hf_relearn import diagnose
from hf_relearn.files import write_whole_text
from hf_relearn.records import (
    Point,
    append_history,
    describe_record,
    log_values,
    points_taken,
    records_before,
    write_history,
)
from hf_relearn.relearning.schedule import RelearnSchedule, whole_epoch
from hf_relearn.training import HISTORY_FILE, read_history


@pytest.mark.parametrize(
    ("strategy", "interval", "max_times", "epochs", "steps", "expected"),
    [
        ("epoch", 20, 3, 90, 900, [20, 40, 60]),  # the paper
        ("epoch", 30, 3, 90, 900, [30, 60]),  # none at the end, where nothing would follow
        ("epoch", 90, 3, 90, 900, []),
        ("epoch", 1, 0, 5, 50, []),
        ("steps", 250, 3, 90, 900, [250, 500, 750]),
        ("no", 1, 3, 90, 900, []),
    ],
)
def test_points_are_planned_and_due_at_the_same_places(strategy, interval, max_times, epochs, steps, expected):
    schedule = RelearnSchedule(strategy, interval, max_times, num_epochs=epochs, num_steps=steps)
    assert list(schedule.planned()) == expected
    assert [position for position in range(1001) if schedule.is_due(position, taken=0)] == expected


@pytest.mark.parametrize(
    ("strategy", "points", "epochs", "steps", "steps_per_epoch", "expected"),
    [
        ("epoch", (0.25, 0.5), 24, 240, 10, [60, 120]),
        ("epoch", (0.25, 0.5), 10, 100, 10, [20, 50]),  # at the start of an epoch, not later than asked
        ("epoch", (0.25, 0.5), 1, 10, 10, [2, 5]),  # no epoch begins that early
        ("epoch", (0.25, 0.5), 2, 11, 10, [3, 6]),  # max_steps ends the second epoch early
        ("epoch", (2 / 9, 4 / 9, 6 / 9), 90, 9450, 105, [2100, 4200, 6300]),  # the paper's 20, 40, 60 epochs
        ("epoch", (0.25, 0.5), sys.maxsize, 40, None, [10, 20]),  # a stream
        ("steps", (0.25, 0.5), 10, 100, 10, [25, 50]),
        ("steps", (0.1, 0.11), 1, 10, 10, [1]),
        ("steps", (0.01, 0.999), 1, 10, 10, []),  # neither at the run's very start nor at its end
        ("no", (0.25, 0.5), 10, 100, 10, []),
    ],
)
def test_points_by_share_are_optimizer_steps(strategy, points, epochs, steps, steps_per_epoch, expected):
    schedule = RelearnSchedule(
        strategy, None, 3, num_epochs=epochs, num_steps=steps, points=points, steps_per_epoch=steps_per_epoch
    )
    assert schedule.planned() == expected
    assert [position for position in range(steps + 1) if schedule.is_due(position, taken=0)] == expected


@pytest.mark.parametrize("epochs", range(1, 40))
def test_the_default_re_learns_in_the_first_half_only(epochs):
    planned = RelearnSchedule("epoch", None, 3, num_epochs=epochs, num_steps=7 * epochs, steps_per_epoch=7).planned()
    assert planned and max(planned) <= (7 * epochs + 1) / 2


def test_no_more_points_than_allowed_whatever_was_taken_before():
    schedule = RelearnSchedule("epoch", 2, 2, num_epochs=10, num_steps=100)
    assert schedule.is_due(4, taken=1) and not schedule.is_due(4, taken=2)
    assert not schedule.is_due(6, taken=0)  # a point without a diagnosis is not made up for later


def test_a_run_without_a_known_number_of_epochs_can_be_planned_by_steps():
    assert list(RelearnSchedule("steps", 5, 2, num_epochs=sys.maxsize, num_steps=20).planned()) == [5, 10]
    by_epoch = RelearnSchedule("epoch", 5, 2, num_epochs=sys.maxsize, num_steps=20)
    assert not by_epoch.planned() and "use --relearn_strategy steps" in by_epoch.why_no_point()


@pytest.mark.parametrize(("epoch", "expected"), [(None, None), (0.0, 0), (2.0, 2), (2.5, None), (1 + 2 / 3, None)])
def test_whole_epochs(epoch, expected):
    assert whole_epoch(epoch) == expected


def record(step, kind="point"):
    return {"step": step, "epoch": step / 4, "kind": kind, "modalities": {}}


def test_a_history_is_read_back_as_it_was_written(tmp_path):
    assert read_history(tmp_path) == []
    write_history(tmp_path, [record(4), record(8, "end")])
    assert read_history(tmp_path) == [record(4), record(8, "end")]
    write_history(tmp_path, [record(2)])
    assert read_history(tmp_path) == [record(2)]
    append_history(tmp_path, record(6))
    assert read_history(tmp_path) == [record(2), record(6)]
    assert [path.name for path in tmp_path.iterdir()] == [HISTORY_FILE]
    with open(tmp_path / HISTORY_FILE, "a") as file:
        file.write('{"step": 8, "ki')  # a kill
    assert read_history(tmp_path) == [record(2), record(6)]


def test_a_history_holds_valid_json_only(tmp_path):
    write_history(tmp_path, [])
    append_history(
        tmp_path, {**record(2), "modalities": {"a": {"distance": float("inf"), "sizes": [float("nan"), 1]}}}
    )

    def refuse(name):
        raise AssertionError(name)

    found = json.loads((tmp_path / HISTORY_FILE).read_text(), parse_constant=refuse)
    assert found["modalities"] == {"a": {"distance": None, "sizes": [None, 1]}}


def test_a_record_is_appended_at_the_same_cost_however_many_there_are(tmp_path, monkeypatch):
    write_history(tmp_path, [record(step) for step in range(1000)])
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), sync(file)))
    size = (tmp_path / HISTORY_FILE).stat()
    append_history(tmp_path, record(1000))
    after = (tmp_path / HISTORY_FILE).stat()
    assert len(synced) == 1 and after.st_ino == size.st_ino and after.st_size - size.st_size < 100
    assert len(read_history(tmp_path)) == 1001


def test_a_record_that_cannot_be_written_leaves_the_others(tmp_path, monkeypatch):
    write_history(tmp_path, [record(2)])

    def full(*args):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"no space left.*{HISTORY_FILE}"):
        append_history(tmp_path, record(4))
    assert (tmp_path / HISTORY_FILE).read_bytes().endswith(b"}\n") and read_history(tmp_path) == [record(2)]
    (tmp_path / HISTORY_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=HISTORY_FILE):
        append_history(tmp_path, record(4))


@pytest.mark.parametrize(
    "line", ['{"step": 3', '{"step": 3}', "[1, 2]", "7", "\0\1", '{"step": "3", "kind": 1, "modalities": 2}']
)
def test_a_damaged_history_names_the_line(tmp_path, line):
    (tmp_path / HISTORY_FILE).write_text(json.dumps(record(4)) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"{HISTORY_FILE}, line 2: not a record of a diagnosis"):
        read_history(tmp_path)


def test_a_resumed_run_keeps_what_came_before_its_checkpoint():
    records = [record(4), record(6, "record"), record(8, "end"), record(8, "point"), record(12)]
    assert records_before(records, 8) == records[:3]  # a point at 8 comes after the checkpoint of step 8
    assert points_taken(records) == 3 and points_taken([]) == 0


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_whole_text(path, "old")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole_text(path, "new")
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["file.json"]


def test_values_that_were_not_diagnosed_are_not_logged_but_told():
    entry = Point("point", 4, 1.0, ["rgb"], alphas={"rgb": 0.5}, distances={"rgb": 0.25}).record()
    logged = log_values(entry)
    assert logged.items() >= {"relearn/rgb/alpha": 0.5, "relearn/rgb/distance": 0.25}.items()
    assert not any("purity" in name or "separability" in name for name in logged)
    (line,) = describe_record(entry)
    assert line == "epoch 1  rgb  not diagnosed: re-learnt (α .50)"
    (line,) = describe_record({**entry, "kind": "record"})
    assert "re-learnt" not in line


@FEW_SAMPLES
def test_a_diagnosis_is_told_with_its_error_and_what_came_of_it():
    found = diagnose(
        {"rgb": np.eye(3).repeat(8, axis=0)},
        np.arange(24) // 8,
        {"rgb": np.eye(3)[[1, 2, 0] * 4]},
        [0, 1, 2] * 4,
        3,
        estimator="separability",
    )
    point = Point("point", 4, 1.0, ["rgb", "flow"], found, alphas={"rgb": 0.0})
    record = json.loads(json.dumps(point.record()))
    values = record["modalities"]["rgb"]
    assert values["train_separability"] > 0.9 > 0.2 > values["val_separability"] and values["train_purity"] is None
    assert record["estimator"] == "separability" and values["memorised"] > 1
    kept, skipped = describe_record(record)
    assert "± " in kept and "memorised" in kept and kept.endswith(": kept")
    assert "not finite" in skipped and "relearn/flow/skipped" not in log_values(record)
