"""Presets: one name for Python and for the recipes."""

from dataclasses import asdict, fields

import pytest
from patterns import pattern_model

from hf_relearn.experiments import PRESETS, ModelArguments, RunArguments, parse_recipe_arguments
from hf_relearn.experiments.arguments import preset_defaults
from hf_relearn.models.configuration_multimodal import UNIMODAL_LOSS_WEIGHTS
from hf_relearn.training import RelearnTrainingArguments

NAMES = ("balanced", "paper", "heads")


def from_preset(tmp_path, name, **fields):
    return RelearnTrainingArguments.from_preset(name, str(tmp_path), use_cpu=True, **fields)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flags", [{}, {"relearn_interval": 4}])
def test_python_and_the_flags_of_a_recipe_agree_field_by_field(tmp_path, name, flags):
    given = [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    argv = ["--use_cpu", "--output_dir", str(tmp_path), "--preset", name, *given]
    _, model, args, _ = parse_recipe_arguments((RunArguments, ModelArguments), preset_defaults, "A recipe.", argv)
    same = from_preset(tmp_path, name, **flags)
    assert asdict(args.relearn_settings()) == asdict(same.relearn_settings())
    assert args.max_grad_norm == same.max_grad_norm == 0.0
    assert model.unimodal_loss_weight == pattern_model(preset=name).config.unimodal_loss_weight


def test_the_defaults_are_the_preset_balanced(tmp_path):
    plain, preset = RelearnTrainingArguments(str(tmp_path), use_cpu=True), from_preset(tmp_path, "balanced")
    differing = {"logging_dir"}  # is named after the time
    for field in fields(RelearnTrainingArguments):
        if field.name not in differing:
            assert getattr(preset, field.name) == getattr(plain, field.name), field.name


def test_the_recipes_weights_of_heads_are_the_models(tmp_path):
    assert {name: values["unimodal_loss_weight"] for name, values in PRESETS.items()} == UNIMODAL_LOSS_WEIGHTS
    assert set(PRESETS) == set(NAMES)


def test_fields_win_over_a_preset(tmp_path):
    args = from_preset(tmp_path, "paper", relearn_lambda=1.0, max_grad_norm=2.0)
    assert (args.relearn_lambda, args.max_grad_norm, args.diagnosis_estimator) == (1.0, 2.0, "purity")
    assert pattern_model(preset="heads", unimodal_loss_weight=0.25).config.unimodal_loss_weight == 0.25


def test_an_unknown_preset_is_refused(tmp_path):
    for make in (lambda: from_preset(tmp_path, "best"), lambda: pattern_model(preset="best")):
        with pytest.raises(ValueError, match="there is no preset 'best': choose one of balanced, paper, heads"):
            make()
