"""The commands of README and of the pages under docs/ have flags that exist, and the pages what the code has."""

import ast
import re
import runpy
import shlex
import sys

import pages
import pytest
from typer.main import get_command

import hf_relearn.experiments
from hf_relearn.cli.main import COMMANDS, app, one_value_a_flag
from hf_relearn.cli.train import EPILOG
from hf_relearn.cli.train import RECIPES as TRAINING_RECIPES
from hf_relearn.experiments import parse_recipe_arguments

RECIPES = pages.ROOT / "recipes"


class Parsed(Exception):
    """The flags of a recipe were understood."""


@pytest.mark.parametrize("recipe", sorted(path.name for path in RECIPES.glob("*.py")))
def test_flags_of_the_recipes_on_the_pages_and_in_their_own_text_are_understood(recipe, tmp_path, monkeypatch):
    def parse(main, *args):
        parse_recipe_arguments(*args)
        raise Parsed

    monkeypatch.setattr(hf_relearn.experiments, "run_recipe", parse, raising=False)
    monkeypatch.chdir(tmp_path)
    own = ast.get_docstring(ast.parse((RECIPES / recipe).read_text())) or ""
    lines = [line for line in own.replace("\\\n", " ").splitlines() if "accelerate launch" in line]
    of_pages = [words for _, words in pages.commands() if f"recipes/{recipe}" in words]
    commands = [shlex.split(line) for line in lines] + of_pages
    assert len(lines) >= 2 and of_pages
    given = [words[words.index(f"recipes/{recipe}") + 1 :] for words in commands]
    name = next(name for name, file in TRAINING_RECIPES.items() if file == recipe)
    shown = [line.split() for line in EPILOG.splitlines() if line.strip().startswith("hf-relearn")]
    given += [
        words[3:] for words in [*shown, *(words for _, words in pages.commands())] if words[1:3] == ["train", name]
    ]
    for flags in given:
        flags = [word for word in flags if word != "--help"]
        if "--num_processes" in flags:  # which the command itself reads
            place = flags.index("--num_processes")
            flags = flags[:place] + flags[place + 2 :]
        monkeypatch.setattr(sys, "argv", [recipe, *flags, "--use_cpu"])
        with pytest.raises(Parsed):
            runpy.run_path(str(RECIPES / recipe), run_name="__main__")


def test_commands_of_the_command_line_are_understood():
    commands = [words[1:] for _, words in pages.commands() if words[0] == "hf-relearn"]
    assert {words[0] for words in commands} == set(COMMANDS)
    for command, *flags in commands:
        get_command(app).commands[command].make_context(command, list(one_value_a_flag(flags)))


def test_every_other_command_calls_what_is_there():
    known = {"accelerate", "hf-relearn", "pip", "python", "source", "git", "make", "mkdocs", "pre-commit"}
    for page, words in pages.commands():
        assert words[0] in known or words[0] == ".ci/run", (page, words)
        for word in words[1:]:
            if re.fullmatch(r"(benchmarks|recipes|docs|tests)/[\w/]+\.py", word):
                assert (pages.ROOT / word).is_file(), (page, word)


def test_every_flag_that_a_page_names_exists(capsys, monkeypatch):
    known = set()
    for recipe in sorted(RECIPES.glob("*.py")):
        monkeypatch.setattr(sys, "argv", [recipe.name, "--help_all"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(recipe), run_name="__main__")
        known |= set(re.findall(r"--\w+", capsys.readouterr().out))
    for command in get_command(app).commands.values():
        known |= {name for parameter in command.params for name in parameter.opts}
    known |= {
        "--debug",
        "--json",
        "--quiet",
        "--tune",
        "--choose",
        "--first_seed",
        "--arms",
        "--quick",
        "--out",
        "--tables",
        "--data_dir",
        "--jobs",
        "--strict",
        "--num_processes",
    }
    for page in pages.PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z]\w+", page.read_text(encoding="utf-8")))
        assert not named - known, (page.name, named - known)


def test_readme_is_three_screens_and_promises_no_more_than_it_shows():
    text = (pages.ROOT / "README.md").read_bytes()
    assert len(text) <= 9000
    for target in re.findall(r"\]\(([^)#:]+)\)", text.decode()):
        assert (pages.ROOT / target).exists(), target


def test_tables_of_the_pages_are_those_of_the_code():
    written = runpy.run_path(str(pages.ROOT / "docs" / "make_tables.py"))["pages"]()
    for name, text in written.items():
        found = (pages.ROOT / "docs" / name).read_text(encoding="utf-8")
        assert found == text, f"docs/{name} is of another day: run python docs/make_tables.py"


def test_transcript_of_the_sample_run_is_one_screen_of_lines_without_dictionaries():
    (transcript,) = re.findall(r"```text\n(.*?)```", (pages.ROOT / "docs" / "transcript.md").read_text(), re.DOTALL)
    lines = transcript.splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 100
    assert "{" not in transcript and "%|" not in transcript
    assert [int(line.split()[1].split("/")[0]) for line in lines if "/24 " in line and " alone: " in line] == [
        *range(1, 25)
    ]
    assert lines[-1].startswith("next    hf-relearn predict ")
