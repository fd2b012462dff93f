"""Running a recipe: one line for an error, an earlier run in its folder, and Ctrl+C."""

from pathlib import Path

import pytest

from hf_relearn.experiments import run_recipe


@pytest.fixture
def start(monkeypatch, capsys, tmp_path):
    """Runs a recipe with some flags: exit code and stderr."""

    def start_recipe(main, *flags: str) -> tuple[object, str]:
        argv = ["recipes/train.py", "--use_cpu", "--output_dir", str(tmp_path / "run"), *flags]
        monkeypatch.setattr("sys.argv", argv)
        code: object = 0
        try:
            run_recipe(main, (), lambda chosen: {}, "A recipe.")
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err

    return start_recipe


def fail(args) -> None:
    raise ValueError("the column 'mood' is missing:\n  name another one")


def never(args) -> None:
    raise AssertionError("nothing may be trained here")


def earlier_run(folder: Path) -> None:
    """The files of an earlier run and of a user beside them."""
    for name in (
        "checkpoint-7/model.safetensors",
        "relearn_history.jsonl",
        "_initial_weights-1a2b.safetensors",
        "model.safetensors",
        "figures/purity.png",
        "figures/mine.png",
        "joint/checkpoint-3/trainer_state.json",
        "notes/trainer_notes.json",
        "checkpoint-best/model.safetensors",
        "data.csv",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "report.md").write_text("![Figure](figures/purity.png)")
    (folder / "README.md").write_text("# My own notes")


def test_an_error_is_one_line_and_a_traceback_only_on_request(start):
    expected = "train.py: error: the column 'mood' is missing: name another one\n"
    assert start(fail) == (1, expected)
    code, err = start(fail, "--debug")
    assert code == 1 and "Traceback" in err and err.endswith(expected)


def test_a_run_that_succeeds_says_nothing(start):
    seen = []
    assert start(seen.append) == (0, "")
    assert seen[0].output_dir.endswith("run")


def test_a_second_run_says_how_to_go_on(start, tmp_path):
    earlier_run(tmp_path / "run")
    code, err = start(never)
    assert code == 1 and err.count("\n") == 1
    assert "--resume_from_checkpoint last" in err and "--overwrite" in err
    assert start(lambda args: None, "--resume_from_checkpoint", "last") == (0, "")


def test_overwrite_deletes_the_files_of_the_earlier_run_only(start, tmp_path):
    earlier_run(tmp_path / "run")
    assert start(lambda args: None, "--overwrite") == (0, "")
    left = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {
        "README.md",
        "figures/mine.png",
        "notes/trainer_notes.json",
        "checkpoint-best/model.safetensors",
        "data.csv",
    }


def test_overwrite_leaves_a_folder_without_a_run_alone(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert start(lambda args: None, "--overwrite") == (0, "")
    assert (tmp_path / "run" / "config.json").is_file()


def test_overwrite_and_resuming_exclude_each_other(start, tmp_path):
    earlier_run(tmp_path / "run")
    code, err = start(never, "--overwrite", "--resume_from_checkpoint", "last")
    assert code == 1 and "give one of them" in err
    assert (tmp_path / "run" / "checkpoint-7").is_dir()


def test_interrupted_it_ends_with_the_command_that_resumes(start, tmp_path):
    def interrupt(args):
        raise KeyboardInterrupt

    code, err = start(interrupt, "--overwrite")
    assert code == 130 and err.endswith(f"python recipes/train.py --use_cpu --output_dir {tmp_path / 'run'}\n")

    def interrupt_later(args):
        (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
        raise KeyboardInterrupt

    code, err = start(interrupt_later)
    assert code == 130 and "Traceback" not in err
    assert err.endswith(f"--output_dir {tmp_path / 'run'} --resume_from_checkpoint last\n")
