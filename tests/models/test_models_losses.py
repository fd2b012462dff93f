"""The loss: class weights, smoothed labels, several classes per sample, parts of a batch."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from test_models_classification import batch
from tiny import NUM_CLASSES, TensorRows, tiny_model, weights_of
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from hf_relearn import MultimodalConfig, MultimodalForClassification
from hf_relearn.models.modeling_losses import classification_loss

WEIGHTS = [0.5, 2.0, 1.0]
LOGITS = torch.randn(7, NUM_CLASSES, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, -100, 1, 1, 0])
SEVERAL = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [-100, 1, 0], [0, 1, 0], [1, 0, 0], [-100] * 3]).float()


def config(**changes) -> MultimodalConfig:
    return MultimodalConfig(id2label={0: "a", 1: "b", 2: "c"}, **changes)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_one_class_per_sample_is_torchs_cross_entropy(weights, smoothing):
    loss = classification_loss(LOGITS, LABELS, config(class_weights=weights, label_smoothing=smoothing))

    tensor = None if weights is None else torch.tensor(weights)
    expected = cross_entropy(LOGITS, LABELS, weight=tensor, label_smoothing=smoothing)
    assert torch.allclose(loss, expected, rtol=1e-6)


def test_several_classes_per_sample_are_torchs_binary_cross_entropy_of_what_is_labelled():
    several = {"problem_type": "multi_label_classification"}
    known = SEVERAL != -100
    loss = classification_loss(LOGITS, SEVERAL, config(**several))
    assert torch.allclose(loss, binary_cross_entropy_with_logits(LOGITS[known], SEVERAL[known]), rtol=1e-6)

    smoothed = SEVERAL * 0.8 + 0.1
    weights = torch.tensor(WEIGHTS).expand(7, -1)[known]
    expected = binary_cross_entropy_with_logits(LOGITS[known], smoothed[known], weight=weights)
    loss = classification_loss(LOGITS, SEVERAL, config(**several, class_weights=WEIGHTS, label_smoothing=0.2))
    assert torch.allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, SEVERAL])
def test_parts_of_a_batch_sum_to_the_whole_and_weights_do_not_change_the_divisor(labels):
    settings = {"problem_type": "multi_label_classification"} if labels is SEVERAL else {}
    number = int((labels != -100).sum())
    parts = [slice(0, 3), slice(3, 7)]

    plain = config(**settings)
    losses = [classification_loss(LOGITS[part], labels[part], plain, number) for part in parts]
    assert torch.allclose(sum(losses), classification_loss(LOGITS, labels, plain), rtol=1e-6)

    weighted = config(**settings, class_weights=WEIGHTS)
    losses = [classification_loss(LOGITS[part], labels[part], weighted, number) for part in parts]
    whole = classification_loss(LOGITS, labels, weighted, 1) / number
    assert torch.allclose(sum(losses), whole, rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, SEVERAL])
def test_nothing_labelled_is_no_loss_and_no_nan(labels):
    settings = {"problem_type": "multi_label_classification"} if labels is SEVERAL else {}
    logits = LOGITS.clone().requires_grad_()
    for weights in (None, WEIGHTS):
        loss = classification_loss(logits, torch.full_like(labels, -100), config(**settings, class_weights=weights))
        loss.backward()
        assert loss == 0 and not logits.grad.any()


def test_half_precision_logits_are_summed_in_float32():
    loss = classification_loss(LOGITS.bfloat16(), LABELS, config(class_weights=WEIGHTS))
    assert loss.dtype == torch.float32


def test_the_model_applies_them_to_the_heads_too():
    model, inputs = tiny_model(unimodal_loss_weight=0.5, class_weights=WEIGHTS, label_smoothing=0.1), batch()
    output = model(**inputs)

    logits = [output.logits, *output.unimodal_logits.values()]
    losses = [
        cross_entropy(one, inputs["labels"], weight=torch.tensor(WEIGHTS), label_smoothing=0.1) for one in logits
    ]
    assert torch.allclose(output.loss, losses[0] + 0.5 * (losses[1] + losses[2]), rtol=1e-6)


class SeveralLabels(Dataset):
    def __init__(self):
        self.rows = TensorRows(16)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        return {**row, "labels": torch.tensor([float(row["labels"] >= number) for number in range(NUM_CLASSES)])}


def test_several_classes_train_alike_with_and_without_accumulation(tmp_path):
    ends = []
    for size, steps in ((8, 1), (2, 4)):
        arguments = TrainingArguments(
            str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=2, remove_unused_columns=False,
            per_device_train_batch_size=size, gradient_accumulation_steps=steps, optim="sgd", learning_rate=0.1,
            save_strategy="no", max_grad_norm=0, train_sampling_strategy="sequential",
        )  # fmt: skip
        model = tiny_model(problem_type="multi_label_classification", class_weights=WEIGHTS, unimodal_loss_weight=1.0)
        start = weights_of(model)
        Trainer(model, arguments, train_dataset=SeveralLabels()).train()
        ends.append(weights_of(model))
    assert any(not torch.equal(value, start[name]) for name, value in ends[0].items())
    assert all(torch.allclose(value, ends[1][name], atol=1e-6) for name, value in ends[0].items())


def test_settings_and_labels_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"class_weights holds 2 weights, but there are 3 classes \(a, b, c\)"):
        config(class_weights=[1, 2])
    with pytest.raises(ValueError, match="weights are finite, not negative, and not all zero"):
        config(class_weights=[1, -2, 1])
    with pytest.raises(ValueError, match="weights are finite"):
        config(class_weights=[1, float("nan"), 1])
    with pytest.raises(ValueError, match="label_smoothing is 1.5, but it is a share, from 0 to 1"):
        config(label_smoothing=1.5)
    # transformers' own check comes first in some releases.
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match="problem_type.* 'ranking'"):
        config(problem_type="ranking")
    with pytest.raises(ValueError, match=r"\(7, 3\), but one class index per sample, \(7,\), .*'multi_label"):
        classification_loss(LOGITS, SEVERAL, config())
    with pytest.raises(ValueError, match=r"\(7,\), but one 0 or 1 per class, \(7, 3\), is wanted"):
        classification_loss(LOGITS, LABELS, config(problem_type="multi_label_classification"))

    tiny_model(class_weights=WEIGHTS).save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="class_weights holds 3 weights, but there are 2 classes"):
        MultimodalForClassification.from_pretrained(
            tmp_path, id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1}, ignore_mismatched_sizes=True
        )
