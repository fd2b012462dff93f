"""A user's own metric stands wherever accuracy does: in report, card, result and comparison."""

import json

import numpy as np
import pytest
import yaml
from datasets import ClassLabel, Dataset
from sklearn.metrics import cohen_kappa_score

from hf_relearn import RelearnTrainingArguments
from hf_relearn.experiments import Experiment, InputArguments, Modality, ModelArguments, run_experiment
from hf_relearn.report import write_comparison
from hf_relearn.training.rebuild import rebuild_report

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    columns = {name: labels + rng.normal(0, 0.8, count) for name in "ab"}
    return Dataset.from_dict({**columns, "label": labels}).cast_column("label", ClassLabel(names=["x", "y", "z"]))


def kappa(prediction) -> dict[str, float]:
    return {"kappa": cohen_kappa_score(prediction.label_ids, prediction.predictions.argmax(axis=-1))}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two arms of one run each, as a comparison lays them out."""
    root = tmp_path_factory.mktemp("compared")
    arms = {"joint": 0.0, "heads": 1.0}
    for arm, weight in arms.items():
        experiment = Experiment(
            title="two numbers",
            modalities={
                name: Modality("features", [column], None) for name, column in (("left", "a"), ("right", "b"))
            },
            label_column="label",
            train=rows(48, 0),
            evaluation=rows(30, 1),
            test=rows(30, 2),
            model=ModelArguments(unimodal_loss_weight=weight),
            inputs=InputArguments(),
        )
        args = RelearnTrainingArguments(
            str(root / arm / "seed-1"),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            num_train_epochs=2,
            learning_rate=1e-2,
            relearn_strategy="no",
            eval_strategy="epoch",
        )
        run_experiment(experiment, args, with_predictions=True, compute_metrics=kappa)
    settings = {"title": "two numbers", "notes": [], "arms": dict.fromkeys(arms, "")}
    (root / "settings.json").write_text(json.dumps(settings))
    return root


def test_report_result_and_card_show_it(compared):
    run = compared / "joint" / "seed-1"
    value = json.loads((run / "result.json").read_text())["results"]["last"]["test"]["kappa"]
    assert json.loads((run / "report.json").read_text())["results"]["test"]["kappa"] == value
    assert "| kappa | " in (run / "report.md").read_text()
    card = (run / "README.md").read_text()
    assert "| kappa | " in card
    index = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    found = {metric["type"]: metric["value"] for entry in index if entry["dataset"]["split"] == "test"
             for metric in entry["metrics"]}  # fmt: skip
    assert found["kappa"] == pytest.approx(value, abs=1e-6) and "accuracy" in found
    assert "runtime" not in str(found) and "loss" not in found


def test_a_report_made_anew_keeps_it(compared):
    run = compared / "heads" / "seed-1"
    (run / "report.md").unlink()
    assert "| kappa | " in rebuild_report(run).read_text()


def test_a_comparison_is_drawn_by_it(compared):
    text = write_comparison(compared, metric="kappa").read_text()
    assert "## Test kappa of" in text and "| heads | 1 |" in text
    with pytest.raises(ValueError, match="kappa"):
        write_comparison(compared, metric="nonsense")
