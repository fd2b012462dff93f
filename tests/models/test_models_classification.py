"""`MultimodalForClassification`: its loss, its heads and its inputs."""

import inspect

import pytest
import torch
from tiny import NUM_CLASSES, TensorRows, resnet_config, tiny_model, vit_config
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_relearn import MultimodalForClassification


def batch(size: int = 8) -> dict[str, torch.Tensor]:
    rows = TensorRows(size)
    return dict(default_data_collator([rows[index] for index in range(size)]))


def rows_of(values: dict[str, torch.Tensor], part: slice) -> dict[str, torch.Tensor]:
    return {name: value[part] for name, value in values.items()}


def test_without_weight_there_are_no_heads_and_the_loss_is_the_fused_one():
    model, inputs = tiny_model(), batch()
    output = model(**inputs)

    assert len(model.unimodal_heads) == 0
    assert output.unimodal_logits is None
    assert output.logits.shape == (8, NUM_CLASSES)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, inputs["labels"]))


def test_with_weight_the_heads_losses_are_added():
    model, inputs = tiny_model(unimodal_loss_weight=0.3), batch()
    output = model(**inputs)

    heads = [cross_entropy(logits, inputs["labels"]) for logits in output.unimodal_logits.values()]
    assert list(output.unimodal_logits) == ["audio", "vision"]
    expected = cross_entropy(output.logits, inputs["labels"]) + 0.3 * (heads[0] + heads[1])
    assert torch.allclose(output.loss, expected, rtol=1e-6)
    head = model.unimodal_heads["vision"]
    assert torch.equal(output.unimodal_logits["vision"], head(output.features["vision"]))


def test_a_head_teaches_its_own_encoder_only():
    model, inputs = tiny_model(unimodal_loss_weight=1.0), batch()
    model(**inputs).unimodal_logits["audio"].sum().backward()

    assert all(parameter.grad is None for parameter in model.encoders["vision"].parameters())
    assert any(
        parameter.grad is not None and parameter.grad.any() for parameter in model.encoders["audio"].parameters()
    )


def test_every_parameter_of_the_encoders_is_trained():
    model, inputs = tiny_model(), batch()
    model(**inputs).loss.backward()

    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("number", [8, torch.tensor(8)])
def test_micro_batches_sum_to_the_loss_of_the_whole_batch(number):
    model, inputs = tiny_model(unimodal_loss_weight=0.5), batch()

    parts = [slice(0, 3), slice(3, 8)]
    losses = [model(**rows_of(inputs, part), num_items_in_batch=number).loss for part in parts]

    assert torch.allclose(sum(losses), model(**inputs).loss, rtol=1e-5)


def test_label_minus_100_is_left_out():
    model, inputs = tiny_model(unimodal_loss_weight=1.0), batch()
    expected = model(**rows_of(inputs, slice(0, 5))).loss
    inputs["labels"] = torch.where(torch.arange(8) < 5, inputs["labels"], -100)

    assert torch.allclose(model(**inputs).loss, expected, rtol=1e-6)


def test_without_labels_there_is_no_loss():
    inputs = batch()
    del inputs["labels"]

    output = tiny_model()(**inputs)

    assert output.loss is None
    assert output.features["audio"].shape == (8, 16)


def test_classifier_dropout_acts_in_training_only():
    model, inputs = tiny_model(classifier_dropout=0.5), batch()
    evaluated = [model(**inputs).logits for _ in range(2)]
    model.train()
    trained = [model(**inputs).logits for _ in range(2)]

    assert torch.equal(*evaluated)
    assert not torch.equal(*trained)


def test_modality_names_may_begin_alike():
    names = {"view": vit_config(hidden_size=8), "view_front": vit_config(), "view_front_left": resnet_config()}
    model = MultimodalForClassification.from_backbones(names)
    images = {name: torch.randn(2, 3, 16, 16) for name in names}

    output = model(**{f"{name}_pixel_values": value for name, value in images.items()})

    for name, value in images.items():
        with torch.no_grad():
            assert torch.equal(output.features[name], model.encoders[name](pixel_values=value).feature), name


def test_inputs_that_do_not_fit_are_named():
    model, inputs = tiny_model(), batch()

    with pytest.raises(TypeError, match="'vision_input_ids' belongs to no modality; .*audio_.*input_values"):
        model(**inputs, vision_input_ids=torch.zeros(8, 2))
    with pytest.raises(TypeError, match="'pixel_values' belongs to no modality"):
        model(pixel_values=inputs["vision_pixel_values"])
    with pytest.raises(TypeError, match="no input for the modality 'vision': got audio_input_values"):
        model(audio_input_values=inputs["audio_input_values"])
    with pytest.raises(TypeError, match="no input for the modality 'audio', 'vision': got nothing"):
        model(labels=inputs["labels"])


def test_a_stock_trainer_predicts_plain_logits(tmp_path):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, remove_unused_columns=False, disable_tqdm=True)
    trainer = Trainer(tiny_model(unimodal_loss_weight=1.0), arguments)

    prediction = trainer.predict(TensorRows(12))

    assert prediction.predictions.shape == (12, NUM_CLASSES)  # no tuple with features or uni-modal logits


def test_the_loss_takes_part_in_gradient_accumulation():
    """`Trainer` finds by the signature that a model divides by the number of labels itself."""
    kinds = {
        parameter.kind for parameter in inspect.signature(MultimodalForClassification.forward).parameters.values()
    }
    assert inspect.Parameter.VAR_KEYWORD in kinds
    assert getattr(MultimodalForClassification, "accepts_loss_kwargs", True)
