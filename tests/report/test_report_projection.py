"""The picture of features: both parts in one projection, classes as colours."""

import numpy as np
import pytest

from hf_relearn.report.projection import features_figure, project
from hf_relearn.report.theme import NothingToDraw, render_png


def legend_names(figure):
    legend = figure.axes[-1].get_legend()
    return None if legend is None else [text.get_text() for text in legend.get_texts()]


def titles(figure):
    return [axes._left_title.get_text() for axes in figure.axes]


def test_both_parts_stand_side_by_side_with_the_same_limits(make_features):
    figure = features_figure(
        "audio",
        make_features(),
        class_names=["low", "mid", "high"],
        scores={"train": "purity 0.91", "held-out": "purity 0.62"},
    )
    assert titles(figure) == ["training part, purity 0.91", "held-out part, purity 0.62"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["45 samples", "15 samples"]
    train, held_out = figure.axes
    assert train.get_xlim() == held_out.get_xlim() and train.get_ylim() == held_out.get_ylim()
    assert legend_names(figure) == ["low", "mid", "high"]
    assert len(render_png(figure)) > 5_000


def test_a_class_has_the_same_colour_in_both_parts(make_features):
    figure = features_figure("audio", make_features())
    colors = [axes.collections[0].get_facecolors() for axes in figure.axes]
    np.testing.assert_array_equal(colors[0][:3], colors[1][:3])
    assert len(np.unique(colors[0], axis=0)) == 3


def test_labels_without_names_are_their_own_names(make_features):
    features = {part: (values, labels - 1) for part, (values, labels) in make_features().items()}
    assert legend_names(features_figure("audio", features)) == ["-1", "0", "1"]
    assert legend_names(features_figure("audio", features, class_names={-1: "minus"})) == ["minus", "0", "1"]
    assert legend_names(features_figure("audio", features, class_names=["zero", "one"])) == ["-1", "zero", "one"]
    names = ["/m/0dgw9r", "cats /dogs"]  # not paths
    assert legend_names(features_figure("audio", features, class_names=names)) == ["-1", *names]


def test_twelve_classes_have_distinct_colours_and_no_legend(make_features):
    figure = features_figure("audio", make_features(classes=12, samples=48))
    assert legend_names(figure) is None
    assert "12 classes" in figure.get_supxlabel()
    assert len(np.unique(figure.axes[0].collections[0].get_facecolors(), axis=0)) == 12


def test_large_parts_are_subsampled_with_a_seed(make_features):
    features = make_features(samples=90)
    first, second = (features_figure("audio", features, most_samples=20) for _ in range(2))
    assert first.axes[0].get_xlabel() == "20 of 90 samples"
    np.testing.assert_array_equal(*(figure.axes[0].collections[0].get_offsets() for figure in (first, second)))


def test_separate_clouds_stay_separate():
    values = np.concatenate([np.random.default_rng(0).normal(size=(40, 8)) + shift for shift in (0, 30)])
    for rows, method in ((values, "t-SNE"), (values[20:60], "PCA")):
        points, name = project(rows)
        middle = len(rows) // 2
        halves = points[:middle], points[middle:]
        distance = np.linalg.norm(halves[0].mean(0) - halves[1].mean(0))
        assert name == method
        assert distance > 2 * max(half.std(axis=0).max() for half in halves)


@pytest.mark.parametrize("width", [1, 2])
def test_narrow_features_are_shown(make_features, width):
    assert len(render_png(features_figure("audio", make_features(width=width)))) > 5_000


def test_samples_with_nan_are_left_out(make_features):
    features = make_features()
    features["train"][0]["audio"][:5, 0] = np.nan
    figure = features_figure("audio", features)
    assert figure.axes[0].get_xlabel() == "40 of 45 samples"


def test_features_that_say_nothing_give_a_sentence(make_features):
    features = make_features()
    for values, _ in features.values():
        values["audio"][:] = 1.0
        values["vision"][:] = np.nan
    with pytest.raises(NothingToDraw, match="same features"):
        features_figure("audio", features)
    with pytest.raises(NothingToDraw, match="fewer than two samples have finite vision features"):
        features_figure("vision", features)


def test_labels_of_another_length_are_refused_by_name(make_features):
    features = make_features()
    features["held-out"] = (features["held-out"][0], np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match=r"'audio', held-out part.*\(15, 5\) and \(3,\)"):
        features_figure("audio", features)


def test_parts_of_another_width_are_refused_by_name(make_features):
    features = make_features()
    features["held-out"] = make_features(width=4)["held-out"]
    with pytest.raises(ValueError, match="'audio'.*train: 5, held-out: 4"):
        features_figure("audio", features)
