"""From rows to a batch: columns of modalities, several columns as one vector, labels of one or several classes."""

import datasets
import numpy as np
import pytest
import torch
from tokenizers_of_words import bert_like

from hf_relearn import MultimodalCollator, MultimodalProcessor, TableInput

PROCESSOR = MultimodalProcessor(
    {"caption": {"type": "text", "tokenizer": bert_like()}, "sensors": {"type": "features", "input_size": 3}}
)
COLUMNS = {"caption": "words", "sensors": ["x", "y", "z"]}
ROWS = [
    {"words": "a cat", "x": 1, "y": 2.5, "z": True, "label": 2},
    {"words": "a", "x": np.float32(3), "y": torch.tensor(4), "z": 0, "label": 0},
]


def collate(rows, **changes):
    return MultimodalCollator(PROCESSOR, **{"columns": COLUMNS, **changes})(rows)


def test_several_columns_make_one_vector():
    batch = collate(ROWS)

    assert batch["sensors_feature_values"].tolist() == [[1, 2.5, 1], [3, 4, 0]]
    assert batch["caption_input_ids"].shape == (2, 4)
    assert batch["labels"].tolist() == [2, 0] and batch["labels"].dtype == torch.int64


def test_empty_cells_are_samples_that_lack_the_modality():
    batch = collate([{**ROWS[0], "x": None, "y": None, "z": None}, {**ROWS[1], "words": None}])

    assert batch["sensors_present"].tolist() == [False, True]
    assert batch["caption_present"].tolist() == [True, False]
    assert batch["sensors_feature_values"].tolist() == [[0, 0, 0], [3, 4, 0]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"y": None},
            ValueError,
            "modality 'sensors': the column 'y' is empty in a row where others of x",
        ),
        ({"y": "red"}, ValueError, "modality 'sensors': the column 'y' holds 'red'.*categories"),
        ({"y": [1, 2]}, ValueError, r"modality 'sensors': the column 'y' holds \[1, 2\]"),
        ({"y": float("nan")}, ValueError, "modality 'sensors': row 0 of the batch holds nan at index 1"),
        ({"label": None}, ValueError, "the label column 'label' has empty values"),
    ],
)
def test_what_makes_no_vector_or_label_is_named(change, error, message):
    with pytest.raises(error, match=message):
        collate([{**ROWS[0], **change}, ROWS[1]])


def test_columns_of_a_table_make_a_row():
    table = TableInput.fit({"x": [1, 3], "words": ["a", "a"]}, ["x", "words"])
    processor = MultimodalProcessor({"row": {"type": "table", **table.settings}})
    rows = [{"x": None, "words": "a"}, {"x": 9, "words": "b"}, {"x": None, "words": None}]
    batch = MultimodalCollator(processor, {"row": ["x", "words"]})(rows)
    assert batch["row_present"].tolist() == [True, True, False]
    assert batch["row_category_ids"][:, 0].tolist() == [2, 0, 0] and batch["row_number_values"][:, 1].tolist() == [
        1,
        0,
        0,
    ]
    whole = MultimodalCollator(processor)([{"row": {"x": 9, "words": "b"}}])  # a column that holds the row
    assert whole["row_category_ids"].tolist() == [[0]]


def test_a_missing_column_is_named():
    for missing in ("words", "y"):
        rows = [{key: value for key, value in row.items() if key != missing} for row in ROWS]
        with pytest.raises(KeyError, match=f"no column '{missing}' for the modality"):
            collate(rows)


def test_rows_without_the_label_column_give_a_batch_without_labels():
    assert "labels" not in collate(ROWS, label_column="emotion")


def test_lists_of_classes_become_a_row_of_zeros_and_ones():
    features = datasets.Features({"label": datasets.List(datasets.ClassLabel(names=["a", "b", "c"]))})
    lists = datasets.Dataset.from_dict({"label": [["c", "a"], []]}, features=features)
    for labels in (lists, lists.with_format("torch"), lists.with_format("numpy")):
        rows = [{**row, "label": labels[index]["label"]} for index, row in enumerate(ROWS)]

        batch = collate(rows, num_labels=3)

        assert batch["labels"].tolist() == [[1, 0, 1], [0, 0, 0]]
        assert batch["labels"].dtype == torch.float32


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([[0], [1]], {}, "holds lists of classes: give the collator num_labels"),
        ([[0, 1, 0], [1]], {"num_labels": 3}, r"holds \[0, 1, 0\]: a list names each class .* once"),
        ([[3], [1]], {"num_labels": 3}, "by its number from 0 to 2"),
        ([[-1], [1]], {"num_labels": 3}, "by its number from 0 to 2"),
        ([[0], None], {"num_labels": 3}, "has empty values"),
    ],
)
def test_lists_that_name_no_classes_are_refused(labels, options, message):
    rows = [{**row, "label": label} for row, label in zip(ROWS, labels, strict=True)]
    with pytest.raises(ValueError, match=f"the label column 'label' .*{message}"):
        collate(rows, **options)


def test_the_collator_for_evaluation_keeps_everything_else():
    collator = MultimodalCollator(PROCESSOR, COLUMNS, "words", num_labels=4)

    assert collator.without_augmentation() == collator


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (-1, "holds -1, but classes are 0 to 2"),
        (3, "holds 3, but classes are 0 to 2"),
        (True, "holds True, a boolean"),
    ],
)
def test_labels_that_are_no_classes_are_named_before_the_model_sees_them(label, reason):
    rows = [{**row, "kind": label} for row in ROWS]
    with pytest.raises(ValueError, match=f"the label column 'kind' {reason}"):
        collate(rows, label_column="kind", num_labels=3)
    assert collate([{**row, "kind": -100} for row in ROWS], label_column="kind", num_labels=3)["labels"].eq(-100).all()
