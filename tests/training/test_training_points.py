"""What a re-learning point changes, and when it comes."""

import pytest
import torch
from tiny import (
    CONSTANT_STRENGTH,
    FEW_SAMPLES,
    TensorRows,
    assert_moved_back,
    assert_same,
    history,
    make_trainer,
    weights_of,
)
from torch import nn
from transformers import TrainerCallback

from hf_relearn import MultimodalForClassification
from hf_relearn.method.relearn import reset_optimizer_state
from hf_relearn.training import RelearnCallback

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]


class Snapshots(TrainerCallback):
    """Weights and optimizer state before and after each beginning of an epoch or step, where points come."""

    def __init__(self, trainer, event="on_epoch_begin"):
        self.taken = {}
        callback = trainer.relearn_callback
        original = getattr(callback, event)

        def watched(args, state, control, model, **kwargs):
            before = weights_of(model), optimizer_states(trainer)
            original(args, state, control, model, **kwargs)
            self.taken[state.global_step] = (*before, weights_of(model), optimizer_states(trainer))

        setattr(callback, event, watched)


def optimizer_states(trainer):
    states = trainer.optimizer.optimizer.state
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    return {names[parameter]: {k: v.clone() for k, v in state.items()} for parameter, state in states.items()}


def moved_names(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def resnet_and_vit(**kwargs):
    """A model with BatchNorm statistics, a frozen part and uni-modal heads."""
    from tiny import resnet_config, vit_config

    torch.manual_seed(0)
    model = MultimodalForClassification.from_backbones(
        {"audio": resnet_config(num_channels=1), "vision": vit_config()},
        id2label={index: str(index) for index in range(3)},
        unimodal_loss_weight=1.0,
        **kwargs,
    )
    model.encoders["vision"].backbone.embeddings.requires_grad_(False)
    return model


class SpectrogramRows(TensorRows):
    """Rows for `resnet_and_vit`: the audio as an image of one channel."""

    def __getitem__(self, index: int) -> dict:
        row = super().__getitem__(index)
        return {
            "audio_pixel_values": row["audio_input_values"][None],
            "vision_pixel_values": row["vision_pixel_values"],
            "labels": row["labels"],
        }


def snapshots_of_run(folder, **kwargs):
    trainer = make_trainer(
        folder,
        resnet_and_vit(),
        SpectrogramRows(seed=2),
        {"eval_dataset": SpectrogramRows(12, seed=1)},
        **{"relearn_max_times": 1, **kwargs},
    )
    initial = weights_of(trainer.model)
    snapshots = Snapshots(trainer)
    trainer.train()
    step = history(folder)[0]["step"]
    return trainer, initial, snapshots.taken[step]


def test_a_point_moves_trained_encoder_parameters_by_the_formula_and_nothing_else(tmp_path):
    trainer, initial, (before, optimizer_before, after, optimizer_after) = snapshots_of_run(tmp_path)
    alphas = {name: entry["alpha"] for name, entry in history(tmp_path)[0]["modalities"].items()}
    assert all(0 < alpha < 1 for alpha in alphas.values())

    trained = {
        f"multimodal.encoders.{modality}.{name}": modality
        for modality, encoder in trainer.model.encoders.items()
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad
    }
    for name, value in before.items():
        if name in trained:
            alpha = alphas[trained[name]]
            assert_moved_back(after[name], value, initial[name], alpha)
            assert not torch.equal(value, initial[name]), name
        else:
            assert torch.equal(after[name], value), name
    changed = moved_names(before, after)
    assert {trained[name] for name in changed} == {"audio", "vision"}
    # The comparison has something to show: all these had moved away from their initial values by training.
    kept = ("classifier.weight", "unimodal_heads.audio.weight")
    buffers = [name for name in before if name.endswith("running_mean")]
    assert buffers and all(not torch.equal(before[name], initial[name]) for name in (*kept, *buffers))
    assert_same(optimizer_after, optimizer_before)


def test_the_distance_moved_stands_in_the_record(tmp_path):
    trainer, initial, (before, _, after, _) = snapshots_of_run(tmp_path)
    names = [name for name in before if name.startswith("multimodal.encoders.audio") and "running" not in name]
    names = [name for name in names if before[name].is_floating_point()]
    moved = sum(((after[name] - before[name]).double() ** 2).sum() for name in names) ** 0.5
    norm = sum((before[name].double() ** 2).sum() for name in names) ** 0.5

    recorded = history(tmp_path)[0]["modalities"]["audio"]["distance"]
    assert recorded > 0 and recorded == pytest.approx(float(moved / norm), rel=1e-5)


def test_buffers_move_only_where_they_are_asked_to(tmp_path):
    _, initial, (before, _, after, _) = snapshots_of_run(tmp_path, relearn_buffers="interpolate")
    alpha = history(tmp_path)[0]["modalities"]["audio"]["alpha"]
    statistics = [name for name in before if "running_" in name]
    counts = [name for name in before if name.endswith("num_batches_tracked")]
    assert statistics and counts
    for name in statistics:
        assert_moved_back(after[name], before[name], initial[name], alpha)
    assert all(torch.equal(after[name], before[name]) for name in counts)


def test_resetting_the_optimizer_drops_the_state_of_moved_parameters_only(tmp_path):
    _, _, (before, optimizer_before, after, optimizer_after) = snapshots_of_run(
        tmp_path, relearn_optimizer_state="reset", relearn_alpha="audio=0.0,vision=0.5"
    )
    dropped = set(optimizer_before) - set(optimizer_after)
    assert dropped == {name for name in optimizer_before if name.startswith("multimodal.encoders.vision.")}
    assert_same(optimizer_after, {name: optimizer_before[name] for name in optimizer_after})


def test_a_run_goes_on_after_its_optimizer_state_was_reset_and_is_saved(tmp_path):
    trainer, _, _ = snapshots_of_run(tmp_path, relearn_optimizer_state="reset", save_strategy="epoch")
    assert trainer.state.global_step == 12
    assert (tmp_path / "checkpoint-12" / "optimizer.pt").is_file()


def test_resetting_works_for_a_plain_optimizer_too():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    reset_optimizer_state(optimizer, [model[0]])
    assert set(optimizer.state) == set(model[1].parameters())


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0.25", {"audio": 0.25, "vision": 0.25}), ("audio=0.5, vision=1", {"audio": 0.5, "vision": 1.0})],
)
def test_a_constant_strength_needs_no_diagnosing_part(tmp_path, given, expected):
    _, initial, (before, _, after, _) = snapshots_of_run(tmp_path, relearn_alpha=given, diagnosis_fraction=0)
    record = history(tmp_path)[0]
    for name, alpha in expected.items():
        entry = record["modalities"][name]
        assert entry["alpha"] == alpha
        assert entry["train_purity"] is None and entry["diagnosed_alpha"] is None
    name = "multimodal.encoders.vision.backbone.layernorm.weight"
    alpha = expected["vision"]
    assert_moved_back(after[name], before[name], initial[name], alpha)


def test_the_diagnosis_is_recorded_beside_a_constant_strength(tmp_path):
    trainer = make_trainer(tmp_path, relearn_alpha="0.5")
    trainer.train()
    entry = history(tmp_path)[0]["modalities"]["vision"]
    assert entry["alpha"] == 0.5
    assert entry["gap"] == pytest.approx(abs(entry["train_purity"] - entry["val_purity"]))
    assert entry["diagnosed_alpha"] == pytest.approx(float(torch.tanh(torch.tensor(3 * entry["gap"]))), abs=1e-6)


def test_only_the_chosen_modalities_are_diagnosed_and_moved(tmp_path):
    _, _, (before, _, after, _) = snapshots_of_run(tmp_path, relearn_modalities=["vision"])
    assert list(history(tmp_path)[0]["modalities"]) == ["vision"]
    changed = moved_names(before, after)
    assert changed and all(name.startswith("multimodal.encoders.vision.") for name in changed)


# --- when ---


def steps_of_points(folder):
    return [record["step"] for record in history(folder) if record["kind"] == "point"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_train_epochs": 5, "relearn_interval": 2}, [8, 16]),
        ({"num_train_epochs": 4, "relearn_interval": 1, "relearn_max_times": 2}, [4, 8]),
        ({"num_train_epochs": 6, "relearn_interval": None}, [4, 12]),
        ({"num_train_epochs": 6, "relearn_interval": None, "relearn_points": [0.5, 0.75]}, [12, 16]),
        ({"relearn_strategy": "steps", "relearn_interval": None, "relearn_points": [0.1, 0.5]}, [1, 6]),
        ({"relearn_interval": None, "max_steps": 6}, [2, 3]),
        ({"relearn_interval": None, "max_steps": 20}, [4, 8]),  # five epochs, whose starts are 4 and 8
        ({"relearn_interval": None, "num_train_epochs": 4, "gradient_accumulation_steps": 2}, [2, 4]),
        ({"relearn_strategy": "steps", "relearn_interval": None, "gradient_accumulation_steps": 2}, [2, 3]),
        ({"relearn_strategy": "no", "relearn_interval": None}, []),
        ({"num_train_epochs": 3, "relearn_interval": 1, "max_steps": 7}, [4]),
        ({"relearn_strategy": "steps", "relearn_interval": 3}, [3, 6, 9]),
        ({"relearn_strategy": "steps", "relearn_interval": 5, "relearn_max_times": 1}, [5]),
        ({"relearn_strategy": "steps", "relearn_interval": 2, "gradient_accumulation_steps": 3}, [2, 4]),
        ({"relearn_strategy": "no", "diagnosis_interval": 2}, []),
    ],
)
def test_points_come_where_they_are_planned(tmp_path, settings, expected):
    trainer = make_trainer(tmp_path, **settings)
    trainer.train()
    assert steps_of_points(tmp_path) == expected


def test_diagnoses_for_the_record_come_between_points_and_at_the_end_and_move_nothing(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=4, relearn_interval=2, diagnosis_interval=1)
    snapshots = Snapshots(trainer)
    trainer.train()
    records = history(tmp_path)
    assert [(record["step"], record["kind"]) for record in records] == [
        (4, "record"),
        (8, "point"),
        (12, "record"),
        (16, "end"),
    ]
    assert not moved_names(*(snapshots.taken[4][index] for index in (0, 2)))
    assert moved_names(*(snapshots.taken[8][index] for index in (0, 2)))
    assert all(entry["distance"] == 0 for entry in records[0]["modalities"].values())


def test_a_step_point_at_an_epochs_start_is_diagnosed_once(tmp_path):
    make_trainer(tmp_path, relearn_strategy="steps", relearn_interval=4, diagnosis_interval=1).train()
    assert [(r["step"], r["kind"]) for r in history(tmp_path)] == [(4, "point"), (8, "point"), (12, "end")]


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_evaluation_and_checkpoint_of_an_interval_hold_the_model_as_trained(tmp_path, strategy):
    interval = {"epoch": 1, "steps": 4}[strategy]
    evaluated = {}

    class Evaluated(TrainerCallback):
        def on_evaluate(self, args, state, control, model, **kwargs):
            evaluated[state.global_step] = weights_of(model)

    trainer = make_trainer(
        tmp_path,
        trainer_kwargs={"callbacks": [Evaluated()]},
        relearn_strategy=strategy,
        relearn_interval=interval,
        relearn_alpha="0.5",
        eval_strategy="epoch",
        save_strategy="epoch",
    )
    snapshots = Snapshots(trainer, "on_epoch_begin" if strategy == "epoch" else "on_step_begin")
    trainer.train()

    for step in (4, 8):
        before, _, after, _ = snapshots.taken[step]
        saved = MultimodalForClassification.from_pretrained(tmp_path / f"checkpoint-{step}")
        assert_same(evaluated[step], before)
        assert_same(weights_of(saved), before)
        assert moved_names(before, after)


def test_an_interval_longer_than_the_run_warns_and_trains(tmp_path):
    trainer = make_trainer(tmp_path, relearn_interval=3)
    with pytest.warns(UserWarning, match="no re-learning step will come: --relearn_interval is 3 epochs.*run has 3"):
        trainer.train()
    assert trainer.state.global_step == 12 and history(tmp_path) == []
    trainer = make_trainer(tmp_path, relearn_strategy="steps", relearn_interval=50)
    with pytest.warns(UserWarning, match="50 steps, but the run has 12"):
        trainer.train()


def test_one_readable_line_is_printed_per_modality_and_point(tmp_path, capsys):
    make_trainer(tmp_path, relearn_max_times=1).train()
    lines = [line for line in capsys.readouterr().out.splitlines() if ": re-learnt" in line]
    entry = history(tmp_path)[0]["modalities"]["audio"]
    assert len(lines) == 2 and lines[0].startswith("epoch 1  audio   purity ")
    for value in ("train_purity", "val_purity", "train_chance_purity", "val_chance_purity", "gap", "alpha"):
        assert f"{entry[value]:.2f}".removeprefix("0") in lines[0]


def test_the_callback_takes_settings_or_fields_but_not_both():
    from hf_relearn.training import RelearnSettings

    with pytest.raises(TypeError, match="settings or relearn_interval, not both"):
        RelearnCallback({}, lambda model, batch: {}, settings=RelearnSettings(), relearn_interval=2)
