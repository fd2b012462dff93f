"""The verdict of a comparison, from the results of its runs."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from hf_relearn.report import comparison_lines, write_comparison
from hf_relearn.report.comparison import judge, read_runs

ARMS = {"joint": "one loss", "heads": "with heads", "balanced": "re-learnt", "only_audio": "audio alone"}


@pytest.fixture
def make_comparison(tmp_path):
    """Factory of a comparison's folder: arm -> seed -> test accuracy."""

    def make(name, values, title="digits", **changes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps({"title": title, "notes": ["A note."], "arms": ARMS}))
        for arm, own in values.items():
            for seed, accuracy in own.items():
                run = folder / arm / f"seed-{seed}"
                run.mkdir(parents=True)
                test = {"accuracy": accuracy, "f1_macro": accuracy - 0.1}
                results = {"last": {"test": test}, "best": {"test": {**test, "accuracy": accuracy + 0.01}}}
                seconds = {"joint": 10.0, "heads": 11.0}.get(arm, 5.0)
                result = {"results": results, "seconds": seconds, "peak_memory": 2**30, **changes}
                (run / "result.json").write_text(json.dumps(result))
        return folder

    return make


def accuracies(mean, seeds=8, spread=0.01):
    """Accuracies whose differences to those of another mean vary by seed."""
    wave = np.random.default_rng(int(1000 * mean)).normal(0, spread, seeds)
    return {seed: float(mean + wave[seed]) for seed in range(seeds)}


def test_verdict_says_what_gains_and_what_cannot_be_seen(make_comparison):
    values = {"joint": accuracies(0.70), "heads": accuracies(0.75), "balanced": accuracies(0.751)}
    folder = make_comparison("digits", values)
    path = write_comparison(folder)
    text, verdict = path.read_text(), json.loads((folder / "comparison.json").read_text())
    last = verdict["epochs"]["last"]
    over_joint, over_heads, seen = last["conclusion"]
    assert over_joint.startswith("Over joint, ") and "heads gains" in over_joint and "balanced gains" in over_joint
    assert over_heads == "Nothing gains over heads beyond chance."
    assert seen.startswith("With 8 seeds, differences below ") and seen.endswith(" points cannot be seen.")
    assert all(f"- {sentence}" in text for sentence in last["conclusion"])
    heads = last["arms"]["heads"]["to"]["joint"]
    differences = [values["heads"][seed] - values["joint"][seed] for seed in range(8)]
    assert heads["mean"] == pytest.approx(np.mean(differences)) and heads["wins"] == 8
    assert heads["p_t"] < heads["p_holm"] < 0.05
    assert last["arms"]["joint"]["to"]["heads"]["p_holm"] == heads["p_holm"]
    assert verdict["epochs"]["best"]["arms"]["joint"]["mean"] == pytest.approx(last["arms"]["joint"]["mean"] + 0.01)
    assert verdict["cost"]["heads"] == {"seconds": 11.0, "time_ratio": pytest.approx(1.1), "peak_memory": 2**30}
    assert f"| {100 * np.mean(list(values['heads'].values())):.1f} ± " in text
    assert "| 1.10 × | 1.0 GiB |" in text and "- **balanced**: re-learnt" in text and "- A note." in text
    assert str(folder) not in text
    picture = Image.open(io.BytesIO((folder / "comparison.png").read_bytes()))
    assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 60


def test_a_loss_is_told(make_comparison):
    folder = make_comparison("digits", {"joint": accuracies(0.70), "only_audio": accuracies(0.60)})
    write_comparison(folder)
    conclusion = json.loads((folder / "comparison.json").read_text())["epochs"]["last"]["conclusion"]
    assert conclusion[0] == "Nothing gains over joint beyond chance."
    assert conclusion[1].startswith("Against joint, only_audio loses ")


def test_an_arm_beside_itself_says_that_nothing_differs():
    own = accuracies(0.7)
    verdict = judge({"joint": own, "heads": dict(own), "balanced": dict(own)})
    assert verdict.conclusion == ["Nothing gains over joint beyond chance.", "Nothing gains over heads beyond chance."]
    assert set(verdict.corrected["joint"].values()) == {1.0}
    assert {pair.mean for found in verdict.pairs.values() for pair in found.values()} == {0.0}


def test_one_seed_concludes_nothing():
    verdict = judge({"joint": {42: 0.5}, "heads": {42: 0.9}})
    (sentence,) = verdict.conclusion
    assert sentence.startswith("With 1 seed, no difference can be told from chance")


def test_the_pair_of_joint_and_heads_counts_once_for_holm():
    values = {"joint": accuracies(0.70, 4), "heads": accuracies(0.72, 4)}
    verdict = judge(values)
    assert verdict.corrected["joint"]["heads"] == verdict.pairs["joint"]["heads"].p_t


def test_without_joint_and_heads_the_first_arm_is_the_baseline():
    verdict = judge({"balanced": accuracies(0.7), "only_audio": accuracies(0.5)})
    assert list(verdict.pairs) == ["balanced"] and list(verdict.pairs["balanced"]) == ["only_audio"]


def test_a_failed_run_is_named_and_its_seed_left_out(make_comparison):
    folder = make_comparison("digits", {"joint": accuracies(0.7, 3), "heads": accuracies(0.8, 2)})
    failed = folder / "heads" / "seed-2"
    failed.mkdir()
    (failed / "failure.txt").write_text("ValueError: no room")
    text = write_comparison(folder).read_text()
    assert "## Runs that failed" in text and "- **heads, seed 2**: ValueError: no room" in text
    verdict = json.loads((folder / "comparison.json").read_text())
    assert verdict["epochs"]["last"]["arms"]["heads"]["to"]["joint"]["n"] == 2
    assert verdict["failures"] == {"heads, seed 2": "ValueError: no room"}
    assert "With 2 to 3 seeds" in verdict["epochs"]["last"]["conclusion"][-1]


def test_folders_are_joined_over_seeds_and_arms(make_comparison, tmp_path):
    first = make_comparison("first", {"joint": {1: 0.7, 2: 0.71}, "heads": {1: 0.75, 2: 0.77}})
    second = make_comparison("second", {"joint": {2: 0.71, 3: 0.69}, "balanced": {3: 0.8}})
    write_comparison(tmp_path / "both", [first, second])
    arms = json.loads((tmp_path / "both" / "comparison.json").read_text())["epochs"]["last"]["arms"]
    assert {arm: list(found["values"]) for arm, found in arms.items()} == {
        "joint": ["1", "2", "3"],
        "heads": ["1", "2"],
        "balanced": ["3"],
    }
    assert not (first / "comparison.json").exists()


def test_what_does_not_fit_together_is_refused(make_comparison, tmp_path):
    first = make_comparison("first", {"joint": {1: 0.7}})
    other_data = make_comparison("other", {"joint": {2: 0.7}}, title="faces")
    other_figures = make_comparison("figures", {"joint": {1: 0.8}})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="do not compare the same thing: .*digits.*faces"):
        read_runs([first, other_data])
    with pytest.raises(ValueError, match="seed-1: another folder has other results"):
        read_runs([first, other_figures])
    with pytest.raises(ValueError, match="settings.json is missing: give the output directory of a comparison"):
        read_runs([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no run has the metric 'acuracy' on the test set; there are accuracy"):
        write_comparison(tmp_path / "out", [first], metric="acuracy")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def numbers(make_comparison):
    """A comparison of models that predict numbers: better R² and lower errors with heads."""
    folder = make_comparison("ratings", {"joint": accuracies(0.70), "heads": accuracies(0.75)})
    for path in folder.glob("*/*/result.json"):
        result = json.loads(path.read_text())
        for metrics in result["results"].values():
            r2 = metrics["test"].pop("accuracy")
            metrics["test"] = {"r2": r2, "mae": 100 * (1 - r2), "pearson": r2, "loss": 1 - r2}
        path.write_text(json.dumps(result))
    return folder


def test_numbers_are_compared_by_r2_and_not_in_percent(numbers):
    text = write_comparison(numbers).read_text()
    comparison = json.loads((numbers / "comparison.json").read_text())
    assert comparison["metric"] == "r2"
    conclusion = comparison["epochs"]["last"]["conclusion"]
    assert re.fullmatch(r"Over joint, heads gains 0\.0\d\d ± 0\.00\d in R²\.", conclusion[0])
    assert re.fullmatch(r"With 8 seeds, differences below 0\.0\d\d in R² cannot be seen\.", conclusion[-1])
    assert "## Test R² of the last epoch" in text and re.search(
        r"\| heads \| 8 \| 0\.7\d\d ± 0\.0\d\d \| \+0\.0", text
    )
    assert "Values and differences are R²." in text
    lines = comparison_lines(comparison)
    assert "test R²" in lines and re.search(r"heads +8 +0\.7\d\d ± ", lines)
    for page in (text, lines):
        assert not re.search(r"accuracy|percent|points", page)


def test_a_lower_error_is_the_better_one(numbers):
    text = write_comparison(numbers, metric="mae").read_text()
    found = json.loads((numbers / "comparison.json").read_text())["epochs"]["last"]
    assert found["conclusion"][0].startswith("Over joint, heads is better by 4.")
    assert found["conclusion"][0].endswith(" in mean absolute error.")
    heads = found["arms"]["heads"]["to"]["joint"]
    assert heads["mean"] < 0 and heads["wins"] == 8
    assert "The lower value is the better one." in text and "| 8 of 8 |" in text


def test_another_metric_is_compared_on_request(make_comparison):
    folder = make_comparison("digits", {"joint": {1: 0.7}})
    text = write_comparison(folder, metric="f1_macro").read_text()
    assert "Test f1 macro of the last epoch" in text and "| 60.0 |" in text
