"""Private names of other libraries that src/ uses. A release that changes one fails here, not silently elsewhere."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from transformers import Pipeline, PreTrainedConfig, PreTrainedModel, ProcessorMixin, Trainer
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model

SOURCES = Path(__file__).parents[1] / "src" / "hf_relearn"

# Class -> private method that src/ overrides or calls -> its parameters.
METHODS = {
    Trainer: {
        "_clip_grad_norm": ["self", "model"],
        "_determine_best_metric": ["self", "metrics", "trial"],
        "_evaluate": ["self", "trial", "ignore_keys_for_eval", "skip_scheduler"],
        "_finish_current_push": ["self"],
        "_get_num_items_in_batch": ["self", "batch_samples", "device"],
        "_get_output_dir": ["self", "trial"],
        "_get_train_sampler": ["self", "train_dataset"],
        "_inner_training_loop": [
            "self",
            "batch_size",
            "args",
            "resume_from_checkpoint",
            "trial",
            "ignore_keys_for_eval",
        ],
        "_load_best_model": ["self"],
        "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
        "_push_from_checkpoint": ["self", "checkpoint_folder"],
        "_save": ["self", "output_dir", "state_dict"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_save_rng_state": ["self", "output_dir"],
    },
    Pipeline: {
        "_forward": ["self", "input_tensors", "forward_parameters"],
        "_sanitize_parameters": ["self", "pipeline_parameters"],
    },
    PreTrainedModel: {
        "_from_config": ["config", "kwargs"],
        "_init_weights": ["self", "module"],
    },
    # Every speech encoder whose mask counts samples has both.
    Wav2Vec2Model: {
        "_get_feat_extract_output_lengths": ["self", "input_lengths", "add_adapter"],
        "_get_feature_vector_attention_mask": ["self", "feature_vector_length", "attention_mask", "add_adapter"],
    },
}
# Class -> private attributes that src/ sets or reads.
ATTRIBUTES = {
    Pipeline: [
        "_load_feature_extractor",
        "_load_image_processor",
        "_load_processor",
        "_load_tokenizer",
        "_load_video_processor",
    ],
    PreTrainedConfig: ["_attn_implementation"],
    PreTrainedModel: [
        "_hf_peft_config_loaded",
        "_keep_in_fp32_modules",
        "_keep_in_fp32_modules_strict",
        "_no_split_modules",
        "_supports_attention_backend",
        "_supports_flash_attn",
        "_supports_flex_attn",
        "_supports_sdpa",
    ],
}
# Names of our own that a class of transformers happens to have, too.
OWN = {"_is_overridden", "_version"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in METHODS.items() for name in names],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_private_method_takes_what_we_think(owner, name):
    assert list(inspect.signature(getattr(owner, name)).parameters) == METHODS[owner][name]


@pytest.mark.parametrize("owner", ATTRIBUTES, ids=lambda owner: owner.__name__)
def test_a_private_attribute_is_there(owner):
    assert [name for name in ATTRIBUTES[owner] if not hasattr(owner, name)] == []


def names_in(tree: ast.AST):
    """Private names that a module defines, sets or reads of an object."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            for item in node.body:
                targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_private_name_of_transformers_is_listed_here():
    used = {
        name: path.name
        for path in SOURCES.rglob("*.py")
        for name in names_in(ast.parse(path.read_text()))
        if name.startswith("_") and not name.startswith("__")
    }
    listed = {name for names in (*METHODS.values(), *ATTRIBUTES.values()) for name in names} | OWN
    owners = (Trainer, Pipeline, ProcessorMixin, PreTrainedModel, PreTrainedConfig)
    found = {name: file for name, file in used.items() if any(hasattr(owner, name) for owner in owners)}
    assert {name: file for name, file in found.items() if name not in listed} == {}


def source(method) -> str:
    return inspect.getsource(method)


def test_the_training_loop_is_started_with_keywords():
    train = source(Trainer.train)
    for name in ("resume_from_checkpoint=resume_from_checkpoint", "trial=trial"):
        assert name in train[train.rindex("inner_training_loop(") :]


def test_the_random_state_is_saved_before_the_file_that_ends_a_checkpoint():
    saving = source(Trainer._save_checkpoint)
    assert saving.index("save_model(") < saving.index("_save_rng_state(") < saving.index("save_to_json(")
    assert saving.index("save_to_json(") < saving.index("rotate_checkpoints(")


def test_the_data_loaders_read_the_attributes_that_we_exchange():
    assert "self.train_dataset" in source(Trainer.get_train_dataloader)
    assert "_get_train_sampler" in source(Trainer.get_train_dataloader)
    assert "self.data_collator" in source(Trainer._get_dataloader)
    for method in (Trainer.get_train_dataloader, Trainer.get_eval_dataloader, Trainer.get_test_dataloader):
        assert "self._get_dataloader(" in source(method)


def test_evaluation_and_training_ask_for_the_loss_as_we_answer():
    parameters = list(inspect.signature(Trainer.compute_loss).parameters)
    assert parameters == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert "metric_key_prefix" in inspect.signature(Trainer.evaluation_loop).parameters


def test_torch_keeps_the_private_attributes_that_we_read():
    layer = torch.nn.BatchNorm1d(2)
    layer.register_buffer("scratch", torch.zeros(1), persistent=False)
    assert layer._non_persistent_buffers_set == {"scratch"}
    assert "_is_fsdp_managed_module" in inspect.getsource(inspect.getmodule(inspect.unwrap(fully_shard)))
