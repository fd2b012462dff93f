"""Running a function over jobs in several processes, safe in any script."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from joblib.externals.loky import ProcessPoolExecutor, as_completed

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of CPU cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def map_unordered(function: Callable[[Job], Result], jobs: Sequence[Job], num_proc: int) -> Iterator[Result]:
    """Yield the result of every job as it is finished, in no particular order.

    Fresh processes are started that import only what `function` needs. Forked ones could inherit a lock that a thread
    of torch holds, and those of `multiprocessing`'s `spawn` run the user's script again unless it is guarded by
    `if __name__ == "__main__"`; neither happens here. When a job raises, or the caller stops early, the others are
    ended.

    Args:
        function: A function of an importable module; it and its jobs are pickled.
        jobs: What it is called with.
        num_proc: Number of processes, at least 1; with 1, or a single job, everything runs in this process.

    Yields:
        Results.

    Raises:
        ValueError: When `num_proc` is below 1.
    """
    if num_proc < 1:
        raise ValueError(f"num_proc is {num_proc}; it must be 1 or more")
    num_proc = min(num_proc, len(jobs))
    if num_proc <= 1:
        for job in jobs:
            yield function(job)
        return
    executor = ProcessPoolExecutor(max_workers=num_proc, env={"OMP_NUM_THREADS": "1"})
    finished = False
    try:
        for future in as_completed([executor.submit(function, job) for job in jobs]):
            yield future.result()
        finished = True
    finally:
        executor.shutdown(wait=True, kill_workers=not finished)
