"""Loading what was pushed: by the Auto classes, and in an environment without this package."""

import ast
import json
import re
import site
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
import torch
from hub_client import classes_of, process, pull, push, stage_tiny
from hub_server import USER
from tokenizers_of_words import bert_like
from transformers import BertConfig, pipeline
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

from hf_relearn import FeaturesConfig, MultimodalForClassification, MultimodalProcessor
from hf_relearn.hub.staging import CUSTOM_PIPELINES, MODEL_AUTO_MAP, code_files, stage

REPOSITORY = f"{USER}/to-load"
CLEAN = """
import importlib.util, json, sys
assert importlib.util.find_spec("hf_relearn") is None, importlib.util.find_spec("hf_relearn").origin
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor
repo_id = sys.argv[1]
trust = {"trust_remote_code": True}
model = AutoModelForSequenceClassification.from_pretrained(repo_id, **trust)
base = AutoModel.from_pretrained(repo_id, **trust)
generator = torch.Generator().manual_seed(1)
inputs = {
    "audio_input_values": torch.randn(2, 16, 16, generator=generator),
    "vision_pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
}
rng = np.random.default_rng(0)
values = {
    "audio": [rng.uniform(-0.5, 0.5, 4000).astype(np.float32)],
    "vision": [rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)],
}
with torch.no_grad():
    output = model(**inputs)
    print(json.dumps({
        "classes": [type(it).__name__ for it in (AutoConfig.from_pretrained(repo_id, **trust), model, base)],
        "home": type(model).__module__.split(".")[0],
        "logits": output.logits.tolist(),
        "fused": torch.equal(base(**inputs).fused, torch.cat(list(output.features.values()), dim=-1)),
        "processed": [float(t.sum()) for t in AutoProcessor.from_pretrained(repo_id, **trust)(values).values()],
    }))
"""


@pytest.fixture(scope="module")
def pushed(client, hub, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("to_load") / "model"
    client(stage_tiny, str(folder))
    client(push, str(folder), REPOSITORY)
    return REPOSITORY


@pytest.fixture(scope="module")
def python_without_package(tmp_path_factory) -> Path:
    """A virtual environment that links all that is installed here, but for this package."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    target = Path(paths["purelib"])
    for installed in dict.fromkeys([*site.getsitepackages(), sysconfig.get_paths()["purelib"]]):
        for entry in Path(installed).glob("*"):
            if not re.search(r"hf_relearn|\.pth$|__pycache__", entry.name) and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}], ids=["without trust", "with trust"])
def test_auto_classes_take_the_installed_package(client, pushed, trust):
    assert client(classes_of, pushed, **trust) == [
        "hf_relearn.models.configuration_multimodal.MultimodalConfig",
        "hf_relearn.models.processing_multimodal.MultimodalProcessor",
        "hf_relearn.models.modeling_multimodal.MultimodalModel",
        "hf_relearn.models.modeling_multimodal.MultimodalForClassification",
    ]


def test_the_pushed_files_alone_load_where_the_package_is_not(
    client, pushed, python_without_package, client_environment
):
    environment = {**client_environment, "HF_HOME": client_environment["HF_HOME"] + "-clean"}
    environment.pop("PYTHONPATH", None)
    environment.pop("HF_TOKEN")
    command = [str(python_without_package), "-c", CLEAN, pushed]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["classes"] == ["MultimodalConfig", "MultimodalForClassification", "MultimodalModel"]
    assert found["home"] == "transformers_modules"
    assert found["logits"] == client(pull, pushed)
    assert found["fused"]
    assert found["processed"] == client(process, pushed)


def test_every_module_of_the_model_can_be_copied_flat():
    names = {path.name for path in code_files()}
    folder = code_files()[0].parent
    assert {path.name for path in folder.glob("*.py")} - names == {"__init__.py"}, "a module that no push would take"
    for path in code_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [(0, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [(node.level, node.module or "")]
            else:
                continue
            for level, module in modules:
                assert level in (0, 1) and module.split(".")[0] != "hf_relearn", f"{path.name}: {module}"
                assert level == 0 or f"{module}.py" in names, f"{path.name} imports .{module}"
        # transformers looks for imports in the text, docstrings included.
        assert all(f"{name}.py" in names for name in get_relative_imports(path)), path.name
        assert "TYPE_CHECKING" not in path.read_text(encoding="utf-8"), path.name


def test_every_copied_module_is_reached_from_what_the_auto_classes_load():
    folder = code_files()[0].parent
    reached = set()
    pipelines = [pipeline["impl"] for pipeline in CUSTOM_PIPELINES.values()]
    for reference in (*MODEL_AUTO_MAP.values(), *pipelines):
        entry = folder / f"{reference.split('.')[0]}.py"
        reached |= {entry.name, *(Path(path).name for path in get_relative_import_files(entry))}
    assert reached == {path.name for path in code_files()}


CLEAN_PIPELINE = """
import importlib.util, json, sys
assert importlib.util.find_spec("hf_relearn") is None, importlib.util.find_spec("hf_relearn").origin
from transformers import pipeline
classify = pipeline("multimodal-classification", model=sys.argv[1], trust_remote_code=True, device=-1)
print(json.dumps(classify(json.loads(sys.argv[2]))))
"""


def test_a_pushed_model_of_texts_and_given_features_classifies_where_the_package_is_not(
    python_without_package, client_environment, tmp_path
):
    torch.manual_seed(0)
    tokenizer = bert_like()
    words = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    backbones = {"gaze": FeaturesConfig(input_size=3, hidden_size=8, intermediate_size=8), "caption": words}
    model = MultimodalForClassification.from_backbones(backbones, fusion="bottleneck", id2label={0: "a", 1: "b"})
    model.save_pretrained(tmp_path / "saved")
    MultimodalProcessor.from_model(model.config, backbones, {"caption": {"tokenizer": tokenizer}}).save_pretrained(
        tmp_path / "saved"
    )
    stage(tmp_path / "saved", tmp_path / "model")
    samples = [{"gaze": [[1.0, 2.0, 3.0]] * 5, "caption": "a cat"}, {"caption": "dog runs"}]
    expected = pipeline("multimodal-classification", model=str(tmp_path / "model"), device=-1)(samples)

    environment = {**client_environment, "HF_HOME": client_environment["HF_HOME"] + "-clean", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [str(python_without_package), "-c", CLEAN_PIPELINE, str(tmp_path / "model"), json.dumps(samples)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert json.loads(run.stdout.splitlines()[-1]) == expected
