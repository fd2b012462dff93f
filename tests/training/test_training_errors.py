"""Wrong or poor inputs of a run: each has its message, and comes before training where it can."""

import pytest
import torch
from tiny import CONSTANT_STRENGTH, FEW_SAMPLES, TensorRows, history, make_trainer, tiny_model, vit_config, weights_of
from torch.utils.data import IterableDataset, Subset

from hf_relearn import MultimodalForClassification
from hf_relearn.method import DiagnosisWarning
from hf_relearn.training import read_history

pytestmark = [FEW_SAMPLES, CONSTANT_STRENGTH]


class ChangedRows(TensorRows):
    """`TensorRows` with rows changed by a function."""

    def __init__(self, change, size=36):
        super().__init__(size)
        self.change = change

    def __getitem__(self, index):
        return self.change(super().__getitem__(index))


def subset_with_labels(labels):
    rows = TensorRows(36, seed=2)
    return Subset(rows, [index for index in range(36) if rows.labels[index] in labels][:12])


def test_a_class_absent_from_the_diagnosing_part_warns(tmp_path):
    trainer = make_trainer(tmp_path, trainer_kwargs={"diagnosis_dataset": subset_with_labels({0, 1})})
    with pytest.warns(DiagnosisWarning, match=r"no sample of 1 classes of the training part \(labels 2\)"):
        trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps and len(history(tmp_path)) == 2


@pytest.mark.filterwarnings("ignore:the (diagnosing|training) part")
def test_fewer_diagnosing_samples_than_classes_warn(tmp_path):
    part = Subset(TensorRows(), [0, 1])
    trainer = make_trainer(tmp_path, trainer_kwargs={"diagnosis_dataset": part}, diagnosis_sampling="all")
    with pytest.warns(DiagnosisWarning, match="the diagnosing part has 2 samples for 3 classes.*give more samples"):
        trainer.train()
    assert history(tmp_path)[0]["diagnosis_size"] == 2


@pytest.mark.parametrize("settings", [{}, {"unimodal_loss_weight": 1.0}])
def test_nan_features_of_a_modality_are_told_and_training_goes_on(tmp_path, settings, recwarn):
    def broken(row):
        return {**row, "audio_input_values": row["audio_input_values"] * float("nan")}

    trainer = make_trainer(
        tmp_path,
        tiny_model(**settings),
        ChangedRows(broken),
        {"eval_dataset": ChangedRows(broken, 12)},
        eval_strategy="epoch",
        diagnosis_interval=1,
    )
    trainer.train()
    messages = [str(warning.message) for warning in recwarn if "are NaN or infinite" in str(warning.message)]
    assert messages and "modality 'audio', training part: features of 9 of 9 samples (100.0%)" in messages[0]
    assert "the modality is left out of this diagnosis" in messages[0]
    assert trainer.state.global_step == trainer.state.max_steps
    start, *later = read_history(tmp_path)
    assert start["modalities"]["vision"]["gap"] is not None  # the first step makes all weights NaN
    assert [record["kind"] for record in later] == ["point", "point", "end"]
    for entry in [start["modalities"]["audio"], *(entry for each in later for entry in each["modalities"].values())]:
        assert entry["skipped"] == "features that are not finite" and entry["alpha"] == 0


@pytest.mark.filterwarnings("ignore:.*are NaN or infinite")
def test_nan_features_do_not_hinder_a_constant_strength(tmp_path):
    rows = ChangedRows(lambda row: {**row, "audio_input_values": row["audio_input_values"] * float("nan")})
    make_trainer(tmp_path, train_dataset=rows, relearn_alpha="0.5", relearn_modalities=["vision"]).train()
    assert [record["kind"] for record in history(tmp_path)] == ["point", "point"]


def test_an_unknown_modality_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, relearn_modalities=["audio", "video"])
    with pytest.raises(
        ValueError, match="--relearn_modalities names video, but the model's modalities are audio, vis"
    ):
        trainer.train()
    assert trainer.state.global_step == 0


def test_strengths_for_other_modalities_are_refused(tmp_path):
    with pytest.raises(ValueError, match="gives a strength for video, but the re-learnt modalities are audio, vision"):
        make_trainer(tmp_path, relearn_alpha="audio=0.5,video=1").train()


def test_one_single_modality_works(tmp_path):
    torch.manual_seed(0)
    labels = {index: str(index) for index in range(3)}
    model = MultimodalForClassification.from_backbones({"vision": vit_config()}, id2label=labels)
    rows = ChangedRows(lambda row: {name: value for name, value in row.items() if name != "audio_input_values"})
    trainer = make_trainer(tmp_path, model, rows, {"eval_dataset": rows}, eval_strategy="epoch", diagnosis_interval=1)
    trainer.train()
    assert [list(record["modalities"]) for record in history(tmp_path)] == [["vision"]] * 3
    assert any("eval_unimodal_vision_accuracy" in entry for entry in trainer.state.log_history)


def test_a_parameter_in_two_encoders_is_refused_but_trains_jointly(tmp_path):
    model = tiny_model()
    model.encoders["vision"].backbone.layernorm.weight = model.encoders["audio"].backbone.layernorm.weight
    with pytest.raises(
        ValueError, match="'backbone.layernorm.weight' of the 'vision' encoder belongs to the 'audio' e"
    ):
        make_trainer(tmp_path, model).train()
    make_trainer(tmp_path, model, relearn_strategy="no").train()


def test_no_diagnosing_part_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, diagnosis_fraction=0)
    with pytest.raises(
        ValueError, match="no held-out samples to diagnose on: give an evaluation set.*--relearn_strength"
    ):
        trainer.train()
    with pytest.raises(ValueError, match="no diagnosing part whose features could be shown"):
        trainer.part_features()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "--diagnosis_source eval needs an evaluation set, and there is none: give one"),
        (
            {"a": TensorRows(), "b": TensorRows()},
            r"several evaluation sets \(a, b\): name the one to diagnose",
        ),
    ],
)
def test_the_evaluation_set_as_source_has_to_be_one(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, trainer_kwargs={"eval_dataset": given}, diagnosis_source="eval")


class Stream(IterableDataset):
    def __iter__(self):
        rows = TensorRows()
        return (rows[index] for index in range(len(rows)))


class SizedStream(Stream):
    def __len__(self):
        return 36


@pytest.mark.parametrize("stream", [Stream, SizedStream])
def test_no_part_of_a_stream_can_be_held_out(tmp_path, stream):
    with pytest.raises(ValueError, match=f"{stream.__name__} is a stream.*use a map-style data set"):
        make_trainer(tmp_path, train_dataset=stream(), max_steps=6)


def test_a_stream_trains_with_a_constant_strength(tmp_path):
    settings = {"max_steps": 6, "diagnosis_fraction": 0, "relearn_alpha": "0.5", "relearn_strategy": "steps"}
    trainer = make_trainer(tmp_path, train_dataset=Stream(), relearn_interval=2, **settings)
    trainer.train()
    assert [record["step"] for record in history(tmp_path)] == [2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row: {**row, "labels": float(row["labels"])},
            "column 'labels' holds float64 values.*one integer class",
        ),
        (lambda row: {**row, "labels": [row["labels"], 0]}, "several targets per sample"),
        (lambda row: {**row, "labels": "happy"}, "column 'labels' holds <U5 values"),
        (lambda row: {"vision_pixel_values": row["vision_pixel_values"]}, "no label column: looked for label, labels"),
        (lambda row: (row["vision_pixel_values"], row["labels"]), "a row of ChangedRows is a tuple"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, train_dataset=ChangedRows(change))
    # Given parts are checked when training starts, not at the first point.
    part = {"diagnosis_dataset": ChangedRows(change)}
    trainer = make_trainer(tmp_path, trainer_kwargs=part)
    before = weights_of(trainer.model)
    with pytest.raises(ValueError, match=f"the diagnosing part cannot be diagnosed: .*{message}"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in weights_of(trainer.model).items())


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the diagnosing part cannot be diagnosed: the data set is empty"):
        make_trainer(tmp_path, trainer_kwargs={"diagnosis_dataset": TensorRows(0)}).train()
