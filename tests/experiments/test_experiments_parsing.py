"""Flags, presets and YAML files of the recipes."""

import dataclasses
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from transformers import TrainingArguments

from hf_relearn import RelearnTrainingArguments
from hf_relearn.experiments import (
    PRESETS,
    InputArguments,
    ModelArguments,
    RunArguments,
    find_backbone,
    parse_recipe_arguments,
)
from hf_relearn.experiments.model_arguments import FUSIONS
from hf_relearn.experiments.parsing import CommonTrainingArguments
from hf_relearn.models.configuration_multimodal import FUSION_OPTIONS

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass
class DataArguments:
    _argument_group_name: ClassVar[str] = "data"
    data_dir: str | None = field(default=None, metadata={"help": "Where the data are."})


TYPES = (DataArguments, RunArguments, ModelArguments, InputArguments)


def parse(*argv):
    def defaults(chosen):
        return {"learning_rate": 0.5, "num_train_epochs": 7, "output_dir": "out", **PRESETS[chosen.preset]}

    return parse_recipe_arguments(TYPES, defaults, "A recipe.", ["--use_cpu", *argv])[:-1]


def test_default_preset_is_balanced():
    _, run, model, _, args = parse()
    assert (run.preset, model.unimodal_loss_weight, args.relearn_strength) == ("balanced", 1.0, "gate")
    assert (args.max_grad_norm, args.learning_rate, args.num_train_epochs) == (0.0, 0.5, 7)


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
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "absent.yaml"], "absent.yaml: no such file"),
        (["--preset", "papr"], "invalid choice: 'papr'"),
        (["--diagnosis_return"], "there is no --diagnosis_return any more: use --diagnosis_source eval"),
        (["--relearn_alpha", "2"], "--relearn_alpha is '2'"),
        (["--no_such_flag", "1"], "unknown flag --no_such_flag"),
        (["--relearn_lamda", "2"], "unknown flag --relearn_lamda; did you mean --relearn_lambda?"),
        (["--seed", "1", "stray"], "'stray' belongs to no flag"),
        (["--spectrogram_size", "64"], "--spectrogram_size takes height and width"),
    ],
)
def test_bad_flags_are_refused_with_their_reason(capsys, argv, message):
    with pytest.raises(SystemExit):
        parse(*argv)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def help_text(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as end:
        parse(*argv)
    assert end.value.code == 0
    return capsys.readouterr().out


def shown_flags(text: str) -> list[str]:
    return re.findall(r"^  (?:-h, )?--(\w+)", text, flags=re.MULTILINE)


def test_help_shows_groups_and_the_defaults_that_hold(capsys):
    text = help_text(capsys, "--help", "--preset", "paper")
    groups = ("data:", "run:", "model:", "diagnosing and re-learning:", "training (transformers.TrainingArguments):")
    places = [text.index(f"\n{group}") for group in groups]
    assert places == sorted(places)
    assert places[3] < text.index("--relearn_lambda") < places[4] < text.index("--learning_rate")
    learning_rate = " ".join(text[text.index("--learning_rate FLOAT") :].split())
    assert "(default: 0.5)" in learning_rate[:200]
    sampling = " ".join(text[text.index("--diagnosis_sampling") :].split())
    assert "(default: all)" in sampling[:500]


def test_help_shows_the_flags_that_people_use_and_help_all_every_one(capsys):
    short, full = shown_flags(help_text(capsys, "--help")), shown_flags(help_text(capsys, "--help_all"))
    fields = {item.name: item for item in dataclasses.fields(RelearnTrainingArguments)}
    of_transformers = {item.name for item in dataclasses.fields(TrainingArguments)}
    for flags in (short, full):
        assert len(flags) == len(set(flags))
    assert len(set(short) & of_transformers) == 15
    assert set(fields) - of_transformers <= set(short) < set(full)
    assert set(fields) <= set(full)


def test_help_shows_the_defaults_of_transformers():
    theirs = {item.name: item for item in dataclasses.fields(TrainingArguments)}
    for item in dataclasses.fields(CommonTrainingArguments):
        if item.name not in ("report_to", "lr_scheduler_type", "bf16"):
            assert item.default == theirs[item.name].default, item.name


def test_help_of_a_recipe_comes_without_the_heavy_libraries():
    code = (
        "import runpy, sys; sys.argv = ['recipe', '--help']\n"
        f"try: runpy.run_path({str(RECIPES / 'train_multimodal.py')!r}, run_name='__main__')\n"
        "except SystemExit: print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout.split()
    assert "--fusion" in loaded and not {"torch", "datasets", "sklearn"} & set(loaded)


def test_fusions_offered_are_those_of_the_model():
    assert FUSIONS == tuple(FUSION_OPTIONS)


def test_shipped_yaml_fits_its_recipe(tmp_path):
    recipe = runpy.run_path(str(RECIPES / "train_cremad.py"))
    types = (recipe["DataArguments"], RunArguments, recipe["BackboneArguments"])
    argv = ["--config", str(RECIPES / "configs" / "cremad_paper.yaml"), "--use_cpu", "--output_dir", str(tmp_path)]
    data, run, backbones, args, _ = parse_recipe_arguments(types, recipe["defaults"], "", argv)
    assert (run.preset, data.validation_file, args.diagnosis_source) == ("paper", "val.csv", "eval")
    # What the paper's code sets for CREMA-D.
    assert (args.learning_rate, args.optim, args.optim_args, args.weight_decay) == (2e-3, "sgd", "momentum=0.9", 1e-4)
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.relearn_interval) == (64, 90, 20)
    folder = find_backbone(backbones.audio_model_name_or_path, RECIPES)
    assert Path(folder) == RECIPES / "backbones" / "resnet-18-spectrogram"


def parsed(recipe, *argv):
    """Arguments of a recipe with some flags, its inputs, and what it would name."""
    names = runpy.run_path(str(RECIPES / recipe))
    argv = ["--use_cpu", "--output_dir", "out", "--dataset_name", "clips.csv", *argv]
    groups = parse_recipe_arguments(names["TYPES"], names["defaults"], "", argv)[:-1]
    return groups[-1], next(group for group in groups if isinstance(group, InputArguments))


def test_pretrained_backbones_beside_networks_from_scratch_keep_a_rate_of_their_own(tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"")
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text("{}")  # random weights
    mix = ["--from_scratch", "--modalities", "audio", "image:vision", "words:text"]
    models = ["--models", f"words={tmp_path / 'bert'}", f"image={tmp_path / 'vit'}"]

    args, inputs = parsed("train_multimodal.py", *mix)
    assert (args.learning_rate, args.learning_rates, inputs.image_size) == (2e-3, None, 32)
    args, inputs = parsed("train_multimodal.py", *mix, *models)
    assert (args.learning_rate, args.learning_rates, args.warmup_steps) == (2e-3, ["words=2e-5"], 0.1)
    assert (inputs.image_size, inputs.audio_seconds) == (32, 1.0)
    args, inputs = parsed("train_multimodal.py", *mix, *models, "audio=facebook/wav2vec2-base")
    assert args.learning_rates == ["words=2e-5", "audio=2e-5"] and inputs.audio_seconds == 3.0
    for flags in (["--learning_rate", "1e-4"], ["--learning_rates", "words=1e-5"], ["--freeze", "words"]):
        args, _ = parsed("train_multimodal.py", *mix, *models, *flags)
        assert args.learning_rates == (flags[1:] if flags[0] == "--learning_rates" else None), flags


def test_image_text_pairs_a_pretrained_backbone_with_a_small_network():
    args, _ = parsed("train_image_text.py", "--text_model_name_or_path", "google-bert/bert-base-uncased")
    assert (args.learning_rate, args.learning_rates) == (2e-5, None)
    args, _ = parsed("train_image_text.py", "--text_model_name_or_path", "a/b", "--from_scratch")
    assert (args.learning_rate, args.learning_rates) == (1e-3, ["text=2e-5"])
