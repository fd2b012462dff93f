"""Splitting prepared CREMA-D by lists and by actor."""

import logging
from pathlib import Path

import datasets
import pytest

from hf_relearn.data import CremadDataError, prepare_cremad, split_cremad
from hf_relearn.data.cremad_splits import read_split_list


def _fake(names: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"name": names, "actor": [name[:4] for name in names]})


ACTORS = [f"{9000 + actor}_{sentence}_ANG_XX" for actor in range(10) for sentence in ("DFA", "IEO", "TIE")]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def _names(parts: datasets.DatasetDict) -> dict[str, list[str]]:
    return {split: part["name"][:] for split, part in parts.items()}


def test_no_actor_is_in_two_parts(caplog):
    with caplog.at_level(logging.INFO):
        parts = split_cremad(_fake(ACTORS), seed=3, validation_fraction=0.2, test_fraction=0.3)
    actors = {split: set(part["actor"]) for split, part in parts.items()}
    assert {split: len(found) for split, found in actors.items()} == {"train": 5, "validation": 2, "test": 3}
    assert len(set.union(*actors.values())) == 10
    assert sum(len(part) for part in parts.values()) == len(ACTORS)
    assert "split by actor with seed 3: train 5 actors, validation 2 actors, test 3 actors" in caplog.text


def test_split_by_actor_depends_on_the_seed_only():
    first, again, other = (_names(split_cremad(_fake(ACTORS), seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_too_few_actors():
    with pytest.raises(CremadDataError, match="2 actors cannot be split"):
        split_cremad(_fake(ACTORS[:6]))


FORTY = [f"{1001 + actor}_{sentence}_ANG_XX" for actor in range(40) for sentence in ("DFA", "IEO")]


def test_each_actor_is_tested_in_one_fold_and_folds_have_as_many_of_each_sex(tmp_path, caplog):
    sexes = {str(1001 + actor): "Female" if actor % 8 < 3 else "Male" for actor in range(40)}  # 15 and 25
    lines = "".join(f'{actor},30,"{sex}"\n' for actor, sex in sexes.items())
    demographics = _write(tmp_path / "VideoDemographics.csv", '"ActorID","Age","Sex"\n' + lines)
    tested = []
    for fold in range(1, 6):
        parts = split_cremad(_fake(FORTY), folds=5, fold=fold, seed=4, demographics_file=demographics)
        actors = {split: set(part["actor"]) for split, part in parts.items()}
        assert {split: len(found) for split, found in actors.items()} == {"train": 24, "validation": 8, "test": 8}
        assert not actors["train"] & (actors["validation"] | actors["test"])
        for split in ("validation", "test"):
            assert sum(sexes[actor] == "Female" for actor in actors[split]) == 3
        tested += sorted(actors["test"])
        firsts = set(tested[:8])
        assert (actors["validation"] == firsts) == (fold == 5)  # after the last comes the first
    assert sorted(tested) == sorted(sexes)
    again = split_cremad(_fake(FORTY), folds=5, fold=5, seed=4, demographics_file=demographics)
    assert _names(again) == _names(parts)
    with caplog.at_level(logging.INFO):
        split_cremad(_fake(FORTY), folds=4, fold=4, demographics_file=tmp_path / "gone.csv")
    assert (
        "without the actors' sex" in caplog.text and "fold 4 of 4 by actor with seed 0: train 20 actors" in caplog.text
    )


def test_folds_that_cannot_be_are_refused(tmp_path):
    for settings, message in (
        ({"folds": 2}, "folds is 2; .* 3 or more"),
        ({"folds": 5, "fold": 6}, "fold is 6; .* from 1 to folds, 5"),
        ({"folds": 50}, "40 actors cannot be dealt to 50 folds"),
        ({"folds": 5, "train_file": "train.csv"}, "folds are given beside split lists"),
        ({"folds": 5, "demographics_file": _write(tmp_path / "d.csv", "a,b\n1,2\n")}, "d.csv has no columns ActorID"),
    ):
        with pytest.raises(ValueError, match=message):
            split_cremad(_fake(FORTY), **settings)


def test_lists_that_share_actors_are_told_of_with_how_many(tmp_path, caplog):
    train = _write(tmp_path / "train.csv", "".join(f"{name},ANG\n" for name in ACTORS[:14]))  # 5 actors
    test = _write(tmp_path / "test.csv", "".join(f"{name},ANG\n" for name in ACTORS[14:24]))  # 4 actors
    with caplog.at_level(logging.WARNING):
        split_cremad(_fake(ACTORS), train_file=train, test_file=test)
    assert "1 of the 4 actors in the test list are in the train list too" in caplog.text
    caplog.clear()
    test = _write(tmp_path / "test.csv", "".join(f"{name},ANG\n" for name in ACTORS[15:24]))
    with caplog.at_level(logging.WARNING):
        split_cremad(_fake(ACTORS), train_file=train, test_file=test)
    assert not caplog.text


@pytest.mark.parametrize("fractions", [(0.0, 0.1), (0.1, 1.0), (0.5, 0.5)])
def test_fractions_out_of_range(fractions):
    with pytest.raises(ValueError, match="fraction"):
        split_cremad(_fake(ACTORS), validation_fraction=fractions[0], test_fraction=fractions[1])


def test_the_fields_own_lists(shared_data):
    meta = shared_data / "cremad_meta"
    lists = {name: read_split_list(meta / f"{name}.csv") for name in ("train", "my_train", "val", "test")}
    assert set(lists["train"]) == set(lists["my_train"]) | set(lists["val"])
    assert sum(len(lists[name]) for name in ("my_train", "val", "test")) == 7442
    dataset = _fake(sorted(lists["train"] + lists["test"]))
    parts = split_cremad(
        dataset,
        train_file=meta / "my_train.csv",
        validation_file=meta / "val.csv",
        test_file=meta / "test.csv",
    )
    assert set(parts["train"]["name"]) == set(lists["my_train"])
    assert set(parts["validation"]["name"]) == set(lists["val"])
    assert set(parts["test"]["name"]) == set(lists["test"])
    with pytest.raises(CremadDataError, match=r"clips are both in .*train.csv \(train\) and in .*val.csv"):
        split_cremad(dataset, train_file=meta / "train.csv", validation_file=meta / "val.csv")


@pytest.mark.parametrize(
    "text",
    [
        "9000_DFA_ANG_XX,ANG\n9000_IEO_ANG_XX,ANG\n",
        "name,label\r\n9000_DFA_ANG_XX,ANG\r\n9000_IEO_ANG_XX,ANG\r\n",
        "\ufeffname,label\r\n9000_DFA_ANG_XX,anger\r\n9000_IEO_ANG_XX,ANG",
        "\ufeff9000_DFA_ANG_XX, ANG\n\n9000_IEO_ANG_XX,ANG\n\n",
    ],
)
def test_header_mark_and_line_ends(tmp_path, text):
    assert read_split_list(_write(tmp_path / "list.csv", text)) == ["9000_DFA_ANG_XX", "9000_IEO_ANG_XX"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no clip"),
        ("name,label\n", "names no clip"),
        ("9000_DFA_ANG_XX,JOY\n", "line 1: unknown label 'JOY'; expected one of NEU, HAP"),
        ("name,label\n9000_DFA_ANG_XX,SAD\n", "line 2: label SAD contradicts the name 9000_DFA_ANG_XX"),
        ("9000_DFA_ANG_XX\n", "line 1: found '9000_DFA_ANG_XX'; expected name,label"),
        ("9000_DFA_ANG_XX.wav,ANG\n", "is no clip name"),
        ("9000_DFA_ANG_XX,ANG\n9000_DFA_ANG_XX,ANG\n", "line 2: .* already in line 1"),
    ],
)
def test_lists_that_are_wrong(tmp_path, text, message):
    path = _write(tmp_path / "bad_list.csv", text)
    with pytest.raises(CremadDataError, match=f"bad_list.csv.*{message}"):
        split_cremad(_fake(ACTORS), train_file=path)


def test_absent_list_and_list_without_train(tmp_path):
    with pytest.raises(CremadDataError, match="gone.csv does not exist"):
        split_cremad(_fake(ACTORS), train_file=tmp_path / "gone.csv")
    with pytest.raises(CremadDataError, match="test_file is given without train_file"):
        split_cremad(_fake(ACTORS), test_file=tmp_path / "gone.csv")


def test_list_that_names_missing_clips(tmp_path):
    rows = "".join(
        f"{name},ANG\n" for name in [*ACTORS[:3], *(f"1001_{s}_ANG_XX" for s in ("DFA", "IEO", "TIE", "WSI"))]
    )
    with pytest.raises(CremadDataError, match="train.csv names 4 clips .*1001_DFA_ANG_XX, .*, ...*AudioWAV"):
        split_cremad(_fake(ACTORS), train_file=_write(tmp_path / "train.csv", rows))


def test_part_without_list_is_carved_out_of_train_by_actor(tmp_path):
    train = _write(tmp_path / "train.csv", "".join(f"{name},ANG\n" for name in ACTORS[:24]))
    test = _write(tmp_path / "test.csv", "".join(f"{name},ANG\n" for name in ACTORS[24:]))
    parts = split_cremad(_fake(ACTORS), train_file=train, test_file=test, validation_fraction=0.25)
    assert parts["test"]["name"][:] == ACTORS[24:]
    assert set(parts["train"]["actor"]).isdisjoint(parts["validation"]["actor"])
    assert len(parts["validation"]) == 6 and len(parts["train"]) == 18


def test_listed_clip_that_was_unreadable(clone, tmp_path, caplog):
    bad, missing = "9001_IEO_HAP_LO", "9001_WSI_HAP_XX"
    wav = clone / "AudioWAV" / f"{bad}.wav"
    wav.write_bytes(wav.read_bytes()[:1000])
    dataset = prepare_cremad(clone, tmp_path / "cache", num_proc=1, max_unreadable_share=0.1)
    good = dataset["name"][:]
    rows = "".join(f"{name},{name[9:12]}\n" for name in [*good, bad])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        parts = split_cremad(dataset, train_file=_write(tmp_path / "all.csv", rows))
    assert f"all.csv names 1 clips that were left out as unreadable: {bad} (truncated audio)" in caplog.text
    assert sum(len(part) for part in parts.values()) == len(good)
    with pytest.raises(CremadDataError, match=rf"names 1 clips .*{missing} \(1 more were left out as unreadable\)"):
        split_cremad(dataset, train_file=_write(tmp_path / "all.csv", rows + f"{missing},HAP\n"))
