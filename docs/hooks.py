"""Make the site's first page of README.md, and its page for contributors of CONTRIBUTING.md."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_ELSEWHERE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
# Files that are no pages of the site: their names stay, without a link.
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand outside of docs/."""
    for source, page in (("README.md", "index.md"), *_ELSEWHERE.items()):
        files.append(File.generated(config, page, content=as_page((ROOT / source).read_text(encoding="utf-8"))))
    return files


def as_page(text: str) -> str:
    """Let links of a file in the root folder lead to the pages of the site."""

    def link(match: re.Match[str]) -> str:
        name, target = match.groups()
        if target.startswith("docs/"):
            return f"[{name}]({target.removeprefix('docs/')})"
        return f"[{name}]({_ELSEWHERE[target]})" if target in _ELSEWHERE else name

    return _LINK.sub(link, text)
