"""Training and evaluation data that can only be read from their beginning."""

import datasets
import numpy as np
import pytest
import torch
from tiny import FEW_SAMPLES, TensorRows, history, make_trainer, weights_of
from torch.utils.data import IterableDataset
from two_towers import Pairs, TwoTowers, arguments, train_two_towers

from hf_relearn.relearning.labels import first_rows

pytestmark = FEW_SAMPLES

BY_STEPS = {"max_steps": 6, "relearn_strategy": "steps", "relearn_interval": 2, "diagnosis_source": "eval"}


class Stream(IterableDataset):
    """Endless, as a stream may be, and counting what was read of it."""

    def __init__(self, rows):
        self.rows = rows
        self.read = []

    def __iter__(self):
        self.read.append(0)
        number = len(self.read) - 1
        while True:
            for index in range(len(self.rows)):
                self.read[number] += 1
                yield self.rows[index]


def rows_of_hub_stream(size, seed):
    rows = [TensorRows(size, seed)[index] for index in range(size)]
    return [{name: np.asarray(value).tolist() for name, value in row.items()} for row in rows]


def hub_stream(size=24, seed=0):
    """A streaming `datasets` data set whose order is shuffled anew in each epoch."""
    dataset = datasets.Dataset.from_list(rows_of_hub_stream(size, seed)).to_iterable_dataset(num_shards=2)
    return dataset.shuffle(seed=3, buffer_size=10).with_format("torch")


@pytest.mark.parametrize("bound", [10, None])
def test_the_first_samples_of_a_stream_are_diagnosed_as_if_they_were_a_data_set(tmp_path, bound, caplog):
    rows = TensorRows(20)
    settings = {**BY_STEPS, "diagnosis_max_samples": bound, "diagnosis_sampling": "all"}
    stream = Stream(rows)
    with caplog.at_level("INFO", logger="hf_relearn"):
        trainer = make_trainer(tmp_path / "stream", train_dataset=stream, **settings)
        trainer.train()
    size = bound or 2048
    records = history(tmp_path / "stream")
    assert [(record["step"], record["kind"]) for record in records] == [(2, "point"), (4, "point")]
    assert [(record["streamed"], record["train_size"]) for record in records] == [({"training": size}, size)] * 2
    assert f"the training part is a stream: its first {size} samples are diagnosed" in caplog.text
    assert stream.read[0] == size and len(stream.read) == 2  # read once for all points, and once for training

    part = torch.utils.data.Subset(rows, [index % 20 for index in range(size)])
    same = make_trainer(tmp_path / "rows", train_dataset=Stream(rows), **settings)
    same.relearn_callback.train_dataset = part
    same.train()
    expected = history(tmp_path / "rows")
    assert [r["modalities"] for r in records] == [r["modalities"] for r in expected]
    assert expected[0]["streamed"] == {}
    assert any(0 < entry["alpha"] for record in records for entry in record["modalities"].values())


def test_reading_a_stream_does_not_change_what_is_trained_on(tmp_path):
    diagnosed = make_trainer(tmp_path / "a", train_dataset=hub_stream(), **BY_STEPS, relearn_lambda=0)
    diagnosed.train()
    joint = make_trainer(tmp_path / "b", train_dataset=hub_stream(), **{**BY_STEPS, "relearn_strategy": "no"})
    joint.train()
    assert len(history(tmp_path / "a")) == 2
    other = weights_of(joint.model)
    assert all(torch.equal(value, other[name]) for name, value in weights_of(diagnosed.model).items())


def test_a_resumed_run_on_a_stream_equals_the_uninterrupted_one(tmp_path):
    def run(seed, **kwargs):
        from tiny import tiny_model

        trainer = make_trainer(
            tmp_path, tiny_model(seed), hub_stream(), save_strategy="steps", save_steps=1, **BY_STEPS
        )
        trainer.train(**kwargs)
        return weights_of(trainer.model), [record["modalities"] for record in history(tmp_path)]

    weights, records = run(0)
    resumed, again = run(7, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert records == again and len(records) == 2
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_shares_of_a_stream_are_those_of_its_steps(tmp_path, strategy):
    settings = {"max_steps": 8, "relearn_interval": None, "relearn_strategy": strategy}
    make_trainer(tmp_path, train_dataset=hub_stream(), **{**BY_STEPS, **settings}).train()
    assert [(record["step"], record["kind"]) for record in history(tmp_path)] == [(2, "point"), (4, "point")]


def test_streams_serve_for_both_parts(tmp_path):
    trainer = make_trainer(
        tmp_path,
        train_dataset=hub_stream(),
        trainer_kwargs={"eval_dataset": hub_stream(12, seed=1)},
        diagnosis_interval=1,
        **{**BY_STEPS, "relearn_max_times": 1},
    )
    trainer.train()
    point, end = history(tmp_path)
    assert point["streamed"] == {"training": 24, "diagnosing": 12} and end["kind"] == "end"
    assert (point["train_size"], point["diagnosis_size"]) == (12, 12)


def test_the_callback_reads_a_stream_in_a_stock_trainer(tmp_path):
    class PairStream(IterableDataset):
        def __iter__(self):
            pairs = Pairs(40, 0)
            return (pairs[index] for index in range(40))

        def __len__(self):  # the Trainer can count its epochs
            return 40

    model = TwoTowers()
    train_two_towers(model, arguments(tmp_path, num_train_epochs=3), PairStream(), Pairs(30, 1))
    (record,) = history(tmp_path)
    assert record["epoch"] == 2 and record["streamed"] == {"training": 40}


def test_epochs_of_a_stream_of_unknown_length_are_refused_as_an_interval_with_a_warning(tmp_path):
    trainer = make_trainer(tmp_path, train_dataset=hub_stream(), **{**BY_STEPS, "relearn_strategy": "epoch"})
    with pytest.warns(UserWarning, match="a stream of unknown length.*use --relearn_strategy steps"):
        trainer.train()
    assert history(tmp_path) == []


def test_a_stream_without_labels_names_the_part(tmp_path):
    class Unlabelled(IterableDataset):
        def __iter__(self):
            return iter([{"audio_input_values": torch.zeros(16, 16)}])

    trainer = make_trainer(tmp_path, train_dataset=Unlabelled(), **BY_STEPS)
    with pytest.raises(ValueError, match="the training part cannot be diagnosed: no label column"):
        trainer.train()


def test_a_stream_that_is_its_own_iterator_is_refused():
    class Once(IterableDataset):
        def __iter__(self):
            return self

        def __next__(self):
            raise StopIteration

    with pytest.raises(ValueError, match="Once is its own iterator.*lost to training"):
        first_rows(Once(), None, 0)
