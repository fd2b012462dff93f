"""What a run prints."""

import re

import datasets
import pytest
from tiny import TensorRows, make_trainer, tiny_model, training_arguments
from transformers import ProgressCallback, Trainer, TrainingArguments

from hf_relearn import FeaturesConfig, MultimodalCollator, MultimodalForClassification, MultimodalProcessor
from hf_relearn.relearning.terminal import WIDTH, LineHandler, say
from hf_relearn.training import MultimodalRelearnTrainer, RelearnCallback, TerminalCallback
from hf_relearn.training.rebuild import rebuild_report

# So few samples are diagnosed that it warns.
pytestmark = pytest.mark.filterwarnings("ignore::hf_relearn.method.DiagnosisWarning")


def printed(capsys):
    """The lines on standard output, which are short and hold no dictionary."""
    out = capsys.readouterr().out
    assert "{" not in out and "relearn/" not in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    return [line for line in lines if not re.match(r"samples: |\w+: \d+ samples", line)]


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_a_run_prints_one_line_per_epoch_and_one_per_modality_and_step(tmp_path, capsys, disable_tqdm):
    trainer = make_trainer(
        tmp_path,
        model=tiny_model(unimodal_loss_weight=1.0),
        diagnosis_source="eval",
        num_train_epochs=3,
        relearn_interval=None,
        relearn_points=[1 / 3],
        diagnosis_interval=1,
        eval_strategy="epoch",
        logging_strategy="steps",
        logging_steps=1,
        disable_tqdm=disable_tqdm,
    )
    trainer.train()
    lines = printed(capsys)
    epochs = [line for line in lines if re.match(r"epoch \d/3  loss", line)]
    assert [line.split("/")[0] for line in epochs] == ["epoch 1", "epoch 2", "epoch 3"]
    evaluations = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    for line, entry in zip(epochs, evaluations, strict=True):
        assert (
            f"accuracy {entry['eval_accuracy']:.3f}  alone: audio {entry['eval_unimodal_audio_accuracy']:.3f}" in line
        )
    points = [line for line in lines if ": re-learnt" in line or ": kept" in line]
    assert [line.split()[:3] for line in points] == [["epoch", "1", "audio"], ["epoch", "1", "vision"]]
    ends = [line for line in lines if re.match(r"epoch 3  (audio|vision)", line)]
    assert len(lines) == len(epochs) + len(points) + len(ends) + 1 and len(ends) == 2
    assert lines[-1].startswith("trained 3 epochs, ")
    # What is not printed is recorded all the same.
    assert any("relearn/audio/alpha" in entry for entry in trainer.state.log_history)


def test_the_loss_of_each_epoch_is_told_and_logged_beside_a_diagnosis_at_its_end(tmp_path, capsys):
    trainer = make_trainer(
        tmp_path, relearn_strategy="no", diagnosis_interval=1, eval_strategy="epoch", logging_strategy="epoch"
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    lines = [line for line in printed(capsys) if "/3  loss" in line]
    assert len(losses) == 3 and len(set(losses)) == 3
    assert [line.split()[3] for line in lines] == [f"{loss:.4g}" for loss in losses]


def test_an_epoch_without_evaluation_tells_its_loss_once(tmp_path, capsys):
    make_trainer(tmp_path, relearn_strategy="no", num_train_epochs=2, logging_steps=1).train()
    lines = printed(capsys)
    assert [bool(re.fullmatch(r"epoch \d/2  loss [\d.]+", line)) for line in lines] == [True, True, False]


def test_a_stock_trainer_prints_the_same_lines(tmp_path, capsys):
    rows, model = TensorRows(18), tiny_model()
    arguments = TrainingArguments(
        str(tmp_path),
        num_train_epochs=4,
        eval_strategy="epoch",
        logging_strategy="epoch",
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
    )
    relearn = RelearnCallback(
        dict(model.encoders), lambda model, batch: model(**batch).features, TensorRows(18, seed=1)
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[relearn])
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TerminalCallback())
    trainer.train()
    lines = printed(capsys)
    assert len([line for line in lines if re.match(r"epoch \d/4  loss [\d.]+  validation loss", line)]) == 4
    assert len([line for line in lines if re.match(r"epoch [12]  (audio|vision) .*: (kept|re-learnt)", line)]) == 4


def test_a_trainer_says_once_how_many_samples_lack_which_modality_and_so_does_its_report(tmp_path, capsys):
    rows = [
        {"a": [1.0 * row, 0.0], "x": None if row % 4 == 0 else 1.0, "y": None if row % 2 == 0 else 2.0}
        for row in range(60)
    ]
    features = datasets.Features(
        {"a": datasets.List(datasets.Value("float64")), "x": datasets.Value("float64"), "y": datasets.Value("float64")}
    )
    data = datasets.Dataset.from_list(rows, features=features).add_column("label", [row % 3 for row in range(60)])
    backbones = {name: FeaturesConfig(input_size=2, hidden_size=8, architecture="mlp") for name in ("a", "b")}
    model = MultimodalForClassification.from_backbones(backbones, num_labels=3)
    processor = MultimodalProcessor.from_model(model.config)
    # A vector of two cells is missing if both are empty; one by itself is an error once the row is read.
    whole = data.filter(lambda row: (row["x"] is None) == (row["y"] is None))
    trainer = MultimodalRelearnTrainer(
        model,
        training_arguments(tmp_path, num_train_epochs=1, relearn_strategy="no", diagnosis_source="auto"),
        MultimodalCollator(processor, {"a": "a", "b": ["x", "y"]}),
        whole,
        whole.select(range(12)),
    )
    trainer.train()
    trainer.train()
    out = capsys.readouterr().out
    assert out.count("train: 45 samples, of which 15 (33 %) lack b.") == 1
    assert out.count("validation: 12 samples, of which 4 (33 %) lack b. So few say nothing: the standard error") == 1
    trainer.save_state()
    report = rebuild_report(tmp_path).read_text(encoding="utf-8")
    assert "- *train*: 45 samples, of which 15 (33 %) lack b." in report


def test_an_evaluation_by_itself_is_one_line(tmp_path, capsys):
    trainer = make_trainer(tmp_path)
    trainer.evaluate(metric_key_prefix="test")
    (line,) = printed(capsys)
    assert line.startswith("test  loss ") and "accuracy" in line


def test_long_lines_are_wrapped_and_tables_stay(capsys):
    table = "one" + 50 * " " + "two"
    say(f"{table}\n{'word ' * 40}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == table and len(lines) == 4 and max(map(len, lines)) <= WIDTH


def test_a_python_warning_becomes_one_line(capsys):
    import logging

    record = logging.LogRecord(
        "py.warnings", logging.WARNING, "", 0, "%s", ("/a/b.py:7: UserWarning: mind: this\n  warn()\n",), None
    )
    LineHandler().emit(record)
    assert capsys.readouterr().err == "warning: mind: this\n"
