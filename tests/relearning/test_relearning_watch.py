"""Warnings of what makes re-learning do harm: clipping, late steps, decayed rates, heads that know nothing."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from patterns import PatternRows, Towers, pattern_arguments, pattern_trainer
from tiny import FEW_SAMPLES, history
from transformers import Trainer

from hf_relearn import RelearnCallback
from hf_relearn.records import Point
from hf_relearn.relearning.watch import EpochClock, GradientWatch, decay_of, warn_of_constant_strength

pytestmark = FEW_SAMPLES


def warned(action):
    """The warnings of an action but those of few samples, each as often as it came."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    passed_over = ("standard error of the gap", "before training", "training samples, so their")
    texts = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    return [text for text in texts if not any(part in text for part in passed_over)]


def stock_trainer(folder, **settings):
    torch.manual_seed(0)
    relearn = RelearnCallback(
        lambda model: model.towers, lambda model, batch: model.features(batch), PatternRows(44, seed=1, held_out=True)
    )
    args = pattern_arguments(folder, **settings)
    return Trainer(Towers(), args, train_dataset=PatternRows(), callbacks=[relearn])


@pytest.mark.parametrize("make", [pattern_trainer, stock_trainer])
def test_clipping_that_cuts_after_a_point_is_told_once(tmp_path, make):
    found = warned(make(tmp_path, max_grad_norm=1e-3).train)
    assert len(found) == 1
    assert found[0].startswith("--max_grad_norm 0.001 cuts gradients of norm ")
    assert [record["kind"] for record in history(tmp_path)] == ["point", "point"]  # both moved something


@pytest.mark.parametrize("settings", [{"max_grad_norm": 0.0}, {}, {"max_grad_norm": 1e3}])
def test_clipping_that_cuts_nothing_is_not_told(tmp_path, settings):
    assert warned(pattern_trainer(tmp_path, num_train_epochs=2, relearn_points=[0.5], **settings).train) == []
    assert history(tmp_path)[0]["modalities"]["memorised"]["distance"] > 0


def test_clipping_is_not_told_where_nothing_moved(tmp_path):
    settings = {"relearn_gate_threshold": 1.0, "max_grad_norm": 1e-3, "num_train_epochs": 2}
    assert warned(pattern_trainer(tmp_path, **settings).train) == []


def test_gradients_are_watched_for_twenty_steps_after_a_point():
    watch = GradientWatch(1.0)
    watch.observe(100.0)  # no point yet
    watch.begin()
    for _ in range(20):
        watch.observe(2.9)
    watch.observe(100.0)
    watch.begin()
    watch.observe(float("nan"))
    with pytest.warns(UserWarning, match="cuts gradients of norm 3.1 to less than a third"):
        watch.observe(torch.tensor(3.1))
    watch.observe(100.0)


def test_a_constant_strength_late_in_a_run_is_told(tmp_path):
    settings = {"relearn_strength": "0.5", "diagnosis_source": "eval", "num_train_epochs": 3}
    late = pattern_trainer(tmp_path, relearn_points=[0.34, 0.67], lr_scheduler_type="constant", **settings)
    found = warned(late.train)
    assert len(found) == 1 and found[0].startswith("a constant --relearn_strength after 67% of the run leaves")
    early = pattern_trainer(tmp_path, relearn_points=[0.34], lr_scheduler_type="constant", **settings)
    assert warned(early.train) == []
    gated = pattern_trainer(tmp_path, relearn_points=[0.67], num_train_epochs=3)
    assert warned(gated.train) == []


def test_a_constant_strength_under_a_decayed_rate_is_told(tmp_path):
    settings = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4, "num_cycles": 2}}
    settings |= {"num_train_epochs": 2, "relearn_points": [0.25], "relearn_alpha": "0.5", "relearn_strategy": "steps"}
    found = warned(pattern_trainer(tmp_path, **settings).train)
    assert len(found) == 1 and found[0].startswith("the learning rate has decayed to")


@pytest.mark.parametrize(
    ("alphas", "share", "decay", "accuracy", "expected"),
    [
        ({"a": 0.5}, 0.5, 0.34, 0.9, []),
        ({"a": 0.5}, 0.51, None, 0.9, ["after 51% of the run"]),
        ({"a": 0.5}, 0.2, 0.33, 0.9, ["decayed to 33%"]),
        ({"a": 0.5}, 0.2, 1.0, 0.39, ["head of 'a' has hardly learnt yet (39% of the training samples right)"]),
        ({"a": 0.5}, 0.2, 1.0, 0.41, []),
        ({"a": 0.0}, 0.9, 0.1, 0.3, []),  # nothing is moved
    ],
)
def test_conditions_of_a_constant_strength(alphas, share, decay, accuracy, expected):
    point = Point("point", modalities=["a"], head_accuracies={"a": (accuracy, 0.3)}, num_classes=3)
    found = warned(lambda: warn_of_constant_strength(point, alphas, share, decay))
    assert len(found) == len(expected) and all(part in text for part, text in zip(expected, found, strict=True))


def test_the_rate_is_told_by_schedulers_that_know_it():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.25)
    assert decay_of(scheduler) == 0.25
    assert decay_of(None) is None and decay_of(SimpleNamespace(base_lrs=[0.1])) is None


def test_an_epoch_begun_in_its_middle_is_no_measure():
    clock = EpochClock()
    clock.begin_epoch(whole=False)
    clock.end_epoch()
    assert clock.share(1.0) is None
    clock.begin_epoch(whole=True)
    clock.end_epoch()
    assert clock.share(1.0) > 1.0
