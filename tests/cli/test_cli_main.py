"""`hf-relearn` itself: help, version, exit codes and errors."""

import shlex
import subprocess
import sys

import pytest
import torch
from typer.main import get_command

import hf_relearn
from hf_relearn import ModuleBackbone, MultimodalForClassification
from hf_relearn.cli.main import COMMANDS, app, one_value_a_flag


def hf_relearn_process(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "hf_relearn", *argv], capture_output=True, text=True, timeout=120)


def test_help_names_every_command_and_the_exit_codes():
    done = hf_relearn_process("--help")
    assert done.returncode == 0 and not done.stderr
    for word in (*COMMANDS, "exit codes", "MODEL", "--debug"):
        assert word in done.stdout


def test_help_comes_without_the_heavy_libraries():
    code = "import sys; from hf_relearn.cli.main import main; main(['predict', '--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout
    assert "hf_relearn.cli.predict" in loaded.split()
    assert not {"torch", "transformers", "datasets", "numpy", "rich"} & set(loaded.split())


def understood(line: str) -> str:
    """The name of the command that a line calls, after its flags are parsed."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    _, command, *flags = words
    get_command(app).commands[command].make_context(command, list(one_value_a_flag(flags)))
    return command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_examples_that_it_would_take(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0 and "examples:" in out and "exit codes:" in out
    examples = [line for line in out.splitlines() if line.strip().startswith("hf-relearn ")]
    assert examples and {understood(line) for line in examples} == {command}


def test_a_flag_with_several_values_takes_them_in_a_row_or_one_by_one():
    for flags in (["--columns", "a=b", "c=d"], ["--columns", "a=b", "--columns", "c=d"]):
        words = list(one_value_a_flag(["model", "--dataset_name", "x", *flags, "--cpu"]))
        context = get_command(app).commands["diagnose"].make_context("diagnose", words)
        assert (context.params["columns"], context.params["cpu"]) == (["a=b", "c=d"], True)


def test_version(run):
    assert run("--version") == (0, f"hf-relearn {hf_relearn.__version__}\n", "")


def test_wrong_usage_exits_with_2(run):
    for argv in ([], ["fly"], ["predict"], ["predict", "model", "--top_k", "0"], ["report", "x", "--no_such_flag"]):
        code, out, err = run(*argv)
        assert (code, out) == (2, "") and "Usage: hf-relearn" in err, argv
    code, out, err = run("predict", "model", "audio")
    assert (code, out, err) == (2, "", "hf-relearn predict: error: 'audio' is not of the form MODALITY=VALUE\n")


def test_a_failure_is_one_line_and_a_traceback_only_on_request(run, tmp_path):
    missing = tmp_path / "nowhere"
    expected = f"hf-relearn report: error: {missing}: no such folder\n"
    assert run("report", missing) == (1, "", expected)
    for argv in (["--debug", "report", missing], ["report", missing, "--debug"]):
        code, _, err = run(*argv)
        assert code == 1 and "Traceback" in err and err.endswith(expected)


def test_an_error_that_nobody_expected_is_named_by_its_type(run, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("first line\n  second line")

    monkeypatch.setattr("hf_relearn.training.rebuild.rebuild_report", fail)
    assert run("report", "x") == (1, "", "hf-relearn report: error: RuntimeError: first line second line\n")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("predict", ["sensors=1,2,3"]),
        ("evaluate", ["--dataset_name", "a.csv"]),
        ("diagnose", ["--dataset_name", "a.csv"]),
        ("export", []),
        ("demo", ["--no_browser"]),
        ("space", []),
    ],
)
def test_a_module_of_the_users_own_is_named_with_the_call_that_loads_it(run, tmp_path, monkeypatch, command, flags):
    if command in ("demo", "space"):
        pytest.importorskip("gradio", reason="gradio is absent: pip install '.[demo]'")
    monkeypatch.chdir(tmp_path)
    backbones = {"sensors": ModuleBackbone(torch.nn.Linear(3, 4), input_shape=(3,))}
    MultimodalForClassification.from_backbones(backbones, num_labels=2).save_pretrained("own")
    code, out, err = run(command, "own", *flags)
    assert code == 1 and not out and err.count("\n") == 1
    assert (
        "own: the backbone of the modality 'sensors' is a module of your own (torch.nn.modules.linear.Linear)" in err
    )
    assert "from_pretrained('own', backbones={'sensors': module})" in err
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
