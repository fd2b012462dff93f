"""Settings, and how they are given."""

import dataclasses
import os
import subprocess
import sys

import pytest
import yaml
from transformers import HfArgumentParser

from hf_relearn.method.alpha import constant_alphas, parse_alpha
from hf_relearn.training import RelearnSettings, RelearnTrainingArguments

FIELDS = [field for field in dataclasses.fields(RelearnSettings)]


def parsed(*flags):
    return HfArgumentParser(RelearnTrainingArguments).parse_args_into_dataclasses(list(flags))[0]


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{field.name}" in shown for field in FIELDS)


def test_every_setting_has_help_and_begins_with_the_methods_names():
    for field in FIELDS:
        assert len(field.metadata["help"]) > 20
        assert field.name.startswith(("relearn_", "diagnosis_"))


def test_flags_reach_the_settings(tmp_path):
    args = parsed(
        *("--output_dir", str(tmp_path), "--relearn_alpha", "audio=0.9,vision=0.5", "--relearn_interval", "4"),
        *("--relearn_modalities", "audio", "vision", "--relearn_lambda", "2", "--use_cpu"),
    )
    settings = args.relearn_settings()
    assert type(settings) is RelearnSettings
    assert parse_alpha(settings.relearn_alpha) == {"audio": 0.9, "vision": 0.5}
    assert (settings.relearn_interval, settings.relearn_lambda) == (4, 2.0)
    assert settings.relearn_modalities == ["audio", "vision"]
    assert args.remove_unused_columns is False


def test_a_yaml_file_gives_the_same(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"output_dir": str(tmp_path), "relearn_alpha": 0.9, "use_cpu": True}))
    (args,) = HfArgumentParser(RelearnTrainingArguments).parse_yaml_file(str(path))
    assert parse_alpha(args.relearn_alpha) == 0.9


def test_defaults_are_the_papers_where_they_cost_nothing():
    settings = RelearnSettings()
    assert (settings.relearn_lambda, settings.relearn_max_times, settings.diagnosis_n_init) == (3.0, 3, 1)
    assert (settings.relearn_optimizer_state, settings.relearn_buffers) == ("keep", "keep")
    settings.check()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"relearn_strategy": "epochs"}, "--relearn_strategy is 'epochs': choose one of no, epoch, steps"),
        ({"relearn_optimizer_state": "drop"}, "--relearn_optimizer_state is 'drop': choose one of keep, reset"),
        ({"relearn_buffers": "reset"}, "--relearn_buffers is 'reset': choose one of keep, interpolate"),
        ({"diagnosis_estimator": "margin"}, "--diagnosis_estimator is 'margin': choose one of separability, purity"),
        ({"relearn_strength": "some"}, r"--relearn_strength is 'some': choose gate or gap, or a number in \[0, 1\]"),
        ({"relearn_strength": "1.5"}, "--relearn_strength is '1.5': choose gate or gap"),
        ({"diagnosis_estimator": "purity"}, "--relearn_strength gate needs --diagnosis_estimator separability"),
        ({"relearn_points": [0.25, 1.0]}, "--relearn_points holds 1.0, but each is a share of the run between 0 and"),
        ({"relearn_points": [0.5], "relearn_interval": 2}, "--relearn_points and --relearn_interval both say when"),
        ({"relearn_gate_threshold": 1.5}, r"--relearn_gate_threshold is 1.5, but it is a number in \[0, 1\]"),
        ({"relearn_gate_alpha": -0.1}, "--relearn_gate_alpha is -0.1"),
        ({"relearn_gate_errors": float("inf")}, "--relearn_gate_errors is inf, but it is a finite number"),
        ({"diagnosis_sampling": "half"}, "--diagnosis_sampling is 'half': choose one of all, matched"),
        ({"relearn_interval": 0}, "--relearn_interval is 0, but it is at least 1"),
        ({"relearn_max_times": -1}, "--relearn_max_times is -1, but it is at least 0"),
        ({"diagnosis_max_samples": 1}, "--diagnosis_max_samples is 1, but it is at least 2"),
        ({"diagnosis_n_init": 0}, "--diagnosis_n_init is 0, but it is at least 1"),
        ({"diagnosis_interval": -2}, "--diagnosis_interval is -2, but it is at least 0"),
        ({"relearn_lambda": -0.5}, "--relearn_lambda is -0.5, but it is a finite number"),
        ({"relearn_lambda": float("nan")}, "--relearn_lambda is nan, but it is a finite number"),
        ({"diagnosis_fraction": 1.0}, r"--diagnosis_fraction is 1.0, but it is a share in \[0, 1\)"),
        ({"diagnosis_fraction": -0.1}, "--diagnosis_fraction is -0.1"),
        ({"relearn_alpha": "1.5"}, r"--relearn_alpha is '1.5': give a number in \[0, 1\], or one per modality"),
        ({"relearn_alpha": "strong"}, "--relearn_alpha is 'strong'"),
        ({"relearn_alpha": "nan"}, "--relearn_alpha is 'nan'"),
        ({"relearn_alpha": "audio=0.5,vision"}, "--relearn_alpha is 'audio=0.5,vision'"),
        ({"relearn_alpha": "audio=0.5,audio=0.9"}, "--relearn_alpha is 'audio=0.5,audio=0.9'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        RelearnSettings(**wrong).check()
    with pytest.raises(ValueError, match=message):
        RelearnTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **wrong)


def test_a_dropped_setting_names_what_replaces_it(tmp_path):
    for make in (RelearnSettings, lambda **fields: RelearnTrainingArguments(output_dir=str(tmp_path), **fields)):
        with pytest.raises(TypeError, match="no --diagnosis_return any more: use --diagnosis_source eval"):
            make(diagnosis_return=True)


def test_strengths_are_given_per_re_learnt_modality():
    assert constant_alphas(None, ["a", "b"]) is None
    assert constant_alphas("0.3", ["a", "b"]) == {"a": 0.3, "b": 0.3}
    assert constant_alphas({"b": 1, "a": 0}, ["a", "b"]) == {"a": 0.0, "b": 1.0}
    assert constant_alphas("a=0.3", ["a", "b"]) == {"a": 0.3, "b": 0.0}  # one that is not named stays
    with pytest.raises(ValueError, match="gives a strength for c, but the re-learnt modalities are a, b"):
        constant_alphas("a=0.3,b=0.3,c=0.3", ["a", "b"])


def test_accelerate_launch_that_starts_one_process_on_cpus_says_so(tmp_path):
    settings = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_CPU", "use_cpu": True}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({**settings, "num_machines": 1, "num_processes": 2}))
    script = tmp_path / "script.py"
    script.write_text(
        "from hf_relearn import RelearnTrainingArguments\n"
        f"args = RelearnTrainingArguments({str(tmp_path / 'run')!r}, use_cpu=True, report_to='none')\n"
        "print('processes', args.world_size)\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", tmp_path / "two.yaml", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "processes 1\n" in done.stdout
    assert "accelerate launch starts one process on CPUs" in done.stderr and "torchrun" in done.stderr
