"""Versions and machine of a run, as rows for a report."""

import os
import platform
from importlib import metadata

import torch

import hf_relearn

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "scikit-learn")


def environment() -> dict[str, str]:
    """Describe the software and the machine of a run.

    Returns:
        Python's version, the version of every package of `PACKAGES` that is installed, and the machine: operating
        system, processor architecture, the number of cores that this process may use, and its accelerators.
    """
    rows = {"python": platform.python_version(), "hf_relearn": hf_relearn.__version__}
    for package in PACKAGES:
        try:
            rows[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    rows["machine"] = f"{platform.system()}, {platform.machine()}, {cores} cores"
    if torch.cuda.is_available():
        rows["accelerator"] = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return rows
