"""The results of each class in a report: a table, the confusion matrix, and both again from report.json."""

import json

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from hf_relearn.report import write_report
from hf_relearn.report.by_class import class_results, read_class_results

NAMES = ["calm", "sad|low", "glad"]
LABELS = np.array([0, 0, 0, 1, 1, 2, -100])
SAID = np.array([0, 0, 1, 1, 1, 1, 2])


def written(folder, by_class):
    path = write_report(
        folder,
        title="A run",
        records=[],
        log_history=[],
        results={},
        settings={},
        by_class=by_class,
        class_names=NAMES,
    )
    return path.read_text()


def test_report_shows_each_class_and_the_confusion_matrix(tmp_path):
    found = class_results("test", LABELS, 5.0 * np.eye(3)[SAID], NAMES)
    assert found.confusion == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]  # the unlabelled sample does not count
    expected = precision_recall_fscore_support(LABELS[:6], SAID[:6], labels=[0, 1, 2], zero_division=0.0)
    for place, values in enumerate(found.per_class.values()):
        assert list(values.values()) == pytest.approx([measure[place] for measure in expected])
    text = written(tmp_path, found)
    assert "## Classes on test" in text and "| calm | 1.000 | 0.667 | 0.800 | 3 |" in text, text
    assert "(figures/confusion.png)" in text
    assert (tmp_path / "figures" / "confusion.png").stat().st_size > 5000
    facts = json.loads((tmp_path / "report.json").read_text())
    assert written(tmp_path / "again", read_class_results(facts["by_class"])) == text


def test_several_classes_per_sample_have_a_table_and_no_matrix(tmp_path):
    labels = np.array([[1, 1, 0], [0, 1, 0]])
    found = class_results("validation", labels, np.where(labels, 3.0, -3.0), NAMES)
    text = written(tmp_path, found)
    assert found.confusion is None and "confusion" not in text
    assert [values["f1"] for values in found.per_class.values()] == [1.0, 1.0, 0.0]


def test_more_classes_than_anyone_reads_are_left_out(tmp_path):
    many = class_results("test", np.arange(60), np.eye(60), [f"class {index}" for index in range(60)])
    assert "Classes" not in written(tmp_path, many)
