"""The page without a browser: an input of each kind, numbers, and bars."""

import asyncio

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import ast_config, tiny_model, vit_config
from transformers import VideoMAEConfig

from hf_relearn import FeaturesConfig, MultimodalForClassification, MultimodalProcessor
from hf_relearn.models import MultimodalClassificationPipeline
from hf_relearn.models.pipeline_multimodal import TASK

gradio = pytest.importorskip("gradio", reason="gradio is absent: pip install '.[demo]'")

from hf_relearn.demo.page import build_page, read_numbers  # noqa: E402
from hf_relearn.demo.serving import examples_of  # noqa: E402


def built(classify, title="t"):
    """A page; gradio would leave an event loop of its own open where none runs."""

    async def build():
        return build_page(classify, title)

    return asyncio.run(build())


def page_of(backbones, **options):
    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones(backbones, id2label={0: "no", 1: "yes"}, **options)
    processor = MultimodalProcessor.from_model(model.config)
    return built(MultimodalClassificationPipeline(model=model, processor=processor, task=TASK, device=-1))


def inputs_of(page) -> dict[str, tuple[str, dict]]:
    components = page.get_config_file()["components"]
    found = {component["props"].get("elem_id", ""): component for component in components}
    return {
        name.removeprefix("input-"): (component["type"], component["props"])
        for name, component in found.items()
        if name and name.startswith("input-")
    }


def test_every_kind_has_its_input():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    backbones = {
        "clip": VideoMAEConfig(**sizes, image_size=16, patch_size=8, num_frames=2),
        "faces": vit_config(),
        "photo": vit_config(),
        "sound": ast_config(),
        "gaze": FeaturesConfig(input_size=3, architecture="mlp"),
    }
    inputs = inputs_of(page_of(backbones, modality_options={"faces": {"num_frames": 2}}))
    kinds = {name: kind for name, (kind, _) in inputs.items()}
    assert kinds == {"clip": "video", "faces": "file", "photo": "image", "sound": "audio", "gaze": "textbox"}
    assert inputs["faces"][1]["label"] == "faces (2 pictures)"
    assert inputs["gaze"][1]["placeholder"].startswith("3 numbers")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1, -2.5", [1, -2.5]),
        ("1 2", [1, 2]),
        ("[1, 2]", [1, 2]),
        ("[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("1;2", [1, 2]),
    ],
)
def test_features_are_read_as_json_or_rows(text, numbers):
    assert read_numbers("gaze", text) == numbers


@pytest.mark.parametrize("text", ["one", "[1, 2", "{}", '{"a": 1}', "[]", "null", "1,2\n3", '["a"]', "[1, [2]]"])
def test_other_texts_are_no_features(text):
    with pytest.raises(ValueError, match="modality 'gaze'"):
        read_numbers("gaze", text)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "[1, 1e999]", f"[1, {10**400}]", "1, " + "9" * 10_000]
    + ["1," + "2" * 200_000, "NaN, 1", "[Infinity, 1]", '{"a":' * 100_000, "[1, true, null]"],
    ids=["open", "nested", "1e999", "10^400", "digits", "long", "nan", "infinity", "objects", "mixed"],
)
def test_absurd_features_are_answered_with_a_message(text):
    page = page_of({"gaze": FeaturesConfig(input_size=2, architecture="mlp")})
    (function,) = [block.fn for block in page.fns.values() if block.api_name == "classify"]
    with pytest.raises(gradio.Error) as caught:
        function(text)
    assert "modality &#x27;gaze&#x27;" in str(caught.value) and len(str(caught.value)) < 400


def test_a_model_of_one_modality_has_no_contributions():
    page = page_of({"gaze": FeaturesConfig(input_size=2, architecture="mlp")})
    (function,) = [block.fn for block in page.fns.values() if block.api_name == "classify"]
    scores, shares = function("0.5, 1")
    assert set(scores) == {"no", "yes"} and sum(scores.values()) == pytest.approx(1)
    assert "one modality" in shares


def test_labels_and_names_are_shown_as_text(media):
    model = tiny_model()
    model.config.id2label = {index: f"<b>{index}</b>" for index in range(3)}
    processor = MultimodalProcessor.from_model(model.config)
    classify = MultimodalClassificationPipeline(model=model, processor=processor, task=TASK, device=-1)
    page = built(classify, "<script>")
    (function,) = [block.fn for block in page.fns.values() if block.api_name == "classify"]
    values = {"audio": media["speech"], "vision": None}
    _, shares = function(*(values[name] for name in model.config.modalities))
    assert "&lt;b&gt;" in shares and "<b>0" not in shares and "not given" in shares
    assert "<script>" not in str(page.get_config_file()["components"])


def test_a_regression_shows_a_number():
    torch.manual_seed(0)
    gaze = {"gaze": FeaturesConfig(input_size=3, architecture="mlp")}
    model = MultimodalForClassification.from_backbones(gaze, id2label={0: "rating"}, target_mean=50.0).eval()
    processor = MultimodalProcessor.from_model(model.config)
    classify = MultimodalClassificationPipeline(model=model, processor=processor, task=TASK, device=-1)
    page = built(classify)
    (shown,) = [each for each in page.get_config_file()["components"] if each["props"].get("elem_id") == "scores"]
    assert (shown["type"], shown["props"]["label"]) == ("number", "rating")
    (answer,) = [each.fn for each in page.fns.values() if each.api_name == "classify"]
    assert answer("1, 2, 3")[0] == pytest.approx(50, abs=5)


def test_examples_of_numbers_are_of_all_sizes(tmp_path):
    ratings = [*np.linspace(-3, 3, 40), None]
    rows = Dataset.from_dict({"words": [f"row {place}" for place in range(41)], "rating": ratings})
    values, names = examples_of(rows, {"text": "words"}, {"text": "text"}, "rating", tmp_path)
    assert len(values) == len(names) == 8
    assert [float(name) for name in names] == sorted(float(name) for name in names)
    assert float(names[0]) == -3 and values[0] == ["row 0"] and float(names[-1]) > 1.5
