"""`pipeline("multimodal-classification", model=...)`: what goes in, what comes out, and what is refused."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import numpy as np
import pages
import pytest
import soundfile
import torch
from PIL import Image
from tiny import tiny_model, vit_config
from tokenizers_of_words import bert_like
from transformers import BertConfig, pipeline

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.models import processing_downloads

TASK = "multimodal-classification"
IP = "127.0.0.1"


def sample(seed: int) -> dict:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, size=(20, 24, 3), dtype=np.uint8)
    return {"audio": generator.normal(size=4000).astype(np.float32), "vision": Image.fromarray(pixels)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model()
    model.save_pretrained(folder)
    MultimodalProcessor.from_model(model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classify(folder):
    return pipeline(TASK, model=str(folder), device=-1)


@pytest.fixture(scope="module")
def with_code(folder, tmp_path_factory) -> Path:
    """The model beside the code that loads it and its pipeline, as a repository of the Hub holds it."""
    target = tmp_path_factory.mktemp("repository") / "model"
    shutil.copytree(folder, target)
    for path in Path(processing_downloads.__file__).parent.glob("*_*.py"):
        if path.name != "__init__.py":
            shutil.copy(path, target)
    auto_map = {
        "AutoConfig": "configuration_multimodal.MultimodalConfig",
        "AutoModelForSequenceClassification": "modeling_multimodal.MultimodalForClassification",
        "AutoProcessor": "processing_multimodal.MultimodalProcessor",
    }
    implementation = "pipeline_multimodal.MultimodalClassificationPipeline"
    pipelines = {TASK: {"impl": implementation, "pt": ["AutoModelForSequenceClassification"]}}
    additions = {
        "config.json": {"auto_map": auto_map, "custom_pipelines": pipelines},
        "processor_config.json": {"auto_map": {"AutoProcessor": auto_map["AutoProcessor"]}},
    }
    for name, values in additions.items():
        content = json.loads((target / name).read_text())
        (target / name).write_text(json.dumps({**content, **values}))
    return target


def wav(seconds: float = 0.2) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(int(16000 * seconds)) / 9), 16000, format="WAV")
    return file.getvalue()


stopped = threading.Event()  # set when the tests are over


class Site(BaseHTTPRequestHandler):
    """A web server with a sound, and what should not be swallowed."""

    def do_GET(self) -> None:
        if self.path == "/clip.wav":
            self.send(200, wav())
        elif self.path == "/moved":
            self.send(302, b"", Location="/clip.wav")
        elif self.path == "/heavy":  # a redirect with a body that never ends
            self.send_response(302)
            self.send_header("Location", "/clip.wav")
            self.end_headers()
            self.pour(1 << 16)
        elif self.path == "/circle":
            self.send(302, b"", Location="/circle")
        elif self.path == "/slow":  # headers without an end, each in time
            self.send_response(200)
            self.pour_headers()
        elif self.path == "/elsewhere":
            self.send(302, b"", Location="file:///etc/hostname")
        elif self.path == "/packed":
            self.send(200, b"x", **{"Content-Encoding": "gzip"})
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.pour(1 << 16)
        else:
            self.send(404, b"")

    def pour(self, size: int) -> None:
        try:
            while True:
                self.wfile.write(bytes(size))
        except OSError:
            pass  # the reader has had enough

    def pour_headers(self) -> None:
        try:
            self.flush_headers()
            while not stopped.wait(0.05):
                self.wfile.write(b"X-More: 1\r\n")
        except OSError:
            pass

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        stopped.set()
        server.shutdown()


@pytest.mark.parametrize(
    "imports",
    [
        "import hf_relearn.models; from transformers import pipeline",
        pytest.param("from transformers import pipeline; import hf_relearn.models", marks=pytest.mark.slow),
        pytest.param(
            "import hf_relearn, transformers; from transformers import pipeline; import hf_relearn.models",
            marks=pytest.mark.slow,
        ),
        "from hf_relearn import MultimodalForClassification; from transformers import pipeline",
        pytest.param("import transformers, hf_relearn; pipeline = transformers.pipeline", marks=pytest.mark.slow),
    ],
)
def test_registration_works_in_every_import_order(folder, imports):
    code = f"""import sys
{imports}
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor
for auto in (AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor):
    print(type(auto.from_pretrained({str(folder)!r})).__name__)
print(type(pipeline({TASK!r}, model={str(folder)!r})).__name__)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [
        "MultimodalConfig",
        "MultimodalModel",
        "MultimodalForClassification",
        "MultimodalProcessor",
        "MultimodalClassificationPipeline",
    ], done.stderr


def test_the_package_alone_is_light():
    code = (
        "import sys; before = sys.meta_path[:]; import hf_relearn; assert sys.meta_path == before; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not {"torch", "transformers", "numpy", "datasets"} & set(done.stdout.split()), done.stderr


def test_without_the_package_the_code_of_a_repository_gives_the_same(classify, with_code, tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav())
    code = (
        "import sys; sys.modules['hf_relearn'] = None\n"  # any import of it fails
        "from transformers import pipeline\n"
        f"classify = pipeline({TASK!r}, model={str(with_code)!r}, trust_remote_code=True, device=-1)\n"
        f"print(classify({{'audio': {str(tmp_path / 'clip.wav')!r}}}, return_contributions=True))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    expected = classify({"audio": str(tmp_path / "clip.wav")}, return_contributions=True)
    assert done.stdout.strip() == str(expected), done.stderr


def test_with_the_package_no_code_of_a_repository_is_asked_for(classify, with_code):
    there = pipeline(TASK, model=str(with_code), device=-1)
    assert type(there) is type(classify) and there(sample(0)) == classify(sample(0))


def test_scores_are_those_of_model_and_processor(classify, folder):
    model, processor = MultimodalForClassification.from_pretrained(folder), MultimodalProcessor.from_pretrained(folder)
    with torch.no_grad():
        expected = model(**processor({name: [value] for name, value in sample(0).items()})).logits.softmax(-1)[0]
    result = classify(sample(0))
    assert [entry["label"] for entry in result] == [f"class {index}" for index in expected.argsort(descending=True)]
    assert [entry["score"] for entry in result] == pytest.approx(expected.sort(descending=True).values.tolist())
    assert set(result[0]) == {"label", "score"}


def test_batches_lists_and_streams_give_what_single_samples_give(classify):
    singles = [classify(sample(seed)) for seed in range(3)]
    forms = {
        "list": classify([sample(seed) for seed in range(3)], batch_size=2),
        "stream": list(classify((sample(seed) for seed in range(3)), batch_size=2)),
    }
    for form, results in forms.items():
        for single, result in zip(singles, results, strict=True):
            assert [entry["label"] for entry in result] == [entry["label"] for entry in single], form
            scores = [entry["score"] for entry in result]
            assert scores == pytest.approx([entry["score"] for entry in single], abs=1e-5), form
    assert classify([]) == []


def test_labels_asked_for(classify):
    assert len(classify(sample(0), top_k=2)) == 2
    assert len(classify(sample(0), top_k=None)) == 3
    assert sum(entry["score"] for entry in classify(sample(0), function_to_apply="none")) != pytest.approx(1)
    with pytest.raises(ValueError, match="top_k is 0"):
        classify(sample(0), top_k=0)
    with pytest.raises(ValueError, match="function_to_apply is 'tanh': use one of softmax, sigmoid, none"):
        classify(sample(0), function_to_apply="tanh")


def test_several_labels_per_sample_are_scored_one_by_one(folder):
    several = pipeline(TASK, model=str(folder), device=-1)
    logits = [entry["score"] for entry in several(sample(0), function_to_apply="none")]
    several.model.config.problem_type = "multi_label_classification"
    scores = [entry["score"] for entry in several(sample(0))]
    assert scores == pytest.approx(torch.tensor(logits).sigmoid().tolist())


def test_files_and_common_names_of_modalities(classify, tmp_path):
    sound, picture = sample(0)["audio"], sample(0)["vision"]
    soundfile.write(tmp_path / "clip.wav", sound, 16000, subtype="FLOAT")
    picture.save(tmp_path / "face.png")
    from_files = classify({"audio": str(tmp_path / "clip.wav"), "image": tmp_path / "face.png"})
    assert from_files == classify({"audio": {"array": sound, "sampling_rate": 16000}, "vision": picture})


def test_addresses_are_fetched(classify, site, tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav())
    expected = classify({**sample(0), "audio": str(tmp_path / "clip.wav")})
    for address in (f"{site}/clip.wav", f"{site}/moved", f"{site}/heavy", f"{site}/clip.wav".replace(IP, "localhost")):
        assert classify({**sample(0), "audio": address}, allow_private_addresses=True) == expected


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("missing.wav", "the server answered 404"),
        ("elsewhere", "cannot be fetched .*file:/+etc/hostname, which is no http"),
        ("circle", "cannot be fetched .*more than 10 redirects"),
        ("packed", "comes compressed"),
        ("endless", "larger than 1,000,000 bytes"),
    ],
)
def test_what_is_not_fetched_is_named(classify, site, page, reason, monkeypatch):
    bounded = partial(processing_downloads.download, max_bytes=1_000_000)
    monkeypatch.setattr("hf_relearn.models.pipeline_multimodal.download", bounded)
    with pytest.raises(ValueError, match=f"sample 1: modality 'audio': {site}/{page}: {reason}"):
        classify([sample(0), {**sample(1), "audio": f"{site}/{page}"}], allow_private_addresses=True)


@pytest.mark.parametrize("page", ["endless", "slow"])
def test_a_transfer_that_takes_too_long_ends(classify, site, page):
    start = time.monotonic()
    with pytest.raises(ValueError, match="longer than 0.3 seconds|larger than"):
        classify({**sample(0), "audio": f"{site}/{page}"}, timeout=0.3, allow_private_addresses=True)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "host",
    [IP, "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "10.1.2.3", "192.168.0.1", "0.0.0.0"]
    + ["169.254.169.254", "[fe80::1]", "[fd00::1]", "224.0.0.1"],
)
def test_addresses_of_private_networks_are_refused(classify, site, host):
    port = site.rpartition(":")[2]
    with pytest.raises(ValueError, match="an address of this machine or of a private network"):
        classify({**sample(0), "audio": f"http://{host}:{port}/clip.wav"})


@pytest.mark.parametrize("batch_size", [1, 3])
def test_samples_may_lack_modalities(classify, batch_size):
    whole, sound, picture = sample(0), {"audio": sample(1)["audio"]}, {"audio": None, "vision": sample(2)["vision"]}
    results = classify([whole, sound, picture], batch_size=batch_size, top_k=None)
    for given, result in zip([whole, sound, picture], results, strict=True):
        alone = {entry["label"]: entry["score"] for entry in classify(given, top_k=None)}
        assert {entry["label"]: entry["score"] for entry in result} == pytest.approx(alone, abs=1e-5)
    assert results[1] != results[2]


def test_a_contribution_is_the_change_when_the_modality_is_left_out(classify):
    whole = sample(0)
    entries = classify([whole, whole], return_contributions=True, top_k=None, batch_size=2)[1]
    for name in ("audio", "vision"):
        rest = {key: value for key, value in whole.items() if key != name}
        without = {entry["label"]: entry["score"] for entry in classify(rest, top_k=None)}
        for entry in entries:
            share = entry["score"] - without[entry["label"]]
            assert entry["contributions"][name] == pytest.approx(share, abs=1e-5) and share != 0
    alone = classify({"audio": whole["audio"]}, return_contributions=True)[0]
    assert alone["contributions"]["vision"] == 0  # what is missing already


def test_pictures_with_sentences_of_any_length(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = MultimodalForClassification.from_backbones(
        {"caption": BertConfig(vocab_size=12, **sizes), "vision": vit_config()}, id2label={0: "no", 1: "yes"}
    )
    model.save_pretrained(tmp_path)
    options = {"caption": {"tokenizer": bert_like()}}
    MultimodalProcessor.from_model(model.config, options=options).save_pretrained(tmp_path)
    classify = pipeline(TASK, model=str(tmp_path), device=-1)
    samples = [{"text": "a cat", "image": sample(0)["vision"]}, {"caption": "a red dog sits"}, {"text": ""}]
    batched = classify(samples, batch_size=3)
    for given, result in zip(samples, batched, strict=True):
        assert [entry["score"] for entry in result] == pytest.approx([e["score"] for e in classify(given)], abs=1e-5)
    assert classify({"text": "http://127.0.0.1:9/cat.png"})  # an address that is a text is not fetched
    with pytest.raises(ValueError, match="sample 2: modality 'caption': .*7"):
        classify([*samples[:2], {"caption": 7}], batch_size=3)


def test_a_single_modality_has_no_contributions(tmp_path):
    model = MultimodalForClassification.from_backbones({"vision": vit_config()}, id2label={0: "no", 1: "yes"})
    only = pipeline(TASK, model=model, processor=MultimodalProcessor.from_model(model.config), device=-1)
    assert len(only({"image": sample(0)["vision"]})) == 2
    with pytest.raises(ValueError, match="this model has only one"):
        only({"image": sample(0)["vision"]}, return_contributions=True)


def test_example_of_the_pages(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "clip.wav").write_bytes(wav())
    sample(0)["vision"].save(tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    pages.run_block(pages.block_with("pipeline(").replace("me/my-model", str(folder)))
    assert "'contributions': {'audio':" in capsys.readouterr().out


@pytest.mark.parametrize("batch_size", [1, 3])
def test_errors_name_sample_and_modality(classify, batch_size):
    for wrong, reason in [
        ({**sample(1), "vision": "nowhere.png"}, "sample 1: modality 'vision': nowhere.png: no such file"),
        ({**sample(1), "sound": 1}, "sample 1 has the key 'sound', but the modalities are audio, vision"),
        ({**sample(1), "image": 1}, "sample 1 gives the modality 'vision' twice, also as 'image'"),
        ({"audio": None}, "sample 1 has none of the modalities audio, vision"),
        ("clip.wav", "sample 1 is a str: give a mapping"),
        ({**sample(1), "audio": b"none"}, "sample 1: modality 'audio': bytes in memory: not a readable sound"),
    ]:
        with pytest.raises(ValueError, match=reason):
            classify([sample(0), wrong, sample(2)], batch_size=batch_size)
    with pytest.raises(ValueError, match="a sample is a mapping"):
        classify("clip.wav")


def test_a_saved_pipeline_is_whole(classify, tmp_path):
    classify.save_pretrained(tmp_path)
    assert pipeline(TASK, model=str(tmp_path), device=-1)(sample(0)) == classify(sample(0))


# --- data sets, and samples that cannot be read ---


def table_of(columns=("audio", "vision")):
    rows = [sample(index) for index in range(3)]
    names = dict(zip(("audio", "vision"), columns, strict=True))
    features = {columns[0]: datasets.List(datasets.Value("float32")), columns[1]: datasets.Image()}
    return datasets.Dataset.from_list(
        [{**{names[key]: value for key, value in row.items()}, "label": 1, "id": "x"} for row in rows],
        features=datasets.Features({**features, "label": datasets.Value("int64"), "id": datasets.Value("string")}),
    )


def scores_of(entries):
    return {entry["label"]: pytest.approx(entry["score"], abs=1e-6) for entry in entries}


def test_other_columns_of_a_data_set_are_passed_over(folder):
    classify = pipeline(TASK, model=str(folder), device=-1)
    alone = [scores_of(entries) for entries in classify([sample(index) for index in range(3)])]
    assert [scores_of(entries) for entries in classify(table_of(), batch_size=2)] == alone
    classify.processor.columns = {"audio": "sound", "vision": "picture"}  # those of the training
    assert [scores_of(entries) for entries in classify(table_of(("sound", "picture")))] == alone


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_samples_that_cannot_be_read_are_skipped_with_the_reason(classify, batch_size):
    samples = [sample(0), {"audio": "nowhere.wav"}, {}, sample(1), {"audio": b"no sound"}, sample(2)]
    found = classify(samples, on_error="skip", batch_size=batch_size, top_k=None)
    assert [found[place]["error"] for place in (1, 2, 4)] == [
        "sample 1: modality 'audio': nowhere.wav: no such file",
        "sample 2 has none of the modalities audio, vision: it needs at least one",
        found[4]["error"],
    ]
    assert found[4]["error"].startswith("sample 4: modality 'audio'")
    for place, seed in ((0, 0), (3, 1), (5, 2)):
        assert scores_of(found[place]) == scores_of(classify(sample(seed), top_k=None))
    with pytest.raises(ValueError, match="sample 1: modality 'audio': nowhere.wav: no such file"):
        classify(samples[:2], batch_size=batch_size)
    with pytest.raises(ValueError, match="on_error is 'pass': use 'raise' or 'skip'"):
        classify(samples, on_error="pass")
