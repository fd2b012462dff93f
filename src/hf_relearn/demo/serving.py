"""Load a model and serve its page."""

import re
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from hf_relearn.demo.examples import examples_of
from hf_relearn.demo.page import STYLE, THEME, build_page
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
