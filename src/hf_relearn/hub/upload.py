"""Upload a staged folder; if that fails, say why and how to go on."""

import logging
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

logger = logging.getLogger(__name__)

PUSH_FAILED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: what failed can be tried again
ATTEMPTS = 3
LONGEST_WAIT = 300.0  # seconds
# Weights of an earlier push that this one does not replace would be loaded in place of its own.
STALE_FILES = ("model*.safetensors*", "adapter_model*.safetensors*", "pytorch_model*", "training_args.bin")

_REASONS = {
    401: "the token is missing, expired or wrong (hf auth login, or HF_TOKEN), or the repository is not yours",
    402: "the account's plan does not cover it",
    403: "the token or account has no right to write there, or its storage is full",
    404: "the repository or branch does not exist",
    413: "a file or the repository is larger than the account may store",
    429: "too many requests in a short time",
}


class PushError(RuntimeError):
    """Report a push that failed: why, where the files are, and the command that pushes them later.

    Attributes:
        command: the command; None if nothing was gathered yet.
    """

    def __init__(self, message: str, command: str | None = None):
        super().__init__(message)
        self.command = command


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload of a model",
    repo_type: str | None = None,
    api: HfApi | None = None,
) -> CommitInfo:
    """Push a folder that `stage` made, as one commit (or several, if the Hub's client divides a large one).

    The repository is created if it is missing. Weights that an earlier push left there and this one does not
    replace are deleted. A passing failure (no connection, too many requests, an error of the server) is tried again.

    Args:
        folder: what is pushed; it is left as it is.
        repo_id: `owner/name`, or a name in the token's own account.
        token: None takes the one that is logged in.
        private: whether a new repository is private; None: as the account has it.
        revision: branch to commit to; None: `main`.
        commit_message: of the commit.
        repo_type: None for a model, or `"space"`, one of Gradio.
        api: client; None makes one for the endpoint that `HF_ENDPOINT` names.

    Raises:
        PushError: if it did not succeed.
    """
    api = api or HfApi(library_name="hf_relearn")
    attempt = 1
    while True:
        try:
            repo_id = api.create_repo(
                repo_id,
                token=token,
                private=private,
                repo_type=repo_type,
                space_sdk="gradio" if repo_type == "space" else None,
                exist_ok=True,
            ).repo_id
            return api.upload_folder(
                repo_id=repo_id,
                repo_type=repo_type,
                folder_path=Path(folder),
                commit_message=commit_message,
                token=token,
                revision=revision,
                delete_patterns=list(STALE_FILES),
            )
        except Exception as error:  # from a dozen layers, of as many types
            wait = seconds_to_wait(error, attempt)
            if wait is None or attempt == ATTEMPTS:
                command = push_command(folder, repo_id, private=private, revision=revision, repo_type=repo_type)
                raise PushError(
                    f"The push to {repo_id} failed: {explain(error)}. Nothing is lost: all that belongs there is in "
                    f"{folder}. To push it later:\n  {command}",
                    command,
                ) from error
            logger.warning("The push to %s failed (%s); trying again in %g s", repo_id, explain(error), wait)
            time.sleep(wait)
            attempt += 1


def push_command(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    repo_type: str | None = None,
) -> str:
    """Write the shell command that pushes a staged folder."""
    words = ["hf", "upload", repo_id, str(Path(folder).absolute()), "."]
    words += ["--repo-type", repo_type] if repo_type else []
    words += ["--private"] if private else []
    words += ["--revision", revision] if revision else []
    for pattern in STALE_FILES:
        words += ["--delete", pattern]
    return shlex.join(words)


def explain(error: BaseException) -> str:
    """Say in one clause why a request to the Hub failed, with the server's words."""
    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            said = cause.server_message or cause.response.headers.get("X-Error-Message") or ""
            reason = _REASONS.get(status, "the server failed" if status >= 500 else "the server refused it")
            return f"{reason} (HTTP {status}{f': {said.strip()}' if said else ''})"
        if isinstance(cause, OfflineModeIsEnabled):
            return "the Hub's client is offline (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
        if isinstance(cause, LocalTokenNotFoundError):
            return _REASONS[401]
        if _is_of_network(cause):
            return f"no connection to the Hub ({cause or type(cause).__name__})"
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:500]


def seconds_to_wait(error: BaseException, attempt: int) -> float | None:
    """Choose how long to wait before a failed request is tried again; None if it would fail again."""
    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            if status != 429 and status < 500:
                return None
            try:
                return min(float(cause.response.headers.get("Retry-After", 2.0 ** (attempt - 1))), LONGEST_WAIT)
            except ValueError:  # a date
                return 2.0 ** (attempt - 1)
        if isinstance(cause, (OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError)):
            return None
        if _is_of_network(cause):
            return 2.0 ** (attempt - 1)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_of_network(error: BaseException) -> bool:
    """Check for a failed connection by name, since releases of the Hub's client use different HTTP libraries."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "Timeout", "TimeoutError"})
