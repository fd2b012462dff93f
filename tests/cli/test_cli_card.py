"""`hf-relearn card`."""

import json
import shutil

import pytest
from huggingface_hub import metadata_load
from tiny import FEW_SAMPLES, make_trainer, vit_config

from hf_relearn.cards import CardInfo

pytestmark = FEW_SAMPLES


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The output directory of a run with its model and the card that the Trainer wrote."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trainer = make_trainer(folder, num_train_epochs=2, learning_rate=0.02)
    trainer.card_info = CardInfo(model_name="Digits", license="mit", language=["en"], tags=["numbers"])
    trainer.train()
    trainer.evaluate(metric_key_prefix="test")
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    return folder


def without(text: str, *sections: str) -> list[str]:
    """The lines of a card, without some of its sections; sorted, as the Trainer's state sorts metrics by name."""
    parts = text.split("\n## ")
    return sorted(line for part in parts if not part.startswith(sections) for line in part.splitlines())


def test_a_rebuilt_card_is_the_one_that_the_trainer_wrote(run_folder, run, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    for figure in (folder / "figures").glob("*.png"):
        figure.unlink()
    code, out, err = run("card", folder, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["card"] == str(folder / "README.md") and f"{folder}/figures/purity.png" in found["figures"]
    assert (folder / "figures" / "purity.png").read_bytes() == (run_folder / "figures" / "purity.png").read_bytes()
    before, after = [(place / "README.md").read_text() for place in (run_folder, folder)]
    assert without(after, "How it was trained") == without(before, "How it was trained")


def test_what_the_author_says_anew_wins(run_folder, run, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    flags = ["--license", "apache-2.0", "--language", "de", "--tags", "audio-visual", "--repository", "me/digits"]
    code, out, err = run("card", folder, "--model_name", "Zahlen", *flags)
    assert (code, out, err) == (0, f"The card is in {folder / 'README.md'}\n", "")
    metadata, text = metadata_load(folder / "README.md"), (folder / "README.md").read_text()
    assert (metadata["license"], metadata["language"]) == ("apache-2.0", ["de"])
    assert {"numbers", "audio-visual"} <= set(metadata["tags"]) and len(metadata["tags"]) == len(set(metadata["tags"]))
    assert "\n# Zahlen\n" in text and 'from_pretrained("me/digits")' in text


def test_training_arguments_of_the_folder_are_told(run_folder, run, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    arguments = {"learning_rate": 0.02, "weight_decay": 0.0, "output_dir": "runs", "relearn_interval": 1}
    (folder / "training_arguments.json").write_text(json.dumps(arguments))
    assert run("card", folder)[0] == 0
    text = (folder / "README.md").read_text()
    assert "| `learning_rate` | `0.02` |" in text and "| `relearn_interval` | `1` |" in text
    assert "weight_decay" not in text and "output_dir" not in text


def test_a_model_without_its_run_gets_a_card(model_folder, run, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "my-model")
    assert run("card", folder)[0] == 0
    assert "\n# my-model\n" in (folder / "README.md").read_text()


def test_what_is_no_model_or_no_language_is_refused(run, model_folder, tmp_path):
    assert run("card", tmp_path)[2].endswith(f"{tmp_path} holds no saved model: there is no config.json\n")
    vit_config().save_pretrained(tmp_path)
    assert "the type 'vit', which is no fusion model" in run("card", tmp_path)[2]
    code, _, err = run("card", model_folder, "--language", "English")
    assert code == 2 and "English" in err
    assert not (model_folder / "README.md").exists()
