"""Rows of a table as a modality: fitted on training rows, saved with the processor, with empty and unknown cells."""

import json

import numpy as np
import pytest
import torch
from tiny import vit_config

from hf_relearn import MultimodalForClassification, MultimodalProcessor, TableConfig, TableInput

ROWS = {
    "age": [20, 30, None, 50, 40.0, 60, float("nan"), 30],
    "income": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "city": ["Rome", "Oslo", "Rome", None, "Oslo", " Rome ", "", "Bern"],
    "member": [True, False, True, True, None, False, True, False],
}
COLUMNS = list(ROWS)


def fitted(**changes):
    return TableInput.fit({**ROWS, **changes}, COLUMNS)


def build(table):
    torch.manual_seed(0)
    backbones = {"patient": table.backbone_config(hidden_size=8, intermediate_size=16), "face": vit_config()}
    model = MultimodalForClassification.from_backbones(backbones, num_labels=2)
    return model, MultimodalProcessor.from_model(model.config, backbones, {"patient": table.settings})


def test_columns_are_numbers_or_categories_by_what_they_hold():
    table = fitted()
    assert [each["column"] for each in table.numbers] == ["age", "income"]
    assert [(each["column"], each["values"]) for each in table.categories] == [
        ("city", ["Rome", "Oslo"]),  # Bern is there once, so it teaches what an unknown city is
        ("member", ["true", "false"]),
    ]
    config = table.backbone_config()
    assert (config.num_numbers, config.cardinalities) == (2, [4, 4])
    assert TableInput.fit(ROWS, ["age", "income"], ["age"]).categories[0]["values"] == ["30"]


def test_numbers_are_imputed_flagged_clipped_and_scaled():
    table = fitted(income=[*range(100, 107), 1e9])
    (age, income) = table.numbers
    assert age["median"] == 35 and age["low"] == pytest.approx(20.5)
    filled = np.clip([20, 30, 50, 40, 60, 30], age["low"], age["high"])
    assert (age["mean"], age["std"]) == (pytest.approx(filled.mean()), pytest.approx(filled.std()))
    rows = [{"age": 35, "income": 1e12}, {"age": None}, {"age": "35", "income": float("inf")}]
    values = table(rows)["number_values"]
    assert values.dtype == torch.float32 and values.shape == (3, 4)
    assert values[:, 0].tolist() == [pytest.approx((35 - age["mean"]) / age["std"], abs=1e-6)] * 3
    assert values[:, 1].tolist()[0] == pytest.approx((income["high"] - income["mean"]) / income["std"], abs=1e-5)
    assert values[0, 1] == values[2, 1] > values[1, 1]
    assert values[:, 2:].tolist() == [[0, 0], [1, 1], [0, 0]]


def test_a_constant_column_and_one_of_rare_events_stay_finite():
    table = TableInput.fit({"same": [3] * 200, "rare": [0] * 198 + [7, 9]}, ["same", "rare"])
    values = table([{"same": 3, "rare": 9}, {"same": 4, "rare": 0}])["number_values"]
    assert values[:, 0].tolist() == [0, 0] and values[0, 1] > values[1, 1] and values.isfinite().all()


def test_unknown_categories_and_empty_ones_have_numbers_of_their_own():
    rows = [{"city": "Rome"}, {"city": "Paris"}, {"city": None}, {"city": " "}, {"city": "Bern", "member": "TRUE"}]
    ids = fitted()(rows)["category_ids"]
    assert ids.dtype == torch.int64 and ids[:, 0].tolist() == [2, 0, 1, 1, 0]
    assert ids[:, 1].tolist() == [1, 1, 1, 1, 2]
    codes = TableInput.fit({"code": [1, 2, None, 1, 2]}, ["code"], ["code"])
    found = codes([{"code": 2.0}, {"code": "2"}, {"code": 3}])["category_ids"]
    assert found[:, 0].tolist() == [3, 3, 0]


def test_a_row_without_any_cell_lacks_the_modality_and_the_model_round_trips(tmp_path):
    model, processor = build(fitted())
    rows = [{"age": 31, "income": 2, "city": "Oslo", "member": False}, dict.fromkeys(COLUMNS), {"city": "Paris"}, None]
    faces = [np.full((16, 16, 3), 40 * index, np.uint8) for index in range(4)]
    batch = processor({"patient": rows, "face": faces})
    assert batch["patient_present"].tolist() == [True, False, True, False]
    logits = model(**batch).logits
    assert logits.isfinite().all()

    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())["modalities"]["patient"]
    assert saved["type"] == "table" and saved["categories"][0] == {"column": "city", "values": ["Rome", "Oslo"]}
    again = MultimodalForClassification.from_pretrained(tmp_path)
    inputs = MultimodalProcessor.from_pretrained(tmp_path)({"patient": rows, "face": faces})
    assert torch.equal(again(**inputs).logits, logits)
    assert isinstance(again.config.modalities["patient"].backbone_config, TableConfig)
    assert again.config.modalities["patient"].kind == "table"


def test_every_embedding_and_layer_learns():
    model, processor = build(fitted())
    batch = processor({"patient": [{"age": 3, "city": "Rome"}, {"member": True}], "face": [None, None]})
    model.train()(**batch, labels=torch.tensor([0, 1])).loss.backward()
    encoder = model.encoders["patient"]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


@pytest.mark.parametrize("columns", [["age"], ["city"]])
def test_numbers_or_categories_alone_are_enough(columns):
    table = TableInput.fit(ROWS, columns)
    model, processor = build(table)
    batch = processor({"patient": [{columns[0]: None}, {columns[0]: ROWS[columns[0]][0]}], "face": [None, None]})
    assert model(**batch).logits.shape == (2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": [None, float("nan")] * 4}, "the column 'age' is empty in all 8 training rows: leave it out"),
        ({"city": [f"street {n}" for n in range(99)]}, "the column 'city' has 99 different values.*text modality"),
        ({"city": [str(n // 2) for n in range(2600)]}, "the column 'city' has 1300 different values.*group"),
    ],
)
def test_columns_that_teach_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        fitted(**changes)


def test_what_is_no_row_is_refused_with_its_column():
    model, processor = build(fitted())
    faces = [None]
    with pytest.raises(ValueError, match="modality 'patient': row 0 .* holds 'old' in the column 'age'"):
        processor({"patient": [{"age": "old"}], "face": faces})
    with pytest.raises(ValueError, match="has the column 'agee', but the columns are age, income, city, member"):
        processor({"patient": [{"agee": 3}], "face": faces})
    with pytest.raises(ValueError, match="holds list .*a mapping from its columns"):
        processor({"patient": [[3, 4]], "face": faces})
    with pytest.raises(ValueError, match="no column 'height'"):
        TableInput.fit(ROWS, ["height"])
    with pytest.raises(ValueError, match="categories names 'weight'"):
        TableInput.fit(ROWS, ["age"], ["weight"])
    backbones = {"patient": TableConfig(num_numbers=1), "face": vit_config()}
    other = MultimodalForClassification.from_backbones(backbones, num_labels=2)
    with pytest.raises(
        ValueError, match=r"'patient': rows of a table need .*TableInput.fit\(rows, columns\).settings"
    ):
        MultimodalProcessor.from_model(other.config)
    with pytest.raises(ValueError, match="'patient': the columns fitted are 2 of numbers and 2 of"):
        MultimodalProcessor.from_model(other.config, options={"patient": fitted().settings})
    with pytest.raises(ValueError, match="'patient': TableConfig names no column"):
        MultimodalForClassification.from_backbones({"patient": TableConfig()}, num_labels=2)
    with pytest.raises(ValueError, match="modality 'patient': the settings of a table are those"):
        MultimodalProcessor({"patient": {"type": "table", "numbers": [{"column": "age"}]}})
