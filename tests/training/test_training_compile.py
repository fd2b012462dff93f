"""Compiled models and activation checkpointing: the same runs in another way."""

import pytest
import torch
from tiny import (
    CONSTANT_STRENGTH,
    FEW_SAMPLES,
    TensorRows,
    around_points,
    assert_same,
    history,
    make_trainer,
    tiny_model,
    weights_of,
    without_times,
)
from transformers import default_data_collator

from hf_relearn import MultimodalForClassification

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]

EAGER = {"torch_compile": True, "torch_compile_backend": "eager"}
EPOCHS = {"num_train_epochs": 2, "diagnosis_fraction": 0.25, "relearn_alpha": "0.5"}


def trainer_of(folder, **settings):
    # Every batch has 8 samples, so that the compiler has less to do.
    datasets = {"train_dataset": TensorRows(32), "trainer_kwargs": {"eval_dataset": TensorRows(8, seed=1)}}
    return make_trainer(folder, tiny_model(unimodal_loss_weight=1.0), **datasets, **{**EPOCHS, **settings})


def purities(folder):
    return [
        (record["kind"], name, entry["train_purity"], entry["val_purity"], entry["train_size"])
        for record in history(folder)
        for name, entry in record["modalities"].items()
    ]


def assert_close(first, second):
    assert set(first) == set(second)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def logits_of(model, dataset):
    batch = default_data_collator([dataset[index] for index in range(len(dataset))])
    return model(labels=batch.pop("labels"), **batch)["logits"]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_run_is_the_uncompiled_one(tmp_path, backend):
    torch.compiler.reset()
    plain = trainer_of(tmp_path / "plain")
    plain.train()
    trainer = trainer_of(tmp_path / "compiled", torch_compile=True, torch_compile_backend=backend)

    def look():
        assert trainer.model_wrapped is not trainer.model
        return tuple(logits_of(model, trainer.eval_dataset) for model in (trainer.model_wrapped, trainer.model))

    seen = around_points(trainer, look)
    trainer.train()
    ((before, after, _),) = seen  # the compiled model computes with the moved weights
    torch.testing.assert_close(*before)
    torch.testing.assert_close(*after)
    assert (before[0] - after[0]).abs().max() > 1e-4
    assert purities(tmp_path / "compiled") == purities(tmp_path / "plain")
    assert len(purities(tmp_path / "plain")) == 2
    assert_close(weights_of(trainer.model), weights_of(plain.model))
    expected, found = plain.evaluate(), trainer.evaluate()
    assert {"eval_only_audio_accuracy", "eval_unimodal_audio_accuracy"} <= set(found) == set(expected)
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-4)


def test_a_compiled_run_resumes_and_is_saved(tmp_path):
    torch.compiler.reset()
    whole, resumed = (trainer_of(tmp_path, save_strategy="epoch", **EAGER) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(weights_of(resumed.model), weights_of(whole.model))
    whole.save_model(str(tmp_path / "saved"))
    loaded = MultimodalForClassification.from_pretrained(tmp_path / "saved")
    assert_same(weights_of(loaded), weights_of(whole.model))


def test_activation_checkpointing_changes_no_loss(tmp_path):
    runs = {}
    for checkpointing in (False, True):
        trainer = trainer_of(tmp_path / str(checkpointing), activation_checkpointing=checkpointing)
        calls = []
        layer = trainer.model.encoders["audio"].backbone.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        runs[checkpointing] = without_times(trainer.state.log_history), weights_of(trainer.model), len(calls)
    assert_same(runs[True][:2], runs[False][:2])
    assert runs[True][2] > runs[False][2]  # layers ran again in the backward pass
    assert_same(purities(tmp_path / "True"), purities(tmp_path / "False"))
