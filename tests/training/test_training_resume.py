"""A resumed run equals the uninterrupted one, and the weights that are loaded are those that were saved."""

import json
import shutil

import pytest
import torch
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, TensorRows, assert_same, history, make_trainer, tiny_model, weights_of
from tiny import without_times as timeless
from transformers import Trainer, TrainerCallback

from hf_relearn import InitialWeights
from hf_relearn.method import InitialWeightsError
from hf_relearn.training import HISTORY_FILE
from hf_relearn.training.data_parts import SAMPLES_FILE

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]

# Evaluation comes before the save of the same step, so no checkpoint lacks what the uninterrupted run went through.
EVALUATION = {"eval_strategy": "steps", "eval_steps": 2}
RUN = {"num_train_epochs": 4, "relearn_interval": 1, "save_strategy": "steps", "save_steps": 1, **EVALUATION}
WORKERS = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}


def flat(records):
    return [{**record, "modalities": json.dumps(record["modalities"])} for record in timeless(records)]


def result_of(trainer, folder):
    """Everything that has to be equal: weights, optimizer and schedule, log without times, record without times."""
    log = timeless(trainer.state.log_history[:-1])  # the last entry averages over the steps of one process' life
    optimization = {"optimizer": trainer.optimizer.state_dict(), "schedule": trainer.lr_scheduler.state_dict()}
    return weights_of(trainer.model), optimization, log, flat(history(folder))


def copy_of_run(folder, target, step):
    """The output directory as it was when a run was killed after the checkpoint of a step."""
    target.mkdir()
    for path in folder.iterdir():
        if path.is_dir() and int(path.name.removeprefix("checkpoint-")) == step:
            shutil.copytree(path, target / path.name)
        elif path.is_file():
            shutil.copy(path, target / path.name)
    return target / f"checkpoint-{step}"


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({}, {}),
        ({"unimodal_loss_weight": 1.0}, {"gradient_accumulation_steps": 2, "diagnosis_interval": 1}),
        ({}, {"relearn_strategy": "steps", "relearn_interval": 4, "relearn_optimizer_state": "reset"}),
        ({}, {"relearn_max_times": 2, "lr_scheduler_type": "cosine", "warmup_steps": 3}),
        ({}, {"relearn_interval": None, "relearn_points": [0.2, 0.5], "relearn_strategy": "steps"}),
        ({}, {"save_strategy": "epoch", "eval_strategy": "epoch", "diagnosis_interval": 1, "relearn_interval": 2}),
        # An evaluation that comes after the checkpoint of the same step.
        ({}, {"eval_strategy": "epoch", "save_steps": 3, "diagnosis_interval": 1}),
        ({}, {"eval_steps": 5, "save_steps": 4, "lr_scheduler_type": "reduce_lr_on_plateau", **WORKERS}),
    ],
)
def test_every_checkpoint_resumes_to_the_uninterrupted_run(tmp_path, model, settings):
    fewer_steps = {"per_device_train_batch_size": 12}

    def fresh(folder, seed, **changes):
        arguments = {**RUN, **fewer_steps, **settings, **changes}
        return make_trainer(folder, tiny_model(seed, dropout=0.2, **model), **arguments)

    uninterrupted = fresh(tmp_path / "run", seed=0)
    uninterrupted.train()
    expected = result_of(uninterrupted, tmp_path / "run")
    assert any(record["kind"] == "point" for record in expected[3])
    assert any(0 < entry["alpha"] < 1 for r in history(tmp_path / "run") for entry in r["modalities"].values())

    steps = sorted(int(folder.name.removeprefix("checkpoint-")) for folder in (tmp_path / "run").glob("checkpoint-*"))
    for step in steps:  # ends and middles of epochs, before and after points, and the end of the run
        checkpoint = copy_of_run(tmp_path / "run", tmp_path / f"resumed-{step}", step)
        torch.manual_seed(1234)
        trainer = fresh(tmp_path / f"resumed-{step}", seed=7, save_strategy="no")  # weights that have to be replaced
        trainer.train(resume_from_checkpoint=str(checkpoint))
        assert_same(result_of(trainer, tmp_path / f"resumed-{step}"), expected)


def killed_run(folder, **kwargs):
    """A run that stops after its checkpoint at step 6, in the middle of the second epoch."""

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 6

    trainer = make_trainer(folder, trainer_kwargs={"callbacks": [Stop()]}, **{**RUN, **kwargs})
    trainer.train()
    return trainer


def test_lines_later_than_the_checkpoint_are_dropped(tmp_path):
    make_trainer(tmp_path, **RUN).train()
    assert len(history(tmp_path)) == 3
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append([record["step"] for record in history(tmp_path)])

    trainer = make_trainer(tmp_path, trainer_kwargs={"callbacks": [Look()]}, **RUN)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert seen[0] == [4] and seen[-1] == [4, 8, 12]


def test_resuming_without_the_initial_weights_is_refused(tmp_path):
    killed_run(tmp_path)
    (lost,) = InitialWeights.find(tmp_path)
    lost.unlink()
    with pytest.raises(InitialWeightsError, match=f"cannot resume from .*checkpoint-6.*{lost.name}.*found none.*Copy"):
        make_trainer(tmp_path, **RUN).train(resume_from_checkpoint=True)
    assert InitialWeights.find(tmp_path) == []


def test_another_runs_initial_weights_are_never_taken_for_the_lost_ones(tmp_path):
    killed_run(tmp_path)
    (lost,) = InitialWeights.find(tmp_path)
    lost.unlink()
    other = InitialWeights.save(tiny_model(seed=9), tmp_path)
    with pytest.raises(InitialWeightsError, match=f"found {other.path.name}"):
        make_trainer(tmp_path, **RUN).train(resume_from_checkpoint=True)


def swapped(path):
    other = InitialWeights.save(tiny_model(seed=9), path.parent / "other")
    path.write_bytes(other.path.read_bytes())


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [swapped, flipped])
def test_damaged_or_swapped_initial_weights_stop_a_resumed_run_with_their_name(tmp_path, damage):
    killed_run(tmp_path)
    (path,) = InitialWeights.find(tmp_path)
    noted = json.loads((tmp_path / "relearn_run.json").read_text())["initial_weights"]
    assert noted == json.loads((tmp_path / "checkpoint-6" / "relearn_run.json").read_text())["initial_weights"]
    assert noted == InitialWeights.load(path).checksum
    damage(path)
    with pytest.raises(InitialWeightsError, match=f"{path.name} is damaged, or holds the weights of another run"):
        make_trainer(tmp_path, **RUN).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_an_empty_note_matches_no_initial_weights(tmp_path):
    killed_run(tmp_path)
    note = tmp_path / "checkpoint-6" / "relearn_run.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "initial_weights": ""}))
    with pytest.raises(InitialWeightsError, match="says what the run's initial weights were"):
        make_trainer(tmp_path, **RUN).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


@pytest.mark.parametrize("whole_folder", [False, True])
def test_initial_weights_deleted_while_training_are_named_at_the_next_point(tmp_path, whole_folder):
    class Delete(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                shutil.rmtree(tmp_path) if whole_folder else InitialWeights.find(tmp_path)[0].unlink()

    trainer = make_trainer(tmp_path, trainer_kwargs={"callbacks": [Delete()]}, **{**RUN, "save_strategy": "no"})
    with pytest.raises(InitialWeightsError, match="_initial_weights-.*cannot be read any more.*was deleted"):
        trainer.train()
    assert trainer.state.global_step == 8  # the next point


def test_a_run_without_relearning_cannot_be_resumed_with_it(tmp_path):
    killed_run(tmp_path, relearn_strategy="no")
    InitialWeights.save(tiny_model(seed=9), tmp_path)  # of some other run in this folder
    with pytest.raises(InitialWeightsError, match="no relearn_run.json.*saved without re-learning.*--relearn_strat"):
        make_trainer(tmp_path, **RUN).train(resume_from_checkpoint=True)
    make_trainer(tmp_path, **RUN, relearn_strategy="no").train(resume_from_checkpoint=True)


def test_initial_weights_of_another_model_are_refused(tmp_path):
    killed_run(tmp_path)
    (path,) = InitialWeights.find(tmp_path)
    other = torch.nn.ModuleDict({"multimodal": torch.nn.ModuleDict({"encoders": torch.nn.ModuleDict()})})
    for name in ("audio", "vision"):
        other["multimodal"]["encoders"][name] = torch.nn.Linear(2, 2)
    wrong = InitialWeights.save(other, tmp_path)
    wrong.path.replace(path)
    with pytest.raises(InitialWeightsError, match="is damaged, or holds the weights of another run"):
        make_trainer(tmp_path, **RUN).train(resume_from_checkpoint=True)


def test_a_checkpoint_resumes_into_another_output_directory(tmp_path):
    killed_run(tmp_path / "first")
    trainer = make_trainer(tmp_path / "second", **RUN)
    trainer.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-6"))
    assert [record["step"] for record in history(tmp_path / "second")] == [4, 8, 12]


def test_two_runs_in_one_folder_keep_their_own_initial_weights_and_records(tmp_path):
    expected = make_trainer(tmp_path / "alone", **RUN)
    expected.train()
    shared = tmp_path / "shared"
    killed_run(shared)
    first_file = InitialWeights.find(shared)[0]
    # Another model from the same folder, which is killed early: the first run's later checkpoints are still there.
    second = make_trainer(shared, tiny_model(seed=5), **{**RUN, "max_steps": 2, "relearn_strategy": "steps"})
    second.train()
    assert len(InitialWeights.find(shared)) == 2 and first_file.is_file()
    assert [record["step"] for record in history(shared)] == [1]

    resumed = make_trainer(shared, **RUN)
    resumed.train(resume_from_checkpoint=str(shared / "checkpoint-6"))
    assert_same(weights_of(resumed.model), weights_of(expected.model))
    assert_same(flat(history(shared)), flat(history(tmp_path / "alone")))


def test_initial_weights_that_no_checkpoint_needs_are_removed(tmp_path):
    make_trainer(tmp_path, num_train_epochs=2).train()
    old = InitialWeights.find(tmp_path)
    make_trainer(tmp_path, tiny_model(seed=5), num_train_epochs=2).train()
    new = InitialWeights.find(tmp_path)
    assert len(old) == len(new) == 1 and old != new


def test_a_joint_run_leaves_no_record_of_an_earlier_run_in_its_folder(tmp_path):
    make_trainer(tmp_path).train()
    assert history(tmp_path)
    make_trainer(tmp_path, relearn_strategy="no").train()
    assert history(tmp_path) == []


def test_the_record_is_written_whole_with_nothing_beside_it(tmp_path):
    make_trainer(tmp_path, **RUN).train()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(
        [HISTORY_FILE, "relearn_run.json", SAMPLES_FILE, InitialWeights.find(tmp_path)[0].name]
    )


# --- loading what was saved (AST and ViT have other names on disk than in memory) ---


def best_run(folder, trainer_class=None):
    """A run whose best checkpoint is not its last."""
    keywords = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    settings = {**keywords, "metric_for_best_model": "eval_score", "greater_is_better": True}
    scores = iter([0.2, 0.9, 0.1])
    metrics = {"compute_metrics": lambda prediction: {"score": next(scores)}}
    trainer = make_trainer(folder, trainer_kwargs=metrics, relearn_alpha="0.5", **settings)
    if trainer_class is not None:
        part, validation = TensorRows(), TensorRows(12, seed=1)
        trainer = trainer_class(tiny_model(), trainer.args, train_dataset=part, eval_dataset=validation, **metrics)
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{trainer.state.max_steps // 3 * 2}")
    return trainer


def test_the_best_model_is_loaded_to_the_bit(tmp_path):
    trainer = best_run(tmp_path)
    best = type(trainer.model).from_pretrained(trainer.state.best_model_checkpoint)
    last = type(trainer.model).from_pretrained(tmp_path / "checkpoint-12")
    saved = weights_of(best)
    assert_same(weights_of(trainer.model), saved)
    different = [name for name, value in weights_of(last).items() if not torch.equal(value, saved[name])]
    assert len(different) > 0.9 * len(saved)


def test_the_stock_trainer_loads_only_part_of_the_best_model(tmp_path):
    """The reason for loading differently; if this fails, transformers has mended it."""
    trainer = best_run(tmp_path, Trainer)
    best = type(trainer.model).from_pretrained(trainer.state.best_model_checkpoint)
    with pytest.raises(AssertionError):
        assert_same(weights_of(trainer.model), weights_of(best))


def test_resuming_loads_every_tensor_of_the_checkpoint(tmp_path):
    killed_run(tmp_path)
    loaded = {}

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **kwargs):
            loaded.update(weights_of(model))

    trainer = make_trainer(tmp_path, tiny_model(seed=7), trainer_kwargs={"callbacks": [Look()]}, **RUN)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    saved = type(trainer.model).from_pretrained(tmp_path / "checkpoint-5")
    assert_same(loaded, weights_of(saved))
