"""Load a model and serve its page, with samples of a data set as examples."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset
from huggingface_hub import hf_hub_download

from hf_relearn.demo.page import STYLE, THEME, build_page
from hf_relearn.method import quantile_strata
from hf_relearn.models import MultimodalClassificationPipeline, MultimodalForClassification, MultimodalProcessor
from hf_relearn.models.pipeline_multimodal import TASK
from hf_relearn.report.markdown import plain

LARGEST_UPLOAD = "200mb"
CARD = "README.md"
LONGEST_DESCRIPTION = 1000  # characters


def serve(
    name_or_path: str,
    *,
    revision: str = "main",
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    device: int | None = None,
    dataset_name: str | None = None,
    split: str = "validation",
) -> None:
    """Serve the page of a model until the process is interrupted.

    Args:
        name_or_path: folder of a saved model, or its name on the Hub.
        revision: of a model on the Hub.
        host: address to listen on; None takes that of the environment (`GRADIO_SERVER_NAME`, which a Space sets), else
            127.0.0.1, which only this machine reaches.
        port: None takes the first that is free from 7860 on.
        open_browser: whether to open the page in a browser.
        device: of the pipeline; None takes an accelerator if there is one, -1 the CPU.
        dataset_name: Hub id, folder or file whose samples are examples on the page, one of each class.
        split: of that data set.
    """
    model = MultimodalForClassification.from_pretrained(name_or_path, revision=revision)
    processor = MultimodalProcessor.from_pretrained(name_or_path, revision=revision)
    classify = MultimodalClassificationPipeline(model=model, processor=processor, task=TASK, device=device)
    title = Path(name_or_path).resolve().name if Path(name_or_path).is_dir() else name_or_path
    with tempfile.TemporaryDirectory() as folder:  # which the page may serve files of
        examples = dataset_name and _examples(classify, dataset_name, split, Path(folder))
        page = build_page(classify, title, description_of(read_card(name_or_path, revision)), examples or None)
        _launch(page, host, port, open_browser)


def _examples(
    classify: MultimodalClassificationPipeline, dataset_name: str, split: str, folder: Path
) -> tuple[list[list[Any]], list[str]]:
    from hf_relearn.data.tables import load_table

    processor: Any = classify.processor
    columns = {name: processor.columns.get(name, name) for name in processor.inputs}
    kinds = {name: modality.kind for name, modality in classify.model.config.modalities.items()}
    label = processor.label_column or "label"
    splits = {"train": split, "validation": split}  # neither is drawn from the other
    problem = "regression" if classify.model.config.problem_type == "regression" else "classification"
    rows = load_table(
        dataset_name, columns=columns, kinds=kinds, label_column=label, splits=splits, problem_type=problem
    )["train"]
    return examples_of(rows, columns, kinds, label, folder)


def _launch(page: Any, host: str | None, port: int | None, open_browser: bool) -> None:
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        theme=THEME,
        css=STYLE,
        max_file_size=LARGEST_UPLOAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"The page is at {address} (Ctrl+C ends it)", flush=True)
    page.block_thread()


def read_card(name_or_path: str, revision: str) -> str:
    """Return the text of a model's card; nothing if it has none."""
    if Path(name_or_path).is_dir():
        path = Path(name_or_path) / CARD
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    try:
        return Path(hf_hub_download(name_or_path, CARD, revision=revision)).read_text(encoding="utf-8")
    except OSError:  # no card, or no network for it
        return ""


def description_of(card: str) -> str:
    """Return the first paragraphs of a card below its heading, in plain text: what the model is, and its warning."""
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    blocks = [block.strip() for block in re.split(r"\n\s*\n", body)]
    told = []
    for block in blocks[1:] if blocks and blocks[0].startswith("# ") else blocks:
        if not block or block.startswith(("#", "|", "```", "<", "!", "-", "[")):
            break
        told.append(plain(re.sub(r"^> ?", "", block, flags=re.MULTILINE)))
    return " ".join(told)[:LONGEST_DESCRIPTION]


MOST_EXAMPLES = 8
_SUFFIXES = {"audio": ".wav", "vision": ".png", "video": ".mp4"}


def examples_of(
    rows: Dataset, columns: Mapping[str, str | list[str]], kinds: Mapping[str, str], label_column: str, folder: Path
) -> tuple[list[list[Any]], list[str]]:
    """Take the first sample of each class, or of each stratum of the numbers, as the page's components take it.

    Args:
        rows: of `load_table`, with undecoded media and a `ClassLabel` or a number.
        columns: modality -> its column.
        kinds: modality -> its kind.
        label_column: column with classes or numbers.
        folder: where media are copied to.

    Returns:
        The values of each sample, and the name of its class, or its number.
    """
    given = rows[label_column]
    if isinstance(rows.features[label_column], ClassLabel):
        labels, names = given, rows.features[label_column].names
    else:
        labels = quantile_strata(np.array([np.nan if value is None else value for value in given]), MOST_EXAMPLES)
        names = None
    first: dict[int, int] = {}
    for place, label in enumerate(labels):
        if label is not None and label >= 0:
            first.setdefault(label, place)
    chosen = [first[label] for label in sorted(first)][:MOST_EXAMPLES]
    values = [
        [_as_component(rows[place], columns[name], kind, folder / f"{place}-{name}") for name, kind in kinds.items()]
        for place in chosen
    ]
    return values, [f"{given[place]:g}" if names is None else names[given[place]] for place in chosen]


def _as_component(row: Mapping[str, Any], column: str | list[str], kind: str, stem: Path) -> Any:
    """Return a row's value as a component takes it; None if it is missing."""
    if kind == "table":
        cells = [column] if isinstance(column, str) else column
        return ", ".join(f"{cell}={row[cell]}" for cell in cells if row[cell] is not None)
    if kind == "features":
        value = row[column] if isinstance(column, str) else [row[cell] for cell in column]
        return None if value is None else str(value)
    assert isinstance(column, str)
    value = row[column]
    if value is None or kind == "text":
        return value
    if isinstance(value, list):
        return [_as_file(item, kind, stem.with_name(f"{stem.name}-{place}")) for place, item in enumerate(value)]
    return _as_file(value, kind, stem)


def _as_file(value: Any, kind: str, stem: Path) -> str:
    """Copy a sound, picture or video to a file that the page may serve."""
    path, content = (value.get("path"), value.get("bytes")) if isinstance(value, Mapping) else (value, None)
    target = stem.with_name(stem.name + (os.path.splitext(path or "")[1] or _SUFFIXES[kind]))
    target.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        target.write_bytes(content)
    elif path is not None:
        shutil.copyfile(path, target)
    return str(target)
