"""The bookkeeping of one run: its initial weights, its records, and what its checkpoints say of both."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerState, TrainingArguments

from hf_relearn.method import InitialWeights
from hf_relearn.training.arguments import RelearnSettings
from hf_relearn.training.history import points_taken, write_history
from hf_relearn.training.processes import failing_together
from hf_relearn.training.record import describe_record, make_settings_record
from hf_relearn.training.run_files import (
    changed_settings,
    checkpoint_folder,
    earlier_records,
    find_initial_weights,
    note_run,
    noted_initial_weights,
    output_folder,
    remove_leftovers,
    write_initial_weights,
)

logger = logging.getLogger(__name__)


class RunBookkeeping:
    """What a run leaves on disk beside the Trainer's own files, begun afresh or read back where it is resumed.

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
        self._fingerprint: str | None = None
        if args.should_save:
            remove_leftovers(output_folder(args))
        if state.global_step > 0:
            self.resumed_from = Path(checkpoint or checkpoint_folder(args, state))
            self._fingerprint = noted_initial_weights(self.resumed_from)

    @property
    def points_taken(self) -> int:
        """How many re-learning points the run has had."""
        return points_taken(self.records)

    def open_initial_weights(self, model: nn.Module, encoders: Iterable[str]) -> None:
        """Write the initial weights of a starting run, or find those of a resumed one; `encoders` are full names.

        Raises:
            InitialWeightsError: as `find_initial_weights`.
        """
        if self.resumed_from is not None:
            self.initial = find_initial_weights(output_folder(self.args), self.resumed_from, model)
        else:
            self.initial = write_initial_weights(self.args, model, encoders)
            self._fingerprint = self.initial.fingerprint

    def open_records(self, state: TrainerState) -> None:
        """Begin the record of a starting run; of a resumed one keep what came before, and note changed settings."""
        if self.resumed_from is not None:
            self.records = earlier_records(output_folder(self.args), self.resumed_from, state.global_step)
            over = state.global_step >= state.max_steps
            changed = changed_settings(self.resumed_from, self.settings) if not over else {}
            if changed:
                self.records.append(make_settings_record(state.global_step, state.epoch, changed))
                for name, values in changed.items():
                    logger.warning("resumed with another --%s: %s instead of %s", name, values["to"], values["from"])
        self._write()

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, on disk too."""
        self.records.append(record)
        self._write()
        if self.args.should_save:
            for line in describe_record(record):
                logger.info(line)

    def has_end(self, step: int | None = None) -> bool:
        """Whether there is a record of the run's end: at this step, or at any."""
        return any(record["kind"] == "end" and step in (None, record["step"]) for record in self.records)

    def write_into(self, checkpoint: Path) -> None:
        """Write into a checkpoint what a resumed run reads: the records, the settings, which initial weights."""
        write_history(checkpoint, self.records)
        note_run(checkpoint, self._fingerprint, self.settings)

    def _write(self) -> None:
        with failing_together(self.args.world_size):
            if self.args.should_save:
                write_history(output_folder(self.args), self.records)
