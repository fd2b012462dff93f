"""A model of three modalities, its rows, and the gradients that an optimizer gets of it."""

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_relearn import FeaturesConfig, MultimodalForClassification
from hf_relearn.training import MultimodalRelearnTrainer, RelearnTrainingArguments

WIDTHS = {"a": 5, "b": 6, "c": 7}
ROWS = 12


def model_of_three(**kwargs) -> MultimodalForClassification:
    """Three small encoders; the heads of `a` and, less so, `b` are sure of what they say."""
    torch.manual_seed(0)
    sizes = {"architecture": "mlp", "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16, "dropout": 0.0}
    backbones = {name: FeaturesConfig(input_size=width, **sizes) for name, width in WIDTHS.items()}
    labels = {index: f"class {index}" for index in range(4)}
    model = MultimodalForClassification.from_backbones(
        backbones, id2label=labels, **{"unimodal_loss_weight": 0.5, **kwargs}
    )
    with torch.no_grad():
        for head, factor in zip(model.unimodal_heads.values(), (40, 5, 1), strict=False):
            head.weight.mul_(factor)
    return model


class RowsOfThree(Dataset):
    """Labels that the head of `a` gets right; the last row lacks `b`."""

    def __init__(self, size: int = ROWS):
        generator = torch.Generator().manual_seed(1)
        self.values = {
            f"{name}_feature_values": torch.randn(size, width, generator=generator) for name, width in WIDTHS.items()
        }
        self.values["b_present"] = torch.arange(size) < size - 1
        with torch.no_grad():
            self.values["labels"] = model_of_three().eval()(**self.values).unimodal_logits["a"].argmax(dim=-1)

    def __len__(self) -> int:
        return len(self.values["labels"])

    def __getitem__(self, index: int) -> dict:
        return {name: values[index] for name, values in self.values.items()}


class Gradients(TrainerCallback):
    """Keeps the gradients of every step as the optimizer gets them."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def trainer_of_three(folder, balancing="none", model=None, rows=None, **kwargs):
    """A trainer, and what will hold its gradients; one step takes all rows."""
    settings = {"per_device_train_batch_size": ROWS, "num_train_epochs": 1, "learning_rate": 0.1, "optim": "sgd"}
    settings |= {"relearn_strategy": "no", "diagnosis_fraction": 0.0, "use_cpu": True, "disable_tqdm": True}
    settings |= {"max_grad_norm": 0.0, "save_strategy": "no", "lr_scheduler_type": "constant"}
    args = RelearnTrainingArguments(output_dir=str(folder), balancing=balancing, **{**settings, **kwargs})
    trainer = MultimodalRelearnTrainer(
        model_of_three() if model is None else model, args, train_dataset=RowsOfThree() if rows is None else rows
    )
    gradients = Gradients()
    trainer.add_callback(gradients)
    return trainer, gradients
