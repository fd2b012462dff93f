"""`relearn_final`: pretrained encoders move back once more, as far as the evaluation set likes best."""

import pytest
import torch
from patterns import pattern_model, pattern_trainer
from tiny import FEW_SAMPLES, TensorRows, assert_moved_back, make_trainer, tiny_model, vit_config, weights_of
from transformers import AutoModel

from hf_relearn import MultimodalForClassification
from hf_relearn.training.final import FINAL_ALPHAS

pytestmark = FEW_SAMPLES


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("vit")
    AutoModel.from_config(vit_config()).save_pretrained(folder)
    return folder


def half_pretrained(vit_folder):
    """The vision starts from trained weights, the audio does not."""
    from tiny import ast_config

    torch.manual_seed(0)
    labels = {index: str(index) for index in range(3)}
    backbones = {"audio": ast_config(), "vision": str(vit_folder)}
    return MultimodalForClassification.from_backbones(backbones, id2label=labels)


def final_run(folder, model, score=None, **settings):
    """A joint run: the evaluations after it, what was logged, and the weights around it."""
    scores, trained = [], {}

    def compute_metrics(prediction):
        if not trained:
            trained.update(weights_of(model))
        value = score(model) if score else float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        scores.append(value)
        return {"accuracy": value}

    settings = {"relearn_strategy": "no", "relearn_final": True, **settings}
    trainer = make_trainer(folder, model, trainer_kwargs={"compute_metrics": compute_metrics}, **settings)
    initial = weights_of(model)
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "relearn/final_alpha" in entry]
    return trainer, scores, logged, initial, trained, weights_of(model)


def test_the_evaluation_set_chooses_and_is_never_worse_off(tmp_path, vit_folder):
    trainer, scores, logged, *_ = final_run(tmp_path, half_pretrained(vit_folder), diagnosis_source="eval")
    assert len(scores) == len(FINAL_ALPHAS) and FINAL_ALPHAS[0] == 0
    best = logged["relearn/final_alpha"]
    assert best == FINAL_ALPHAS[scores.index(max(scores))]  # of equals the smallest
    assert logged["relearn/final_gain"] == pytest.approx(max(scores) - scores[0])
    assert trainer.evaluate()["eval_accuracy"] == max(scores) >= scores[0]


def test_a_positive_strength_is_chosen_where_it_helps_and_moves_pretrained_encoders_only(tmp_path, vit_folder):
    model = half_pretrained(vit_folder)
    name = "multimodal.encoders.vision.backbone.layernorm.weight"
    start = weights_of(model)[name]
    seen = []

    def score(model):  # best at a fifth of the way back
        value = model.get_parameter(name).detach().clone()
        seen.append(value)
        return -float((value - (0.8 * seen[0] + 0.2 * start)).abs().sum())

    _, scores, logged, initial, trained, after = final_run(tmp_path, model, score, diagnosis_source="eval")
    assert not torch.equal(seen[0], start)
    assert logged["relearn/final_alpha"] == 0.2 and logged["relearn/final_gain"] == pytest.approx(-scores[0], abs=1e-6)
    for key, value in trained.items():
        if key.startswith("multimodal.encoders.vision."):
            assert_moved_back(after[key], value, initial[key], 0.2)
        else:
            assert torch.equal(after[key], value), key


def test_without_a_gain_the_trained_weights_stay_to_the_bit(tmp_path, vit_folder):
    model = half_pretrained(vit_folder)
    _, scores, logged, _, trained, after = final_run(tmp_path, model, lambda model: 0.5, diagnosis_source="eval")
    assert len(scores) == len(FINAL_ALPHAS) and logged["relearn/final_alpha"] == 0
    assert all(torch.equal(after[key], value) for key, value in trained.items())


def test_encoders_that_are_not_pretrained_are_left_alone_with_a_warning(tmp_path, caplog):
    trainer = pattern_trainer(tmp_path, pattern_model(), relearn_final=True, num_train_epochs=1)
    trainer.train()
    assert "the model has none: nothing was done" in caplog.text
    assert not any("relearn/final_alpha" in entry for entry in trainer.state.log_history)


def test_an_evaluation_set_is_needed(tmp_path):
    with pytest.raises(ValueError, match="--relearn_final chooses a strength on the evaluation set, and there"):
        make_trainer(tmp_path, tiny_model(), TensorRows(), {"eval_dataset": None}, relearn_final=True)


def test_a_metric_that_is_not_there_is_named(tmp_path, vit_folder):
    with pytest.raises(ValueError, match="--relearn_final looks for eval_fame in the evaluation, which has epoch"):
        settings = {"relearn_strategy": "no", "relearn_final": True, "metric_for_best_model": "fame"}
        make_trainer(tmp_path, half_pretrained(vit_folder), num_train_epochs=1, **settings).train()
