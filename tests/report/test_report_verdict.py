"""The first paragraph of a report: it follows from all numbers of a run and contradicts none of them."""

import math

import pytest

from hf_relearn.report.verdict import read_verdict


@pytest.fixture
def verdict(make_measured_run, make_log):
    """The verdict on a gated run, with arguments changed."""

    def read(modalities=("audio", "vision", "noise"), **changes):
        arguments = {"records": make_measured_run(), "log_history": [], "results": {}}
        arguments |= changes
        options = {name: arguments.pop(name) for name in ("samples", "settings") if name in arguments}
        return read_verdict(**arguments, modalities=modalities, **options)

    return read


def accuracies(fused, **alone):
    return {"accuracy": fused, **{f"unimodal_{name}_accuracy": value for name, value in alone.items()}}


def test_it_names_what_memorised_what_says_nothing_and_leaves_the_rest_out(verdict):
    text = verdict()
    assert "**vision** memorised (held-out samples lack 67 % ± 3 %" in text and "re-learnt at epochs 3 and 6" in text
    assert "**noise** is uninformative" in text and "**noise** memorised" in text
    assert "audio" not in text
    assert "check that the input of noise belongs to the sample" in text


def test_a_run_in_which_nothing_memorised_says_so(verdict, make_measured_run):
    records = make_measured_run(audio=lambda epoch: (0.2 + 0.05 * epoch, 0.2 + 0.048 * epoch))
    assert verdict(["audio"], records=records) == "No modality memorised."


def test_the_gate_of_the_run_decides(verdict):
    assert "memorised (" not in verdict(settings={"relearn_gate_threshold": 1.0})
    assert "**audio** memorised" in verdict(settings={"relearn_gate_threshold": 0.0, "relearn_gate_errors": 0.0})


def test_a_modality_that_memorised_in_between_is_found(verdict, make_measured_run):
    # At both ends the curves agree.
    records = make_measured_run(m=lambda epoch: (0.3 + 0.05 * epoch, 0.3 + (0.05 if epoch != 7 else 0.0) * epoch))
    assert "**m** memorised" in verdict(["m"], records=records)
    assert "at epoch 7" in verdict(["m"], records=records)


def test_memorised_without_re_learning_suggests_it(verdict, make_measured_run):
    records = [{**record, "kind": "record"} for record in make_measured_run()]
    text = verdict(records=records)
    assert "was not re-learnt" in text and "`--preset balanced`" in text


@pytest.mark.parametrize(
    ("fused", "size", "gist"),
    [
        (0.80, 1000, "above its best modality, audio"),
        (0.60, 1000, "**below** its best modality, audio"),
        (0.71, 1000, "about as good as its best modality"),
        (0.75, 20, "about as good as its best modality"),  # five points are within the error of so few samples
        (0.71, None, "above its best modality, audio"),
    ],
)
def test_the_fusion_is_held_against_its_best_modality(verdict, fused, size, gist):
    results = {"validation": accuracies(0.1), "test": accuracies(fused, audio=0.7, vision=0.5)}
    text = verdict(["audio", "vision"], results=results, samples={"test": {"samples": size}} if size else None)
    assert "On *test* the model reaches" in text and "by itself **audio** 70.0 % and **vision** 50.0 %" in text
    assert gist in text
    assert ("which says little" in text) == (size == 20)
    if size == 1000:
        assert f"± {100 * math.sqrt(fused * (1 - fused) / size):.1f} %" in text
    assert ("--unimodal_loss_weight" in text) == ("below" in gist)


def test_the_whole_validation_curve_counts(verdict):
    def log(values):
        return [{"epoch": float(place), "eval_accuracy": value} for place, value in enumerate(values, 1)]

    peaked = [0.2, 0.4, 0.6, 0.8, 0.79, 0.78, 0.7, 0.65, 0.62, 0.6, 0.6, 0.6]
    text = verdict([], records=[], log_history=log(peaked))
    assert "highest at epoch 4 (80.0 %) and fell to 60.0 %" in text and "--load_best_model_at_end" in text
    # The results are those of the best weights already.
    text = verdict([], records=[], log_history=log(peaked), results={"validation": accuracies(0.8)})
    assert "fell to 60.0 %" in text and "--load_best_model_at_end" not in text
    assert "still rising" in verdict([], records=[], log_history=log([place / 20 for place in range(1, 13)]))
    flat = verdict([], records=[], log_history=log([0.5, 0.8, 0.81, 0.8, 0.81, 0.8, 0.81, 0.8]))
    assert "fell" not in flat and "rising" not in flat


def test_by_purity_it_speaks_of_purities(make_run):
    text = read_verdict(make_run(), [], {}, ["audio", "vision"])
    assert "**audio** is over-trained (purity" in text and "lack" not in text


def test_nothing_measured_is_said():
    assert "nothing can be said" in read_verdict([], [], {}, ["audio"])
