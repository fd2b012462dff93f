"""A stand-in of the Hub, and a process whose Hub client knows no other (its endpoint is read at import)."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A home whose name would be found in anything that leaked it."""
    folder = tmp_path_factory.mktemp("homes") / "zebediah"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def client_environment(hub, home) -> dict[str, str]:
    """The environment of a process that works with the stand-in, Xet left out by its documented switch."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # where `hf` is
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home / "hf_home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "HOME": str(home),
        "USER": "zebediah",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def client(client_environment) -> Iterator:
    """`client(function, *args)` runs a function of a test module in the client process and gives its value."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(client_environment)
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    try:
        pool.submit(os.getpid).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
    with pool:
        yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result()
