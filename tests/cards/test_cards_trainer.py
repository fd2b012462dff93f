"""The card that a Trainer writes."""

import logging
import re

import numpy as np
import pages
import pytest
import soundfile
from card_pattern import CARD
from huggingface_hub import metadata_load
from PIL import Image
from tiny import TensorRows, make_trainer, tiny_model
from transformers import default_data_collator

from hf_relearn import MultimodalProcessor
from hf_relearn.cards import CardInfo, DatasetFacts, card_figures

pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains", "ignore:the diagnosing part has no sample")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a trained model with its processor and card, below the folder of its owner."""
    folder = tmp_path_factory.mktemp("owner") / "me" / "tiny-clips"
    model = tiny_model(unimodal_loss_weight=1.0)
    processor = MultimodalProcessor.from_model(model.config)
    trainer = make_trainer(
        folder,
        model,
        **{"eval_strategy": "epoch", "diagnosis_interval": 1, "hub_model_id": "me/tiny-clips"},
        trainer_kwargs={"processing_class": processor, "data_collator": default_data_collator},
    )
    trainer.card_info = CardInfo(license="mit", language=["en"], datasets=[DatasetFacts("clips")])
    trainer.train()
    trainer.evaluate(TensorRows(12, seed=2), metric_key_prefix="test")
    trainer.save_model()
    trainer.create_model_card()
    return folder


def test_card_of_a_run_matches_the_pattern_and_shows_its_figures(run):
    card = (run / "README.md").read_text()
    assert CARD.fullmatch(card)
    assert card_figures(card) == ["figures/purity.png", "figures/alpha.png", "figures/accuracy.png"]
    assert all((run / figure).stat().st_size > 5000 for figure in card_figures(card))
    metadata = metadata_load(run / "README.md")
    assert (metadata["license"], metadata["language"], "base_model" in metadata) == ("mit", ["en"], False)
    splits = {result["dataset"]["split"]: result["metrics"] for result in metadata["model-index"][0]["results"]}
    assert list(splits) == ["eval", "test"]
    names = [metric["name"] for metric in splits["test"]]
    assert {"accuracy", "f1 macro", "audio alone: accuracy", "vision alone: accuracy"} <= set(names)
    assert str(run.parent.parent) not in card


def test_every_code_block_of_the_card_runs(run, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (run / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(run.parents[1])  # where the folder's path is that of the repository
    soundfile.write("clip.wav", np.zeros(16000, dtype=np.float32), 16000)
    Image.new("RGB", (20, 20)).save("image.jpg")
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(r"class [012]\n", capsys.readouterr().out)


def test_code_of_the_pages_writes_a_card(tmp_path):
    pages.run_block(pages.block_with("CardInfo("))["write_card"](make_trainer(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert CARD.fullmatch(card) and "It was trained on my clips." in card


def test_stock_trainers_arguments_are_understood(run, tmp_path):
    trainer = make_trainer(tmp_path / "out")
    trainer.create_model_card(
        language="de", license="cc-by-4.0", tags="emotion", model_name="x", dataset_tags="me/pets", dataset="Pets"
    )
    metadata = metadata_load(tmp_path / "out" / "README.md")
    assert (metadata["language"], metadata["license"], metadata["datasets"]) == (["de"], "cc-by-4.0", ["me/pets"])
    assert "emotion" in metadata["tags"]
    assert "# x\n" in (tmp_path / "out" / "README.md").read_text()


def test_a_card_comes_before_each_push_and_at_the_end_of_a_run_that_pushes(tmp_path):
    trainer = make_trainer(tmp_path / "out", max_steps=2, relearn_strategy="no", diagnosis_fraction=0.0)
    trainer.train()
    assert not (tmp_path / "out" / "README.md").exists()
    trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    assert CARD.fullmatch((tmp_path / "out" / "README.md").read_text())
    (tmp_path / "out" / "README.md").unlink()
    trainer.args.push_to_hub = True
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    assert CARD.fullmatch((tmp_path / "out" / "README.md").read_text())


def test_a_failure_is_one_warning_and_leaves_the_earlier_card(tmp_path, monkeypatch, caplog):
    trainer = make_trainer(tmp_path / "out")
    trainer.create_model_card()
    before = (tmp_path / "out" / "README.md").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr("hf_relearn.cards.card.render_card", fail)
        trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    assert [entry.message for entry in caplog.records if "model card" in entry.message] == [
        "the model card could not be written, and everything else goes on without it (OSError: no space left); once "
        "this is mended, trainer.create_model_card() writes it"
    ]
    assert (tmp_path / "out" / "README.md").read_bytes() == before
    caplog.clear()
    trainer.create_model_card(language="my own")
    assert "'my own' is no ISO 639 code" in caplog.text
