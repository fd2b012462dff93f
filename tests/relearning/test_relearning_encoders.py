"""Which encoders are re-learnt, and under which names a model holds them; labels and division of a data set."""

import datasets
import numpy as np
import pytest
import torch
from tiny import TensorRows
from torch import nn
from torch.utils.data import Subset

from hf_relearn.relearning.encoders import chosen_encoders, module_names
from hf_relearn.relearning.labels import dataset_labels, hold_out, label_names


def encoders():
    return {name: nn.Linear(2, 2) for name in ("front", "front_view", "view")}


def test_encoders_are_chosen_by_their_whole_names_in_the_models_order():
    assert list(chosen_encoders(encoders(), None)) == ["front", "front_view", "view"]
    assert list(chosen_encoders(encoders(), ["view", "front"])) == ["front", "view"]


def test_no_encoder_and_an_unknown_one_are_refused():
    with pytest.raises(ValueError, match="no encoder"):
        chosen_encoders({}, None)
    with pytest.raises(ValueError, match="names rear, but the model's modalities are front, front_view, view"):
        chosen_encoders(encoders(), ["view", "rear"])


def test_a_parameter_may_have_several_names_in_one_encoder_only():
    tied = nn.ModuleDict({"in": nn.Linear(2, 2), "out": nn.Linear(2, 2)})
    tied["out"].weight = tied["in"].weight
    assert list(chosen_encoders({"text": tied}, None)) == ["text"]
    other = nn.Linear(2, 2)
    other.weight = tied["in"].weight
    with pytest.raises(ValueError, match="'weight' of the 'image' encoder belongs to the 'text' encoder too"):
        chosen_encoders({"text": tied, "image": other}, ["image"])


def test_encoders_are_found_inside_the_model():
    towers = nn.ModuleDict(encoders())
    model = nn.ModuleDict({"towers": towers, "head": nn.Linear(6, 2)})
    assert module_names(model, dict(towers)) == {name: f"towers.{name}" for name in towers}


def test_labels_of_a_datasets_data_set_come_without_decoding():
    def explode(batch):
        raise AssertionError("decoded")

    dataset = datasets.Dataset.from_dict({"label": [2, 0, -100], "audio": ["a", "b", "c"]})
    dataset.set_transform(explode)
    assert dataset_labels(dataset).tolist() == [2, 0, -100]
    assert dataset_labels(Subset(dataset, [2, 0])).tolist() == [-100, 2]
    named = dataset.cast_column("label", datasets.Value("int8")).rename_column("label", "emotion")
    assert dataset_labels(named, ["emotion"]).tolist() == [2, 0, -100]


def test_labels_of_any_other_data_set_come_row_by_row():
    rows = TensorRows(7)
    assert dataset_labels(rows).tolist() == rows.labels.tolist()
    assert dataset_labels(Subset(Subset(rows, [4, 2, 1]), [0, 2])).tolist() == rows.labels[[4, 1]].tolist()
    assert dataset_labels([{"labels": torch.tensor(5)}]).tolist() == [5]
    assert dataset_labels([{"label": 5}]).dtype == np.int64


def test_only_the_rows_of_a_subset_are_visited():
    visited = []

    class Rows(TensorRows):
        def __getitem__(self, index):
            visited.append(int(index))
            return super().__getitem__(index)

    dataset_labels(Subset(Rows(), [3, 5]))
    assert set(visited) == {3, 5}


def test_a_collator_tells_the_label_column():
    assert label_names(None) == ("label", "labels")
    assert label_names(type("Collator", (), {"label_column": "emotion"})()) == ("emotion",)


def test_a_division_keeps_every_row_once():
    rows = TensorRows(30)
    training, diagnosing = hold_out(rows, 0.2, seed=3)
    assert sorted(training.indices + diagnosing.indices) == list(range(30)) and len(diagnosing) == 6
    dataset = datasets.Dataset.from_dict({"label": rows.labels.tolist(), "row": list(range(30))})
    assert hold_out(dataset, 0.2, seed=3)[1]["row"] == diagnosing.indices
