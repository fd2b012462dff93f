"""Class weights, label smoothing, and several classes per sample."""

import datasets
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from tiny import (
    CONSTANT_STRENGTH,
    FEW_SAMPLES,
    NUM_CLASSES,
    TensorRows,
    assert_same,
    make_trainer,
    tiny_model,
    training_arguments,
    weights_of,
)
from tokenizers_of_words import bert_like
from torch.nn.functional import cross_entropy
from transformers import BertConfig, EvalPrediction
from two_towers import Pairs, TwoTowers

from hf_relearn import MultimodalForClassification, MultimodalProcessor, MultimodalRelearnTrainer
from hf_relearn.relearning.labels import dataset_labels
from hf_relearn.training import RelearnTrainingArguments, classification_metrics
from hf_relearn.training.targets import balanced_class_weights

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]

NO_PART = {"diagnosis_fraction": 0.0}


class UnevenRows(TensorRows):
    def __init__(self, size: int = 36, seed: int = 0):
        super().__init__(size, seed)
        self.labels = np.minimum(np.arange(size) % 6, NUM_CLASSES - 1)  # 1 : 1 : 4


class ManyLabels(TensorRows):
    """Each sample has its class, and every other one the first class too."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        targets = torch.zeros(NUM_CLASSES)
        targets[[row["labels"], *([0] if index % 2 else [])]] = 1.0
        return {**row, "labels": targets}


def many_labels_trainer(tmp_path, **settings):
    return make_trainer(
        tmp_path,
        tiny_model(problem_type="multi_label_classification", unimodal_loss_weight=1.0),
        ManyLabels(),
        {"eval_dataset": ManyLabels(12, seed=1)},
        **settings,
    )


def test_balanced_weights_make_classes_count_alike():
    labels = np.array([0, 0, 0, 1, 2, 2, -100])
    weights = balanced_class_weights(labels, 3)
    assert weights == pytest.approx([6 / 9, 6 / 3, 6 / 6])
    assert sum(weights[label] for label in labels if label >= 0) == pytest.approx(6)
    with pytest.raises(ValueError, match="no sample of class 3, 4; give numbers"):
        balanced_class_weights(labels, 5)
    with pytest.raises(ValueError, match="labels lie in 0 to 2, but the model has 2 classes"):
        balanced_class_weights(labels, 2)


def test_the_training_part_alone_is_balanced(tmp_path):
    trainer = make_trainer(tmp_path, train_dataset=UnevenRows(), class_weights=["balanced"])
    part = dataset_labels(trainer.train_dataset)
    assert len(part) == 27
    assert trainer.model.config.class_weights == pytest.approx(list(27 / (3 * np.bincount(part))))


def test_given_weights_and_smoothing_reach_the_fused_loss_and_that_of_every_head(tmp_path):
    trainer = make_trainer(
        tmp_path,
        tiny_model(unimodal_loss_weight=0.5),
        class_weights=["1", "2.5", "0"],
        label_smoothing_factor=0.2,
        relearn_strategy="no",
        max_steps=1,
        lr_scheduler_type="constant",
        learning_rate=0.0,
    )
    batch = {name: value for name, value in next(iter(trainer.get_train_dataloader())).items()}
    trainer.train()
    with torch.no_grad():
        outputs = trainer.model(**{name: value for name, value in batch.items() if name != "labels"})
    weight, labels = torch.tensor([1.0, 2.5, 0.0]), batch["labels"]
    expected = sum(
        share * cross_entropy(logits, labels, weight, label_smoothing=0.2, reduction="sum") / len(labels)
        for share, logits in ((1, outputs.logits), *((0.5, each) for each in outputs.unimodal_logits.values()))
    )
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert logged == pytest.approx(float(expected), rel=1e-5)
    assert "eval_unimodal_audio_accuracy" in trainer.evaluate()  # which needs the labels in the batch


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["1", "2"], "--class_weights gives 2 weights, but the model has 3 classes"),
        (["1", "x", "2"], "--class_weights is '1 x 2': give 'balanced', or a number"),
        (["1", "-1", "2"], "--class_weights is '1 -1 2'"),
        (["balanced", "1"], "--class_weights is 'balanced 1'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, weights, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, class_weights=weights)


def test_a_model_of_another_class_takes_no_class_weights(tmp_path):
    with pytest.raises(ValueError, match="--class_weights: TwoTowers is no MultimodalForClassification"):
        make_trainer(tmp_path, TwoTowers(), Pairs(12, 0), class_weights=["1", "1", "1"])


@pytest.mark.parametrize("settings", [{"relearn_strategy": "no"}, {"relearn_alpha": "0.9"}])
def test_multi_label_targets_train(tmp_path, settings):
    trainer = many_labels_trainer(tmp_path, **NO_PART, **settings, num_train_epochs=4)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {"eval_accuracy", "eval_f1_macro", "eval_f1_micro", "eval_unimodal_audio_accuracy"} <= set(after)
    assert set(before) - {"epoch"} <= set(after)


def test_multi_label_metrics_are_those_of_scikit_learn(tmp_path):
    trainer = many_labels_trainer(tmp_path, **NO_PART, relearn_strategy="no")
    output = trainer.predict(ManyLabels(12, seed=1), metric_key_prefix="test")
    predicted = output.predictions > 0
    assert output.metrics["test_accuracy"] == accuracy_score(output.label_ids, predicted)
    for average in ("macro", "micro"):
        assert output.metrics[f"test_f1_{average}"] == pytest.approx(
            f1_score(output.label_ids, predicted, average=average, zero_division=0)
        )
    right = classification_metrics(EvalPrediction(output.label_ids - 0.5, output.label_ids))
    assert right == {"accuracy": 1.0, "f1_macro": 1.0, "f1_micro": 1.0}


def test_diagnosed_strengths_are_refused_with_multi_label_targets(tmp_path):
    with pytest.raises(ValueError, match="multi-label targets, and a diagnosis needs one class.*--relearn_strength"):
        many_labels_trainer(tmp_path, **NO_PART)


@pytest.mark.parametrize("settings", [{"relearn_strategy": "no"}, {"relearn_alpha": "0.9"}])
def test_no_part_is_held_out_of_multi_label_targets(tmp_path, settings):
    with pytest.raises(ValueError, match="several targets per sample.*--diagnosis_fraction 0"):
        many_labels_trainer(tmp_path, **settings)


def test_nor_is_the_evaluation_set_diagnosed(tmp_path):
    trainer = many_labels_trainer(tmp_path, diagnosis_source="eval", relearn_alpha="0.9")
    with pytest.raises(ValueError, match="the training part cannot be diagnosed: .*several targets per sample"):
        trainer.train()


def test_lists_of_classes_are_multi_label_too():
    table = datasets.Dataset.from_dict({"label": [[0], [0, 2], []]})
    for dataset in (table, [{"label": [0]}, {"label": [0, 2]}]):
        with pytest.raises(ValueError, match="'label' holds several targets per sample"):
            dataset_labels(dataset)


def test_balanced_weights_of_several_classes_per_sample_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--class_weights balanced counts one class per sample"):
        many_labels_trainer(tmp_path, **NO_PART, relearn_strategy="no", class_weights=["balanced"])


def test_weights_are_read_with_the_arguments(tmp_path):
    with pytest.raises(ValueError, match="--class_weights is 'even'"):
        RelearnTrainingArguments(str(tmp_path), use_cpu=True, class_weights=["even"])


def words_of(moods, column="mood"):
    features = datasets.Features({"text": datasets.Value("string"), column: datasets.ClassLabel(names=list("abc"))})
    rows = {"text": [f"the {mood}" for mood in moods], column: list(moods)}
    return datasets.Dataset.from_dict(rows, features=features)


def text_trainer(folder, dataset, num_labels, **kwargs):
    processor = MultimodalProcessor({"text": {"type": "text", "tokenizer": bert_like()}})
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = MultimodalForClassification.from_backbones({"text": config}, num_labels=num_labels)
    settings = training_arguments(folder, max_steps=1, relearn_strategy="no", diagnosis_source="auto")
    return MultimodalRelearnTrainer(model, settings, train_dataset=dataset, processing_class=processor, **kwargs)


def test_the_only_column_of_classes_is_the_label(tmp_path):
    output = text_trainer(tmp_path, words_of("abcabcabc"), 3).train()
    assert output.training_loss > 0


def test_too_few_classes_are_told_of_before_training(tmp_path):
    with pytest.raises(ValueError, match="column 'mood' holds 2, but the model has 2 classes: .*num_labels=3"):
        text_trainer(tmp_path, words_of("abcabc"), 2)


def test_a_label_column_that_is_not_found_names_the_remedy():
    with pytest.raises(ValueError, match=r"looked for label, labels among text, mood; .*label_column=\.\.\."):
        dataset_labels(words_of("abc"))


class FewOfOne(TensorRows):
    """24 samples of class 0, 8 of class 1, 4 of class 2."""

    def __init__(self):
        super().__init__(36)
        self.labels = np.repeat([0, 1, 2], [24, 8, 4])


def test_balanced_sampling_draws_each_class_alike_and_goes_on_alike(tmp_path):
    def trainer():
        seen.clear()
        rows = FewOfOne()
        settings = {"train_sampling_strategy": "balanced", "save_strategy": "steps", "save_steps": 1}
        trainer = make_trainer(
            tmp_path, train_dataset=rows, relearn_strategy="no", diagnosis_source="auto", **settings
        )
        collate = trainer.data_collator

        def collated(batch):
            seen.append([row["labels"] for row in batch])
            return collate(batch)

        trainer.data_collator = collated
        return trainer

    seen: list[list[int]] = []
    whole = trainer()
    whole.train()
    batches = [batch for batch in seen if len(batch) in (8, 4)]
    per_epoch = [sum(batches[start : start + 5], []) for start in (0, 5, 10)]
    for labels in per_epoch:
        assert np.bincount(labels).tolist() == [12, 12, 12]
    assert per_epoch[0] != per_epoch[1]
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert_same(weights_of(resumed.model), weights_of(whole.model))


def test_the_best_model_is_chosen_by_macro_f1(tmp_path):
    trainer = make_trainer(
        tmp_path,
        train_dataset=FewOfOne(),
        relearn_strategy="no",
        diagnosis_source="auto",
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="f1_macro",
    )
    trainer.train()
    values = [entry["eval_f1_macro"] for entry in trainer.state.log_history if "eval_f1_macro" in entry]
    assert len(values) == 3 and trainer.state.best_metric == max(values)
    assert trainer.evaluate()["eval_f1_macro"] == max(values)
