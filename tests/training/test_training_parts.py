"""Where the diagnosing part comes from, and its return to training."""

import numpy as np
import pytest
import torch
from tiny import NUM_CLASSES, TensorRows, history, make_trainer, tiny_model, training_arguments
from torch.utils.data import Subset

from hf_relearn.training import MultimodalRelearnTrainer

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


def parts_of(trainer):
    return trainer.train_dataset, trainer.diagnosis_dataset


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
    assert sum(size for augmented, size in calls if not augmented) == 3 * (9 + 9)  # start and two points, both parts
    calls.clear()
    trainer.evaluate()
    trainer.predict(TensorRows(12, seed=1))
    assert calls == [(False, 8), (False, 4)] * 2
    assert trainer.data_collator.augmented
