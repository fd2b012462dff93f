"""The words that a report finds for a diagnosis."""

import re

import pytest

from hf_relearn.report.reading import Gate, read_modality, read_run


def test_over_trained_and_moved(make_record, make_entry):
    text = read_modality([make_record(20.0, {"audio": make_entry(0.91, 0.62, alpha=0.58)})], "audio")
    assert text.startswith("**audio**: purity 0.91 on the training part, 0.62 held out at epoch 20: over-trained.")
    assert "moved 58 % of the way back to its initial weights at epoch 20" in text
    assert "chance" not in text.lower()


@pytest.mark.parametrize(
    ("train", "val", "verdict"),
    [
        (0.90, 0.60, ": over-trained."),
        (0.70, 0.60, ": somewhat over-trained."),
        (0.62, 0.60, ": hardly any gap at any diagnosis, so not over-trained."),
        (0.60, 0.62, ": hardly any gap at any diagnosis, so not over-trained."),
        (0.60, 0.75, ": purer held out than in training, so not over-trained."),
        (0.23, 0.24, ": hardly purer than chance on either part, so these features do not separate the classes."),
    ],
)
def test_verdict_follows_from_the_purities(make_record, make_entry, train, val, verdict):
    assert verdict in read_modality([make_record(20.0, {"m": make_entry(train, val)})], "m")


def test_a_purer_held_out_part_is_moved_all_the_same_and_said_so(make_record, make_entry):
    entry = make_entry(0.6, 0.75)
    assert "whatever its sign" in read_modality([make_record(20.0, {"m": entry})], "m")
    assert "whatever its sign" not in read_modality([make_record(20.0, {"m": entry}, "record")], "m")


def test_chance_that_makes_most_of_a_gap_is_named(make_record, make_entry):
    chance = {"train_chance_purity": 0.06, "val_chance_purity": 0.18}
    entry = make_entry(0.30, 0.45, **chance)
    text = read_modality([make_record(20.0, {"m": entry})], "m")
    assert "the gap tells little of over-training" in text
    assert "Chance alone makes 0.12 of this gap of 0.15" in text
    assert "matched" in text
    same_size = read_modality([make_record(20.0, {"m": entry}, train_size=120)], "m")
    assert "Chance alone" in same_size and "matched" not in same_size
    # A chance that pulls the other way hides a part of the gap and explains nothing.
    assert "Chance" not in read_modality([make_record(20.0, {"m": make_entry(0.45, 0.30, **chance)})], "m")


def test_a_set_strength_is_told_from_the_diagnosed_one(make_record, make_entry):
    entries = [make_entry(0.62, 0.6, alpha=0.9), make_entry(0.8, 0.6, alpha=0.9), make_entry(0.61, 0.6, alpha=0.9)]
    text = read_modality([make_record(4.0 * (i + 1), {"m": entry}) for i, entry in enumerate(entries)], "m")
    # The whole course counts, and the strength is never told as if it followed from the last gap.
    assert "over-trained" in text and "not over-trained" not in text
    assert "Whatever the diagnosis said, it was moved 90 % of the way back to its initial weights" in text
    assert "at epochs 4, 8 and 12: a set strength. The diagnosis asked for 3 % to 54 %." in text


def test_a_run_without_diagnosis_tells_only_of_the_movement(make_record, make_entry):
    nothing = dict.fromkeys(["train_purity", "val_purity", "gap", "diagnosed_alpha"])
    text = read_modality([make_record(4.0, {"m": make_entry(alpha=0.9, **nothing)})], "m")
    assert (
        text
        == "**m**: not diagnosed. It was moved 90 % of the way back to its initial weights at epoch 4: a set strength."
    )


def test_different_strengths_and_many_points(make_record, make_entry):
    alphas = [0.2, 0.5, 0.4, 0.3, 0.6]
    records = [
        make_record(float(place), {"m": make_entry(alpha=alpha, diagnosed_alpha=alpha)})
        for place, alpha in enumerate(alphas, start=1)
    ]
    assert "moved 20 %, 50 % and 40 % of the way back to its initial weights at epochs 1, 2 and 3." in read_modality(
        records[:3], "m"
    )
    assert "moved between 20 % and 60 % of the way back to its initial weights at 5 points." in read_modality(
        records, "m"
    )


def test_not_moved_is_said(make_record, make_entry):
    still = make_entry(alpha=0.0, diagnosed_alpha=0.0)
    assert "It was left where it was at epoch 4." in read_modality([make_record(4.0, {"m": still})], "m")
    assert "only observed" in read_modality([make_record(4.0, {"m": still}, "end")], "m")


def test_the_gap_is_followed_to_the_last_diagnosis(make_record, make_entry):
    records = [make_record(4.0, {"m": make_entry(0.9, 0.6)}), make_record(8.0, {"m": make_entry(0.9, 0.8)}, "end")]
    assert "The gap went from 0.30 at epoch 4 to 0.10 at epoch 8." in read_modality(records, "m")
    records[1]["modalities"]["m"]["val_purity"] = 0.61
    assert "The gap is 0.29 at the last diagnosis, too." in read_modality(records, "m")


def test_a_modality_that_memorised_is_told_with_its_error_and_both_points(make_measured_run):
    text = read_modality(make_measured_run(), "vision")
    assert "memorised" in text and "not memorised" not in text
    assert re.search(r"lack 67 % ± 3 %", text)
    assert "moved 90 %" in text and "at epochs 3 and 6" in text and "a set strength" not in text


def test_a_modality_that_generalises_is_said_to_be_kept(make_measured_run):
    text = read_modality(make_measured_run(), "audio")
    assert "not memorised" in text and "left where it was at epochs 3 and 6" in text and "90 %" not in text


def test_noise_memorises_is_moved_and_is_called_uninformative(make_measured_run):
    text = read_modality(make_measured_run(), "noise")
    assert ": memorised." in text and "says nothing about unseen samples" in text and "moved 90 %" in text


def test_a_share_that_may_be_chance_is_not_called_memorised(make_measured, make_record):
    entry = make_measured(0.5, 0.38, error=0.05)
    assert "perhaps memorised" in read_modality([make_record(3.0, {"m": entry})], "m")
    assert ": memorised" in read_modality([make_record(3.0, {"m": entry})], "m", Gate(threshold=0.05))


def test_parts_that_differ_before_training_are_told(make_measured, make_record):
    records = [make_record(0.0, {"m": make_measured(0.5, 0.4)}, "start"), make_record(3.0, {"m": make_measured()})]
    assert "Before training held-out samples already differed" in read_modality(records, "m")
    records[0]["modalities"]["m"] = make_measured(0.5, 0.49)
    assert "Before training" not in read_modality(records, "m")


def test_nan_purity_and_missing_epoch(make_record, make_entry):
    text = read_modality(
        [make_record(None, {"m": make_entry(float("nan"), 0.5, alpha=0.3, diagnosed_alpha=0.3)})], "m"
    )
    assert text == "**m**: no usable purity was recorded. It was moved 30 % of the way back to its initial weights."
    assert read_modality([make_record(4.0, {"other": make_entry()})], "m") == "**m**: neither diagnosed nor moved."


def test_the_run_in_one_line(make_record, make_entry):
    def line(records):
        return read_run(records, ["audio", "vision"], epochs=16.0, steps=1800)

    point = make_record(4.0, {"audio": make_entry()})
    who = "**audio** and **vision** over 16 epochs (1,800 steps)"
    assert line([]) == f"Joint training of {who}, without diagnosis and without re-learning."
    assert (
        line([{**point, "kind": "end"}]) == f"Joint training of {who}, with 1 diagnosis recorded and no re-learning."
    )
    assert line([point]) == (
        f"Training of {who}, re-learnt at 1 step (epoch 4) with the strength that the diagnosis asked for."
    )
    constant = make_record(8.0, {"audio": make_entry(alpha=0.9)})
    assert line([constant, constant]).endswith("re-learnt at 2 steps (epochs 8 and 8) with a set strength.")
    kept = make_record(8.0, {"audio": make_entry(alpha=0.0)})
    assert line([kept]).endswith("diagnosed at 1 re-learning step (epoch 8); no encoder was moved.")
    assert read_run([], [], epochs=None, steps=None) == (
        "Joint training of a model, without diagnosis and without re-learning."
    )
