"""Hyper-parameter search: each trial is a run of its own."""

import pytest
import torch
from tiny import history, make_trainer, tiny_model
from transformers import TrainerCallback

from hf_relearn import InitialWeights, MultimodalRelearnTrainer

optuna = pytest.importorskip("optuna", reason="the extra 'optuna' is not installed")

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:chance alone explains"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]


def searching_trainer(folder, models, **kwargs):
    """A trainer whose every trial begins with another model; `models` collects them."""

    def model_init(trial=None):
        model = tiny_model(seed=100 if trial is None else trial.number)
        models.append(model)
        return model

    template = make_trainer(folder / "unused", num_train_epochs=2, save_strategy="epoch", **kwargs)
    template.args.output_dir = str(folder)
    return MultimodalRelearnTrainer(
        None,
        template.args,
        train_dataset=template.train_dataset,
        eval_dataset=template.eval_dataset,
        diagnosis_dataset=template.diagnosis_dataset,
        model_init=model_init,
    )


def search(trainer, space, values):
    return trainer.hyperparameter_search(
        lambda trial: space(trial),
        backend="optuna",
        direction="maximize",
        n_trials=len(values),
        sampler=optuna.samplers.GridSampler({"relearn_alpha": values}, seed=0),
    )


def test_each_trial_has_its_own_initial_weights_record_and_settings(tmp_path):
    models, chosen = [], {}

    def space(trial):
        alpha = trial.suggest_float("relearn_alpha", 0, 1)
        chosen[trial.number] = alpha
        return {"relearn_alpha": alpha}

    trainer = searching_trainer(tmp_path, models)
    best = search(trainer, space, [0.25, 0.75])
    assert best.run_id in ("0", "1") and sorted(chosen.values()) == [0.25, 0.75]
    assert InitialWeights.find(tmp_path) == [] and history(tmp_path) == []
    for number, alpha in chosen.items():
        folder = tmp_path / f"run-{number}"
        (record,) = history(folder)
        assert {entry["alpha"] for entry in record["modalities"].values()} == {alpha}
        (path,) = InitialWeights.find(folder)
        stored, began = InitialWeights.load(path), dict(tiny_model(seed=number).named_parameters())
        assert stored and all(torch.equal(stored[name], began[name]) for name in stored)
        assert (folder / "checkpoint-4" / "relearn_run.json").is_file()


def test_what_divides_the_data_cannot_be_searched_over(tmp_path):
    trainer = searching_trainer(tmp_path, [])

    def space(trial):
        trial.suggest_float("relearn_alpha", 0, 1)
        return {"diagnosis_fraction": 0.4}

    with pytest.raises(ValueError, match="diagnosis_fraction cannot be searched over: .*divided the data by 0.25"):
        search(trainer, space, [0.5])


def test_a_wrong_value_of_a_trial_names_the_flag(tmp_path):
    trainer = searching_trainer(tmp_path, [])

    def space(trial):
        trial.suggest_float("relearn_alpha", 0, 1)
        return {"relearn_lambda": -1.0}

    with pytest.raises(ValueError, match="--relearn_lambda is -1.0"):
        search(trainer, space, [0.5])


@pytest.mark.parametrize(
    ("chosen", "key", "better"),
    [({}, "eval_accuracy", max), ({"metric_for_best_model": "loss"}, "eval_loss", min)],
)
def test_a_search_looks_for_the_best_metric_without_being_told_which(tmp_path, chosen, key, better):
    found = []

    class Evaluated(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            found.append(metrics[key])

    trainer = searching_trainer(tmp_path, [], eval_strategy="epoch", max_steps=5, **chosen)
    trainer.add_callback(Evaluated())
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-2, 0.0])},
        backend="optuna",
        n_trials=2,
        sampler=optuna.samplers.GridSampler({"learning_rate": [1e-2, 0.0]}, seed=0),
    )
    assert best.objective == better(found) and len(set(found)) > 1


def test_a_search_says_which_metrics_there_are(tmp_path):
    trainer = searching_trainer(tmp_path, [], metric_for_best_model="accuracy_of_all")
    with pytest.raises(ValueError, match="best 'eval_accuracy_of_all', but .*eval_f1_macro.*--metric_for_best_model"):
        trainer.hyperparameter_search(lambda trial: {}, backend="optuna", n_trials=1)
