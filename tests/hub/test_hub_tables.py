"""A model of rows of a table in use: pipeline, predict, demo page, ONNX, and from the Hub's copy of the code."""

import asyncio
import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from rows_of_a_table import save_model_of_rows
from safetensors.torch import load_file
from transformers import pipeline

from hf_relearn import export_onnx
from hf_relearn.cli.main import main
from hf_relearn.hub.staging import stage
from hf_relearn.models.pipeline_multimodal import TASK


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "ill-or-well"
    return folder, *save_model_of_rows(folder)


def scores(predictions):
    return {entry["label"]: entry["score"] for entry in predictions}


def expected(saved, row, face=None):
    _, model, processor = saved
    logits = model(**processor({"patient": [row], "face": [face]})).logits
    return pytest.approx(dict(zip(("ill", "well"), logits.softmax(-1)[0].tolist(), strict=True)), abs=1e-6)


def test_the_pipeline_takes_rows_and_data_sets(saved):
    classify = pipeline(TASK, model=str(saved[0]), device=-1)
    row = {"age": 41, "city": "Paris", "member": None}
    assert scores(classify({"patient": row})) == expected(saved, row)
    data = datasets.Dataset.from_dict(
        {"age": [41.0, None], "city": ["Paris", None], "member": [None, True], "id": [1, 2]}
    )
    first, second = classify(data)
    assert scores(first) == expected(saved, row)
    assert scores(second) == expected(saved, {"member": True})
    with pytest.raises(ValueError, match="modality 'patient': row 0 .* holds 'old' in the column 'age'"):
        classify({"patient": {"age": "old"}})


def test_predict_reads_cells_and_files(saved, capsys, tmp_path):
    row = {"age": 41, "city": "Oslo", "member": True}
    found = []
    for text in ("patient=age=41, city=Oslo,member=true", "patient=" + json.dumps(row)):
        assert main(["predict", str(saved[0]), text, "--json", "--cpu"]) == 0
        found.append(json.loads(capsys.readouterr().out)["predictions"])
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("age,city,member,photo\n41,Oslo,True,\n,,,a.png\n")
    assert main(["predict", str(saved[0]), "--file", str(tmp_path / "t.csv"), "--json", "--cpu"]) == 0
    lines = [json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines()]
    assert all(scores(each) == expected(saved, row) for each in (*found, lines[0]))
    assert scores(lines[1]) == expected(saved, None, np.zeros((16, 16, 3), np.uint8))
    assert main(["predict", str(saved[0]), "patient=41"]) == 2
    assert "modality 'patient': '41' is no row of a table" in capsys.readouterr().err


def test_the_page_takes_cells(saved):
    pytest.importorskip("gradio", reason="gradio is absent: pip install '.[demo]'")
    from hf_relearn.demo.page import build_page

    classify = pipeline(TASK, model=str(saved[0]), device=-1)

    async def built():
        return build_page(classify, "t")

    page = asyncio.run(built())
    (box,) = [each for each in page.blocks.values() if getattr(each, "elem_id", None) == "input-patient"]
    assert box.placeholder.startswith("age=..., city=..., member=...")
    (function,) = [each.fn for each in page.fns.values() if each.api_name == "classify"]
    found, _ = function("age=41, city=Rome", None)
    assert found == expected(saved, {"age": 41, "city": "Rome"})


def test_onnx_agrees(saved, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is absent: pip install '.[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is absent: pip install '.[onnx]'")
    _, model, processor = saved
    file = export_onnx(model, tmp_path, processor)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rows = [{"age": 30, "city": "Paris"}, {"member": False}, {"city": "Rome"}]
    inputs = processor({"patient": rows, "face": [np.full((16, 16, 3), 90, np.uint8)] * 3})
    logits = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), model(**inputs).logits, atol=1e-4, rtol=0)


def test_the_copied_code_loads_without_this_package(saved, tmp_path):
    folder = tmp_path / "pushed"
    assert {"modeling_table.py", "processing_table.py", "configuration_backbones.py"} <= set(stage(saved[0], folder))
    assert any("patient.backbone.embeddings.0" in name for name in load_file(folder / "model.safetensors"))
    code = (
        "import sys; sys.modules['hf_relearn'] = None\n"
        "from transformers import pipeline\n"
        "import json\n"
        f"classify = pipeline({TASK!r}, model={str(folder)!r}, trust_remote_code=True, device=-1)\n"
        "print(json.dumps(classify({'patient': {'age': 41, 'city': 'Rome'}})))\n"
    )
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert scores(json.loads(done.stdout.splitlines()[-1])) == expected(saved, {"age": 41, "city": "Rome"})
