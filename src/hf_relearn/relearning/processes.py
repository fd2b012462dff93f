"""What concerns all processes of a run: they fail together, and wait together for what the first one does alone."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object
from transformers import TrainingArguments

Result = TypeVar("Result")

# Seconds after which waiting processes are told that the first one is still busy.
_PATIENCE = 10.0


@contextmanager
def failing_together(num_processes: int) -> Iterator[None]:
    """Raise on every process, at the end of a block that all of them run, if it failed on one.

    Where one raises and the others go on to their next collective operation, they wait for it in vain; a launcher may
    end them, or nothing does until the operation's time limit. The block itself must hold no collective operation.

    Args:
        num_processes: those that run the block; with one nothing is communicated.

    Raises:
        Exception: what the block raised on this process.
        RuntimeError: on the other processes; it names the process that failed, and quotes its message.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if num_processes == 1:
            raise
        failure = error
    if num_processes == 1:
        return
    messages: list[str | None] = []
    try:
        failed = torch.tensor([failure is not None], dtype=torch.int32, device=PartialState().device)
        if gather(failed).any():
            messages = gather_object([f"{type(failure).__name__}: {failure}" if failure is not None else None])
    finally:
        if failure is not None:
            raise failure  # rather than what comes of it, if the others have ended meanwhile
    for index, message in enumerate(messages):
        if message is not None:
            raise RuntimeError(f"process {index} of {num_processes} failed, and so all of them end: {message}")


def by_first_process(work: Callable[[], Result], args: TrainingArguments) -> Result:
    """What the first process makes of `work`, on every process; all have to call this.

    However long it takes, the others do not run into the time limit of collective operations (`ddp_timeout`): the
    work is done in a thread, while the first process lets the others know every few seconds that it goes on.

    Args:
        work: called on the first process only; what it returns must be picklable. It holds no collective operation.
        args: number and index of processes, and their time limit.

    Raises:
        Exception: on every process, what `work` raised; on the others a `RuntimeError` with its message where the
            exception itself cannot be sent.
    """
    if args.world_size == 1:
        return work()
    thread = _Worker(work) if args.process_index == 0 else None
    outcome: list[Any] = [None]
    while outcome[0] is None:
        if thread is not None:
            thread.join(min(_PATIENCE, args.ddp_timeout / 4))
            if not thread.is_alive():
                outcome = [(thread.result, None if thread.failure is None else _sendable(thread.failure))]
        broadcast_object_list(outcome)
    result, failure = outcome[0]
    if thread is not None and thread.failure is not None:
        raise thread.failure  # with its traceback
    if failure is not None:
        raise failure
    return result


class _Worker(Thread):
    """Runs a function, and keeps what it returned or raised."""

    def __init__(self, work: Callable[[], Any]):
        super().__init__(daemon=True)  # a process that is told to end does not wait for it
        self.work = work
        self.result: Any = None
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:  # or the other processes would wait for ever
            self.failure = error


def _sendable(error: BaseException) -> BaseException:
    """The exception itself if it survives pickling, else one with its message."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"the first process failed: {type(error).__name__}: {error}")
