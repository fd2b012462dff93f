"""What the facts of a card are collected from."""

from dataclasses import dataclass, field

import pytest
from datasets import Dataset
from datasets.info import DatasetInfo
from tiny import ast_config, tiny_model, training_arguments, vit_config
from torch.utils.data import ConcatDataset, Subset
from transformers import AutoModel

from hf_relearn import MultimodalConfig, MultimodalForClassification
from hf_relearn.cards.facts import changed_from_defaults, dataset_facts, encoder_facts, latest_evaluations

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path):
    """A cache of the Hub's files that holds the backbone `me/tiny-vit`."""
    repository = tmp_path / "cache" / "models--me--tiny-vit"
    AutoModel.from_config(vit_config()).save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path / "cache"


def test_backbone_of_the_hub_is_a_base_model_with_its_commit_also_after_saving(hub_cache, tmp_path):
    model = MultimodalForClassification.from_backbones(
        {"audio": ast_config(), "vision": "me/tiny-vit"}, backbone_kwargs={"cache_dir": str(hub_cache)}
    )
    for config in (model.config, saved_and_loaded(model, tmp_path / "model")):
        audio, vision = encoder_facts(config)
        assert (vision.base_model, vision.base_model_revision, vision.pretrained) == ("me/tiny-vit", COMMIT, True)
        assert (audio.base_model, audio.base_model_revision, audio.pretrained) == (None, None, False)


def test_model_object_of_the_hub_says_where_it_came_from(hub_cache, monkeypatch):
    backbone = AutoModel.from_pretrained("me/tiny-vit", cache_dir=hub_cache)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    facts = encoder_facts(MultimodalForClassification.from_backbones({"vision": backbone}).config)
    assert (facts[0].base_model, facts[0].base_model_revision) == ("me/tiny-vit", COMMIT)


def test_model_object_without_an_origin_is_not_said_to_have_one(hub_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    for backbone in (AutoModel.from_config(vit_config()), AutoModel.from_config(vit_config(name_or_path="/x/y"))):
        facts = encoder_facts(MultimodalForClassification.from_backbones({"vision": backbone}).config)
        assert (facts[0].base_model, facts[0].pretrained) == (None, None)


def test_local_folder_is_no_base_model_even_if_it_is_named_like_one(tmp_path, monkeypatch):
    AutoModel.from_config(vit_config()).save_pretrained(tmp_path / "me" / "weights")
    vit_config().save_pretrained(tmp_path / "me" / "scratch")
    monkeypatch.chdir(tmp_path)
    sources = {"a": "me/weights", "b": str(tmp_path / "me" / "weights"), "c": "me/scratch"}
    model = MultimodalForClassification.from_backbones(sources)
    facts = encoder_facts(model.config)
    assert [encoder.base_model for encoder in facts] == [None, None, None]
    assert [encoder.pretrained for encoder in facts] == [True, True, False]


def test_configuration_of_an_earlier_release_knows_of_no_origin(tmp_path):
    settings = tiny_model().config.to_dict()
    for modality in settings["modalities"].values():
        for name in ("pretrained", "base_model", "base_model_revision"):
            del modality[name]
    assert [encoder.pretrained for encoder in encoder_facts(MultimodalConfig(**settings))] == [None, None]


def saved_and_loaded(model, folder):
    model.save_pretrained(folder)
    return MultimodalConfig.from_pretrained(folder)


def test_only_hyper_parameters_that_were_changed(tmp_path):
    arguments = training_arguments(
        tmp_path / "out",
        hub_token="hf_secret",
        hub_model_id="me/clips",
        relearn_alpha="0.9",
        lr_scheduler_type="cosine",
        num_train_epochs=5,
        eval_strategy="epoch",
        load_best_model_at_end=True,
        save_strategy="epoch",
    )
    assert changed_from_defaults(arguments) == {
        **{"num_train_epochs": 5, "learning_rate": 0.01, "lr_scheduler_type": "cosine"},
        **{"load_best_model_at_end": True, "metric_for_best_model": "loss"},
        **{"relearn_interval": 1, "relearn_alpha": "0.9", "relearn_strength": "gap", "diagnosis_fraction": 0.25},
        **{"diagnosis_estimator": "purity", "diagnosis_sampling": "matched", "diagnosis_source": "holdout"},
    }


def test_settings_of_any_dataclass():
    @dataclass
    class Settings:
        sizes: list = field(default_factory=list)
        model_name_or_path: str = "a"
        rate: float = 0.5
        access_token: str | None = None

    assert changed_from_defaults(Settings([3], "/home/me", 0.5, "secret")) == {"sizes": [3]}
    assert changed_from_defaults(None) == {}


def log(name: str, step: int, accuracy: float) -> dict:
    return {
        "step": step,
        f"{name}_accuracy": accuracy,
        f"{name}_unimodal_audio_accuracy": accuracy / 2,
        f"{name}_runtime": 0.2,
        f"{name}_samples_per_second": 60.0,
        "epoch": step / 10,
    }


HISTORY = [log("eval", 10, 0.7), {"step": 15, "loss": 1.0}, log("eval", 20, 0.9), log("eval", 30, 0.8)]
END = {"step": 30, "train_runtime": 3.1, "train_loss": 0.4, "total_flos": 0.0}


def test_the_last_evaluation_counts_without_its_speed():
    found, older = latest_evaluations(HISTORY, 30)
    assert found == {"eval": {"accuracy": 0.8, "unimodal_audio_accuracy": 0.4}} and older == {}


def test_the_best_model_has_its_own_evaluation():
    found, older = latest_evaluations([*HISTORY, END], 20)
    assert found["eval"]["accuracy"] == 0.9 and older == {}


def test_what_is_measured_after_the_end_is_of_the_final_weights():
    found, older = latest_evaluations([*HISTORY, END, log("eval", 30, 0.95), log("test", 30, 0.85)], 20)
    assert (found["eval"]["accuracy"], found["test"]["accuracy"]) == (0.95, 0.85) and older == {}


def test_an_evaluation_before_the_last_steps_is_told_as_such():
    assert latest_evaluations(HISTORY, 36)[1] == {"eval": 30}


def test_data_set_of_the_hub_is_found_below_what_training_makes_of_it():
    source = f"hf://datasets/me/clips@{COMMIT}/data/train-00000.parquet"
    info = DatasetInfo(config_name="large", download_checksums={source: {"num_bytes": 1, "checksum": None}})
    dataset = Dataset.from_dict({"label": [0, 1]}, info=info)
    for data in (dataset, dataset.select([1]), Subset(dataset, [0]), ConcatDataset([Subset(dataset, [0]), dataset])):
        facts = dataset_facts(data)
        assert (facts.hub_id, facts.config, facts.revision) == ("me/clips", "large", COMMIT)
    assert dataset_facts(Dataset.from_dict({"label": [0]})) is None
    assert dataset_facts([1, 2]) is None and dataset_facts(None) is None
