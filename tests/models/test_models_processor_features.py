"""Features that were extracted already, and samples that lack a modality."""

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers_of_words import bert_like
from transformers import Wav2Vec2FeatureExtractor

from hf_relearn import Augmentation, MultimodalProcessor
from hf_relearn.models.processing_features import FeaturesInput
from hf_relearn.models.processing_sources import RawValueError

PLAIN = {"image_processor_type": "ViTImageProcessorPil", "size": {"height": 8, "width": 8}}


def test_vectors_are_stacked():
    values = [[1, 2], np.array([3.0, 4.0]), torch.tensor([5, 6], dtype=torch.bfloat16)]

    inputs = FeaturesInput(2)(values, Augmentation())

    assert list(inputs) == ["feature_values"]
    assert inputs["feature_values"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert inputs["feature_values"].dtype == torch.float32
    assert FeaturesInput(1)([3, True, 2.5])["feature_values"].tolist() == [[3], [1], [2.5]]


def test_sequences_are_padded_to_the_longest_and_cut():
    values = [[[1, 2], [3, 4], [5, 6]], np.full((1, 2), 7)]

    inputs = FeaturesInput(2)(values)

    assert inputs["feature_values"].tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 7], [0, 0], [0, 0]]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    cut = FeaturesInput(2, max_steps=2)(values)
    assert cut["feature_values"].tolist() == [[[1, 2], [3, 4]], [[7, 7], [0, 0]]]
    assert cut["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_statistics_of_the_training_split_standardise_every_dimension_but_not_the_padding():
    generator = np.random.default_rng(0)
    values = [generator.normal([1e5, -2, 7], [3, 0.5, 0], (steps, 3)) for steps in (2, 5, 9)]

    statistics = FeaturesInput.statistics([values[0], None, *values[1:]])
    inputs = FeaturesInput(3, **statistics)(values)

    every = np.concatenate(values)
    assert statistics["mean"] == pytest.approx(every.mean(axis=0).tolist())
    assert statistics["std"] == pytest.approx([*every.std(axis=0)[:2].tolist(), 1.0], rel=1e-3)
    rows = inputs["feature_values"][inputs["attention_mask"].bool()]
    assert rows.mean(dim=0).tolist() == pytest.approx([0, 0, 0], abs=1e-2)
    assert rows.std(dim=0, correction=0).tolist() == pytest.approx([1, 1, 0], abs=1e-2)
    assert (inputs["feature_values"][~inputs["attention_mask"].bool()] == 0).all()
    vectors = FeaturesInput.statistics([[1, 10], [3, 10]])
    assert vectors == {"mean": [2, 10], "std": [1, 1]}
    assert FeaturesInput.statistics([[1e-8], [3e-8]])["std"] == pytest.approx([1e-8])
    assert FeaturesInput.statistics([[0.1], [0.1], [0.1]])["std"] == [1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, float("nan")], "row 1 of the batch holds nan at index 1, which is no finite"),
        ([[1, 2], [3, float("inf")]], "row 1 of the batch holds inf at index 1, 1"),
        ([1e300, 2], "row 1 of the batch holds 1e.300 at index 0"),
        ([1, 2, 3], r"row 1 of the batch has the shape \(3,\), but needs \(2,\) or \(steps, 2\)"),
        ([[1], [2]], r"row 1 of the batch has the shape \(2, 1\)"),
        ([], r"row 1 of the batch has the shape \(0,\)"),
        (np.zeros((2, 2, 2)), r"row 1 of the batch has the shape \(2, 2, 2\)"),
        ([[1, 2], [3]], "row 1 of the batch is no vector"),
        (["1", "2"], "row 1 of the batch holds .*features are numbers"),
        ("red", "row 1 of the batch holds 'red'.*categories"),
        ([1.0, None], "row 1 of the batch holds .*fill in"),
        ([[1, 2]], "vectors beside sequences"),
    ],
)
def test_what_is_no_vector_of_numbers_is_refused_by_row(value, message):
    processor = MultimodalProcessor({"gaze": {"type": "features", "input_size": 2}})

    with pytest.raises(RawValueError, match=f"modality 'gaze': .*{message}"):
        processor({"gaze": [[1, 2], value]})


def test_wrong_statistics_are_refused():
    with pytest.raises(ValueError, match="mean has 1 numbers, but the input size is 2"):
        FeaturesInput(2, mean=[1])
    with pytest.raises(ValueError, match="a deviation is above 0"):
        FeaturesInput(2, mean=[0, 0], std=[1, 0])
    with pytest.raises(RawValueError, match="row 1 has vectors of width 3, those before 2"):
        FeaturesInput.statistics([[1, 2], [1, 2, 3]])
    with pytest.raises(RawValueError, match="no values"):
        FeaturesInput.statistics([None])


MIXED = MultimodalProcessor(
    {
        "image": {"type": "image", "image_processor": PLAIN},
        "clip": {"type": "video", "image_processor": PLAIN, "num_frames": 2},
        "speech": {"type": "waveform", "feature_extractor": Wav2Vec2FeatureExtractor().to_dict()},
        "noise": {"type": "spectrogram", "seconds": 0.1, "size": [8, 8]},
        "caption": {"type": "text", "tokenizer": bert_like()},
        "gaze": {"type": "features", "input_size": 2},
    }
)


def sample(index: int) -> dict:
    picture = Image.new("RGB", (10, 10), (40 * index,) * 3)
    sound = np.random.default_rng(index).uniform(-0.5, 0.5, 2000 + 500 * index).astype(np.float32)
    return {
        "image": picture,
        "clip": [picture],
        "speech": sound,
        "noise": sound,
        "caption": "a cat " * (index + 1),
        "gaze": [[index + 1, 2]] * (index + 1),
    }


def batch_of(samples: list[dict], **kwargs) -> dict[str, torch.Tensor]:
    return dict(MIXED({name: [each[name] for each in samples] for name in MIXED.inputs}, **kwargs))


@pytest.mark.parametrize("name", list(MIXED.inputs))
def test_rows_that_lack_a_modality_are_blank_and_the_others_as_without_them(name):
    samples = [sample(index) for index in range(4)]
    without = [each if index in (1, 3) else {**each, name: None} for index, each in enumerate(samples)]

    batch, others = batch_of(without), batch_of([samples[1], samples[3]])

    assert batch[f"{name}_present"].tolist() == [False, True, False, True]
    tensors = [key for key in batch if key.startswith(f"{name}_") and key != f"{name}_present"]
    assert tensors
    for key in tensors:
        assert torch.equal(batch[key][[1, 3]], others[key]), key
        assert not batch[key][[0, 2]].any(), key
        assert batch[key].dtype == others[key].dtype
    assert [key for key in batch if key.endswith("_present")] == [f"{name}_present"]


@pytest.mark.parametrize("name", list(MIXED.inputs))
def test_a_batch_that_lacks_a_modality_has_only_its_mask(name):
    batch = batch_of([{**sample(index), name: None} for index in range(2)])

    assert [key for key in batch if key.startswith(f"{name}_")] == [f"{name}_present"]
    assert batch[f"{name}_present"].tolist() == [False, False]
    assert batch[f"{name}_present"].dtype == torch.bool


def test_nothing_is_said_where_nothing_is_missing():
    assert not [key for key in batch_of([sample(0), sample(1)]) if key.endswith("_present")]


def test_missing_values_and_augmentation_go_together():
    torch.manual_seed(0)
    batch = batch_of([{**sample(0), "image": None, "speech": None}, sample(1)], augmentation=Augmentation())

    assert batch["image_present"].tolist() == batch["speech_present"].tolist() == [False, True]
    assert all(torch.isfinite(value).all() for value in batch.values())
