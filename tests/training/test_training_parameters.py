"""Learning rates and freezing by modality, part or pattern."""

import json
import logging

import pytest
import torch
from tiny import (
    CONSTANT_STRENGTH,
    FEW_SAMPLES,
    TensorRows,
    assert_same,
    history,
    make_trainer,
    tiny_model,
    training_arguments,
    weights_of,
)
from two_towers import TwoTowers

from hf_relearn.method.alpha import constant_alphas
from hf_relearn.training import MultimodalRelearnTrainer, RelearnTrainingArguments
from hf_relearn.training.parameter_groups import parse_learning_rates, selected_parameters

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]


def rates_by_name(trainer):
    """Name of each trained parameter -> (learning rate, weight decay) of its group."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }


def test_each_parameter_gets_the_rate_of_the_last_selector_that_matches(tmp_path):
    chosen = ["audio=1e-3", "vision.*embeddings=2e-3", "classifier=3e-3", r"encoders\.audio.*bias$=4e-3"]
    trainer = make_trainer(tmp_path, learning_rates=chosen, weight_decay=0.1)
    trainer.create_optimizer()
    found = rates_by_name(trainer)
    assert set(found) == {name for name, _ in trainer.model.named_parameters()}
    decayed = trainer.get_decay_parameter_names(trainer.model)
    for name, (rate, decay) in found.items():
        expected = 1e-2
        if name.startswith("multimodal.encoders.audio."):
            expected = 4e-3 if name.endswith("bias") else 1e-3
        elif name.startswith("multimodal.encoders.vision.") and "embeddings" in name:
            expected = 2e-3
        elif name.startswith("classifier"):
            expected = 3e-3
        assert rate == expected, name
        assert decay == (0.1 if name in decayed else 0.0), name


def test_the_schedule_scales_all_rates_and_a_resumed_run_goes_on_with_them(tmp_path):
    settings = {"learning_rates": ["audio=1e-3"], "save_strategy": "epoch", "relearn_alpha": "0.5"}
    whole = make_trainer(tmp_path, **settings)
    whole.train()
    rates = {group["lr"] / group["initial_lr"] for group in whole.optimizer.param_groups}
    assert len({group["initial_lr"] for group in whole.optimizer.param_groups}) == 2 and len(rates) == 1
    resumed = make_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_same(weights_of(resumed.model), weights_of(whole.model))
    logged = [entry["learning_rate"] for entry in whole.state.log_history if "learning_rate" in entry]
    assert logged[0] == 1e-2  # that of everything else


def test_a_rate_of_zero_keeps_an_encoder_where_it_is(tmp_path):
    trainer = make_trainer(tmp_path, learning_rates=["vision=0"], relearn_strategy="no")
    before = weights_of(trainer.model)
    trainer.train()
    after = weights_of(trainer.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith("multimodal.encoders.vision") for name in moved)


def test_frozen_parameters_stay_to_the_bit_through_training_and_points(tmp_path, caplog):
    trainer = make_trainer(tmp_path, freeze=["vision", "audio.*embeddings"], relearn_alpha="0.5")
    before = weights_of(trainer.model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    after = weights_of(trainer.model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    for name, _ in trainer.model.named_parameters():
        frozen = name.startswith("multimodal.encoders.vision") or ("audio" in name and "embeddings" in name)
        assert (name in same) == frozen or ("k_proj.bias" in name), name  # softmax gives key biases no gradient
    said = [record.message for record in caplog.records if "nothing in the encoder of" in record.message]
    assert said == ["nothing in the encoder of vision is trained, so re-learning has nothing to move there"]


def test_a_model_that_is_made_by_a_function_is_frozen_too(tmp_path):
    trainer = MultimodalRelearnTrainer(
        args=training_arguments(tmp_path, freeze=["vision"], relearn_strategy="no", num_train_epochs=1),
        train_dataset=TensorRows(),
        model_init=lambda: tiny_model(),
    )
    trainer.train()
    assert not any(parameter.requires_grad for parameter in trainer.model.encoders["vision"].parameters())
    assert all(parameter.requires_grad for parameter in trainer.model.encoders["audio"].parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["visoin"]}, r"--freeze 'visoin' matches no parameter.*audio, vision.*encoders, classifier.*"),
        ({"learning_rates": ["text=1"]}, "--learning_rates 'text' matches no parameter"),
        ({"freeze": ["vis("]}, r"--freeze 'vis\(' is no regular expression"),
        ({"freeze": ["encoders", "classifier"]}, "--freeze encoders classifier leaves nothing to train"),
        ({"freeze": ["vision"], "learning_rates": ["vision=1"]}, "'vision' names parameters that are all frozen"),
    ],
)
def test_what_fits_no_parameter_is_refused_before_training(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **settings)


@pytest.mark.parametrize("pair", ["text", "=1e-3", "text=fast", "text=-1", "text=nan"])
def test_rates_that_are_none_are_refused_with_the_arguments(tmp_path, pair):
    with pytest.raises(ValueError, match=f"--learning_rates holds '{pair}'"):
        RelearnTrainingArguments(str(tmp_path), use_cpu=True, learning_rates=[pair])


def test_an_expression_may_hold_an_equals_sign():
    assert parse_learning_rates(["a(?=b)=1e-3"]) == [("a(?=b)", 1e-3)]


def test_rates_beside_an_optimizer_of_ones_own_are_refused(tmp_path):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="--learning_rates sets up the Trainer's optimizer"):
        make_trainer(
            tmp_path, model, trainer_kwargs={"optimizers": (optimizer, None)}, learning_rates=["classifier=1"]
        )


def test_names_are_those_without_wrappers():
    model = tiny_model()
    expected = set(selected_parameters(model, "vision", "--freeze"))
    wrapped = torch.nn.Module()
    wrapped.module = model  # as DDP holds it
    for each in (wrapped, torch.compile(model, backend="eager")):
        assert set(selected_parameters(each, "vision", "--freeze")) == expected
        assert set(selected_parameters(each, r"^classifier\.", "--freeze")) == {"classifier.weight", "classifier.bias"}


def test_a_model_of_ones_own_is_selected_by_its_names():
    assert set(selected_parameters(TwoTowers(), "ear", "--freeze")) == {
        name for name, _ in TwoTowers().named_parameters() if name.startswith("ear.")
    }


@pytest.mark.parametrize(
    ("rates", "frozen", "modalities", "alpha"),
    [
        ("audio=1e-3,classifier=2e-3", "audio.*embeddings,classifier.{1,9}bias", "vision", "vision=0.9"),
        (
            ["audio=1e-3", "classifier=2e-3"],
            ["audio.*embeddings", "classifier.{1,9}bias"],
            ["vision"],
            ["vision=0.9"],
        ),
        (
            {"audio": 1e-3, "classifier": 2e-3},
            {"audio.*embeddings": True, "vision": False, "classifier.{1,9}bias": True},
            {"vision": True, "audio": False},
            {"vision": 0.9},
        ),
    ],
)
def test_settings_of_parts_take_a_string_a_list_or_a_mapping(tmp_path, rates, frozen, modalities, alpha):
    settings = {"learning_rates": rates, "freeze": frozen, "relearn_modalities": modalities, "relearn_alpha": alpha}
    trainer = make_trainer(tmp_path, **settings)
    trainer.create_optimizer()
    assert {rate for rate, _ in rates_by_name(trainer).values()} == {1e-2, 1e-3, 2e-3}
    assert rates_by_name(trainer)["classifier.weight"][0] == 2e-3
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    left = {name for name, _ in trainer.model.named_parameters()} - trained
    assert "classifier.bias" in left and any("audio" in name and "embeddings" in name for name in left)
    assert not any("vision" in name for name in left)
    written = json.loads(trainer.args.to_json_string())
    assert written["freeze"] == ["audio.*embeddings", "classifier.{1,9}bias"]
    assert RelearnTrainingArguments(**{name: written[name] for name in settings}).relearn_alpha == "vision=0.9"
    assert constant_alphas(trainer.args.relearn_alpha, ["audio", "vision"]) == {"audio": 0.0, "vision": 0.9}


def test_a_strength_for_one_modality_leaves_the_others_alone(tmp_path):
    trainer = make_trainer(tmp_path, relearn_alpha={"vision": 0.9}, num_train_epochs=2)
    trainer.train()
    (record,) = history(tmp_path)
    assert {name: values["alpha"] for name, values in record["modalities"].items()} == {"audio": 0.0, "vision": 0.9}
