"""The arms of a comparison: which runs they need, and that all of a seed start alike and see the same batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from tiny import training_arguments
from transformers import set_seed

from hf_relearn.balancing import METHODS
from hf_relearn.experiments import Experiment, InputArguments, Modality, ModelArguments
from hf_relearn.experiments.arms import plan_runs
from hf_relearn.experiments.predictions import (
    Predictions,
    combine,
    load_predictions,
    mixture_weights,
    number_weights,
    of_heads,
    save_predictions,
)
from hf_relearn.training import MultimodalCollator, MultimodalRelearnTrainer


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two cameras and a sensor; the cameras' pictures are augmented."""
    rng = np.random.default_rng(0)

    backbone = str(Path(__file__).parents[2] / "recipes" / "backbones" / "resnet-tiny")
    features = Features(
        {"left": Image(), "right": Image(), "sensor": List(Value("float32")), "label": ClassLabel(names=["a", "b"])}
    )
    rows = {
        "left": list(rng.integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)),
        "right": list(rng.integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)),
        "sensor": rng.normal(size=(12, 3)).tolist(),
        "label": [0, 1] * 6,
    }
    data = Dataset.from_dict(rows, features=features)
    return Experiment(
        title="cameras",
        modalities={
            "left": Modality("vision", "left", backbone),
            "right": Modality("vision", "right", backbone),
            "sensor": Modality("features", "sensor", None),
        },
        label_column="label",
        train=data,
        evaluation=data,
        test=data,
        model=ModelArguments(),
        inputs=InputArguments(image_size=16),
    )


@pytest.fixture
def start(experiment, tmp_path):
    """Model, arguments and collator of a run with some flags of the model."""

    def build(changes, **training):
        args = training_arguments(tmp_path / "run", relearn_strategy="no", diagnosis_source="eval", **training)
        chosen, args = replace(experiment, model=ModelArguments(**changes)).of_modalities(args)
        set_seed(args.seed)
        model = chosen.build_model()
        columns = {name: modality.column for name, modality in chosen.modalities.items()}
        collator = MultimodalCollator(
            chosen.build_processor(model), columns, augmentation=chosen.inputs.augmentation()
        )
        return model, args, collator

    return build


def test_heads_and_joint_start_with_the_same_weights_to_the_bit(start):
    joint = start({})[0].state_dict()
    heads = start({"unimodal_loss_weight": 1.0})[0].state_dict()
    assert {name.split(".")[0] for name in set(heads) - set(joint)} == {"unimodal_heads"}
    assert joint and all(torch.equal(value, heads[name]) for name, value in joint.items())
    again = start({})[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in joint.items())


@pytest.mark.parametrize("name", ["left", "right", "sensor"])
def test_an_encoder_starts_alike_alone_and_fused(start, name):
    fused, alone = start({})[0].encoders[name], start({"use_modalities": [name]})[0].encoders
    assert list(alone) == [name]
    for (key, value), (_, other) in zip(fused.state_dict().items(), alone[name].state_dict().items(), strict=True):
        assert torch.equal(value, other), key


def test_two_models_and_two_encoders_of_one_kind_differ(start, experiment):
    first = start({})[0]
    second = experiment.build_model()
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    left, right = (next(first.encoders[name].parameters()) for name in ("left", "right"))
    assert not torch.equal(left, right)


def test_all_arms_of_a_seed_see_the_same_batches(start, experiment):
    batches = {}
    arms = {"joint": {}, "heads": {"unimodal_loss_weight": 1.0}, "right": {"use_modalities": ["right"]}}
    for arm, changes in arms.items():
        model, args, collator = start(changes, per_device_train_batch_size=4, max_steps=6)
        trainer = MultimodalRelearnTrainer(model, args, collator, experiment.train, experiment.evaluation)
        seen = batches[arm] = []
        training_step = trainer.training_step

        def step(model, inputs, *rest, seen=seen, training_step=training_step):
            seen.append({name: value.clone() for name, value in inputs.items()})
            return training_step(model, inputs, *rest)

        trainer.training_step = step
        trainer.train()
    assert [len(seen) for seen in batches.values()] == [6, 6, 6]
    for joint, heads, right in zip(*batches.values(), strict=True):
        assert joint.keys() == heads.keys() and set(right) == {"right_pixel_values", "labels"}
        assert all(torch.equal(value, heads[name]) for name, value in joint.items())
        assert all(torch.equal(value, joint[name]) for name, value in right.items())
    first, later = batches["joint"][0], batches["joint"][3]
    assert not torch.equal(first["right_pixel_values"], later["right_pixel_values"])


def test_an_encoder_can_start_from_that_of_a_saved_model(start, tmp_path):
    saved = start({"use_modalities": ["left"]})[0]
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(1)
    saved.save_pretrained(tmp_path / "left")
    model = start({"encoders_from": [f"left={tmp_path / 'left'}"]})[0]
    for (key, value), (_, other) in zip(
        model.encoders["left"].state_dict().items(), saved.encoders["left"].state_dict().items(), strict=True
    ):
        assert torch.equal(value, other), key
    with pytest.raises(ValueError, match="--encoders_from right=.*: that model has left"):
        start({"encoders_from": [f"right={tmp_path / 'left'}"]})


def test_flags_of_other_modalities_are_left_out_for_one_alone(start):
    changes = {"use_modalities": ["left"], "pooling": ["left=mean", "sensor=pooler"], "fusion": "gated"}
    model, args, _ = start(changes, freeze=["right", "left.*norm"], learning_rates=["sensor=1e-3", "classifier=1e-2"])
    assert model.config.fusion == "concat" and model.config.modalities["left"].pooling == "mean"
    assert args.freeze == ["left.*norm"] and args.learning_rates == ["classifier=1e-2"]
    with pytest.raises(ValueError, match="--use_modalities names 'up'; the modalities are left, right, sensor"):
        start({"use_modalities": ["up"]})


def test_runs_come_after_those_that_they_need_and_none_twice(tmp_path):
    args = training_arguments(tmp_path, num_train_epochs=6, freeze=["text"])
    names = ["joint", "heads_ensemble", "ensemble", "ensemble_weighted", "pretrained_frozen", "pretrained_finetuned"]
    runs = plan_runs(names, [1, 2], ["audio", "vision"], args)
    folders = [run.folder for run in runs]
    assert len(folders) == len(set(folders)) == 2 * 11
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(folders[:place])
    assert folders[:6] == [
        f"{arm}/seed-1" for arm in ("joint", "heads", "heads_ensemble", "only_audio", "only_vision", "ensemble")
    ]
    by_folder = {run.folder: run for run in runs}
    stage, frozen = by_folder["stages/only_audio/seed-2"], by_folder["pretrained_frozen/seed-2"]
    assert stage.flags["num_train_epochs"] + frozen.flags["num_train_epochs"] == 6
    assert stage.flags["use_modalities"] == ["audio"] and frozen.flags["freeze"] == ["text", "audio", "vision"]
    assert frozen.encoders == {name: f"stages/only_{name}/seed-2" for name in ("audio", "vision")}
    assert "freeze" not in by_folder["pretrained_finetuned/seed-2"].flags
    for run in runs:  # all train on all samples, by their own seed
        if not run.ensemble:
            assert run.flags["diagnosis_source"] == "eval" and run.flags["seed"] == int(run.folder[-1])


def test_steps_are_divided_like_epochs(tmp_path):
    runs = plan_runs(["pretrained_frozen"], [1], ["audio", "vision"], training_arguments(tmp_path, max_steps=7))
    assert [run.flags["max_steps"] for run in runs] == [3, 3, 4]


def test_unknown_arms_and_single_modalities_are_refused(tmp_path):
    args = training_arguments(tmp_path)
    with pytest.raises(ValueError, match="--compare_arms names 'head'; the arms are joint, heads, .*only_audio"):
        plan_runs(["head"], [1], ["audio", "vision"], args)
    with pytest.raises(ValueError, match="'ensemble', which needs two modalities, but there is audio"):
        plan_runs(["ensemble"], [1], ["audio"], args)


def test_arms_that_need_classes_are_refused_for_numbers(tmp_path):
    args = training_arguments(tmp_path)
    runs = plan_runs(["joint", "ensemble"], [1], ["audio", "vision"], args, numbers=True)
    assert {run.flags["metric_for_best_model"] for run in runs if run.flags} == {"r2"}
    scored = [name for name, method in METHODS.items() if method.needs_one_class]
    assert scored
    for name in ("paper", *scored):
        with pytest.raises(
            ValueError, match=f"'{name}', which needs classes.*numbers are joint, heads, .*only_vision"
        ):
            plan_runs([name], [1], ["audio", "vision"], args, numbers=True)
    assert plan_runs([*METHODS], [1], ["audio", "vision"], args)
    assert plan_runs([name for name in METHODS if name not in scored], [1], ["audio", "vision"], args, numbers=True)


def predictions(*logits, labels=(0, 1, 1), **kwargs):
    return Predictions(np.array(labels), np.array(logits, dtype=np.float32), **kwargs)


def test_an_ensemble_is_the_mean_of_probabilities():
    sure = {"last": {"test": predictions([4.0, 0.0], [0.0, 4.0], [0.0, 0.0])}}
    wrong = {"last": {"test": predictions([0.0, 1.0], [1.0, 0.0], [0.0, 1.0])}}
    assert combine([sure, wrong])["last"]["test"]["accuracy"] == 1.0
    assert combine([wrong])["last"]["test"]["accuracy"] == pytest.approx(1 / 3)


def test_a_model_does_not_count_for_samples_that_lack_its_modality():
    blind = np.array([False, True, True])
    lacking = {"last": {"test": predictions([0.0, 9.0], [0.0, 9.0], [0.0, 9.0], present={"audio": blind})}}
    weak = {"last": {"test": predictions([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], present={"vision": ~blind | True})}}
    assert combine([lacking, weak])["last"]["test"]["accuracy"] == 1.0


def test_weights_are_chosen_on_validation_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    good, noise = np.eye(3)[labels] * 3 + rng.normal(size=(600, 3)), rng.normal(size=(600, 3)) * 3
    members = [
        {"last": {split: Predictions(labels[rows], logits[rows]) for split, rows in halves.items()}}
        for halves in [{"validation": slice(0, 300), "test": slice(300, 600)}]
        for logits in (good, noise)
    ]
    plain, weighted = combine(members), combine(members, weighted=True)
    assert weighted["last"]["test"]["accuracy"] > plain["last"]["test"]["accuracy"] + 0.1
    scrambled = [{"last": {**member["last"]}} for member in members]
    for member in scrambled:  # other labels of test give the same weights, so the same probabilities
        found = member["last"]["test"]
        member["last"]["test"] = Predictions((found.labels + 1) % 3, found.logits)
    assert combine(scrambled, weighted=True)["last"]["validation"] == weighted["last"]["validation"]


def test_mixture_weights_are_the_likeliest():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    probabilities = rng.dirichlet([1, 1], (2, 200))
    weights = mixture_weights(probabilities, np.ones((2, 200), dtype=bool), labels)
    likelihood = probabilities[:, np.arange(200), labels]
    grid = np.linspace(0, 1, 1001)
    scores = [np.log(share * likelihood[0] + (1 - share) * likelihood[1]).sum() for share in grid]
    assert weights.sum() == pytest.approx(1) and weights[0] == pytest.approx(grid[np.argmax(scores)], abs=2e-3)


def numbers(values, labels, **kwargs):
    return Predictions(np.array(labels, dtype=np.float32), np.array(values, dtype=np.float32)[:, None], **kwargs)


def test_an_ensemble_of_numbers_is_their_mean():
    labels = [1.0, np.nan, -1.0, 3.0]
    high = {"last": {"test": numbers([2.0, 9.0, 0.0, 4.0], labels)}}
    low = {"last": {"test": numbers([0.0, 9.0, -2.0, 2.0], labels)}}
    assert combine([high, low])["last"]["test"] == {"mae": 0.0, "r2": 1.0, "pearson": pytest.approx(1.0)}
    assert combine([high, low], signed=True)["last"]["test"]["sign_accuracy"] == 1.0


def test_weights_of_numbers_give_the_best_r2_of_validation():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=200)
    guesses = targets + rng.normal(size=(2, 200)) * [[0.5], [1.0]]
    counted = np.ones((2, 200), dtype=bool)
    counted[1, :40] = False  # lack the second modality
    weights = number_weights(guesses[..., None], counted, targets)
    grid = np.linspace(0, 1, 1001)
    kept = np.where(counted[1], grid[:, None], 1.0)  # weight of the first
    errors = ((kept * guesses[0] + (1 - kept) * guesses[1] - targets) ** 2).mean(axis=1)
    assert weights.sum() == pytest.approx(1) and weights[0] == pytest.approx(grid[np.argmin(errors)], abs=2e-3)
    good, useless = np.stack([targets, np.full(200, 50.0)])[..., None]
    assert number_weights(np.stack([good, useless]), np.ones((2, 200), bool), targets)[0] == pytest.approx(1, abs=1e-4)


def test_several_labels_are_combined_by_class():
    labels = np.array([[1, 0], [1, 1]])
    first = {"last": {"test": Predictions(labels, np.array([[5.0, -5.0], [5.0, -1.0]]))}}
    second = {"last": {"test": Predictions(labels, np.array([[-1.0, -5.0], [5.0, 5.0]]))}}
    assert combine([first, second])["last"]["test"]["accuracy"] == 1.0


def test_predictions_are_read_as_they_were_written(tmp_path):
    heads, present = {"audio": np.ones((3, 2), np.float32)}, {"audio": np.array([True, False, True])}
    found = predictions([1.0, 2.0], [3.0, 4.0], [5.0, 6.0], heads=heads, present=present)
    save_predictions(tmp_path, {"last": {"test": found}})
    read = load_predictions(tmp_path)["last"]["test"]
    for name in ("labels", "logits"):
        assert np.array_equal(getattr(read, name), getattr(found, name))
    assert np.array_equal(read.heads["audio"], heads["audio"])
    (member,) = of_heads({"last": {"test": read}})
    assert np.array_equal(member["last"]["test"].present["audio"], present["audio"])
    with pytest.raises(ValueError, match="evaluated on different samples"):
        combine([{"last": {"test": read}}, {"last": {"test": predictions([0, 1], labels=(1,))}}])
    (tmp_path / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="holds no predictions"):
        load_predictions(tmp_path)
