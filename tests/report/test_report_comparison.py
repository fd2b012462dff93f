"""Several runs side by side."""

import io

import pytest
from PIL import Image

from hf_relearn.report import write_comparison
from hf_relearn.report.training_figures import comparison_figure


@pytest.fixture
def arms(make_run, make_log):
    def results(accuracy):
        test = {"accuracy": accuracy, "loss": 2 - accuracy, "unimodal_vision_accuracy": accuracy - 0.2}
        return {"validation": {"accuracy": accuracy + 0.02}, "test": test}

    def arm(accuracy, size, records):
        return {
            "description": f"an arm of {size}",
            "results": results(accuracy),
            "log_history": make_log(best=accuracy),
            "records": records,
            "train_size": size,
            "seconds": size / 10,
        }

    return {"joint": arm(0.78, 1480, []), "joint, all": arm(0.76, 1600, []), "re-learnt": arm(0.84, 1480, make_run())}


def test_arms_stand_side_by_side_with_differences_in_points(tmp_path, arms):
    path = write_comparison(tmp_path, arms, title="Three arms", notes=["A note."])
    text = path.read_text()
    assert path == tmp_path / "comparison.md"
    assert (
        "Test accuracy: **joint** 0.780, **joint, all** 0.760 (-2.0 points) and **re-learnt** 0.840 (+6.0 points)."
        in text
    )
    assert "|  | joint | joint, all | re-learnt |" in text
    assert "| training samples | 1,480 | 1,600 | 1,480 |" in text
    assert "| re-learning points | 0 | 0 | 3 |" in text
    assert "| seconds | 148 | 160 | 148 |" in text
    assert "| validation: accuracy | 0.800 | 0.780 (-2.0) | 0.860 (+6.0) |" in text
    assert "| test: vision alone: accuracy | 0.580 | 0.560 (-2.0) | 0.640 (+6.0) |" in text
    assert "| test: loss | 1.220 | 1.240 | 1.160 |" in text
    assert "- **re-learnt**: an arm of 1480" in text and "- A note." in text
    assert "One seed proves nothing" in text
    assert "The test set was read once, at the end" in text
    assert "(figures/comparison.png)" in text and str(tmp_path) not in text


def test_figure_shows_curves_points_and_bars(arms):
    figure = comparison_figure(arms)
    curves, bars = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(arms)
    assert len([line for line in curves.lines if len(line.get_xdata()) == 16]) == 3
    (points,) = [line for line in curves.lines if line.get_marker() == "v"]
    assert list(points.get_xdata()) == [4, 8, 12]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["fused", "vision alone"]
    assert sorted(bar.get_width() for bar in bars.patches) == pytest.approx([0.56, 0.58, 0.64, 0.76, 0.78, 0.84])
    assert bars._left_title.get_text() == "test accuracy"


def test_picture_is_not_empty(tmp_path, arms):
    write_comparison(tmp_path, arms, title="Three arms")
    content = (tmp_path / "figures" / "comparison.png").read_bytes()
    assert len(content) > 5_000 and len(Image.open(io.BytesIO(content)).getcolors(1 << 24)) > 60


def test_without_a_test_split_nothing_is_said_of_it(tmp_path, arms):
    for arm in arms.values():
        del arm["results"]["test"]
    text = write_comparison(tmp_path, arms, title="Validation only").read_text()
    assert "Validation accuracy: **joint** 0.800" in text
    assert "test set" not in text


def test_missing_keys_and_nan_are_dashes(tmp_path, arms):
    arms["re-learnt"] = {"results": {"test": {"accuracy": float("nan")}}}
    text = write_comparison(tmp_path, arms, title="Gaps").read_text()
    assert "**re-learnt** –." in text
    assert "| training samples | 1,480 | 1,600 | – |" in text
    assert "| test: accuracy | 0.780 | 0.760 (-2.0) | – |" in text


def test_one_arm_and_arms_without_any_value(tmp_path, arms):
    text = write_comparison(tmp_path, {"joint": arms["joint"]}, title="One").read_text()
    assert "Test accuracy: **joint** 0.780." in text and "In brackets" not in text
    text = write_comparison(tmp_path, {"a": {}, "b": {}}, title="Nothing").read_text()
    assert "No figure: neither the logs nor the results hold the metric 'accuracy'." in text


def test_only_curves_or_only_bars(arms):
    logs = {name: {"log_history": arm["log_history"]} for name, arm in arms.items()}
    results = {name: {"results": arm["results"]} for name, arm in arms.items()}
    assert [axes._left_title.get_text() for axes in comparison_figure(logs).axes] == ["validation accuracy"]
    assert [axes._left_title.get_text() for axes in comparison_figure(results).axes] == ["test accuracy"]


def test_no_arms_and_an_unknown_metric_are_refused(tmp_path, arms):
    with pytest.raises(ValueError, match="no arms to compare"):
        write_comparison(tmp_path / "out", {}, title="None")
    with pytest.raises(ValueError, match="no arm has the metric 'acuracy'; there are accuracy, loss"):
        write_comparison(tmp_path / "out", arms, title="Typo", metric="acuracy")
    assert not (tmp_path / "out").exists()
