"""Push to the Hub: exactly the files that a colleague needs, and no failure that costs a run."""

import json
import logging
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HFValidationError
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from hf_relearn.files import write_whole_text
from hf_relearn.hub.local_paths import local_roots, scrub_json
from hf_relearn.hub.staging import CARD, TRAINING_ARGUMENTS_FILE, stage
from hf_relearn.hub.upload import PushError, explain, push_folder

logger = logging.getLogger(__name__)

STAGING_FOLDER = "_to_push"  # below the output directory; the Trainer uploads nothing whose name begins so
_NOT_SHARED = ("hub_", "push_to_hub", "output_dir", "logging_dir", "run_name", "local_rank", "resume_from_checkpoint")


class PushingTrainer(Trainer):
    """The part of `MultimodalRelearnTrainer` that pushes: no pickles, no local paths, no tokens.

    A push that fails costs nothing: at the start and during training it is one warning, and `save_model` notes it in
    `push_failure`; `push_to_hub` raises `PushError`, whose message names the command that pushes later. No pickle of
    the arguments is kept or pushed: they are written as `training_arguments.json`, without paths and tokens.

    Attributes:
        push_failure: the last push's failure, None after one that succeeded.
    """

    push_failure: PushError | None = None
    push_in_progress: Any
    hub_model_id: Any
    _warned_of_push = False

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository. If that fails, training goes on, and the push at its end tries again.

        Raises:
            ValueError: for a name that no repository can have, or a `hub_strategy` that pushes checkpoints, since
                those hold pickles (the state of optimizer and random generators) which nobody should load.
        """
        self.push_in_progress = None
        if HubStrategy(self.args.hub_strategy) in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"--hub_strategy {HubStrategy(self.args.hub_strategy).value} would push checkpoints, whose optimizer "
                "and random states are pickles: use every_save or end, and copy checkpoints between your own machines"
            )
        try:
            super().init_hf_repo(token, private)
        except HFValidationError:
            raise  # now, before anything was trained
        except Exception as error:
            self._warn_of_push(f"the repository cannot be created: {explain(error)}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as `Trainer.save_model` does, then push with `--push_to_hub`; a failure is kept in `push_failure`."""
        super().save_model(output_dir, _internal_call=True)
        if self.args.push_to_hub and not _internal_call:
            self.try_push("Model save")

    def try_push(self, commit_message: str) -> None:
        """Push as `push_to_hub` does, and keep a failure in `push_failure` in place of raising it."""
        try:
            self.push_to_hub(commit_message)
        except PushError as error:
            logger.error("%s", error)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """Push the model as it is: weights, configuration, processor, card, figures, arguments, record and code.

        Args:
            commit_message, token, revision, private: as in `Trainer.push_to_hub`.
            blocking: only True; uploads during training run in the background by themselves.
            **kwargs: of `create_model_card`.

        Returns:
            The commit on the main process, None on others.

        Raises:
            PushError: if the push failed. The model is saved in the output directory and, ready to be pushed, in
                its folder `_to_push`; the message names the command.
            ValueError: for `blocking=False`.
        """
        if not blocking:
            raise ValueError("push_to_hub(blocking=False) is not supported, since nobody would see it fail")
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        output_dir = Path(str(self.args.output_dir))
        for leftover in output_dir.glob(f"{STAGING_FOLDER}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = output_dir / STAGING_FOLDER
        try:
            self._stage(output_dir, folder, **kwargs)
            commit = push_folder(
                folder,
                self._repository(),
                token=token if token is not None else self.args.hub_token,
                private=private if private is not None else self.args.hub_private_repo,
                revision=revision if revision is not None else self.args.hub_revision,
                commit_message=commit_message or "End of training",
                api=self._hub_api,
            )
        except PushError as error:
            self.push_failure = error
            raise
        except (OSError, ValueError) as error:  # nothing could be gathered: a full disk, files gone
            self.push_failure = PushError(
                f"Nothing was pushed: {error}. The model is saved in {output_dir}; see to the cause, then load it "
                "from there and push again"
            )
            raise self.push_failure from error
        self.push_failure = None
        shutil.rmtree(folder, ignore_errors=True)
        self.hub_model_id = commit.repo_url.repo_id
        return commit

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's model, and nothing else of it, in the background."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress
        if running is not None and running.is_done():
            running = None
        if running is not None and not self.args.hub_always_push:
            return
        folder = Path(str(self.args.output_dir)) / f"{STAGING_FOLDER}-{self.state.global_step}"
        try:
            self._stage(Path(checkpoint_folder), folder)
        except (OSError, ValueError) as error:
            self._warn_of_push(str(error))
            return
        by_epoch = self.args.save_strategy == "epoch"
        place = f"epoch {int(self.state.epoch or 0)}" if by_epoch else f"step {self.state.global_step}"
        job = self._hub_api.run_as_future(self._push_in_background, folder, f"Training in progress, {place}")
        self.push_in_progress = PushInProgress([*(running.jobs if running is not None else []), job])  # type: ignore

    def _push_in_background(self, folder: Path, commit_message: str) -> None:
        try:
            push_folder(
                folder,
                self._repository(),
                token=self.args.hub_token,
                private=self.args.hub_private_repo,
                revision=self.args.hub_revision,
                commit_message=commit_message,
                api=self._hub_api,
            )
        except PushError as error:
            self._warn_of_push(explain(error.__cause__ or error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _stage(self, saved: Path, folder: Path, **card: Any) -> None:
        name = self._repository().split("/")[-1]
        try:
            self.callback_handler.on_push_begin(self.args, self.state, self.control)  # writes the card
            if card or not (Path(str(self.args.output_dir)) / CARD).is_file():
                self.create_model_card(**{"model_name": name, **card})
        except Exception as error:  # a model without a card is better than none
            logger.warning("The model card could not be written: %s", error)
        stage(saved, folder, run=str(self.args.output_dir))

    @cached_property
    def _hub_api(self) -> HfApi:
        """One client, whose background uploads come one after the other."""
        return HfApi(library_name="hf_relearn")

    def _repository(self) -> str:
        """Return the repository's name: as created, as given, or that of the output directory."""
        return self.hub_model_id or self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name

    def _warn_of_push(self, reason: str) -> None:
        if not self._warned_of_push:
            self._warned_of_push = True
            logger.warning("Nothing is pushed for now: %s. Training goes on; its end tries to push again.", reason)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(str(output_dir if output_dir is not None else self.args.output_dir))
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle
            write_whole_text(folder / TRAINING_ARGUMENTS_FILE, shareable_arguments(self.args))


def shareable_arguments(args: TrainingArguments) -> str:
    """Write the arguments as sorted JSON, without those of one machine or user: folders, tokens, the Hub's names."""
    shared = {name: value for name, value in args.to_dict().items() if not name.startswith(_NOT_SHARED)}
    return json.dumps(scrub_json(shared, local_roots(str(args.output_dir))), indent=2, sort_keys=True) + "\n"
