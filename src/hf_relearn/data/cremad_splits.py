"""Divide CREMA-D into training, validation and test split: by the field's CSV lists, or by actor."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np

from hf_relearn.data.cremad import read_unreadable
from hf_relearn.data.cremad_clips import EMOTIONS, CremadDataError, parse_clip_name

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_PathLike = str | os.PathLike[str]


def split_cremad(
    dataset: datasets.Dataset,
    *,
    train_file: _PathLike | None = None,
    validation_file: _PathLike | None = None,
    test_file: _PathLike | None = None,
    seed: int = 0,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    folds: int | None = None,
    fold: int = 1,
    demographics_file: _PathLike | None = None,
) -> datasets.DatasetDict:
    """Split prepared CREMA-D into train, validation and test.

    Without lists the split is by actor: no actor is in two parts. With lists, each part is what its list names. A part
    whose list is not given is taken, by actor, out of what `train_file` names. Clips in no list are left out. A
    warning says how many actors two lists share. With `folds` the actors are dealt to so many folds: one is the test
    part, the next one (after the last the first) validation, and the others are training.

    Args:
        dataset: What `prepare_cremad` returned.
        train_file: CSV with rows `name,label` (label: a code such as `ANG` or a name such as `anger`); a header line
            `name,label` and a byte order mark are allowed. Needed as soon as another list is given.
        validation_file: The same for validation.
        test_file: The same for test.
        seed: Seed of the draw of actors.
        validation_fraction: Share of the actors in validation (rounded, at least one), if it has no list.
        test_fraction: The same for test.
        folds: Number of folds of actors, 3 or more, in place of lists and fractions; None for no folds. The draw
            follows from the seed alone, so that each actor is tested once in runs with all values of `fold`.
        fold: The fold that is the test part, from 1.
        demographics_file: `VideoDemographics.csv` of CREMA-D, with which each fold gets as many men and women as
            others; None, or a file that is not there: the folds are drawn without it.

    Returns:
        `train`, `validation` and `test`, each in the order of `dataset` and still memory-mapped.

    Raises:
        CremadDataError: When a list is missing, empty or malformed, names a clip twice or a clip that another list
            names, gives an unknown label or one that contradicts the clip's name, or names clips that the data set
            does not hold (those that were left out as unreadable only give a warning); or when there are too few
            actors; or when the demographics lack the columns ActorID and Sex.
        ValueError: When a fraction is not between 0 and 1, or the two together leave nothing to train on; or when
            `folds` or `fold` is out of its range, or given beside lists.
    """
    for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise ValueError(f"{name} is {fraction}; it must be between 0 and 1")
    if validation_fraction + test_fraction >= 1:
        raise ValueError(
            f"validation_fraction + test_fraction is {validation_fraction + test_fraction}; it must be below 1"
        )
    columns = dataset.select_columns(["name", "actor"]).to_dict()
    if folds is not None:
        if train_file is not None or validation_file is not None or test_file is not None:
            raise ValueError("folds are given beside split lists; give one of them")
        dealt = deal_actors(columns["actor"], folds, seed, read_sexes(demographics_file))
        if not 1 <= fold <= folds:
            raise ValueError(f"fold is {fold}; it must be from 1 to folds, {folds}")
        part_of = {actor: "train" for actors in dealt for actor in actors}
        part_of |= dict.fromkeys(dealt[fold % folds], "validation") | dict.fromkeys(dealt[fold - 1], "test")
        rows = _rows_of(range(len(dataset)), columns["actor"], part_of)
        logger.info("fold %d of %d by actor with seed %d: %s", fold, folds, seed, _actors(part_of))
        return datasets.DatasetDict({split: dataset.select(rows[split]) for split in SPLITS})
    position = {name: index for index, name in enumerate(columns["name"])}
    files = dict(zip(SPLITS, (train_file, validation_file, test_file), strict=True))
    given = {split: Path(file) for split, file in files.items() if file is not None}
    if given and "train" not in given:
        raise CremadDataError(
            f"{', '.join(f'{split}_file' for split in given)} is given without train_file; give it too"
        )
    lists = {split: read_split_list(path) for split, path in given.items()}
    _check_disjoint(lists, given)
    _warn_of_shared_actors(lists)
    unreadable = read_unreadable(dataset) if given else {}
    parts = {split: _positions(names, given[split], position, unreadable) for split, names in lists.items()}
    fractions = {"validation": validation_fraction, "test": test_fraction}
    wanted = {split: fractions[split] for split in ("validation", "test") if split not in given}
    if wanted:
        pool = parts.get("train", range(len(dataset)))
        parts.update(_split_by_actor(pool, columns["actor"], wanted, seed))
    return datasets.DatasetDict({split: dataset.select(sorted(parts[split])) for split in SPLITS})


def read_split_list(path: Path) -> list[str]:
    """Read one CSV list of clips.

    Args:
        path: CSV file with rows `name,label`, with or without a header line or a byte order mark.

    Returns:
        The names in the file's order.

    Raises:
        CremadDataError: When the file is missing, empty or malformed, or a label is unknown or contradicts its name.
    """
    if not path.is_file():
        raise CremadDataError(f"the split list {path} does not exist; give a CSV file with rows name,label")
    codes = {code: code for code in EMOTIONS} | {name.upper(): code for code, name in EMOTIONS.items()}
    lines: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and [cell.lower() for cell in cells] == ["name", "label"]):
                continue
            where = f"{path}, line {number}"
            if len(cells) != 2:
                raise CremadDataError(f"{where}: found {','.join(row)!r}; expected name,label")
            clip = parse_clip_name(cells[0])
            if clip is None:
                raise CremadDataError(f"{where}: {cells[0]!r} is no clip name; expected one such as 1001_DFA_ANG_XX")
            label = codes.get(cells[1].upper())
            if label is None:
                raise CremadDataError(f"{where}: unknown label {cells[1]!r}; expected one of {', '.join(EMOTIONS)}")
            if label != clip.emotion:
                raise CremadDataError(f"{where}: label {cells[1]} contradicts the name {clip}; correct one of them")
            if str(clip) in lines:
                raise CremadDataError(f"{where}: {clip} is already in line {lines[str(clip)]}; remove one of them")
            lines[str(clip)] = number
    if not lines:
        raise CremadDataError(f"the split list {path} names no clip; expected rows name,label")
    return list(lines)


def _check_disjoint(lists: Mapping[str, Sequence[str]], files: Mapping[str, Path]) -> None:
    splits = list(lists)
    for index, first in enumerate(splits):
        for second in splits[index + 1 :]:
            shared = sorted(set(lists[first]) & set(lists[second]))
            if shared:
                raise CremadDataError(
                    f"{len(shared)} clips are both in {files[first]} ({first}) and in {files[second]} ({second}): "
                    f"{_first_few(shared)}. A clip may be in one part only; remove it from the other list, or give "
                    "the train list that goes with that part"
                )


def _warn_of_shared_actors(lists: Mapping[str, Sequence[str]]) -> None:
    actors = {split: {name.split("_")[0] for name in names} for split, names in lists.items()}
    for split in [split for split in lists if split != "train"]:
        shared = actors["train"] & actors[split]
        if shared:
            logger.warning(
                "%d of the %d actors in the %s list are in the train list too: its accuracy says little of new "
                "speakers; leave out the lists or use folds to divide the data by actor",
                len(shared),
                len(actors[split]),
                split,
            )


def read_sexes(path: _PathLike | None) -> dict[str, str]:
    """Read each actor's sex from CREMA-D's `VideoDemographics.csv`; empty if there is no such file.

    Raises:
        CremadDataError: If the file lacks a column.
    """
    if path is None or not Path(path).is_file():
        logger.info("folds are drawn without the actors' sex: there is no VideoDemographics.csv")
        return {}
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"ActorID", "Sex"} <= set(rows.fieldnames or ()):
            raise CremadDataError(f"{path} has no columns ActorID and Sex; give CREMA-D's VideoDemographics.csv")
        return {row["ActorID"]: row["Sex"] or "" for row in rows}


def deal_actors(actors: Iterable[str], folds: int, seed: int, sexes: Mapping[str, str]) -> list[list[str]]:
    """Deal actors to folds whose sizes, and numbers of each sex, differ by one at most.

    Raises:
        ValueError: For fewer than 3 folds.
        CremadDataError: For fewer actors than folds.
    """
    if folds < 3:
        raise ValueError(f"folds is {folds}; training, validation and test need 3 or more")
    present = sorted(set(actors))
    if len(present) < folds:
        raise CremadDataError(f"{len(present)} actors cannot be dealt to {folds} folds; give fewer folds")
    drawn = [present[index] for index in np.random.default_rng(seed).permutation(len(present))]
    drawn.sort(key=lambda actor: sexes.get(actor, ""))  # a stable sort: each sex stays in the order drawn
    return [drawn[number::folds] for number in range(folds)]


def _positions(
    names: Iterable[str], file: Path, position: Mapping[str, int], unreadable: Mapping[str, str]
) -> list[int]:
    absent = [name for name in names if name not in position]
    left_out = [name for name in absent if name in unreadable]
    missing = [name for name in absent if name not in unreadable]
    if missing:
        also = f" ({len(left_out)} more were left out as unreadable)" if left_out else ""
        raise CremadDataError(
            f"{file} names {len(missing)} clips that the data set does not hold: {_first_few(missing)}{also}. "
            "Complete the data folder (AudioWAV and VideoFlash), or give a list made for it"
        )
    found = [position[name] for name in names if name in position]
    if not found:
        raise CremadDataError(f"{file} names {len(left_out)} clips and all were left out as unreadable")
    if left_out:
        listed = [f"{name} ({unreadable[name]})" for name in left_out]
        logger.warning("%s names %d clips that were left out as unreadable: %s", file, len(listed), _first_few(listed))
    return found


def _split_by_actor(
    pool: Iterable[int], actors: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Take the wanted parts, by actor, out of the pool; what is left is the training part."""
    pool = list(pool)
    present = sorted({actors[index] for index in pool})
    counts = {split: max(1, round(fraction * len(present))) for split, fraction in fractions.items()}
    if sum(counts.values()) >= len(present):
        raise CremadDataError(
            f"{len(present)} actors cannot be split into train and {' and '.join(fractions)} without an actor in two "
            "parts; give more actors, smaller fractions, or CSV lists"
        )
    drawn = [present[index] for index in np.random.default_rng(seed).permutation(len(present))]
    part_of = dict.fromkeys(present, "train")
    for split, count in counts.items():
        part_of.update(dict.fromkeys(drawn[:count], split))
        drawn = drawn[count:]
    parts = _rows_of(pool, actors, part_of)
    logger.info("split by actor with seed %d: %s", seed, _actors(part_of))
    return parts


def _rows_of(pool: Iterable[int], actors: Sequence[str], part_of: Mapping[str, str]) -> dict[str, list[int]]:
    parts: dict[str, list[int]] = {split: [] for split in SPLITS if split in part_of.values()}
    for index in pool:
        parts[part_of[actors[index]]].append(index)
    return parts


def _actors(part_of: Mapping[str, str]) -> str:
    counts = Counter(part_of.values())
    return ", ".join(f"{split} {counts[split]} actors" for split in SPLITS if counts[split])


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
