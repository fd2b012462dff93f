"""A model with one modality of each kind but video, media files, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny import ast_config, vit_config
from tokenizers_of_words import bert_like
from transformers import BertConfig

from hf_relearn import FeaturesConfig, MultimodalForClassification, MultimodalProcessor

LABELS = ("calm", "glad", "sad <i>")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1250",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a page that needs anything from elsewhere fails
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A saved model of a sound, a picture, a text and features."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    backbones = {
        "speech": ast_config(),
        "face": vit_config(),
        "words": BertConfig(**sizes, vocab_size=12, max_position_embeddings=32),
        "gaze": FeaturesConfig(input_size=2, hidden_size=8, architecture="mlp"),
    }
    model = MultimodalForClassification.from_backbones(backbones, id2label=dict(enumerate(LABELS)))
    with torch.no_grad():
        model.classifier.weight.mul_(6)  # scores that can be told apart
    folder = tmp_path_factory.mktemp("saved") / "moods"
    model.save_pretrained(folder)
    options = {"words": {"tokenizer": bert_like()}}
    MultimodalProcessor.from_model(model.config, options=options).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> dict[str, str]:
    """Files of a sound and a picture, and of one that is no picture."""
    folder = tmp_path_factory.mktemp("media")
    soundfile.write(folder / "clip.wav", 0.3 * np.sin(np.arange(16000) / 9), 16000)
    pixels = np.random.default_rng(0).integers(0, 255, size=(24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((240, 240)).save(folder / "face.png")
    (folder / "broken.png").write_bytes((folder / "face.png").read_bytes()[:500])
    return {"speech": str(folder / "clip.wav"), "face": str(folder / "face.png"), "broken": str(folder / "broken.png")}


@pytest.fixture
def browser(tmp_path) -> Iterator:
    """Debian's Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is absent: pip install '.[test]'")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium or chromedriver is absent: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()
