"""Write the tables of docs/ that follow from the code: the families of backbones, and the flags.

    python docs/make_tables.py

The families are those of tests/tiny_backbones.py; docs/onnx.md, which benchmarks/onnx_export.py measures, says which
can be exported. The flags are the fields of the recipes' settings.
"""

import dataclasses
import re
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from tiny_backbones import BACKBONES  # noqa: E402

from hf_relearn.experiments import InputArguments, ModelArguments, RunArguments, TableArguments  # noqa: E402
from hf_relearn.relearning.settings import RelearnSettings  # noqa: E402
from hf_relearn.training.settings import BalancingSettings, ParameterSettings, TargetSettings  # noqa: E402

PAGES = ROOT / "docs"


def _of_recipe(name: str, group: str) -> Any:
    return runpy.run_path(str(ROOT / "recipes" / name))[group]


GROUPS = {
    "Diagnosing and re-learning": RelearnSettings,
    "Other balancing methods": BalancingSettings,
    "Running and comparing": RunArguments,
    "Data": TableArguments,
    "Modalities of `train_multimodal.py`": _of_recipe("train_multimodal.py", "ModalityArguments"),
    "Pictures and texts of `train_image_text.py`": _of_recipe("train_image_text.py", "ImageTextArguments"),
    "Model": ModelArguments,
    "Inputs": InputArguments,
    "Parameters": ParameterSettings,
    "Classes": TargetSettings,
}
_FLAGS = """# Flags

These are the recipes' flags beside those of `TrainingArguments`, with the defaults of their fields. A preset, or a
recipe for its data, sets others: `--help` shows those that hold. Fields of the groups *Diagnosing and re-learning*,
*Other balancing methods*, *Parameters* and *Classes* are arguments of `RelearnTrainingArguments` in Python. The flags
of *Data* are those of `train_image_text.py` and `train_multimodal.py`; `train_cremad.py` has its own, which its
`--help` shows. `--config FILE` reads any flag from YAML, `--overwrite` begins anew, `--help_all` shows all flags, and
`--debug` shows tracebacks.

Written by `python docs/make_tables.py`.
"""


def families() -> str:
    """The table of backbones: family, kind, pooling by default, and whether it can be exported to ONNX."""
    rows = re.findall(
        r"^\| (\S+) \| \w+ \| (yes|no) \|", (PAGES / "onnx.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    exported = dict(rows)
    lines = ["| family | kind | pooling | ONNX |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {backbone.kind} | `{backbone.pooling}` | {exported.get(name, 'not measured')} |"
        for name, backbone in BACKBONES.items()
    ]
    return "\n".join(lines)


def flags() -> str:
    """The page of the flags, one table for each group."""
    parts = [_FLAGS]
    for title, group in GROUPS.items():
        lines = [f"## {title}", "", "| flag | default | what it does |", "| --- | --- | --- |"]
        for item in dataclasses.fields(group):
            text = item.metadata["help"].replace("|", "\\|").replace("%%", "%").replace("<modality>", "MODALITY")
            lines.append(f"| `--{item.name}` | {_default(item)} | {text} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _default(item: dataclasses.Field) -> str:
    made = item.default_factory is not dataclasses.MISSING
    value = item.default_factory() if made else item.default  # type: ignore[misc]
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return "" if value is None else f"`{value}`"


def pages() -> dict[str, str]:
    """Name of a page -> its text with the tables of today."""
    begin, end = "<!-- families -->\n", "<!-- end of families -->\n"
    before, _, rest = (PAGES / "backbones.md").read_text(encoding="utf-8").partition(begin)
    backbones = before + begin + "\n" + families() + "\n\n" + end + rest.partition(end)[2]
    return {"backbones.md": backbones, "flags.md": flags()}


if __name__ == "__main__":
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
