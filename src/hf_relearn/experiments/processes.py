"""Runs as processes of their own, spread over the devices, which end with the process that started them."""

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

_CHILD = "HF_RELEARN_RUN_OF_COMPARISON"
# What a launcher tells its processes of each other.
_LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_MOST_CPU_JOBS = 4


class RunFailed(RuntimeError):
    """A run ended before it was finished; the message says why."""


class Processes:
    """Start commands and wait for them.

    A command's threads and its device are the same however many run at once, so its figures are, too.

    Args:
        use_cpu: whether to leave GPUs alone.
        jobs: commands at the same time; None for one on each GPU, or up to 4 on a CPU.
    """

    def __init__(self, use_cpu: bool, jobs: int | None = None):
        gpus = 0 if use_cpu or not torch.cuda.is_available() else torch.cuda.device_count()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        usual = gpus or min(cores, _MOST_CPU_JOBS)
        self.jobs = jobs or usual
        self._threads = None if gpus else max(1, cores // usual)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        devices = visible if len(visible) == gpus and all(visible) else [str(index) for index in range(gpus)]
        self._devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for job in range(self.jobs):
            self._devices.put(devices[job % gpus] if gpus else None)
        self._running: set[subprocess.Popen] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], log: Path) -> None:
        """Run a command to its end, with all that it prints in a file.

        Raises:
            RunFailed: if it did not end well.
        """
        device = self._devices.get()
        try:
            with open(log, "ab") as output:
                with self._lock:
                    if self._stopped:
                        raise RunFailed("the comparison was stopped")
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,  # whose end tells the process that this one is gone
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=self._environment(device),
                    )
                    self._running.add(process)
                code = process.wait()
                assert process.stdin is not None
                process.stdin.close()
        finally:
            self._devices.put(device)
        with self._lock:
            self._running.discard(process)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise RunFailed(f"{lines[-1].strip() if lines else 'it printed nothing'} ({how}; see {log})")

    def stop(self) -> None:
        """End the commands that still run, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _environment(self, device: str | None) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
        environment = {name: value for name, value in environment.items() if not name.startswith("TORCHELASTIC_")}
        environment[_CHILD] = "1"
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        if self._threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(self._threads))
        return environment


def is_child() -> bool:
    """Check whether this process is a run of a comparison."""
    return os.environ.get(_CHILD) == "1"


def die_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended."""

    def watch() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would be held when Python ends
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
