"""What a diagnosis costs: held-out features come from an evaluation that has just seen the same weights."""

import pytest
from patterns import PatternRows, pattern_model, pattern_trainer
from tiny import FEW_SAMPLES, assert_same, without_times

from hf_relearn.training import read_history

pytestmark = FEW_SAMPLES


def diagnosed_run(folder, held_out, **settings):
    """The records of a run, and the number of samples of each forward pass without training."""
    model, passes = pattern_model(), []
    model.register_forward_hook(
        lambda module, inputs, outputs: passes.append(len(outputs.logits)) if not module.training else None
    )
    settings = {"relearn_points": [0.5], "num_train_epochs": 2, "relearn_gate_alpha": 0.5, **settings}
    pattern_trainer(folder, model, trainer_kwargs={"eval_dataset": held_out}, **settings).train()
    return without_times(read_history(folder)), passes


@pytest.mark.parametrize(
    ("size", "gaps", "settings"),
    [
        (40, False, {}),
        (44, False, {}),  # the last batch is smaller
        (44, False, {"diagnosis_max_samples": 30}),
        (44, True, {}),
        (44, True, {"relearn_strategy": "steps"}),
        (44, False, {"relearn_modalities": ["memorised", "noise"]}),
    ],
)
def test_an_evaluation_just_before_a_point_spares_it_the_held_out_pass(tmp_path, size, gaps, settings):
    held_out = PatternRows(size, seed=1, held_out=True, gaps=gaps)
    alone, passes = diagnosed_run(tmp_path / "alone", held_out, **settings)
    evaluated, more = diagnosed_run(tmp_path / "evaluated", held_out, eval_strategy="epoch", **settings)

    assert [record["kind"] for record in evaluated] == ["start", "point"]
    assert any(entry["alpha"] > 0 for entry in evaluated[1]["modalities"].values())
    assert_same(evaluated, alone)
    diagnosed = min(size, settings.get("diagnosis_max_samples", size))
    training = max(settings.get("diagnosis_max_samples", 60), 2 * diagnosed) if settings else 60
    both = min(60, training) + diagnosed
    assert sum(passes) == 2 * both  # at the start and at the point
    assert sum(more) == both + min(60, training) + 2 * size  # two evaluations, the first of which serves the point


def test_features_of_an_evaluation_serve_the_same_weights_only(tmp_path):
    """An evaluation in the middle of the epoch before the point is too old."""
    held_out = PatternRows(44, seed=1, held_out=True)
    alone, passes = diagnosed_run(tmp_path / "alone", held_out)
    settings = {"eval_strategy": "steps", "eval_steps": 7}  # the point comes at step 8 of 16
    evaluated, more = diagnosed_run(tmp_path / "evaluated", held_out, **settings)
    assert_same(evaluated, alone)
    assert sum(more) == sum(passes) + 3 * 44  # at the steps 7, 14 and 16


def test_another_evaluation_set_does_not_serve(tmp_path):
    held_out, other = PatternRows(44, seed=1, held_out=True), PatternRows(44, seed=2, held_out=True)
    alone, _ = diagnosed_run(tmp_path / "alone", held_out)
    sets = {"held_out": held_out, "other": other}  # that of the other comes last
    named, _ = diagnosed_run(tmp_path / "named", sets, diagnosis_source="held_out", eval_strategy="epoch")
    assert_same(named, alone)
