"""The gate: which strength a memorised share gives."""

import pytest

from hf_relearn.method.alpha import gate_alpha


@pytest.mark.parametrize(
    ("share", "error", "rise", "rise_error", "alpha"),
    [
        (0.45, 0.05, 0.0, 0.02, 0.9),
        (0.39, 0.05, 0.0, 0.02, 0.0),  # not surely memorised
        (1.0, 0.1, -0.2, 0.02, 0.9),
        (0.45, 0.05, 0.04, 0.02, 0.9),
        (0.45, 0.05, 0.041, 0.02, 0.0),  # it still gains on held-out samples
    ],
)
def test_a_modality_is_relearnt_if_it_surely_memorised_and_gains_no_more(share, error, rise, rise_error, alpha):
    assert gate_alpha(share, error, rise, rise_error) == alpha


def test_without_an_earlier_diagnosis_the_memorised_share_decides_alone():
    assert (gate_alpha(0.45, 0.05), gate_alpha(0.39, 0.05)) == (0.9, 0.0)


def test_its_constants_can_be_set():
    assert gate_alpha(0.39, 0.05, 0.1, 0.02, threshold=0.2, alpha=0.5, num_errors=1.0, num_rise_errors=10.0) == 0.5
