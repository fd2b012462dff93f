"""Which backbones can be exported to ONNX: each tiny one of tests/tiny_backbones.py in a model of its own.

    python benchmarks/onnx_export.py [NAME ...] [--output docs/onnx.md]

An export counts if ONNX Runtime gives the model's logits to 1e-4 on another batch than the traced one. Writes the
table with the versions that it was measured with.
"""

import argparse
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "models")]

import onnx  # noqa: E402
from test_models_contract import NAME, build  # noqa: E402
from tiny_backbones import BACKBONES, INSTALLED  # noqa: E402

from hf_relearn import export_onnx  # noqa: E402

PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
TITLE = """# ONNX export of backbones

Written by `python benchmarks/onnx_export.py`: each backbone of `tests/tiny_backbones.py`, tiny and with random
weights, in a model of its own. Exported means that ONNX Runtime gives the model's logits to 1e-4 on another batch than
the traced one, of another size (and length, where it is free). What fails here is refused by `export_onnx`, which
names the modality.
"""


def survey(name: str) -> tuple[str, str]:
    """Export one backbone: its free sizes, and an empty text or why it failed."""
    backbone = BACKBONES[name]
    inputs = {f"{NAME}_{key}": value for key, value in backbone.inputs(2, 1).items()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            graph = onnx.load(export_onnx(build(backbone), folder, inputs=inputs)).graph
        except ValueError as error:
            reason = str(error).split(": ", 1)[1].rsplit("; see the table", 1)[0]
            return "", " ".join(reason.replace("|", "/").replace("`", "'").split())[:160]
    names = {dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    return ", ".join(sorted(free.removeprefix(f"{NAME}_") for free in names)), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="backbones (default: all)")
    parser.add_argument("--output", default=str(Path(__file__).parents[1] / "docs" / "onnx.md"))
    args = parser.parse_args()
    rows, failed, start = [], 0, time.perf_counter()
    for name in args.names or INSTALLED:
        free, reason = survey(name)
        failed += bool(reason)
        rows.append(f"| {name} | {BACKBONES[name].kind} | {'no' if reason else 'yes'} | {reason or free} |")
        print(rows[-1], file=sys.stderr, flush=True)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    header = "| backbone | kind | exported | free sizes, or why not |\n| --- | --- | --- | --- |\n"
    summary = f"{len(rows) - failed} of {len(rows)} in {time.perf_counter() - start:.0f} s, {platform.machine()}."
    text = f"{TITLE}\n{summary} Python {platform.python_version()}, {versions}.\n\n{header}" + "\n".join(rows) + "\n"
    Path(args.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
