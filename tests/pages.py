"""The code of README.md and of the pages under docs/."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """All blocks of a language: page and code."""
    return [
        (page.name, code)
        for page in PAGES
        for code in re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    ]


def block_with(mark: str) -> str:
    """The only Python block that holds a text."""
    (code,) = (code for _, code in blocks("python") if mark in code)
    return code


def run_block(code: str) -> dict:
    """Run a block as it stands, or with parts replaced; its names."""
    names: dict = {}
    exec(compile(code, "a page", "exec"), names)
    return names


def commands() -> list[tuple[str, list[str]]]:
    """All commands of the shell blocks: page and words."""
    lines = [
        (page, command.strip())
        for page, code in blocks("bash")
        for line in code.replace("\\\n", " ").splitlines()
        for command in line.split("&&")
    ]
    return [(page, shlex.split(line, comments=True)) for page, line in lines if shlex.split(line, comments=True)]
