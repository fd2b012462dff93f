"""A run's report.md as a reader meets it."""

import re
from pathlib import Path

import numpy as np
import pytest

from hf_relearn.report import write_report
from hf_relearn.report.verdict import describe_samples

RESULTS = {
    "validation": {"accuracy": 0.81234, "unimodal_audio_accuracy": 0.7},
    "test": {"accuracy": 0.79, "f1_macro": 0.7512, "unimodal_audio_accuracy": float("nan")},
}


@pytest.fixture
def write(tmp_path, make_run, make_log):
    """Write a report of a complete run, with arguments changed; its text."""

    def write(**changes):
        arguments = {
            "title": "A run",
            "records": make_run(),
            "log_history": make_log(),
            "results": RESULTS,
            "settings": {"learning_rate": 0.002},
        }
        path = write_report(tmp_path / "out", **{**arguments, **changes})
        assert path == tmp_path / "out" / "report.md"
        return path.read_text()

    return write


def linked_figures(text):
    return re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)


def test_sections_come_in_order_and_every_figure_exists(write, tmp_path, make_features):
    text = write(features=make_features(), class_names=["a", "b", "c"])
    assert re.findall(r"^#+ (.+)$", text, re.MULTILINE) == [
        "A run",
        "Results",
        "What the diagnosis says",
        "Figures",
        "Every diagnosis",
        "Settings",
        "Versions and machine",
    ]
    assert linked_figures(text) == [
        f"figures/{name}.png" for name in ("purity", "alpha", "accuracy", "features_audio", "features_vision")
    ]
    for name in linked_figures(text):
        content = (tmp_path / "out" / name).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 5_000
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    assert "Left out" not in text and "figures/memorised.png" not in text


def test_tables_hold_the_values(write, make_record, make_entry):
    records = [
        make_record(4.0, {"audio": make_entry(0.91, 0.62, alpha=0.9, distance=0.314)}),
        make_record(16.0, {"audio": make_entry(0.9, 0.8)}, "end"),
    ]
    text = write(records=records, settings={"learning_rate": 0.002, "fields": ["a|b", None]})
    assert "| accuracy | 0.812 | 0.790 |" in text
    assert "| f1 macro | – | 0.751 |" in text
    assert "| audio alone: accuracy | 0.700 | – |" in text
    assert "| 4 | 120 | point | audio | 0.910 | 0.620 | 0.210 | 0.240 | 0.290 | 0.701 | 0.900 | 31 % | 1.8 |" in text
    assert "memorised" not in text  # a run by purity has no columns of the other estimator
    # Nothing was moved at the end, whatever the diagnosis there asks for.
    assert "| 16 | 480 | end | audio | 0.900 | 0.800 | 0.210 | 0.240 | 0.100 | 0.291 | – | – | 1.8 |" in text
    assert "| `learning_rate` | `0.002` |" in text
    assert "| `fields` | `[a\\|b, None]` |" in text
    assert "looks at 600 training samples and 120 held-out ones in 6 classes" in text
    assert "took 1.8 s (0.4 s of it without the features)" in text
    assert "| python | 3." in text and re.search(r"\| torch \| \d", text) and " cores |" in text


def test_names_that_look_like_paths_stay(write, make_run):
    modality = "cats /dogs"
    text = write(
        records=make_run([modality]),
        results={"/m/0dgw9r": {"accuracy": 0.5, f"unimodal_{modality}_accuracy": 0.4}},
        settings={"labels": ["/m/0dgw9r", modality]},
        notes=["The class /m/0dgw9r is rare."],
    )
    assert "…" not in text
    for name in (
        "| /m/0dgw9r |",
        "**cats /dogs**",
        "cats /dogs alone: accuracy",
        "`[/m/0dgw9r, cats /dogs]`",
        "class /m/0",
    ):
        assert name in text, name


def test_no_local_path_gets_into_the_report(write, tmp_path):
    (tmp_path / "backbones").mkdir()
    text = write(
        title=f"Run in {tmp_path}/out",
        settings={
            "output_dir": tmp_path / "out",
            "data_dir": "/srv/Some One/CREMA-D",
            "audio_model": str(tmp_path / "backbones"),
            "nested": {"files": [f"{Path.home()}/a.csv", str(Path.cwd() / "b.csv")]},
            "command": f"train.py --data_dir={tmp_path}/av",
            "model": "MIT/ast-finetuned-audioset-10-10-0.4593",
            "url": "https://example.org/some/page",
            "relative": "runs/first",
        },
        notes=[f"Read from '{tmp_path}/in.csv', see `--data_dir`."],
    )
    for private in (str(tmp_path), f"{Path.home()}/", str(Path.cwd()), "Some One"):
        assert private not in text
    assert "`…/CREMA-D`" in text and "…/a.csv" in text and "…/b.csv" in text and "=…/av" in text
    assert "`…/backbones`" in text
    for kept in ("MIT/ast-finetuned-audioset", "https://example.org/some/page", "runs/first", "see `--data_dir`"):
        assert kept in text
    assert not [link for link in linked_figures(text) if link.startswith("/")]


def test_a_joint_run_without_records(write, tmp_path):
    text = write(records=[])
    assert (
        "Joint training of **audio** and **vision** over 16 epochs (480 steps), without diagnosis and without "
        "re-learning." in text
    )
    assert "This run was not diagnosed" in text
    assert "Left out: the separability (no record holds a diagnosis" in text
    assert "the strengths (no encoder was moved in this run)" in text
    assert linked_figures(text) == ["figures/accuracy.png"]
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["accuracy.png"]


def test_a_set_strength_without_diagnosis(write, make_record, make_entry):
    nothing = dict.fromkeys(
        ["train_purity", "val_purity", "train_chance_purity", "val_chance_purity", "gap", "diagnosed_alpha"]
    )
    records = [make_record(4.0, {"audio": make_entry(alpha=0.9, **nothing)}, train_size=0, diagnosis_size=0)]
    text = write(records=records)
    assert "Left out: the separability (no record holds a diagnosis" in text
    assert "figures/alpha.png" not in linked_figures(text) and "moved by the same α 0.90" in text
    assert "| 4 | 120 | point | audio | 0.900 | 12 % | 1.8 |" in text
    assert "A diagnosis looks at" not in text


def test_nothing_at_all_still_gives_a_report(write):
    text = write(records=[], log_history=[], results={}, settings={})
    for sentence in ("No results were recorded.", "No diagnosis was recorded.", "No settings were recorded."):
        assert sentence in text
    assert linked_figures(text) == []


def test_records_with_missing_keys(write):
    text = write(records=[{"kind": "point"}, {"epoch": 2.0, "modalities": {"audio": {"train_purity": 0.5}}}, {}])
    assert "| 2 | – | – | audio | 0.500 |" in text


def test_many_points_are_folded(write, make_run):
    text = write(records=make_run(epochs=range(1, 31)))
    assert "<summary>62 rows</summary>" in text
    assert "<details>" not in write()


@pytest.mark.parametrize("ended", [True, False])
def test_feature_panels_tell_the_purity_of_the_final_weights_only(write, make_run, make_features, monkeypatch, ended):
    titles = []

    def remember(figure):
        titles.extend(axes._left_title.get_text() for axes in figure.axes if "part" in axes._left_title.get_text())
        return b""

    monkeypatch.setattr("hf_relearn.report.run_report.render_png", remember)
    # After the last point the weights were moved, so its purities are not theirs.
    records = make_run(["audio"]) if ended else make_run(["audio"])[:-1]
    write(records=records, features=make_features(["audio"]))
    last = records[-1]["modalities"]["audio"]
    if ended:
        assert titles == [
            f"training part, purity {last['train_purity']:.2f}",
            f"held-out part, purity {last['val_purity']:.2f}",
        ]
    else:
        assert titles == ["training part", "held-out part"]


def test_notes_stand_below_the_results(write):
    text = write(notes=["The data are a stand-in.", "Give the real ones."])
    assert "- The data are a stand-in.\n- Give the real ones.\n" in text


def test_unfit_features_leave_nothing_behind(write, tmp_path, make_features):
    features = make_features()
    features["train"] = (features["train"][0], np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match="'audio', train part"):
        write(features=features)
    assert not (tmp_path / "out").exists()


def test_writing_again_replaces_the_report(write, tmp_path):
    write()
    (tmp_path / "out" / "other.txt").write_text("mine")
    assert write(title="Second").startswith("# Second\n")
    assert (tmp_path / "out" / "other.txt").read_text() == "mine"


def test_a_failed_write_leaves_no_temporary_file(write, tmp_path):
    (tmp_path / "out" / "report.md").mkdir(parents=True)
    with pytest.raises(OSError):
        write()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".tmp"]


def test_a_modality_name_is_safe_in_a_file_name(write, tmp_path, make_run, make_features):
    text = write(records=make_run(["a/b c"]), features=make_features(["a/b c"]))
    assert "figures/features_a_b_c.png" in linked_figures(text)
    assert (tmp_path / "out" / "figures" / "features_a_b_c.png").is_file()


def test_a_gated_run_from_verdict_to_table(write, make_measured_run, make_features):
    text = write(records=make_measured_run(), features=make_features(["audio"]), log_history=[])
    assert linked_figures(text) == [f"figures/{name}.png" for name in ("separability", "memorised", "features_audio")]
    assert "the strengths (every encoder that was moved was moved by the same α 0.90)" in text
    paragraphs = text.split("\n\n")
    assert "**vision** memorised" in paragraphs[1] and "**noise** is uninformative" in paragraphs[1]
    header, row = (
        next(line for line in text.splitlines() if line.startswith(start)) for start in ("| epoch", "| 6 |")
    )
    assert "memorised" in header and "purity" not in header and "chance held out" not in header
    assert "| 6 | 180 | point | audio | 0.500 | 0.470 | 0.200 | 0.030 | 0.020 | 10 % | 7 % |" in row


def test_without_one_of_two_modalities_is_the_other_one_alone(write):
    ablated = {"accuracy": 0.8, "only_audio_accuracy": 0.7, "without_vision_accuracy": 0.7}
    ablated |= {"only_vision_accuracy": 0.5, "without_audio_accuracy": 0.5}
    assert "without" not in write(results={"test": ablated}).split("## What")[0]
    three = {**ablated, "only_text_accuracy": 0.3, "without_text_accuracy": 0.75}
    assert "| without text: accuracy | 0.750 |" in write(results={"test": three})


def test_samples_are_counted_and_a_dozen_say_nothing(write):
    samples = {
        "train": {"samples": 600, "missing": {"audio": 150, "vision": 0}},
        "validation": {"samples": 1200, "missing": {}},
        "test": {"samples": 12, "missing": {}},
    }
    text = write(samples=samples)
    assert "- *train*: 600 samples, of which 150 (25 %) lack audio.\n- *validation*: 1,200 samples.\n" in text
    said = [line for line in text.splitlines() if "So few say" in line]
    assert said == ["- *test*: 12 samples. So few say nothing: the standard error of an accuracy is 12 points."]


def test_sizes_of_splits_share_a_line_of_the_terminal_if_there_is_no_more_to_say():
    samples = {
        "train": {"samples": 1200, "missing": {"audio": 0}},
        "validation": {"samples": 200, "missing": {"audio": 50}},
        "test": {"samples": 300},
    }
    assert describe_samples(samples, together=True) == [
        "samples: train 1,200, test 300",
        "*validation*: 200 samples, of which 50 (25 %) lack audio.",
    ]
