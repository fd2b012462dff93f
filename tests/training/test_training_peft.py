"""Adapters of PEFT: they are trained and re-learnt, and what lies under them stays."""

import pytest
import torch
from tiny import (
    CONSTANT_STRENGTH,
    FEW_SAMPLES,
    TensorRows,
    around_points,
    assert_moved_back,
    assert_same,
    history,
    make_trainer,
    tiny_model,
    weights_of,
)

from hf_relearn import MultimodalForClassification
from hf_relearn.method import InitialWeights

peft = pytest.importorskip("peft", reason="the extra 'peft' is not installed")

pytestmark = [
    FEW_SAMPLES,
    CONSTANT_STRENGTH,
    # PEFT asks models for a property that transformers calls deprecated.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

KINDS = ("get_peft_model", "add_adapter")


def adapted(kind: str, seed: int = 0, **kwargs):
    """The same base model each time, with adapters in both encoders and the classifier trained beside them."""
    model = tiny_model(dropout=0.1, **kwargs)
    trained = ["classifier", *(f"unimodal_heads.{name}" for name in model.unimodal_heads)]
    config = peft.LoraConfig(r=2, target_modules=["v_proj", "fc1"], modules_to_save=trained, lora_dropout=0.1)
    torch.manual_seed(seed)
    if kind == "get_peft_model":
        return peft.get_peft_model(model, config)
    model.add_adapter(config)
    return model


def run(folder, kind, resume=None, seed=0, trainer_kwargs=None, **settings):
    defaults = {"relearn_interval": 1, "relearn_alpha": "0.5", "save_strategy": "epoch"}
    trainer = make_trainer(folder, adapted(kind, seed), trainer_kwargs=trainer_kwargs, **{**defaults, **settings})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_move_towards_their_initial_values_and_nothing_else_does(tmp_path, kind):
    trainer = make_trainer(tmp_path, adapted(kind), relearn_alpha="0.25", num_train_epochs=2, diagnosis_interval=2)
    start, seen = weights_of(trainer.model), around_points(trainer, lambda: weights_of(trainer.model))
    trainer.train()
    ((before, after, _),) = seen
    end = weights_of(trainer.model)
    moved = {name for name in start if not torch.equal(before[name], after[name])}
    adapters = {name for name in start if ".lora_" in name}
    assert moved == adapters and any(".lora_A" in name for name in adapters)
    for name in adapters:
        assert_moved_back(after[name], before[name], start[name], 0.25)
    trained = {name for name in start if not torch.equal(start[name], end[name])}
    assert trained == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    (path,) = InitialWeights.find(tmp_path)
    assert adapters <= set(InitialWeights.load(path))
    assert [record["kind"] for record in history(tmp_path)] == ["point", "end"]
    assert set(trainer.evaluate()) >= {"eval_only_audio_accuracy", "eval_unimodal_audio_accuracy"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, kind):
    whole = run(tmp_path, kind)
    resumed = run(tmp_path, kind, resume=str(tmp_path / "checkpoint-8"), seed=1)  # other adapters to begin with
    assert_same(weights_of(resumed.model), weights_of(whole.model))


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_adapter_is_loaded_at_the_end(tmp_path, kind):
    settings = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "eval_strategy": "epoch"}
    trainer = run(tmp_path, kind, learning_rate=0.3, num_train_epochs=4, **settings)
    best = trainer.state.best_metric
    assert trainer.state.best_model_checkpoint != str(tmp_path / "checkpoint-16")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_is_loaded_on_its_base_model(tmp_path, kind):
    trainer = run(tmp_path, kind, save_strategy="no")
    trainer.save_model(str(tmp_path / "adapter"))
    base = tiny_model(dropout=0.1)
    if kind == "get_peft_model":
        loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    else:
        loaded = base
        loaded.load_adapter(str(tmp_path / "adapter"))
    row = TensorRows(1)[0]
    batch = {name: value[None] for name, value in row.items() if name != "labels"}
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch).logits, trainer.model.eval()(**batch).logits)


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    run(tmp_path, "add_adapter", num_train_epochs=2)
    other = tiny_model()
    other.add_adapter(peft.LoraConfig(r=2, target_modules=["fc1"], modules_to_save=["classifier"]))
    trainer = make_trainer(tmp_path, other, relearn_alpha="0.5")
    with pytest.raises(RuntimeError, match="holds another adapter than the model's 'default'"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


@pytest.mark.parametrize("kind", KINDS)
def test_rates_and_freezing_know_the_parts_of_an_adapted_model(tmp_path, kind):
    trainer = make_trainer(
        tmp_path,
        adapted(kind),
        freeze=["audio"],
        learning_rates=["vision=1e-3", "classifier=2e-3"],
        class_weights=["balanced"],
    )
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    found = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert found and not any("encoders.audio" in name for name in found)
    for name, rate in found.items():
        assert rate == (1e-3 if "encoders.vision" in name else 2e-3), name
    assert trainer.model.config.class_weights == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_uni_modal_heads_are_trained_beside_adapters(tmp_path, kind):
    trainer = make_trainer(tmp_path, adapted(kind, unimodal_loss_weight=1.0), label_smoothing_factor=0.1)
    before = weights_of(trainer.model.unimodal_heads)
    trainer.train()
    trained = {
        name
        for name, value in trainer.model.unimodal_heads.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert trained == {name for name in before if "modules_to_save" in name}
    assert "eval_unimodal_audio_accuracy" in trainer.evaluate()


def test_a_merged_model_is_one_without_adapters(tmp_path):
    trainer = run(tmp_path, "get_peft_model", save_strategy="no", num_train_epochs=2)
    merged = trainer.model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert isinstance(MultimodalForClassification.from_pretrained(tmp_path / "merged"), MultimodalForClassification)
