"""The code of a card for kinds of input other than sounds and images, run as it stands there."""

import re

import av
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast, VideoMAEConfig

from hf_relearn import FeaturesConfig, MultimodalForClassification, MultimodalProcessor, TableInput
from hf_relearn.cards import collect_facts, render_card

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def save_video(path: str) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))


def test_text_video_features_and_rows(tmp_path, monkeypatch, capsys):
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "What": 2, "a": 3, "surprise": 4}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
    patient = TableInput.fit({"age": [1, 2], "city": ["Rome", "Rome"]}, ["age", "city"])
    backbones = {
        "caption": BertConfig(vocab_size=5, max_position_embeddings=12, **SIZES),
        "clip": VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, tubelet_size=2, **SIZES),
        "gaze": FeaturesConfig(input_size=4),
        "patient": patient.backbone_config(),
    }
    model = MultimodalForClassification.from_backbones(backbones, id2label={0: "calm", 1: "surprised"})
    processor = MultimodalProcessor.from_model(
        model.config, options={"caption": {"tokenizer": tokenizer}, "patient": patient.settings}
    )
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("me/three")
    processor.save_pretrained("me/three")
    save_video("clip.mp4")
    card = render_card(collect_facts(model.config, name="three", repository="me/three"))
    (block,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert '"caption": ["What a surprise!"], "clip": ["clip.mp4"], "gaze": [[0.0] * 4]' in block
    assert '"patient": [{"age": 1.0, "city": "a"}]' in block
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() in ("calm", "surprised")
