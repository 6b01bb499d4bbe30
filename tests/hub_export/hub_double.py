"""A small Hugging Face Hub over real HTTP on 127.0.0.1: the calls that a push and a load of a model or a Space make.

It keeps repositories in memory, files by path, large ones by the LFS protocol, a commit id per commit, and tags. What
it was asked is in `requests`. `faults` break chosen requests; from `dies_at` on, the network is gone.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

WRITE_TOKEN, READ_TOKEN, FINE_TOKEN, BOBS_TOKEN = "hf_writing", "hf_reading", "hf_fine", "hf_bobs"
REPO = r"(?P<repo>[^/]+/[^/]+)"
PAGE_OF_A_PROXY = b"<html><body><h1>Bad gateway</h1></body></html>"


@dataclass(kw_only=True, slots=True)
class Repository:
    private: bool = False
    hardware: str | None = None
    commits: list[dict[str, bytes]] = field(default_factory=list)  # all files after each commit, oldest first
    messages: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)  # tag -> commit id

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    @property
    def head(self) -> str:
        return self.ids[-1]

    @property
    def ids(self) -> list[str]:
        return [_commit_id(number, files) for number, files in enumerate(self.commits)]


@dataclass(kw_only=True, slots=True)
class Fault:
    """What happens to requests instead of, or after, what they ask for."""

    request: str  # regular expression over "METHOD /path"
    answer: int | Literal["cut", "lost", "half"]
    """A status; the connection cut before the request is heard; its answer lost, though it was obeyed; half of it."""
    times: int = 1_000_000  # how many matching requests it happens to
    spared: int = 0  # how many matching requests before those it does not happen to
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Hub:
    user: str = "alice"
    organisations: tuple[str, ...] = ("the-lab",)
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)  # Spaces under "spaces/user/name"
    large_files: dict[str, bytes] = field(default_factory=dict)  # by sha256
    requests: list[str] = field(default_factory=list)  # "METHOD /path", in order
    faults: list[Fault] = field(default_factory=list)
    dies_at: int | None = None  # from this request on (0: the next one is the first) every connection is cut …
    dies_with: int | None = None  # … or every answer is this status
    pays: bool = True  # whether the account may have Spaces on a CPU

    def create(self, name: str, *, private: bool = False, files: dict[str, bytes] | None = None) -> Repository:
        self.repositories[name] = Repository(
            private=private, commits=[{".gitattributes": b"", **(files or {})}], messages=["initial commit"]
        )
        return self.repositories[name]

    def forget(self) -> None:
        """The network is well again, and nothing was asked yet."""
        self.requests.clear()
        self.faults.clear()
        self.dies_at = self.dies_with = None

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
    wbufsize = -1  # an answer in one piece, or each waits for the other side's acknowledgement
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        body = self._body()
        number = len(self.hub.requests)
        self.hub.requests.append(request)
        fault = next((fault for fault in self.hub.faults if fault.times and re.search(fault.request, request)), None)
        if self.hub.dies_at is not None and number >= self.hub.dies_at:
            fault = Fault(request="", answer=self.hub.dies_with or "cut")
        if fault and fault.spared:
            fault.spared -= 1
            fault = None
        if fault:
            fault.times -= 1
        try:
            if fault and isinstance(fault.answer, int):
                content = PAGE_OF_A_PROXY if fault.answer >= 500 else {"error": "a fault on demand"}
                raise _Answer(fault.answer, content, fault.headers)
            if fault and fault.answer == "cut":
                self._hang_up()
                return
            for pattern, method in self._routes.items():
                if match := re.fullmatch(pattern, request):
                    method(self, body, **match.groupdict())
            raise _Answer(404, {"error": f"no such route: {request}"})
        except _Answer as answer:
            if fault and fault.answer == "lost":
                self._hang_up()
                return
            self.send_response(answer.status)
            for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            if self.command != "HEAD":
                half = fault is not None and fault.answer == "half"
                self.wfile.write(answer.content[: len(answer.content) // 2] if half else answer.content)
                if half:
                    self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

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
        if token not in (None, WRITE_TOKEN, READ_TOKEN, FINE_TOKEN, BOBS_TOKEN):
            raise _Answer(401, {"error": "Invalid credentials in Authorization header"})
        return token

    def _may_write(self, namespace: str) -> None:
        token = self._token()
        if token is None:
            raise _Answer(401, {"error": "Invalid username or password."})
        if token != WRITE_TOKEN or namespace not in (self.hub.user, *self.hub.organisations):
            raise _Answer(403, {"error": f"You don't have the rights to write under the namespace {namespace}"})

    def _repository(self, kind: str, repo: str) -> Repository:
        token = self._token()
        repository = self.hub.repositories.get(_key(kind, repo))
        if repository is None or (repository.private and token is None):
            status = 401 if token is None else 404
            raise _Answer(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repository

    def _commit_number(self, repository: Repository, revision: str) -> int:
        revision = repository.tags.get(revision, revision)
        if revision == "main":
            return len(repository.commits) - 1
        if revision not in repository.ids:
            raise _Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return repository.ids.index(revision)

    def _whoami(self, body: bytes) -> None:
        token = self._token()
        if token is None:
            raise _Answer(401, {"error": "Invalid username or password."})
        access: dict[str, Any] = {"displayName": "test", "role": "read" if token == READ_TOKEN else "write"}
        if token == FINE_TOKEN:
            scope = {"entity": {"type": "user", "name": self.hub.user}, "permissions": ["repo.content.read"]}
            access |= {"role": "fineGrained", "fineGrained": {"global": [], "scoped": [scope]}}
        organisations = [{"name": name, "type": "org"} for name in self.hub.organisations]
        user = {"name": "bob", "orgs": []} if token == BOBS_TOKEN else {"name": self.hub.user, "orgs": organisations}
        raise _Answer(200, {"type": "user", **user, "auth": {"type": "access_token", "accessToken": access}})

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        namespace = asked.get("organization") or self.hub.user
        self._may_write(namespace)
        kind, repo = asked.get("type", "model"), f"{namespace}/{asked['name']}"
        if asked["name"].lower() == "admin":
            raise _Answer(400, {"error": "This name is reserved"})
        if kind == "space" and asked["sdk"] != "gradio":
            raise _Answer(400, {"error": "expected a Space of gradio"})
        if kind == "space" and asked.get("hardware") == "cpu-basic" and not self.hub.pays:
            raise _Answer(402, {"error": "A subscription is needed for this hardware"})
        key = _key(kind, repo)
        if key in self.hub.repositories:
            raise _Answer(409, {"error": f"You already created this {kind} repo", "url": f"{self.hub.url}/{key}"})
        made = self.hub.create(key, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        made.hardware = asked.get("hardware")
        raise _Answer(200, {"url": f"{self.hub.url}/{key}", "name": repo, "id": repo})

    def _validate(self, body: bytes) -> None:
        has_front_matter = json.loads(body)["content"].startswith("---\n")
        errors = [] if has_front_matter else [{"message": "no front matter"}]
        raise _Answer(200 if has_front_matter else 400, {"errors": errors, "warnings": []})

    def _preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self._may_write(repo.split("/")[0])
        there = self._repository(kind, repo).files
        files = []
        for asked in json.loads(body)["files"]:
            large = asked["path"].endswith((".safetensors", ".png"))
            content = there.get(asked["path"])
            oid = None if content is None else hashlib.sha256(content).hexdigest() if large else _blob_id(content)
            mode = "lfs" if large else "regular"
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise _Answer(200, {"files": files})

    def _lfs_batch(self, body: bytes, repo: str, spaces: str | None = None) -> None:
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

    def _commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self._may_write(repo.split("/")[0])
        repository = self._repository(kind, repo)
        entries = [json.loads(line) for line in body.decode().splitlines()]
        header = next(entry["value"] for entry in entries if entry["key"] == "header")
        if header.get("parentCommit") not in (None, repository.head):
            raise _Answer(412, {"error": "A commit has happened since"})
        files = dict(repository.files)
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        repository.messages.append(header["summary"])
        repository.commits.append(files)
        url = f"{self.hub.url}/{repo}/commit/{repository.head}"
        raise _Answer(200, {"success": True, "commitOid": repository.head, "commitUrl": url, "hookOutput": ""})

    def _refs(self, body: bytes, kind: str, repo: str) -> None:
        repository = self._repository(kind, repo)
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag, commit in repository.tags.items()
        ]
        raise _Answer(200, {"branches": [branch], "converts": [], "tags": tags})

    def _tag(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self._may_write(repo.split("/")[0])
        repository, tag = self._repository(kind, repo), json.loads(body)["tag"]
        commit = repository.ids[self._commit_number(repository, revision)]
        if tag in repository.tags:
            raise _Answer(409, {"error": f"Tag {tag} exists already"})
        repository.tags[tag] = commit
        raise _Answer(200)

    def _info(self, body: bytes, kind: str, repo: str, revision: str = "main") -> None:
        repository = self._repository(kind, repo)
        number = self._commit_number(repository, revision)
        siblings = [{"rfilename": path} for path in repository.commits[number]]
        info = {"id": repo, "modelId": repo, "sha": repository.ids[number], "private": repository.private}
        raise _Answer(200, info | {"siblings": siblings, "tags": [], "disabled": False, "gated": False})

    def _tree(self, body: bytes, kind: str, repo: str, revision: str, under: str | None = None) -> None:
        repository = self._repository(kind, repo)
        files = repository.commits[self._commit_number(repository, revision)]
        prefix = f"{under}/" if under else ""
        found = []
        for path, content in sorted(files.items()):
            if path.startswith(prefix):
                entry = {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
                sha256 = hashlib.sha256(content).hexdigest()
                if sha256 in self.hub.large_files:
                    entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 132}
                found.append(entry)
        if under and not found:
            raise _Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        raise _Answer(200, found)

    def _resolve(self, body: bytes, repo: str, revision: str, path: str, spaces: str | None = None) -> None:
        repository = self._repository("space" if spaces else "model", repo)
        number = self._commit_number(repository, revision)
        commit = {"X-Repo-Commit": repository.ids[number]}
        if path not in repository.commits[number]:
            raise _Answer(404, {"error": "Entry not found"}, commit | {"X-Error-Code": "EntryNotFound"})
        content = repository.commits[number][path]
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.hub.large_files:
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # as the Hub, which sends to another host
            raise _Answer(302, b"", commit | linked | {"Location": f"{elsewhere}/lfs/{sha256}"})
        etag = {"ETag": f'"{_blob_id(content)}"', "Content-Type": "text/plain; charset=utf-8"}
        raise _Answer(200, content, commit | etag)

    _routes = {  # noqa: RUF012 (a table, never changed)
        r"GET /api/whoami-v2": _whoami,
        r"POST /api/repos/create": _create,
        r"POST /api/validate-yaml": _validate,
        rf"POST /api/(?P<kind>model|space)s/{REPO}/preupload/(?P<revision>[^/]+)": _preupload,
        rf"POST /(?P<spaces>spaces/)?{REPO}\.git/info/lfs/objects/batch": _lfs_batch,
        r"PUT /lfs/(?P<oid>[0-9a-f]{64})": _lfs_put,
        r"(?:GET|HEAD) /lfs/(?P<oid>[0-9a-f]{64})": _lfs_get,
        r"POST /lfs-verify": _lfs_verify,
        rf"POST /api/(?P<kind>model|space)s/{REPO}/commit/(?P<revision>[^/]+)": _commit,
        rf"POST /api/(?P<kind>model|space)s/{REPO}/tag/(?P<revision>[^/]+)": _tag,
        rf"GET /api/(?P<kind>model|space)s/{REPO}/refs": _refs,
        rf"GET /api/(?P<kind>model|space)s/{REPO}": _info,
        rf"GET /api/(?P<kind>model|space)s/{REPO}/revision/(?P<revision>[^/]+)": _info,
        rf"GET /api/(?P<kind>model|space)s/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<under>.+))?": _tree,
        rf"(?:GET|HEAD) /(?P<spaces>spaces/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": _resolve,
    }


def _key(kind: str, repo: str) -> str:
    return f"spaces/{repo}" if kind == "space" else repo


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit_id(number: int, files: dict[str, bytes]) -> str:
    listing = json.dumps([number, sorted((path, _blob_id(content)) for path, content in files.items())])
    return hashlib.sha1(listing.encode()).hexdigest()
