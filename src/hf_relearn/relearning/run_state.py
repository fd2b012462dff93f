"""The state of a run on disk: the lock on its folder, its initial weights, its records and notes."""

import logging
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerState, TrainingArguments

from hf_relearn.files import FolderLock, remove_leftovers
from hf_relearn.method import InitialWeights, InitialWeightsError, interpolate_buffers_, soft_reinit_
from hf_relearn.method.tensors import is_sharded
from hf_relearn.records import (
    append_history,
    describe_record,
    make_settings_record,
    points_taken,
    write_history,
)
from hf_relearn.relearning.processes import by_first_process, failing_together
from hf_relearn.relearning.run_notes import (
    CHECKPOINT_FILE,
    changed_settings,
    checkpoint_folder,
    earlier_records,
    note_run,
    noted_initial_weights,
    noted_run,
    output_folder,
    set_records_aside,
)
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.relearning.terminal import say

logger = logging.getLogger(__name__)

LOCK_FILE = "_relearn_run.lock"


def lock_run(args: TrainingArguments, *, alone: bool = False) -> FolderLock | None:
    """Keep the output directory for this run; every process calls it, and the first one locks.

    Args:
        args: of the Trainer.
        alone: refuse another run of this process too, which is possible for a caller that always releases its lock.

    Returns:
        The lock, to be released when the run ends; None if this process holds one already, or is not the first.

    Raises:
        RuntimeError: another run is training there.
    """
    lock = None
    with failing_together(args.world_size):
        held = FolderLock.held.get(output_folder(args).absolute() / LOCK_FILE)
        if args.process_index == 0 and (held is None or (alone and held.alone)):
            lock = FolderLock(output_folder(args), LOCK_FILE, alone=alone)
            lock.acquire()
    return lock


def find_initial_weights(
    output_dir: Path, checkpoint: Path, model: nn.Module, *, verify: bool = True
) -> InitialWeights:
    """Find the initial weights of the run that wrote a checkpoint, in the output directory or beside the checkpoint.

    Args:
        output_dir: of the resumed run.
        checkpoint: from which it resumes.
        model: whose names and shapes they have to have.
        verify: read the whole file and compare its checksum; one process of a run does.

    Raises:
        InitialWeightsError: they are not there, are damaged, or are those of another model; or the checkpoint does not
            say which they are. Neither the resumed weights nor another run's are ever taken for initial ones.
    """
    checksum = noted_initial_weights(checkpoint)
    if checksum is None:
        raise InitialWeightsError(
            f"cannot resume from {checkpoint}: no {CHECKPOINT_FILE} there says what the run's initial weights "
            "were, so the run was saved without re-learning. Resume with --relearn_strategy no, or start afresh; with "
            "a Trainer of your own and a checkpoint outside its output_dir, set RelearnCallback.checkpoint_folder"
        )
    for folder in (output_dir, checkpoint.parent):
        for path in InitialWeights.find(folder, checksum):
            initial = InitialWeights.load(path, checksum if verify else None)
            initial.check_matches(model)
            return initial
    found = {path.name for folder in (output_dir, checkpoint.parent) for path in InitialWeights.find(folder)}
    raise InitialWeightsError(
        f"cannot resume from {checkpoint}: the run's initial weights {InitialWeights.file_name(checksum)} are not in "
        f"{output_dir} (found {', '.join(sorted(found)) or 'none'}). Copy the file there, resume with "
        "--relearn_strategy no, or start afresh; the checkpoint's own weights are trained ones and cannot stand in"
    )


def remove_stale_initial_weights(output_dir: Path, current: InitialWeights) -> None:
    """Delete initial weights of earlier runs in this folder that none of its checkpoints needs any more."""
    needed = {noted_initial_weights(checkpoint) for checkpoint in output_dir.glob("checkpoint-*")}
    if None in needed:
        return
    kept = {InitialWeights.file_name(checksum) for checksum in needed if checksum} | {current.path.name}
    for path in InitialWeights.find(output_dir):
        if path.name not in kept:
            path.unlink()


def write_initial_weights(args: TrainingArguments, model: nn.Module, prefixes: Iterable[str]) -> InitialWeights:
    """Write a starting run's initial weights, once for all processes, and remove those that nothing needs any more.

    Every process calls it; of a sharded model (FSDP2) each gives its parts.

    Args:
        args: of the Trainer.
        model: before its first training step.
        prefixes: full names of the encoders.
    """
    folder, prefixes = output_folder(args), list(prefixes)

    def write() -> Path:
        initial = InitialWeights.save(model, folder, prefixes=prefixes)
        if args.process_index == 0:
            remove_stale_initial_weights(folder, initial)
        return initial.path

    # The parts of a sharded model are gathered tensor by tensor, and all processes know the file at the end.
    together = any(is_sharded(parameter) for parameter in model.parameters())
    return InitialWeights.load(write() if together else by_first_process(write, args))


class RunBookkeeping:
    """Keep a run's files beside the Trainer's own: begin them afresh, or read them back if the run is resumed.

    Made, and told of records, by every process alike; only those that save write.

    Args:
        args: of the Trainer, with the folder of this run as output directory.
        state: of the Trainer, when training begins.
        settings: noted in checkpoints.
        checkpoint: the folder from which a run resumes; None looks for it in the output directory.

    Attributes:
        resumed_from: the checkpoint from which the run resumes; None at its first start.
        initial: the store of initial weights, once `open_initial_weights` was called.
        records: oldest first, as `read_history` tells of them, once `open_records` was called.
    """

    def __init__(
        self, args: TrainingArguments, state: TrainerState, settings: RelearnSettings, checkpoint: str | None
    ):
        self.args = args
        self.settings = settings
        self.resumed_from: Path | None = None
        self.initial: InitialWeights | None = None
        self.records: list[dict[str, Any]] = []
        self._checksum: str | None = None
        self._run = uuid.uuid4().hex
        self._lock = lock_run(args)
        if args.should_save:
            folder = output_folder(args)
            for each in (folder, *folder.glob("checkpoint-*")):
                remove_leftovers(each)
        if state.global_step > 0:
            self.resumed_from = Path(checkpoint or checkpoint_folder(args, state))
            self._checksum = noted_initial_weights(self.resumed_from)
            self._run = noted_run(self.resumed_from) or self._run

    @property
    def points_taken(self) -> int:
        """Number of re-learning steps that the run has had."""
        return points_taken(self.records)

    def open_initial_weights(
        self, model: nn.Module, encoders: Iterable[str], failed: InitialWeights | None = None
    ) -> None:
        """Write the initial weights of a starting run, or find those of a resumed one.

        Args:
            model: before its first training step.
            encoders: their full names.
            failed: the initial weights of an attempt that did not fit into memory; the encoders go back to them.

        Raises:
            InitialWeightsError: as `find_initial_weights`.
        """
        if self.resumed_from is not None:
            verify = self.args.process_index == 0
            with failing_together(self.args.world_size):
                self.initial = find_initial_weights(output_folder(self.args), self.resumed_from, model, verify=verify)
        elif failed is not None:
            logger.warning(
                "training starts over with a smaller batch: the encoders go back to their initial weights; fusion, "
                "head, optimizer and random generators stay as the failed attempt left them"
            )
            self.initial = failed
            for name in encoders:
                encoder = model.get_submodule(name)
                soft_reinit_(encoder, failed.subset(name), 1.0)
                interpolate_buffers_(encoder, failed.subset(name), 1.0)
            self._checksum = failed.checksum
        else:
            self.initial = write_initial_weights(self.args, model, encoders)
            self._checksum = self.initial.checksum

    def open_records(self, state: TrainerState) -> None:
        """Begin the record of a starting run; of a resumed one keep what came before, and note changed settings."""
        if self.resumed_from is not None:
            folder, checkpoint = output_folder(self.args), self.resumed_from
            self.records = by_first_process(lambda: earlier_records(folder, checkpoint, state.global_step), self.args)
            over = state.global_step >= state.max_steps
            changed = changed_settings(self.resumed_from, self.settings) if not over else {}
            if changed:
                self.records.append(make_settings_record(state.global_step, state.epoch, changed))
                for name, values in changed.items():
                    logger.warning("resumed with another --%s: %s instead of %s", name, values["to"], values["from"])
        with failing_together(self.args.world_size):
            if self.args.should_save:
                set_records_aside(output_folder(self.args), self._run)
                write_history(output_folder(self.args), self.records)
                note_run(output_folder(self.args), self._run, self._checksum, self.settings)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, on disk too."""
        self.records.append(record)
        with failing_together(self.args.world_size):
            if self.args.should_save:
                append_history(output_folder(self.args), record)
        if self.args.process_index == 0 and record["kind"] in ("point", "end"):
            for line in describe_record(record):
                say(line)

    def has_end(self, step: int | None = None) -> bool:
        """Check whether there is a record of the run's end: at this step, or at any."""
        return any(record["kind"] == "end" and step in (None, record["step"]) for record in self.records)

    def write_into(self, checkpoint: Path) -> None:
        """Write into a checkpoint what a resumed run reads: how many records, the settings, which initial weights."""
        note_run(checkpoint, self._run, self._checksum, self.settings, records=len(self.records))

    def close(self, step: int) -> None:
        """Note that the run has come to its end, and let others have its folder."""
        if self.args.should_save:
            note_run(output_folder(self.args), self._run, self._checksum, self.settings, ended_at=step)
        if self._lock is not None:
            self._lock.release()
