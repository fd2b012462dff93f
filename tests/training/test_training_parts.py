"""Where the diagnosing part comes from, and its return to training."""

import numpy as np
import pytest
import torch
from tiny import NUM_CLASSES, TensorRows, history, make_trainer, tiny_model, training_arguments
from torch.utils.data import Subset
from transformers import TrainerCallback, default_data_collator

from hf_relearn.training import MultimodalRelearnTrainer
from hf_relearn.training.data_parts import ReturningDataset, ReturningSampler

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


def parts_of(trainer):
    return trainer._training_part, trainer.diagnosis_dataset


def test_the_holdout_is_stratified_seeded_and_disjoint(tmp_path):
    training, diagnosing = parts_of(make_trainer(tmp_path))
    assert isinstance(training, Subset) and (len(training), len(diagnosing)) == (27, 9)
    assert not set(training.indices) & set(diagnosing.indices)
    assert [diagnosing.dataset.labels[diagnosing.indices].tolist().count(c) for c in range(NUM_CLASSES)] == [3, 3, 3]

    same = parts_of(make_trainer(tmp_path, relearn_strategy="no"))[1]
    other = parts_of(make_trainer(tmp_path, seed=43))[1]
    assert same.indices == diagnosing.indices != other.indices


def test_the_holdout_of_a_datasets_data_set_is_memory_mapped(tmp_path):
    import datasets

    rows = TensorRows()
    columns = {name: [np.asarray(rows[i][name]) for i in range(36)] for name in rows[0] if name != "labels"}
    columns["labels"] = rows.labels.tolist()
    dataset = datasets.Dataset.from_dict(columns).with_format("torch")
    trainer = make_trainer(tmp_path, train_dataset=dataset)
    training, diagnosing = parts_of(trainer)
    assert isinstance(training, datasets.Dataset) and (len(training), len(diagnosing)) == (27, 9)
    trainer.train()
    assert history(tmp_path)[0]["diagnosis_size"] == 9


def test_the_evaluation_set_can_be_the_diagnosing_part(tmp_path):
    trainer = make_trainer(tmp_path, diagnosis_source="eval")
    training, diagnosing = parts_of(trainer)
    assert len(training) == 36 and diagnosing is trainer.eval_dataset
    trainer.train()
    assert history(tmp_path)[0]["diagnosis_size"] == 12


def test_a_given_diagnosing_part_is_taken_as_it_is(tmp_path):
    given = TensorRows(15, seed=5)
    trainer = make_trainer(tmp_path, trainer_kwargs={"diagnosis_dataset": given})
    training, diagnosing = parts_of(trainer)
    assert len(training) == 36 and diagnosing is given


@pytest.mark.parametrize(
    ("settings", "train_size", "diagnosis_size"),
    [
        ({"diagnosis_sampling": "all"}, 27, 9),
        ({"diagnosis_sampling": "matched"}, 9, 9),
        ({"diagnosis_sampling": "all", "diagnosis_max_samples": 6}, 6, 6),
    ],
)
def test_how_much_of_each_part_is_looked_at(tmp_path, settings, train_size, diagnosis_size):
    trainer = make_trainer(tmp_path, relearn_max_times=1, **settings)
    trainer.train()
    record = history(tmp_path)[0]
    assert (record["train_size"], record["diagnosis_size"]) == (train_size, diagnosis_size)
    sizes = {part: len(found.labels) for part, found in trainer.part_features().items()}
    assert sizes == {"training": train_size, "diagnosing": diagnosis_size}


def test_part_features_are_those_of_the_model_in_evaluation(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(dropout=0.3), diagnosis_sampling="all")
    trainer.model.train()
    found = trainer.part_features()["diagnosing"]
    part = trainer.diagnosis_dataset
    trainer.model.eval()
    with torch.no_grad():
        rows = [part[index] for index in range(len(part))]
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "labels"}
        expected = trainer.model(**batch).features
    assert found.labels.tolist() == [row["labels"] for row in rows]
    for name, features in found.features.items():
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected[name].numpy(), atol=1e-5)


def test_a_collators_label_column_is_the_one_that_is_read(tmp_path):
    class Emotions(TensorRows):
        def __getitem__(self, index):
            row = super().__getitem__(index)
            return {"label": "a name, not a class", "emotion": row.pop("labels"), **row}

    class Collator:
        label_column = "emotion"

        def __call__(self, rows):
            batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name.endswith("values")}
            return {**batch, "labels": torch.tensor([row["emotion"] for row in rows])}

    rows = {"train_dataset": Emotions(), "eval_dataset": Emotions(12)}
    trainer = MultimodalRelearnTrainer(tiny_model(), training_arguments(tmp_path), Collator(), **rows)
    trainer.train()
    assert len(history(tmp_path)) == 2


def test_augmentation_is_for_training_batches_only(tmp_path):
    class Collator:
        def __init__(self, augmented=True):
            self.augmented = augmented

        def without_augmentation(self):
            return Collator(augmented=False)

        def __call__(self, rows):
            calls.append((self.augmented, len(rows)))
            batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "labels"}
            return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}

    calls = []
    data = {"train_dataset": TensorRows(), "eval_dataset": TensorRows(12, seed=1)}
    trainer = MultimodalRelearnTrainer(tiny_model(), training_arguments(tmp_path), Collator(), **data)
    trainer.train()
    assert sum(size for augmented, size in calls if augmented) == 3 * 27
    assert sum(size for augmented, size in calls if not augmented) == 2 * (9 + 9)  # two points, both parts
    calls.clear()
    trainer.evaluate()
    trainer.predict(TensorRows(12, seed=1))
    assert calls == [(False, 8), (False, 4)] * 2
    assert trainer.data_collator.augmented


# --- the return of the diagnosing part ---


class NumberedRows(TensorRows):
    """Rows that know their number."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "number": int(index)}


class WatchedTraining:
    """A collator that notes which rows training batches hold; a diagnosis asks for one that does not."""

    def __init__(self, asked):
        self.asked = asked

    def without_augmentation(self):
        return WatchedTraining([])

    def __call__(self, rows):
        self.asked += [row["number"] for row in rows]
        return default_data_collator([{k: v for k, v in row.items() if k != "number"} for row in rows])


def epochs_of_run(folder, **kwargs):
    """The rows that each epoch drew: [[row, ...], ...], the trainer, and the rows held out."""
    asked, epochs = [], []

    class Epochs(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            epochs.append(list(asked))
            asked.clear()

    others = {"callbacks": [Epochs()], "data_collator": WatchedTraining(asked)}
    trainer = make_trainer(folder, None, NumberedRows(), others, diagnosis_return=True, **kwargs)
    held_out = set(trainer.diagnosis_dataset.indices)
    trainer.train()
    return epochs, trainer, held_out


@pytest.mark.parametrize(
    ("settings", "returned_from"),
    [
        ({"num_train_epochs": 4, "relearn_interval": 1, "relearn_max_times": 2}, 2),
        ({"num_train_epochs": 4, "relearn_interval": None, "relearn_max_times": 1}, 2),
        ({"num_train_epochs": 4, "relearn_strategy": "steps", "relearn_interval": 5, "relearn_max_times": 1}, 2),
        (
            {
                "num_train_epochs": 4,
                "relearn_strategy": "steps",
                "relearn_interval": 7,
                "relearn_max_times": 1,
                "dataloader_drop_last": True,  # 3 steps an epoch, not 4
            },
            3,
        ),
        ({"num_train_epochs": 2, "relearn_strategy": "no"}, 2),
    ],
)
def test_the_part_returns_after_the_last_point_and_not_before(tmp_path, settings, returned_from):
    epochs, trainer, held_out = epochs_of_run(tmp_path, **settings)
    drop_last = settings.get("dataloader_drop_last", False)
    assert len(epochs) == settings["num_train_epochs"]
    assert trainer.state.global_step == len(epochs) * (3 if drop_last else 4)  # as without the return
    for number, rows in enumerate(epochs):
        assert len(rows) == len(set(rows)) == (24 if drop_last else 27)
        assert bool(set(rows) & held_out) == (number >= returned_from)
    assert len({tuple(rows) for rows in epochs}) == len(epochs)
    last_point = max((record["epoch"] for record in history(tmp_path)), default=0)
    assert last_point <= returned_from


def test_points_at_lambda_0_change_nothing_before_the_return(tmp_path):
    first = epochs_of_run(tmp_path / "a", relearn_lambda=0.0, relearn_max_times=1)[0]
    second = epochs_of_run(tmp_path / "b", relearn_strategy="no")[0]
    assert first[0] == second[0] and first[1] != second[1]


def test_the_sampler_depends_on_seed_and_epoch_only():
    def order(seed, epoch, state=0):
        torch.manual_seed(state)
        sampler = ReturningSampler(6, 3, return_epoch=2, seed=seed)
        sampler.set_epoch(epoch)
        assert len(sampler) == 6
        return list(sampler)

    assert order(1, 0) == order(1, 0, state=9)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert sorted(order(1, 1)) == list(range(6))
    drawn = [order(1, epoch) for epoch in range(2, 20)]
    assert all(len(set(rows)) == 6 for rows in drawn)
    assert set(np.concatenate(drawn)) == set(range(9))


def test_the_returning_data_set_has_the_length_of_the_training_part():
    dataset = ReturningDataset(TensorRows(6), TensorRows(3, seed=1))
    assert len(dataset) == 6
    assert torch.equal(dataset[7]["audio_input_values"], TensorRows(3, seed=1)[1]["audio_input_values"])
