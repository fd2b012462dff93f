"""Flags, presets and YAML files of the recipes."""

import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from hf_relearn import RelearnTrainingArguments
from hf_relearn.experiments import (
    PRESETS,
    InputArguments,
    ModelArguments,
    RunArguments,
    find_backbone,
    parse_recipe_arguments,
)


@dataclass
class DataArguments:
    _argument_group_name: ClassVar[str] = "data"
    data_dir: str | None = field(default=None, metadata={"help": "Where the data are."})


TYPES = (DataArguments, RunArguments, ModelArguments, InputArguments, RelearnTrainingArguments)


def parse(*argv):
    def defaults(chosen):
        return {"learning_rate": 0.5, "num_train_epochs": 7, "output_dir": "out", **PRESETS[chosen.preset]}

    return parse_recipe_arguments(TYPES, defaults, "A recipe.", ["--use_cpu", *argv])


def test_default_preset_is_balanced():
    _, run, model, _, args = parse()
    assert (run.preset, model.unimodal_loss_weight, args.relearn_alpha) == ("balanced", 1.0, "0.9")
    assert (args.diagnosis_source, args.learning_rate, args.num_train_epochs) == ("eval", 0.5, 7)


def test_preset_from_yaml_chooses_the_defaults(tmp_path):
    (tmp_path / "run.yaml").write_text("preset: paper\nlearning_rate: 1e-4\nrelearn_modalities: [audio]\n")
    _, run, model, _, args = parse("--config", str(tmp_path / "run.yaml"))
    assert (run.preset, model.unimodal_loss_weight, args.relearn_alpha) == ("paper", 0.0, None)
    assert (args.learning_rate, args.relearn_modalities, args.diagnosis_sampling) == (1e-4, ["audio"], "all")


def test_flags_win_over_yaml_which_wins_over_presets(tmp_path):
    (tmp_path / "run.yaml").write_text("relearn_alpha: 0.3\nlearning_rate: 0.1\n")
    *_, args = parse("--config", str(tmp_path / "run.yaml"), "--learning_rate", "0.2")
    assert (str(args.relearn_alpha), args.learning_rate) == ("0.3", 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relearn_alfa: 0.3", "unknown key 'relearn_alfa'; did you mean 'relearn_alpha'?"),
        ("- a list", "holds a list"),
        ("a: [", "is not valid YAML"),
        ("diagnosis_return: true", "there is no 'diagnosis_return' any more: use --diagnosis_source eval"),
    ],
)
def test_bad_yaml_is_refused_with_its_reason(tmp_path, capsys, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse("--config", str(tmp_path / "run.yaml"))
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "absent.yaml"], "absent.yaml: no such file"),
        (["--preset", "papr"], "invalid choice: 'papr'"),
        (["--diagnosis_return"], "there is no --diagnosis_return any more: use --diagnosis_source eval"),
        (["--relearn_alpha", "2"], "--relearn_alpha is '2'"),
        (["--relearn_strategi", "no", "--no_such_flag"], "unrecognized arguments"),
        (["--spectrogram_size", "64"], "--spectrogram_size takes height and width"),
    ],
)
def test_bad_flags_are_refused_with_their_reason(capsys, argv, message):
    with pytest.raises(SystemExit):
        parse(*argv)
    assert message in capsys.readouterr().err


def test_help_shows_groups_and_the_defaults_that_hold(capsys):
    with pytest.raises(SystemExit):
        parse("--help", "--preset", "paper")
    text = capsys.readouterr().out
    groups = ("data:", "run:", "model:", "diagnosing and re-learning:", "training (transformers.TrainingArguments):")
    places = [text.index(f"\n{group}") for group in groups]
    assert places == sorted(places)
    assert places[3] < text.index("--relearn_lambda") < places[4] < text.index("--learning_rate")
    learning_rate = " ".join(text[text.index("--learning_rate") :].split())
    assert "(default: 0.5)" in learning_rate[:200]
    sampling = " ".join(text[text.index("--diagnosis_sampling") :].split())
    assert "(default: all)" in sampling[:500]


def test_shipped_yaml_fits_its_recipe(tmp_path):
    recipes = Path(__file__).parents[2] / "recipes"
    recipe = runpy.run_path(str(recipes / "train_cremad.py"))
    types = (recipe["DataArguments"], RunArguments, recipe["BackboneArguments"], RelearnTrainingArguments)
    argv = ["--config", str(recipes / "configs" / "cremad_paper.yaml"), "--use_cpu", "--output_dir", str(tmp_path)]
    data, run, backbones, args = parse_recipe_arguments(types, recipe["defaults"], "", argv)
    assert (run.preset, data.validation_file, args.diagnosis_source) == ("paper", "val.csv", "eval")
    # What the paper's code sets for CREMA-D.
    assert (args.learning_rate, args.optim, args.optim_args, args.weight_decay) == (2e-3, "sgd", "momentum=0.9", 1e-4)
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.relearn_interval) == (64, 90, 20)
    folder = find_backbone(backbones.audio_model_name_or_path, recipes)
    assert Path(folder) == recipes / "backbones" / "resnet-18-spectrogram"
