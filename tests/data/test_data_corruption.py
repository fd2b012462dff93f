"""Spoilt data: how much, the same each time, in all parts or in training only."""

import io

import datasets
import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, Image, List, Value
from PIL import Image as Pictures

from hf_relearn.data.corruption import Corruption, corrupt_splits, parse_corruptions
from hf_relearn.models.processing_media import load_audio, load_image

NAMES = ["rgb", "clip", "voice", "words", "pose", "sensors"]
COLUMNS = {"rgb": "image", "clip": "frames", "voice": "wav", "words": "text", "pose": "pose", "sensors": ["x", "y"]}
KINDS = {
    "rgb": "vision",
    "clip": "video",
    "voice": "audio",
    "words": "text",
    "pose": "features",
    "sensors": "features",
}


def picture(generator) -> dict:
    file = io.BytesIO()
    pixels = np.repeat(np.repeat(generator.integers(90, 160, (4, 4, 3)), 8, axis=0), 8, axis=1)
    Pictures.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def sound(generator) -> dict:
    file = io.BytesIO()
    wave = 0.1 * np.sin(np.arange(4000) * generator.uniform(0.05, 0.2))
    soundfile.write(file, np.stack([wave, wave], axis=1), 16000, format="WAV")
    return {"bytes": file.getvalue(), "path": None}


def table(size: int, seed: int) -> Dataset:
    generator = np.random.default_rng(seed)
    rows = {
        "image": [picture(generator) for _ in range(size)],
        "frames": [[picture(generator), picture(generator)] for _ in range(size)],
        "wav": [sound(generator) for _ in range(size)],
        "text": [f"word{index} is number {index} of many" for index in range(size)],
        "pose": [generator.integers(0, 9, (3, 2)).tolist() for _ in range(size)],
        "x": generator.integers(0, 100, size).tolist(),
        "y": generator.normal(0, 0.01, size).tolist(),
        "label": (np.arange(size) % 4).tolist(),
    }
    features = {
        "image": Image(decode=False),
        "frames": List(Image(decode=False)),
        "wav": {"bytes": Value("binary"), "path": Value("string")},
        "text": Value("string"),
        "pose": List(List(Value("int64"))),
        "x": Value("int64"),
        "y": Value("float32"),
        "label": ClassLabel(names=list("abcd")),
    }
    rows["text"][1] = rows["image"][1] = None
    made = Dataset.from_dict(rows, features=datasets.Features(features))
    return made.cast_column("wav", Audio(decode=False))


SPLITS = {"train": table(40, 0), "evaluation": table(20, 1), "test": table(20, 1)}


def spoilt(*values: str, seed: int = 0, splits=SPLITS) -> dict[str, Dataset]:
    parsed = parse_corruptions(values, NAMES)
    return corrupt_splits(splits, parsed, columns=COLUMNS, kinds=KINDS, label_column="label", seed=seed)


def test_noise_is_as_strong_as_asked_for_in_every_part_and_leaves_the_rest():
    found = spoilt("rgb=noise:0.5", "clip=noise:1.0", "voice=noise:2", "pose=noise:1.5", "sensors=noise:1.0")
    pairs = [(new, old) for part, split in found.items() for new, old in zip(split, SPLITS[part], strict=True)]
    ratios: dict[str, list] = {name: [] for name in ("image", "frames", "wav", "pose", "x", "y")}
    poses = np.array([value for row in SPLITS["train"]["pose"] for value in row])
    for new, old in pairs:
        assert (new["text"], new["label"]) == (old["text"], old["label"])
        if old["image"] is None:
            assert new["image"] is None
        else:
            before, after = (np.asarray(load_image(row["image"]), dtype=float) for row in (old, new))
            ratios["image"].append((after - before).std() / before.std())
        for first, second in zip(old["frames"], new["frames"], strict=True):
            before, after = (np.asarray(load_image(value), dtype=float) for value in (first, second))
            ratios["frames"].append((after - before).std() / before.std())
        before, after = (load_audio(row["wav"], 16000) for row in (old, new))
        ratios["wav"].append((after - before).std() / before.std())  # spoilt as one channel
        ratios["pose"].append((np.array(new["pose"]) - np.array(old["pose"])) / poses.std(axis=0))
        for column in "xy":
            ratios[column].append((new[column] - old[column]) / np.std(SPLITS["train"][column]))
    assert np.mean(ratios["image"]) == pytest.approx(0.5, abs=0.04)
    assert np.mean(ratios["frames"]) == pytest.approx(1.0, abs=0.04)
    assert np.mean(ratios["wav"]) == pytest.approx(2.0, abs=0.05)
    assert np.std(ratios["pose"]) == pytest.approx(1.5, abs=0.15)
    assert np.std(ratios["x"]) == pytest.approx(1.0, abs=0.2) == np.std(ratios["y"])
    assert len(found["train"]) == 40 and found["train"].features["image"] == SPLITS["train"].features["image"]


def test_noise_in_a_text_replaces_a_share_of_its_words_by_words_of_training():
    known = {word for text in SPLITS["train"]["text"] if text for word in text.split()}
    for amount, unchanged in (("0.5", 3), ("1.0", 0)):
        new = spoilt(f"words=noise:{amount}")["test"]["text"][:]
        assert new[1] is None
        for text, old in zip(new, SPLITS["test"]["text"], strict=True):
            if old is None:
                continue
            assert len(text.split()) == 6 and set(text.split()) <= known | set(old.split())
            assert sum(a == b for a, b in zip(text.split(), old.split(), strict=True)) >= unchanged
        assert new != SPLITS["test"]["text"][:]


def test_a_share_of_a_modality_goes_missing():
    found = spoilt("sensors=missing:0.3", "voice=missing:0.5")
    for part, split in found.items():
        gone = [value is None for value in split["x"]]
        assert sum(gone) == round(0.3 * len(split)) and gone == [value is None for value in split["y"]]
        assert sum(value is None for value in split["wav"]) == len(split) / 2
        assert split["image"][:] == SPLITS[part]["image"][:]


def test_wrong_labels_are_of_training_only():
    found = spoilt("labels:0.25")
    old, new = (np.array(split["train"]["label"]) for split in (SPLITS, found))
    assert (old != new).sum() == 10 and set(new) == {0, 1, 2, 3}
    assert found["train"].features["label"] == SPLITS["train"].features["label"]
    for part in ("evaluation", "test"):
        assert found[part]["label"][:] == SPLITS[part]["label"][:]
    everything = np.array(spoilt("labels:1")["train"]["label"])
    assert not (everything == old).any() and len({*zip(old, everything, strict=True)}) == 12


def test_what_is_drawn_follows_from_the_seed_and_differs_between_rows_and_parts():
    what = ("voice=noise:1", "pose=noise:1", "labels:0.5", "clip=missing:0.5")
    first, again, other = spoilt(*what), spoilt(*what), spoilt(*what, seed=1)
    for part in SPLITS:
        assert first[part].to_dict() == again[part].to_dict()
        for column in ("wav", "pose", "frames"):
            assert first[part][column][:] != other[part][column][:]
    assert first["evaluation"]["pose"][:] != first["test"]["pose"][:]  # which hold the same rows
    changes = np.array(first["test"]["pose"]) - np.array(SPLITS["test"]["pose"])
    assert len(np.unique(changes)) == changes.size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rgb", "holds 'rgb': give MODALITY=noise:AMOUNT"),
        ("rgb=blur:1", "holds 'rgb=blur:1'"),
        ("rgb=noise:much", "holds 'rgb=noise:much'"),
        ("rgb=noise:-1", "with a number of at least 0"),
        ("noise:1", "holds 'noise:1'"),
        ("rgb=labels:0.2", "holds 'rgb=labels:0.2'"),
        ("face=noise:1", "names 'face', but the modalities are rgb, clip"),
        ("rgb=missing:1.5", "missing takes a share of at most 1"),
        ("labels:2", "labels takes a share of at most 1"),
        ("words=noise:1.5", "words=noise:1.5: of a text noise is a share of its words"),
    ],
)
def test_what_cannot_be_spoilt_is_refused(value, message):
    with pytest.raises(ValueError, match=f"--corrupt .*{message}"):
        spoilt(value)


def test_encoded_videos_and_lists_of_classes_are_refused():
    videos = Dataset.from_dict({"frames": [{"bytes": b"", "path": None}], "label": [[0]]})
    videos = videos.cast_column("frames", datasets.Video(decode=False))
    with pytest.raises(ValueError, match="'frames' holds encoded videos.*list of pictures"):
        spoilt("clip=noise:1", splits={"train": videos})
    with pytest.raises(ValueError, match="labels needs one of several classes"):
        spoilt("labels:0.5", splits={"train": videos})


def test_it_is_told_in_words():
    assert str(Corruption("rgb", "noise", 1.0)) == "rgb has noise of 1 in all parts"
    assert str(Corruption("labels", "labels", 0.2)) == "a share of 0.2 of the training labels is wrong"
