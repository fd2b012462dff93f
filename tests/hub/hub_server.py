"""A stand-in of the Hub on the loopback address: enough of its protocol for `huggingface_hub` to push and pull.

It knows one user with one token, keeps repositories in memory, records every request, and fails where a test says so.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

USER = "ann-example"
TOKEN = "hf_" + "StandInOfATokenForTests0123456789"
BINARY = (".safetensors", ".png", ".bin", ".wav")  # what the Hub keeps as large files


@dataclass
class Repository:
    """Files at the head of `main`, and the commits that made them."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def oid(self) -> str:
        return hashlib.sha1(json.dumps(self.commits).encode()).hexdigest()


@dataclass
class Fault:
    """What happens to the next `times` requests whose `METHOD path` matches `pattern`.

    With `cut_after`, the connection is closed after so many bytes of the request's body; otherwise `status` is the
    answer.
    """

    pattern: str
    status: int = 500
    times: int = 1
    message: str = "a fault that the test asked for"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    met: int = 0


class HubServer(ThreadingHTTPServer):
    """The server; `with HubServer() as hub` serves in a thread, at `hub.endpoint`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}  # Spaces as spaces/owner/name
        self.large_files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()

    @contextlib.contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """Faults for a while, with no large file known from before; one that nothing ran into is the test's error."""
        self.faults = list(faults)
        self.large_files.clear()
        try:
            yield
            assert all(fault.met for fault in faults), f"nothing ran into one of {faults}"
        finally:
            self.faults = []

    def due_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.met < fault.times and re.search(fault.pattern, request):
                    fault.met += 1
                    return fault
        return None

    def put(self, repo_id: str, files: Mapping[str, bytes]) -> None:
        """A repository that was not pushed, such as a hostile one."""
        digest = hashlib.sha1(b"".join(files.values())).hexdigest()
        self.repositories[repo_id] = Repository(dict(files), commits=[{"summary": "as given", "digest": digest}])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: object) -> None:
        """Silence."""

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.server.requests.append((self.command, path))
        fault = self.server.due_fault(request)
        if fault is not None and fault.cut_after is not None:
            self.rfile.read(fault.cut_after)
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if fault is not None:
            self._answer(fault.status, {"error": fault.message}, {"X-Error-Message": fault.message, **fault.headers})
            return
        for method, pattern, needs_token, action in _ROUTES:
            if self.command in method.split("|") and (match := re.fullmatch(pattern, path)):
                if needs_token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self._answer(401, {"error": "Invalid username or password."})
                else:
                    with self.server.lock:
                        action(self, body, *match.groups())
                return
        self._answer(404, {"error": f"no such route: {request}"}, {"X-Error-Code": "EntryNotFound"})

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, content: Any = None, headers: Mapping[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _repository(self, repo_id: str) -> Repository | None:
        repository = self.server.repositories.get(repo_id)
        if repository is None:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repository

    def whoami(self, body: bytes) -> None:
        self._answer(
            200, {"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token"}}
        )

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        owner = wanted.get("organization") or USER
        if owner != USER:
            self._answer(403, {"error": f"You don't have the rights to create a model under {owner}"})
            return
        repo_id = f"{owner}/{wanted['name']}"
        if wanted.get("type") == "space":
            if wanted.get("sdk") != "gradio":
                self._answer(400, {"error": "a Space needs an SDK"})
                return
            repo_id = f"spaces/{repo_id}"
        status = 409 if repo_id in self.server.repositories else 200
        private = wanted.get("visibility") == "private"
        self.server.repositories.setdefault(repo_id, Repository(private=private))
        self._answer(status, {"url": f"{self.server.endpoint}/{repo_id}", "name": repo_id})

    def validate_yaml(self, body: bytes) -> None:
        front = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
        try:
            valid = front is None or isinstance(yaml.safe_load(front[1]), dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "the metadata are no YAML mapping"}]
        if valid and front is not None and yaml.safe_load(front[1]).get("license") == "mine":
            errors = [{"message": '"license" must be one of [apache-2.0, mit, ...]'}]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        if (repository := self._repository(repo_id)) is not None:
            files = [
                {
                    "path": item["path"],
                    "uploadMode": "lfs" if item["path"].endswith(BINARY) else "regular",
                    "shouldIgnore": False,
                    "oid": _etag(item["path"], repository.files[item["path"]])
                    if item["path"] in repository.files
                    else None,
                }
                for item in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})

    def large_file_batch(self, body: bytes, repo_id: str) -> None:
        objects = []
        for item in json.loads(body)["objects"]:
            oid = item["oid"]
            upload = {"upload": {"href": f"{self.server.endpoint}/storage/{repo_id}/{oid}"}}
            objects.append({**item, **({} if oid in self.server.large_files else {"actions": upload})})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, repo_id: str, oid: str) -> None:
        right = hashlib.sha256(body).hexdigest() == oid
        if right:
            self.server.large_files[oid] = body
        self._answer(200 if right else 400, {})

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        if (repository := self._repository(repo_id)) is None:
            return
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large_files[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repository.files = files
        repository.commits.append({"summary": lines[0]["value"]["summary"], "files": sorted(files)})
        url = f"{self.server.endpoint}/{repo_id}/commit/{repository.oid}"
        self._answer(200, {"commitUrl": url, "commitOid": repository.oid, "pullRequestUrl": None})

    def model_info(self, body: bytes, repo_id: str, revision: str | None = None) -> None:
        if (repository := self._repository(repo_id)) is not None:
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            info = {
                "id": repo_id,
                "sha": repository.oid,
                "siblings": siblings,
                "private": repository.private,
                "tags": [],
            }
            self._answer(200, info)

    def tree(self, body: bytes, repo_id: str, revision: str, folder: str | None = None) -> None:
        if (repository := self._repository(repo_id)) is not None:
            prefix = f"{folder.strip('/')}/" if folder else ""
            files = {path: data for path, data in repository.files.items() if path.startswith(prefix)}
            if prefix and not files:
                self._answer(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
                return
            self._answer(
                200,
                [
                    {"type": "file", "path": path, "size": len(data), "oid": _etag(path, data)}
                    for path, data in sorted(files.items())
                ],
            )

    def resolve(self, body: bytes, repo_id: str, revision: str, path: str) -> None:
        if (repository := self._repository(repo_id)) is None:
            return
        if path not in repository.files:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        data = repository.files[path]
        self._answer(200, data, {"ETag": f'"{_etag(path, data)}"', "X-Repo-Commit": repository.oid})


def _etag(path: str, data: bytes) -> str:
    """As the Hub's: the SHA-256 of large files, git's SHA-1 of others."""
    if path.endswith(BINARY):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_NAME = r"([^/]+/[^/]+)"
_SPACE = r"(spaces/[^/]+/[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", True, _Handler.whoami),
    ("POST", r"/api/repos/create", True, _Handler.create),
    ("POST", r"/api/validate-yaml", False, _Handler.validate_yaml),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", True, _Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", True, _Handler.large_file_batch),
    ("PUT", rf"/storage/{_NAME}/(\w+)", False, _Handler.store),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", True, _Handler.commit),
    ("POST", rf"/api/{_SPACE}/preupload/(.+)", True, _Handler.preupload),
    ("POST", rf"/{_SPACE}\.git/info/lfs/objects/batch", True, _Handler.large_file_batch),
    ("PUT", rf"/storage/{_SPACE}/(\w+)", False, _Handler.store),
    ("POST", rf"/api/{_SPACE}/commit/(.+)", True, _Handler.commit),
    ("GET", rf"/api/{_SPACE}/tree/([^/]+)(/.*)?", False, _Handler.tree),
    ("GET", rf"/api/{_SPACE}(?:/revision/(.+))?", False, _Handler.model_info),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)(/.*)?", False, _Handler.tree),
    ("GET", rf"/api/models/{_NAME}(?:/revision/(.+))?", False, _Handler.model_info),
    ("GET|HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", False, _Handler.resolve),
]
