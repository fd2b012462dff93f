"""Load a model and serve its page."""

from pathlib import Path

from hf_relearn.demo.page import STYLE, THEME, build_page
from hf_relearn.models import MultimodalClassificationPipeline, MultimodalForClassification, MultimodalProcessor
from hf_relearn.models.pipeline_multimodal import TASK

LARGEST_UPLOAD = "200mb"


def serve(
    name_or_path: str,
    *,
    revision: str = "main",
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    device: int | None = None,
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
    """
    model = MultimodalForClassification.from_pretrained(name_or_path, revision=revision)
    processor = MultimodalProcessor.from_pretrained(name_or_path, revision=revision)
    classify = MultimodalClassificationPipeline(model=model, processor=processor, task=TASK, device=device)
    title = Path(name_or_path).resolve().name if Path(name_or_path).is_dir() else name_or_path
    page = build_page(classify, title)
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
