"""Preparations of CREMA-D that are ended by SIGKILL: `python killed_preparation.py CLONE FOLDER KILLS EVENTS.json`.

Each is a process of its own, forked from this one. One for each event (audit event, part of a path, which occurrence)
is killed there, as many as KILLS say at a random moment; each in a cache of its own, that a last process completes.
What the killed one left behind is copied to `<cache>-killed`.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from hf_relearn.data import cremad, prepare_cremad

cremad.CLIPS_PER_SHARD = 8


def prepare(clone: str, cache: Path, event: list | None, delay: float) -> int:
    """Prepare in a new process, ended at an event or after a delay in seconds; its exit status."""
    process = os.fork()
    if process == 0:
        seen = []

        def watch(name: str, arguments: tuple) -> None:
            if event is not None and name == event[0] and event[1] in str(arguments[0]):
                seen.append(name)
                if len(seen) == event[2]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            rows = prepare_cremad(clone, cache, num_proc=1, max_unreadable_share=1.0)
            cache.with_name(f"{cache.name}.json").write_text(json.dumps(rows.remove_columns(["audio", "frames"])[:]))
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + delay
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    if ended[0] == 0:
        os.kill(process, signal.SIGKILL)
        ended = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(ended[1])


def main() -> None:
    clone, folder = sys.argv[1], Path(sys.argv[2])
    generator = random.Random(0)
    start = time.monotonic()
    assert prepare(clone, folder / "whole", None, 60.0) == 0
    seconds = time.monotonic() - start
    kills = {f"event-{number}": (event, 60.0) for number, event in enumerate(json.loads(sys.argv[4]))}
    kills |= {f"random-{number}": (None, generator.uniform(0, seconds)) for number in range(int(sys.argv[3]))}
    for name, (event, delay) in kills.items():
        status = prepare(clone, folder / name, event, delay)
        assert status == -signal.SIGKILL or (event is None and status == 0), (name, status)
        if (folder / name).is_dir():
            shutil.copytree(folder / name, folder / f"{name}-killed")
        assert prepare(clone, folder / name, None, 60.0) == 0, name


if __name__ == "__main__":
    main()
