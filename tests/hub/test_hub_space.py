"""`hf-relearn space` against the stand-in of the Hub."""

import shlex
import subprocess
import sys

import pytest
from hub_client import save_tiny
from hub_server import TOKEN, USER, Fault

pytest.importorskip("gradio", reason="gradio is absent: pip install '.[demo]'")


@pytest.fixture
def space(client_environment, tmp_path):
    """Runs the command in a process that works with the stand-in."""

    def run(*argv: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "hf_relearn", "space", *argv]
        return subprocess.run(command, env=client_environment, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_a_space_with_its_model_is_pushed(space, hub, tmp_path):
    save_tiny(str(tmp_path / "moods"))
    done = space("moods", "--name", "demo-of-moods", "--private")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"at {hub.endpoint}/spaces/{USER}/demo-of-moods" in done.stdout
    repository = hub.repositories[f"spaces/{USER}/demo-of-moods"]
    written = tmp_path / "moods-space"
    files = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert set(repository.files) == files and repository.private
    assert repository.files["model/model.safetensors"] == (tmp_path / "moods" / "model.safetensors").read_bytes()
    assert not any(word in data for data in repository.files.values() for word in (b"zebediah", TOKEN.encode()))


def test_a_push_that_fails_says_what_to_run_later(space, hub, tmp_path, client_environment):
    with hub.failing(Fault("POST /api/spaces/.*/commit/", 403, times=9, message="no rights")):
        done = space("ann/moods", "--name", f"{USER}/later", "--folder", "page")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no rights" in done.stderr
    command = done.stderr[done.stderr.index("hf upload") :]
    subprocess.run(shlex.split(command), env=client_environment, check=True, capture_output=True)
    assert set(hub.repositories[f"spaces/{USER}/later"].files) == {"README.md", "app.py", "requirements.txt"}
