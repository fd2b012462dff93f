"""Gather into one folder exactly what goes to the Hub, without anything that only this machine knows."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import hf_relearn.models
from hf_relearn.hub.local_paths import local_roots, scrub_json, scrub_text
from hf_relearn.models import MultimodalConfig
from hf_relearn.records import HISTORY_FILE

# What the Auto classes build from the pushed code. The classifier stands beside the base model, as in transformers.
MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_multimodal.MultimodalConfig",
    "AutoModel": "modeling_multimodal.MultimodalModel",
    "AutoModelForSequenceClassification": "modeling_multimodal.MultimodalForClassification",
    "AutoProcessor": "processing_multimodal.MultimodalProcessor",
}
# How `pipeline` finds its class in the pushed code.
CUSTOM_PIPELINES = {
    "multimodal-classification": {
        "impl": "pipeline_multimodal.MultimodalClassificationPipeline",
        "pt": ["AutoModelForSequenceClassification"],
    }
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": MODEL_AUTO_MAP["AutoProcessor"]}


def code_files() -> list[Path]:
    """Return the modules that are put side by side into a repository: configuration, model, processor and pipeline."""
    folder = Path(hf_relearn.models.__file__).parent
    kinds = ("configuration", "modeling", "processing", "pipeline")
    return sorted(path for kind in kinds for path in folder.glob(f"{kind}_*.py"))


TRAINING_ARGUMENTS_FILE = "training_arguments.json"
CONFIGS = ("config.json", "processor_config.json", "preprocessor_config.json", "adapter_config.json")
WEIGHTS = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".jinja")
CARD = "README.md"
_FIGURE = re.compile(r"figures/[\w.-]+\.png")


def stage(saved: str | os.PathLike, target: str | os.PathLike, run: str | os.PathLike | None = None) -> list[str]:
    """Gather what is pushed of a saved model: safetensors, configuration, processor (with a folder of each text
    modality's tokenizer), training arguments, the record of re-learning, the card with the figures that it shows, and
    the code that loads it all without this package. Nothing else in the folders is looked at.

    Weights are linked if the file system can, copied otherwise. Local paths and tokens are taken out of texts.
    Files that lie elsewhere, behind symbolic links in these folders, are left out.

    Args:
        saved: folder of the saved model, a checkpoint or an output directory.
        target: folder to gather in; one that is there is replaced.
        run: folder of the card and its figures; None for that of the model.

    Returns:
        The files gathered, relative to `target`, sorted.

    Raises:
        ValueError: if `saved` holds no weights as safetensors; `target` is left as it was.
    """
    saved, target = Path(saved), Path(target)
    run = Path(run) if run is not None else saved
    roots = local_roots(saved, run)
    weights = [path for path in _files(saved) if WEIGHTS.fullmatch(path.name)]
    if not weights:
        raise ValueError(f"{saved} holds no weights as safetensors (model.safetensors) that could be pushed")
    temporary = target.with_name(f"_{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for path in weights:
            _link(path, temporary / path.name)
        modalities = _stage_configs(saved, temporary, roots)
        for modality in modalities:
            for path in _files(saved, modality):
                if path.suffix in TOKENIZER_SUFFIXES:
                    _stage_tokenizer_file(path, temporary / modality / path.name, roots)
        if (record := _first(HISTORY_FILE, saved, run)) is not None:
            text = scrub_text(record.read_text(encoding="utf-8"), roots)
            (temporary / record.name).write_text(text, encoding="utf-8")
        if (arguments := _first(TRAINING_ARGUMENTS_FILE, saved, run)) is not None:
            _write_json(temporary / arguments.name, scrub_json(_read_json(arguments), roots))
        _stage_card(run, temporary, roots)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def _stage_configs(saved: Path, target: Path, roots: tuple[str, ...]) -> list[str]:
    """Write the configurations; returns the modalities' names, if the model is one of ours."""
    modalities: list[str] = []
    for name in CONFIGS:
        if not _is_inside(saved / name, saved):
            continue
        content = scrub_json(_read_json(saved / name), roots)
        if content.get("model_type") == MultimodalConfig.model_type:
            content["auto_map"] = MODEL_AUTO_MAP
            content["custom_pipelines"] = CUSTOM_PIPELINES
            modalities = [modality for modality in content.get("modalities", {}) if modality.isidentifier()]
            for path in code_files():
                shutil.copyfile(path, target / path.name)
        elif content.get("processor_class") == "MultimodalProcessor":
            content["auto_map"] = PROCESSOR_AUTO_MAP
        _write_json(target / name, content)
    return modalities


def _stage_tokenizer_file(path: Path, target: Path, roots: tuple[str, ...]) -> None:
    target.parent.mkdir(exist_ok=True)
    if path.name == "tokenizer_config.json":
        _write_json(target, scrub_json(_read_json(path), roots))
    else:
        shutil.copyfile(path, target)  # vocabularies are data: a token may well look like a path


def _stage_card(run: Path, target: Path, roots: tuple[str, ...]) -> None:
    if not _is_inside(run / CARD, run):
        return
    card = scrub_text((run / CARD).read_text(encoding="utf-8"), roots)
    (target / CARD).write_text(card, encoding="utf-8")
    for figure in sorted(set(_FIGURE.findall(card))):
        if _is_inside(run / figure, run):
            (target / figure).parent.mkdir(exist_ok=True)
            shutil.copyfile(run / figure, target / figure)


def _files(folder: Path, subfolder: str = "") -> list[Path]:
    """Return the files of a folder or subfolder, sorted, without those that lie outside the folder."""
    return sorted(path for path in (folder / subfolder).glob("*") if _is_inside(path, folder))


def _first(name: str, *folders: Path) -> Path | None:
    return next((folder / name for folder in folders if _is_inside(folder / name, folder)), None)


def _is_inside(path: Path, folder: Path) -> bool:
    """Check whether a file is there, and lies in the folder wherever symbolic links lead."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
