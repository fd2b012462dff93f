"""What the figures of a run show, and that no input makes them fail otherwise than with a sentence."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from hf_relearn.records import evaluation_series, modality_order
from hf_relearn.report.diagnosis_figures import alpha_figure, memorised_figure, separability_figure
from hf_relearn.report.reading import Gate
from hf_relearn.report.theme import NothingToDraw, modality_colors, render_png, spread
from hf_relearn.report.training_figures import accuracy_figure


def texts(figure):
    """Every text of a figure's panels, titles included."""
    return [text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title, axes._left_title]]


def solid_curve(axes):
    """x and y of the first solid line in a panel that has more than two points."""
    for line in axes.lines:
        if line.get_linestyle() == "-" and len(line.get_xdata()) > 2:
            return list(line.get_xdata()), list(line.get_ydata())
    raise AssertionError("no solid curve")


def assert_drawn(figure, colors=60):
    content = render_png(figure)
    assert content.startswith(b"\x89PNG") and len(content) > 5_000
    image = Image.open(io.BytesIO(content))
    assert image.width >= 1400
    assert len(image.getcolors(1 << 24)) > colors


@pytest.mark.parametrize("modalities", [["audio"], ["audio", "vision"], ["a", "b", "c", "d", "e"]])
def test_purity_has_one_panel_for_each_modality(make_run, modalities):
    figure = separability_figure(make_run(modalities))
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes._left_title.get_text() for axes in shown] == modalities
    assert len({axes.get_ylim() for axes in shown}) == 1
    assert_drawn(figure)


def test_purity_shows_the_recorded_values_and_strengths(make_run):
    records = make_run(["audio"])
    figure = separability_figure(records)
    epochs, values = solid_curve(figure.axes[0])
    assert epochs == [4, 8, 12, 16]
    assert values == pytest.approx([record["modalities"]["audio"]["train_purity"] for record in records])
    labels = texts(figure)
    assert {"train", "held out", "chance"} <= set(labels)
    assert f"α {records[0]['modalities']['audio']['alpha']:.2f}" in labels


def test_purity_of_one_record_and_of_sixty(make_run):
    assert_drawn(separability_figure(make_run(epochs=[])))
    figure = separability_figure(make_run(epochs=range(1, 60)))
    assert_drawn(figure)
    strengths = [label for label in texts(figure) if label.replace("α ", "").startswith("0.")]
    assert 4 < len(strengths) < 40  # those that fit, not one for each of 118


def test_purity_skips_nan_and_missing_values(make_run):
    records = make_run(["audio"])
    records[1]["modalities"]["audio"]["train_purity"] = float("nan")
    del records[2]["modalities"]["audio"]["train_purity"]
    records.append({"epoch": None, "modalities": {"audio": None}})
    figure = separability_figure([*records, *make_run(["audio"], epochs=[20])])
    assert solid_curve(figure.axes[0])[0] == [4, 16, 20, 24]
    assert_drawn(figure)


def test_a_run_without_diagnosis_has_no_separability_figure(make_record, make_entry):
    nothing = dict.fromkeys(["train_purity", "val_purity", "gap", "diagnosed_alpha"])
    records = [make_record(4.0, {"audio": make_entry(alpha=0.9, **nothing)})]
    with pytest.raises(NothingToDraw, match="no record holds a diagnosis"):
        separability_figure(records)
    with pytest.raises(NothingToDraw, match="same α 0.90"):
        alpha_figure(records)


def test_alpha_shows_strength_distance_and_what_the_diagnosis_asked_for(make_record, make_entry):
    set_strength = make_entry(alpha=0.9, distance=0.31)
    figure = alpha_figure([make_record(4.0, {"audio": set_strength, "vision": make_entry(0.6, 0.5)})])
    assert {"0.90", "Δθ 31 %"} <= set(texts(figure))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "audio",
        "vision",
        "asked for by the diagnosis",
    ]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["epoch 4"]
    assert_drawn(figure)


def test_alpha_of_many_points_carries_no_numbers(make_run):
    figure = alpha_figure(make_run(epochs=range(1, 61)))
    assert not [label for label in texts(figure) if label.startswith("0.")]
    assert len(figure.axes[0].get_xticks()) <= 13
    assert_drawn(figure)


def test_no_point_means_no_alpha_figure(make_run):
    with pytest.raises(NothingToDraw, match="no encoder was moved"):
        alpha_figure(make_run(epochs=[]))


def test_accuracy_names_the_fused_model_and_each_modality(make_run, make_log):
    log = make_log()
    figure = accuracy_figure(make_run(), log)
    last = log[-1]
    assert f"fused {last['eval_accuracy']:.2f}" in texts(figure)
    assert f"audio alone {last['eval_unimodal_audio_accuracy']:.2f}" in texts(figure)
    assert "re-learning points" in texts(figure)
    assert_drawn(figure)


def test_accuracy_of_two_evaluations_of_one_and_of_none(make_log):
    assert_drawn(accuracy_figure([], make_log(epochs=2)))
    with pytest.raises(NothingToDraw, match="one evaluation only"):
        accuracy_figure([], make_log(epochs=1))
    with pytest.raises(NothingToDraw, match="no validation accuracy"):
        accuracy_figure([], [{"step": 1, "epoch": 0.1, "loss": 2.0, "eval_accuracy": float("nan")}])


def test_a_second_evaluation_of_a_step_does_not_replace_the_first():
    log = [
        {"epoch": 2.0, "eval_accuracy": 0.5},
        {"epoch": 1.0, "eval_accuracy": 0.7},
        {"epoch": 2, "eval_accuracy": 0.7},
    ]
    epochs, values = evaluation_series(log, "eval_accuracy")
    assert epochs.tolist() == [1.0, 2.0] and values.tolist() == [0.7, 0.5]


def test_a_modality_keeps_its_colour_in_every_figure(make_run, make_log):
    records, log = make_run(["audio", "vision"]), make_log(["vision", "audio"])
    colors = modality_colors(modality_order(records, log))
    purity, accuracy = separability_figure(records), accuracy_figure(records, log)
    for axes in purity.axes:
        assert to_hex(axes._left_title.get_color()) == colors[axes._left_title.get_text()]
    for text in accuracy.axes[0].texts:
        name = text.get_text().split(" alone")[0]
        if name in colors:
            assert to_hex(text.get_color()) == colors[name]


def test_names_are_never_read_as_formulas_and_global_style_is_left_alone(make_run):
    before = dict(matplotlib.rcParams)
    assert_drawn(separability_figure(make_run(["$broken^{", "音声"])))
    assert dict(matplotlib.rcParams) == before


def test_line_labels_are_moved_apart_in_order():
    moved = spread([0.5, 0.1, 0.5, 0.49], 0.1)
    assert moved[1] == 0.1
    assert np.diff(sorted(moved)).min() >= 0.1 - 1e-9
    assert moved[3] < moved[0] < moved[2]
    assert sum(moved) == pytest.approx(1.59)


def test_separability_shows_both_curves_chance_and_what_was_done(make_measured_run):
    records = make_measured_run()
    figure = separability_figure(records)
    assert [axes._left_title.get_text() for axes in figure.axes] == ["audio", "vision", "noise"]
    epochs, values = solid_curve(figure.axes[1])
    assert epochs == list(range(13))
    assert values == pytest.approx([record["modalities"]["vision"]["train_separability"] for record in records])
    labels = {axes._left_title.get_text(): [text.get_text() for text in axes.texts] for axes in figure.axes}
    assert labels["audio"].count("kept") == 2 and "α 0.90" not in labels["audio"]
    assert labels["vision"].count("kept") == 0 and "α 0.90" in labels["vision"]
    assert all({"train", "held out", "chance"} <= set(found) for found in labels.values())
    assert figure.axes[0].get_ylabel() == "separability"
    assert_drawn(figure)


def test_the_band_around_the_held_out_curve_spans_two_standard_errors(make_measured_run):
    axes = separability_figure(make_measured_run()).axes[0]
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    held_out = [0.2 + 0.045 * epoch for epoch in range(13)]
    assert (heights.min(), heights.max()) == pytest.approx((held_out[0] - 0.04, held_out[-1] + 0.04))


def test_memorised_share_is_drawn_with_the_threshold_and_tells_moved_from_kept(make_measured_run):
    figure = memorised_figure(make_measured_run(), gate=Gate(threshold=0.4))
    (axes,) = figure.axes
    triangles = [line for line in axes.lines if line.get_marker() == "v"]
    filled = [line for line in triangles if line.get_markerfacecolor() != "white"]
    assert (len(triangles), len(filled)) == (6, 4)  # two points: vision and noise were moved, audio was kept
    assert any(list(line.get_ydata()) == [0.4, 0.4] for line in axes.lines)
    assert "gate" in texts(figure) and any(label.startswith("vision 67 %") for label in texts(figure))
    assert all(0 not in line.get_xdata() for line in axes.lines if len(line.get_xdata()) > 2)  # nothing learnt yet
    assert_drawn(figure)


def test_a_share_that_is_always_nothing_is_not_drawn(make_measured_run, make_run):
    with pytest.raises(NothingToDraw, match="nothing was memorised"):
        memorised_figure(make_measured_run(audio=lambda epoch: (0.2 + 0.05 * epoch, 0.2 + 0.06 * epoch)))
    with pytest.raises(NothingToDraw, match="no record holds a memorised share"):
        memorised_figure(make_run())


def test_accuracy_tells_points_where_nothing_moved(make_measured_run, make_log):
    records = make_measured_run()
    for entry in records[6]["modalities"].values():
        entry["alpha"] = 0.0
    figure = accuracy_figure(records, make_log(["audio"]))
    triangles = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert [line.get_markerfacecolor() == "white" for line in triangles] == [False, True]
    assert any("nothing moved" in label for label in texts(figure))
