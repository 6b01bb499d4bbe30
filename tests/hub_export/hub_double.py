"""A small Hugging Face Hub over real HTTP on 127.0.0.1: the calls that a push and a load of a model make.

It keeps repositories in memory, files by path, large ones by the LFS protocol, and a commit id per commit. What it
was asked is in `requests`; `faults` answers chosen requests with a status instead.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITE_TOKEN, READ_TOKEN = "hf_writing", "hf_reading"


@dataclass(kw_only=True, slots=True)
class Repository:
    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=list)  # all files after each commit, oldest first
    messages: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]


@dataclass(kw_only=True, slots=True)
class Hub:
    user: str = "alice"
    organisations: tuple[str, ...] = ("the-lab",)
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large_files: dict[str, bytes] = field(default_factory=dict)  # by sha256
    requests: list[str] = field(default_factory=list)  # "METHOD /path", in order
    faults: dict[str, int] = field(default_factory=dict)  # regular expression over "METHOD /path" -> status

    def create(self, name: str, *, private: bool = False, files: dict[str, bytes] | None = None) -> Repository:
        self.repositories[name] = Repository(
            private=private, commits=[{".gitattributes": b"", **(files or {})}], messages=["initial commit"]
        )
        return self.repositories[name]

    @contextlib.contextmanager
    def serve(self) -> Iterator["Hub"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Answer(Exception):  # noqa: N818 (it carries an answer, not always an error)
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.headers = status, headers or {}
        self.content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        body = self._body()
        self.hub.requests.append(request)
        try:
            for pattern, status in self.hub.faults.items():
                if re.search(pattern, request):
                    raise _Answer(status, {"error": "a fault on demand"})
            for pattern, method in self._routes.items():
                if match := re.fullmatch(pattern, request):
                    method(self, body, **match.groupdict())
            raise _Answer(404, {"error": f"no such route: {request}"})
        except _Answer as answer:
            self.send_response(answer.status)
            for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().strip(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _token(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if token not in (None, WRITE_TOKEN, READ_TOKEN):
            raise _Answer(401, {"error": "Invalid credentials in Authorization header"})
        return token

    def _may_write(self, namespace: str) -> None:
        token = self._token()
        if token is None:
            raise _Answer(401, {"error": "Invalid username or password."})
        if token != WRITE_TOKEN or namespace not in (self.hub.user, *self.hub.organisations):
            raise _Answer(403, {"error": f"You don't have the rights to write under the namespace {namespace}"})

    def _repository(self, repo: str) -> Repository:
        token = self._token()
        repository = self.hub.repositories.get(repo)
        if repository is None or (repository.private and token is None):
            status = 401 if token is None else 404
            raise _Answer(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repository

    def _commit_number(self, repository: Repository, revision: str) -> int:
        ids = [_commit_id(number) for number in range(len(repository.commits))]
        if revision == "main":
            return len(ids) - 1
        if revision not in ids:
            raise _Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return ids.index(revision)

    def _whoami(self, body: bytes) -> None:
        token = self._token()
        if token is None:
            raise _Answer(401, {"error": "Invalid username or password."})
        role = "write" if token == WRITE_TOKEN else "read"
        organisations = [{"name": name, "type": "org"} for name in self.hub.organisations]
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        raise _Answer(200, {"type": "user", "name": self.hub.user, "orgs": organisations, "auth": auth})

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        namespace = asked.get("organization") or self.hub.user
        self._may_write(namespace)
        repo = f"{namespace}/{asked['name']}"
        if repo in self.hub.repositories:
            raise _Answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
        self.hub.create(repo, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        raise _Answer(200, {"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def _validate(self, body: bytes) -> None:
        has_front_matter = json.loads(body)["content"].startswith("---\n")
        errors = [] if has_front_matter else [{"message": "no front matter"}]
        raise _Answer(200 if has_front_matter else 400, {"errors": errors, "warnings": []})

    def _preupload(self, body: bytes, repo: str, revision: str) -> None:
        self._may_write(repo.split("/")[0])
        self._repository(repo)
        files = [
            {
                "path": asked["path"],
                "uploadMode": "lfs" if asked["path"].endswith((".safetensors", ".png")) else "regular",
                "shouldIgnore": False,
            }
            for asked in json.loads(body)["files"]
        ]
        raise _Answer(200, {"files": files})

    def _lfs_batch(self, body: bytes, repo: str) -> None:
        self._may_write(repo.split("/")[0])
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.large_files:
                upload = {"href": f"{self.hub.url}/lfs/{asked['oid']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs-verify"}}
            objects.append(entry)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def _lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Answer(400, {"error": "the content does not have this hash"})
        self.hub.large_files[oid] = body
        raise _Answer(200, b"")

    def _lfs_get(self, body: bytes, oid: str) -> None:
        raise _Answer(200, self.hub.large_files[oid], {"Content-Type": "application/octet-stream"})

    def _lfs_verify(self, body: bytes) -> None:
        raise _Answer(200 if json.loads(body)["oid"] in self.hub.large_files else 404)

    def _commit(self, body: bytes, repo: str, revision: str) -> None:
        self._may_write(repo.split("/")[0])
        repository = self._repository(repo)
        files = dict(repository.files)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        repository.commits.append(files)
        oid = _commit_id(len(repository.commits) - 1)
        url = f"{self.hub.url}/{repo}/commit/{oid}"
        raise _Answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def _info(self, body: bytes, repo: str, revision: str = "main") -> None:
        repository = self._repository(repo)
        number = self._commit_number(repository, revision)
        siblings = [{"rfilename": path} for path in repository.commits[number]]
        info = {"id": repo, "modelId": repo, "sha": _commit_id(number), "private": repository.private}
        raise _Answer(200, info | {"siblings": siblings, "tags": [], "disabled": False, "gated": False})

    def _tree(self, body: bytes, repo: str, revision: str, under: str | None = None) -> None:
        repository = self._repository(repo)
        files = repository.commits[self._commit_number(repository, revision)]
        prefix = f"{under}/" if under else ""
        found = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in sorted(files.items())
            if path.startswith(prefix)
        ]
        if under and not found:
            raise _Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        raise _Answer(200, found)

    def _resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        repository = self._repository(repo)
        number = self._commit_number(repository, revision)
        commit = {"X-Repo-Commit": _commit_id(number)}
        if path not in repository.commits[number]:
            raise _Answer(404, {"error": "Entry not found"}, commit | {"X-Error-Code": "EntryNotFound"})
        content = repository.commits[number][path]
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.hub.large_files:
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # as the Hub, which sends to another host
            raise _Answer(302, b"", commit | linked | {"Location": f"{elsewhere}/lfs/{sha256}"})
        etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Content-Type": "text/plain; charset=utf-8"}
        raise _Answer(200, content, commit | etag)

    _routes = {  # noqa: RUF012 (a table, never changed)
        r"GET /api/whoami-v2": _whoami,
        r"POST /api/repos/create": _create,
        r"POST /api/validate-yaml": _validate,
        r"POST /api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)": _preupload,
        r"POST /(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch": _lfs_batch,
        r"PUT /lfs/(?P<oid>[0-9a-f]{64})": _lfs_put,
        r"(?:GET|HEAD) /lfs/(?P<oid>[0-9a-f]{64})": _lfs_get,
        r"POST /lfs-verify": _lfs_verify,
        r"POST /api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)": _commit,
        r"GET /api/models/(?P<repo>[^/]+/[^/]+)": _info,
        r"GET /api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)": _info,
        r"GET /api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?:/(?P<under>.+))?": _tree,
        r"(?:GET|HEAD) /(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)": _resolve,
    }


def _commit_id(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()
