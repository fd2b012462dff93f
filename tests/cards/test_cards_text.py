"""The card as a reader sees it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from card_pattern import CARD
from huggingface_hub import metadata_load
from PIL import Image

from hf_relearn import MultimodalForClassification, MultimodalProcessor
from hf_relearn.cards import CardInfo, DatasetFacts, card_figures, render_card, write_card
from hf_relearn.cards.card import usage_code
from hf_relearn.data import EMOTION_NAMES

ROOT = Path(__file__).parents[2]
CARDS = sorted((ROOT / "model_cards").glob("train_*.md"))


def section(card: str, heading: str) -> str:
    return card.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_whole_card_matches_the_pattern(make_facts, tmp_path):
    assert CARD.fullmatch(write_card(tmp_path, make_facts()).read_text())


def test_card_of_a_run_that_knows_nothing_yet_matches_too(make_facts):
    bare = make_facts(info=CardInfo(), datasets=[], results={}, records=[], settings={}, steps=None, epochs=None)
    assert CARD.fullmatch(render_card(bare))


def test_pattern_sees_a_missing_section_and_a_broken_table(make_facts):
    card = render_card(make_facts())
    assert not CARD.fullmatch(card.replace("## Known limits", "## Limits"))
    assert not CARD.fullmatch(card.replace("| :--- | ---: |\n", "", 1))
    assert not CARD.fullmatch(card.replace("license: apache-2.0\n", "license: apache-2.0\n\n"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_of_the_recipes_match_and_have_their_figures(path):
    card = path.read_text()
    assert CARD.fullmatch(card)
    assert metadata_load(path)["model-index"][0]["name"] == path.stem
    figures = card_figures(card)
    assert len(figures) == 5
    assert sorted(figures) == sorted(f"{path.stem}/{file.name}" for file in (path.parent / path.stem).iterdir())


def test_code_of_the_cremad_recipes_card_runs(tmp_path, monkeypatch, capsys):
    backbones = ROOT / "recipes" / "backbones"
    model = MultimodalForClassification.from_backbones(
        {"audio": backbones / "resnet-tiny-spectrogram", "vision": backbones / "resnet-tiny"},
        modality_options={"audio": {"kind": "audio"}, "vision": {"num_frames": 2}},
        id2label=dict(enumerate(EMOTION_NAMES)),
    )
    sound = {"seconds": 2.0, "sampling_rate": 16000, "size": [64, 64]}
    processor = MultimodalProcessor.from_model(model.config, None, {"audio": sound, "vision": {"image_size": 48}})
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("train_cremad")
    processor.save_pretrained("train_cremad")
    soundfile.write("clip.wav", np.zeros(16000, dtype=np.float32), 16000)
    for name in ("image1.jpg", "image2.jpg"):
        Image.new("RGB", (50, 50)).save(name)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "model_cards" / "train_cremad.md").read_text(), flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "train_cremad.md", "exec"), {})
    assert capsys.readouterr().out.strip() in EMOTION_NAMES


def test_scores_of_several_classes_per_sample(make_facts):
    assert "`logits.softmax(-1)`" in render_card(make_facts())
    card = render_card(make_facts(multi_label=True))
    assert "`logits.sigmoid()`" in card and "softmax" not in card and CARD.fullmatch(card)


def test_encoders_name_where_they_started(make_facts):
    card = render_card(make_facts())
    assert "| [me/wav2vec2](https://huggingface.co/me/wav2vec2) at `aaaaaaaaaaaa` |" in card
    assert "| gaze | numbers | hf_relearn_features | random weights | 64 |" in card


def test_modalities_alone_and_left_out(make_facts):
    text = section(render_card(make_facts()), "Each modality alone and left out")
    assert "| modality | alone | only this one given | all but this one |" in text
    assert "| audio | 0.800 | 0.750 | 0.550 |" in text
    assert "| vision | 0.510 | – | – |" in text
    assert "| *all together* | 0.900 | 0.900 | 0.900 |" in text
    assert "Accuracy on *test*." in text


def test_limits_name_the_modality_that_hardly_beats_guessing(make_facts):
    limits = section(render_card(make_facts()), "Known limits")
    assert "vision hardly says more of the class than guessing (accuracy 0.510 alone)." in limits
    assert "audio hardly" not in limits and "no test result" not in limits
    unfinished = make_facts(seconds=None, results={"eval": {"accuracy": 0.9}}, records=[])
    limits = section(render_card(unfinished), "Known limits")
    assert "no test result: *eval*" in limits
    assert "No encoder was re-learnt" in limits and "not at its end" in limits


def test_results_of_an_earlier_step_are_named_as_such(make_facts):
    card = render_card(make_facts(results_steps={"validation": 150}))
    assert "*validation* was measured at step 150" in card
    assert CARD.fullmatch(card)


def test_figures_are_drawn_and_named(make_facts, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "features_audio.png").write_bytes(b"of an earlier report")
    card = write_card(tmp_path, make_facts()).read_text()
    assert card_figures(card) == ["figures/purity.png", "figures/alpha.png", "figures/features_audio.png"]
    for name in ("purity", "alpha"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    card = write_card(tmp_path, make_facts(seconds=None)).read_text()
    assert card_figures(card) == ["figures/purity.png", "figures/alpha.png"]


def test_figures_on_the_web_do_not_travel():
    assert card_figures("![a](https://x.org/a.png) ![b](figures/b.png) ![b](figures/b.png)") == ["figures/b.png"]


def test_no_local_path_gets_into_the_card(make_facts, tmp_path):
    facts = make_facts(
        name=f"{tmp_path}/runs/clips",
        datasets=[DatasetFacts(f"{Path.home()}/data")],
        info=CardInfo(notes=[f"Recorded in {Path.cwd()}/data."]),
        settings={"resume": str(tmp_path), "kwargs": {"at": tmp_path / "x"}, "data_dir": "/srv/somebody/data"},
    )
    card = write_card(tmp_path / "model", facts).read_text()
    for private in (str(tmp_path), f"{Path.home()}/", str(Path.cwd()), "somebody"):
        assert private not in card
    assert "# …/clips" in card and CARD.fullmatch(card)


def test_names_that_look_like_paths_stay(make_facts, tmp_path):
    encoders = [replace(make_facts().encoders[0], modality="cats /dogs"), *make_facts().encoders[1:]]
    facts = make_facts(
        class_names=["/m/0dgw9r", "cats /dogs"], encoders=encoders, datasets=[DatasetFacts("/m/audioset")]
    )
    card = write_card(tmp_path, facts).read_text()
    assert "2 classes (/m/0dgw9r, cats /dogs)" in card and "**cats /dogs** (a sound)" in card
    assert metadata_load(tmp_path / "README.md")["model-index"][0]["results"][0]["dataset"]["name"] == "/m/audioset"


def test_names_are_text_and_never_markup_or_template(make_facts):
    hostile = ["{{ card_data }}", "a|b", "<script>", "`x`", "\n---\n"]
    card = render_card(make_facts(class_names=hostile, info=CardInfo(model_name="x\n# y")))
    assert "{{ card_data }}" in card and "<script>" not in card and "a\\|b" in card
    assert len(re.findall(r"^---$", card, flags=re.MULTILINE)) == 2


def test_usage_takes_each_kind_of_input(make_facts):
    encoders = [
        *make_facts().encoders,
        *(replace(make_facts().encoders[0], modality=name, kind=name) for name in ("video", "text")),
        replace(make_facts().encoders[1], modality="frames", num_frames=2),
    ]
    code = usage_code("me/clips", encoders)
    assert len([line for line in code.splitlines() if line]) == 5
    values = re.search(r"processor\((\{.*\})\)\)", code)[1]
    assert eval(values) == {
        "audio": ["clip.wav"],
        "vision": ["image.jpg"],
        "gaze": [[0.0, 0.0, 0.0, 0.0]],
        "video": ["clip.mp4"],
        "text": ["What a surprise!"],
        "frames": [["image1.jpg", "image2.jpg"]],
    }


def test_results_begin_with_the_verdict(make_facts, tmp_path):
    verdict = write_card(tmp_path, make_facts()).read_text().split("## Results\n\n")[1].split("\n\n")[0]
    assert verdict.startswith("On *test* the model reaches an accuracy of 90.0 %; by itself **audio** 80.0 %")
    assert "above its best modality, audio" in verdict
