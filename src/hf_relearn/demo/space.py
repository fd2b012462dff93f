"""The folder of a Space that serves a model's page, as the Hub builds it."""

import json
import os
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import yaml

from hf_relearn import __version__
from hf_relearn.hub.staging import stage

APP, REQUIREMENTS, CARD, MODEL_FOLDER = "app.py", "requirements.txt", "README.md", "model"
FILES = {APP, REQUIREMENTS, CARD, MODEL_FOLDER}
PACKAGE = f"hf_relearn[demo]=={__version__}"
_TEMPLATE = Path(__file__).with_name("app.py")


def write_space(
    model: str,
    folder: str | os.PathLike,
    *,
    title: str | None = None,
    package: str = PACKAGE,
    sdk_version: str | None = None,
) -> list[str]:
    """Write `app.py`, `requirements.txt` and `README.md`, and with a model on disk its files, in `model/`.

    Args:
        model: name on the Hub, or a local folder, whose files then go into the Space; of those, what `stage` gathers.
        folder: what is written; an earlier Space there is replaced.
        title: of the Space; None for the model's name.
        package: what pip installs there to have this package.
        sdk_version: of Gradio; None for the one that is installed.

    Returns:
        The files, relative to `folder`, sorted.

    Raises:
        FileExistsError: if the folder holds anything but a Space that was written here.
        ValueError: if a local model has no weights as safetensors.
    """
    folder, local = Path(folder), Path(model).is_dir()
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - FILES):
        raise FileExistsError(f"{folder} holds other files than a Space's, all of which would be pushed: name another")
    title = title or (Path(model).resolve().name if local else model.rpartition("/")[2])
    front = {
        "title": title,
        "sdk": "gradio",
        "sdk_version": sdk_version or version("gradio"),
        "app_file": APP,
        "tags": ["hf_relearn", "multimodal"],
        **({} if local else {"models": [model]}),
    }
    about = "" if local else f" [{model}](https://huggingface.co/{model})"
    text = (
        f"Try the fusion model{about} in the browser: give a sample, see its scores and each modality's share in them."
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"_{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        (temporary / APP).write_text(_app(MODEL_FOLDER if local else model), encoding="utf-8")
        (temporary / REQUIREMENTS).write_text(f"{package}\n", encoding="utf-8")
        header = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
        (temporary / CARD).write_text(f"---\n{header}---\n\n# {title}\n\n{text}\n", encoding="utf-8")
        if local:
            stage(model, temporary / MODEL_FOLDER)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _app(model: str) -> str:
    """Return the app of this package with another model than the one it names."""
    line = f"MODEL = {json.dumps(model)}  # a name on the Hub, or a folder beside this file"
    text, found = re.subn(r"^MODEL = .*$", lambda match: line, _TEMPLATE.read_text(encoding="utf-8"), flags=re.M)
    assert found == 1, f"{_TEMPLATE} names no model"
    return text
