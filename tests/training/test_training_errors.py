"""Wrong or poor inputs of a run: each has its message, and comes before training where it can."""

import pytest
import torch
from tiny import TensorRows, history, make_trainer, tiny_model, vit_config, weights_of
from torch.utils.data import IterableDataset, Subset

from hf_relearn import MultimodalForClassification
from hf_relearn.method import DiagnosisWarning

# So few samples look purer or less pure by chance, and the diagnosis says so.
pytestmark = pytest.mark.filterwarnings("ignore:chance alone explains")


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
def test_nan_features_warn_once_and_training_goes_on(tmp_path, settings, recwarn):
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
    messages = [str(warning.message) for warning in recwarn if "no diagnosis is possible" in str(warning.message)]
    assert len(messages) == 1
    assert "training goes on without it: modality 'audio', training part: features of" in messages[0]
    assert trainer.state.global_step == trainer.state.max_steps
    assert history(tmp_path) == []


@pytest.mark.filterwarnings("ignore:no diagnosis is possible")
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
    with pytest.raises(
        ValueError, match="gives strengths for audio, video, but the re-learnt modalities are audio, vi"
    ):
        make_trainer(tmp_path, relearn_alpha="audio=0.5,video=1").train()


def test_one_single_modality_works(tmp_path):
    torch.manual_seed(0)
    labels = {index: str(index) for index in range(3)}
    model = MultimodalForClassification.from_backbones({"vision": vit_config()}, id2label=labels)
    rows = ChangedRows(lambda row: {name: value for name, value in row.items() if name != "audio_input_values"})
    trainer = make_trainer(tmp_path, model, rows, {"eval_dataset": rows}, eval_strategy="epoch", diagnosis_interval=1)
    trainer.train()
    assert [list(record["modalities"]) for record in history(tmp_path)] == [["vision"]] * 2
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
        ValueError, match="no diagnosing part: give a diagnosis data set, hold one out.*--relearn_alpha"
    ):
        trainer.train()
    with pytest.raises(ValueError, match="no diagnosing part whose features could be shown"):
        trainer.part_features()


@pytest.mark.parametrize(
    ("given", "found"), [(None, "none"), ({"a": TensorRows(), "b": TensorRows()}, r"several \(a, b")]
)
def test_the_evaluation_set_as_source_has_to_be_one(tmp_path, given, found):
    with pytest.raises(ValueError, match=f"--diagnosis_source eval needs one evaluation set, and there is {found}"):
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
