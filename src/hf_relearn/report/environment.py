"""Versions and machine of a run, as rows for a report."""

import os
import platform
from importlib import metadata

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "scikit-learn", "hf_relearn")


def environment() -> dict[str, str]:
    """What the run was made with.

    Returns:
        Python's version, the version of every package of `PACKAGES` that is installed, and the machine: operating
        system, processor architecture and the number of cores that this process may use.
    """
    rows = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            rows[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    rows["machine"] = f"{platform.system()} {platform.release()}, {platform.machine()}, {cores} cores"
    return rows
