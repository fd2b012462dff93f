"""`hf-relearn` itself: help, version, exit codes and errors."""

import subprocess
import sys
from pathlib import Path

import pytest

import hf_relearn
from hf_relearn.cli.main import COMMANDS, main


def hf_relearn_process(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "hf_relearn", *argv], capture_output=True, text=True, timeout=120)


def test_help_names_every_command_and_the_exit_codes():
    done = hf_relearn_process("--help")
    assert done.returncode == 0 and not done.stderr
    for word in (*COMMANDS, "exit codes", "MODEL"):
        assert word in done.stdout


def test_help_comes_without_the_heavy_libraries():
    code = "import sys; from hf_relearn.cli.main import main; main(['predict', '--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout
    assert "hf_relearn.cli.predict" in loaded.split()
    assert not {"torch", "transformers", "datasets", "numpy"} & set(loaded.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_examples_that_it_would_take(command, run, monkeypatch):
    code, out, _ = run(command, "--help")
    assert code == 0 and "examples:" in out and "exit codes:" in out
    seen = []
    monkeypatch.setattr(COMMANDS[command], "run", seen.append)
    examples = [line for line in COMMANDS[command].EXAMPLES.splitlines() if line.strip().startswith("hf-relearn")]
    for line in examples:
        words = [word.strip("'\"") for word in line.partition(" > ")[0].split()[1:]]
        assert main([word for word in words if word not in ("cat", "seed", "1")]) == 0, line
    assert len(seen) == len(examples) > 0


def test_commands_of_the_readme_are_as_it_says(monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = [line.partition("#")[0] for line in readme.splitlines() if line.startswith("hf-relearn ")]
    seen = []
    for name, command in COMMANDS.items():
        monkeypatch.setattr(command, "run", lambda args, name=name: seen.append(name))
    assert [main(line.split()[1:]) for line in lines] == [0] * len(lines)
    assert set(seen) == set(COMMANDS)


def test_version(run):
    assert run("--version") == (0, f"hf-relearn {hf_relearn.__version__}\n", "")


def test_wrong_usage_exits_with_2(run):
    for argv in ([], ["train"], ["predict"], ["predict", "model", "audio"], ["predict", "model", "--top_k", "0"]):
        code, out, err = run(*argv)
        assert (code, out) == (2, "") and "usage: hf-relearn" in err, argv


def test_a_failure_is_one_line_and_a_traceback_only_on_request(run, tmp_path):
    missing = tmp_path / "nowhere"
    expected = f"hf-relearn report: error: {missing}: no such folder\n"
    assert run("report", missing) == (1, "", expected)
    code, _, err = run("--debug", "report", missing)
    assert code == 1 and "Traceback" in err and err.endswith(expected)


def test_what_no_message_was_written_for_is_named(run, monkeypatch):
    def fail(args):
        raise RuntimeError("first line\n  second line")

    monkeypatch.setattr(COMMANDS["report"], "run", fail)
    assert run("report", "x") == (1, "", "hf-relearn report: error: RuntimeError: first line second line\n")
