"""Keep the processes of a run together: they fail together, and wait while the main process works alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object
from transformers import TrainingArguments

Result = TypeVar("Result")


@contextmanager
def failing_together(num_processes: int) -> Iterator[None]:
    """Raise on every process, at the end of a block that all of them run, if it failed on one.

    If one raises and the others go on to their next collective operation, they wait for it in vain; a launcher may
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
    """Do some work on the first process, and give its result to every process; all have to call this.

    The others wait for it within the time limit of collective operations: work that takes longer than `ddp_timeout`
    (30 minutes unless set) needs a longer one.

    Args:
        work: called on the first process only; its result must be picklable. It holds no collective operation.
        args: number and index of processes.

    Raises:
        Exception: on the first process, what `work` raised; on the others the same if it is a `ValueError` or an
            `OSError`, else a `RuntimeError` with its message.
    """
    if args.world_size == 1:
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if args.process_index == 0:
        try:
            outcome[0] = work()
        except Exception as error:
            failure = error
            told = isinstance(error, (ValueError, OSError))
            outcome[1] = error if told else RuntimeError(f"the first process failed: {type(error).__name__}: {error}")
    broadcast_object_list(outcome)
    if failure is not None:
        raise failure  # with its traceback
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
