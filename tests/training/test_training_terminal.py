"""What a run prints."""

import re

import pytest
from tiny import TensorRows, make_trainer, tiny_model
from transformers import ProgressCallback, Trainer, TrainingArguments

from hf_relearn.relearning.terminal import WIDTH, LineHandler, say
from hf_relearn.training import RelearnCallback, TerminalCallback

# So few samples are diagnosed that it warns.
pytestmark = pytest.mark.filterwarnings("ignore::hf_relearn.method.DiagnosisWarning")


def printed(capsys):
    """The lines on standard output, which are short and hold no dictionary."""
    out = capsys.readouterr().out
    assert "{" not in out and "relearn/" not in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    return lines


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
