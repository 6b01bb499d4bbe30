"""A small Hugging Face Hub over real HTTP on 127.0.0.1, with repositories in memory: models, Spaces and data sets.

It answers the calls that a push, a load of a model or a Space, and the streaming of a data set make: files by path,
large ones by the LFS protocol, a commit id per commit, branches and tags. What it was asked is in `requests`. `faults`
break chosen requests.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

PARQUET_COPY = "refs/convert/parquet"
WRITE_TOKEN, READ_TOKEN, FINE_TOKEN, BOBS_TOKEN = "hf_writing", "hf_reading", "hf_fine", "hf_bobs"
KIND = r"(?P<kind>model|space|dataset)s"
REPO = r"(?P<repo>[^/]+(?:/(?!revision/|tree/|paths-info/|resolve/)[^/]+)?)"
REVISION = rf"(?P<revision>{PARQUET_COPY}|[^/]+)"
NO_LINGER = struct.pack("ii", 1, 0)  # a closed connection is reset
PAGE_OF_A_PROXY = b"<html><body><h1>Bad gateway</h1></body></html>"


@dataclass(kw_only=True, slots=True)
class Repository:
    private: bool = False
    hardware: str | None = None
    commits: list[dict[str, bytes]] = field(default_factory=list)  # all files after each commit, oldest first
    messages: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)  # tag -> commit id
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files of the branches besides main
    gated: bool = False

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
    answer: int | Literal["cut", "reset", "lost", "half", "none"]
    """A status; the connection closed or reset before the request is obeyed; its answer lost, though it was obeyed;
    half of the answer."""
    times: int = 1_000_000  # how many matching requests it happens to
    spared: int = 0  # how many matching requests before those it does not happen to
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Hub:
    user: str = "alice"
    organisations: tuple[str, ...] = ("the-lab",)
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)  # by user/name, spaces/… or datasets/…
    moved: dict[str, str] = field(default_factory=dict)  # old name -> new name
    held: dict[str, threading.Event] = field(default_factory=dict)  # path of a file -> what its sending waits for
    large_files: dict[str, bytes] = field(default_factory=dict)  # by sha256
    requests: list[str] = field(default_factory=list)  # "METHOD /path", in order
    faults: list[Fault] = field(default_factory=list)
    writing: Any = field(default_factory=threading.RLock)  # requests that change something come one after the other
    pays: bool = True  # whether the account may have Spaces on a CPU
    is_private_by_default: bool = False  # what an organisation may choose for its new repositories

    def create(
        self, name: str, files: dict[str, bytes] | None = None, *, private: bool = False, gated: bool = False
    ) -> Repository:
        """Make a repository: `user/name`, `spaces/user/name` or `datasets/user/name`."""
        commits = [{".gitattributes": b"", **(files or {})}]
        self.repositories[name] = Repository(private=private, gated=gated, commits=commits, messages=["initial commit"])
        return self.repositories[name]

    def clear(self) -> None:
        """Forget all repositories, requests and faults."""
        self.repair()
        self.repositories.clear()
        self.large_files.clear()

    def repair(self) -> None:
        """Forget the requests and the faults: the network works again."""
        self.requests.clear()
        self.faults.clear()

    @contextlib.contextmanager
    def serve(self) -> Iterator["Hub"]:
        with serving(ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"hub": self}))) as url:
            self.url = url
            try:
                yield self
            finally:
                for event in self.held.values():
                    event.set()


@contextlib.contextmanager
def serving(server: Any) -> Iterator[str]:
    """The address of a server that runs in a thread until the block ends."""
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(Exception):  # noqa: N818 (it carries an answer, not always an error)
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.headers = status, headers or {}
        self.content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()


def _absent(what: str, code: str, status: int = 404) -> _Answer:
    return _Answer(status, {"error": f"{what} not found"}, {"X-Error-Code": code})


class _Handler(BaseHTTPRequestHandler):
    """Each method of the table `_routes` answers a request by raising; `repository`, `commit` and `files` (all files of
    that commit) are those that the path names."""

    hub: Hub
    repository: Repository
    commit: str
    files: dict[str, bytes]
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece, or each waits for the other side's acknowledgement
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        request = f"{self.command} {unquote(urlsplit(self.path).path)}"
        self.body = self._read()
        fault = self._fault(request)
        self.hub.requests.append(request)
        try:
            if isinstance(fault.answer, int):
                content = PAGE_OF_A_PROXY if fault.answer >= 500 else {"error": "a fault on demand"}
                raise _Answer(fault.answer, content, fault.headers)
            if fault.answer not in ("cut", "reset"):
                self._route(request)
        except _Answer as answer:
            if fault.answer != "lost":
                with contextlib.suppress(ConnectionError):
                    self._send(answer, half=fault.answer == "half")
        if fault.answer == "reset":
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        elif fault.answer in ("cut", "lost", "half"):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _fault(self, request: str) -> Fault:
        """What happens to this request."""
        fault = next((fault for fault in self.hub.faults if fault.times and re.search(fault.request, request)), None)
        if fault is None or fault.spared:
            if fault:
                fault.spared -= 1
            return Fault(request="", answer="none")
        fault.times -= 1
        return fault

    def _route(self, request: str) -> None:
        for pattern, method in self._routes.items():
            if match := re.fullmatch(pattern, request):
                groups = {name: found for name, found in match.groupdict().items() if found}
                if "repo" in groups:
                    self._find(groups.pop("kind", "model"), groups.pop("repo"), groups.pop("revision", "main"))
                with self.hub.writing if method in self._writing else contextlib.nullcontext():
                    method(self, **groups)
        raise _Answer(404, {"error": f"no such route: {request}"})

    def _find(self, kind: str, repo: str, revision: str) -> None:
        """Set `repository`, `commit` and `files`."""
        token, self.key = self._token(), repo if kind == "model" else f"{kind}s/{repo}"
        if self.command == "POST" and kind != "dataset":
            self._may_write(repo.split("/")[0])
        if self.key in self.hub.moved:
            raise _Answer(307, b"", {"Location": self.path.replace(self.key, self.hub.moved[self.key], 1)})
        found = self.hub.repositories.get(self.key)
        if found is None or (found.private and token is None):
            raise _absent("Repository", "RepoNotFound", 401 if token is None else 404)
        self.repository, self.repo = found, repo
        branches = {name: (_commit_id(-1, files), files) for name, files in found.branches.items()}
        branches["main"] = (found.head, found.files)
        commits = dict(zip(found.ids, found.commits, strict=True)) | dict(branches.values())
        self.commit = branches[revision][0] if revision in branches else found.tags.get(revision, revision)
        if self.commit not in commits:
            raise _absent("Revision", "RevisionNotFound")
        self.files = commits[self.commit]

    def _send(self, answer: _Answer, *, half: bool) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.content))} | answer.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content[: len(answer.content) // 2] if half else answer.content)

    def _read(self) -> bytes:
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

    def _known_token(self) -> str:
        token = self._token()
        if token is None:
            raise _Answer(401, {"error": "Invalid username or password."})
        return token

    def _may_write(self, namespace: str) -> None:
        if self._known_token() != WRITE_TOKEN or namespace not in (self.hub.user, *self.hub.organisations):
            raise _Answer(403, {"error": f"You don't have the rights to write under the namespace {namespace}"})

    def _whoami(self) -> None:
        token = self._known_token()
        access: dict[str, Any] = {"displayName": "test", "role": "read" if token == READ_TOKEN else "write"}
        if token == FINE_TOKEN:
            scope = {"entity": {"type": "user", "name": self.hub.user}, "permissions": ["repo.content.read"]}
            access |= {"role": "fineGrained", "fineGrained": {"global": [], "scoped": [scope]}}
        organisations = [{"name": name, "type": "org"} for name in self.hub.organisations]
        user = {"name": "bob", "orgs": []} if token == BOBS_TOKEN else {"name": self.hub.user, "orgs": organisations}
        raise _Answer(200, {"type": "user", **user, "auth": {"type": "access_token", "accessToken": access}})

    def _create(self) -> None:
        asked = json.loads(self.body)
        namespace, kind = asked.get("organization") or self.hub.user, asked.get("type", "model")
        self._may_write(namespace)
        if asked["name"].lower() == "admin":
            raise _Answer(400, {"error": "This name is reserved"})
        if kind == "space" and asked["sdk"] != "gradio":
            raise _Answer(400, {"error": "expected a Space of gradio"})
        if kind == "space" and asked.get("hardware") == "cpu-basic" and not self.hub.pays:
            raise _Answer(402, {"error": "A subscription is needed for this hardware"})
        repo = f"{namespace}/{asked['name']}"
        key = repo if kind == "model" else f"{kind}s/{repo}"
        if key in self.hub.repositories:
            raise _Answer(409, {"error": f"You already created this {kind} repo", "url": f"{self.hub.url}/{key}"})
        default = "private" if self.hub.is_private_by_default else "public"
        private = asked.get("visibility", default) == "private" or bool(asked.get("private"))
        made = self.hub.create(key, private=private)
        made.hardware = asked.get("hardware")
        raise _Answer(200, {"url": f"{self.hub.url}/{key}", "name": repo, "id": repo})

    def _validate(self) -> None:
        has_front_matter = json.loads(self.body)["content"].startswith("---\n")
        errors = [] if has_front_matter else [{"message": "no front matter"}]
        raise _Answer(200 if has_front_matter else 400, {"errors": errors, "warnings": []})

    def _preupload(self) -> None:
        answers = []
        for asked in json.loads(self.body)["files"]:
            large, content = asked["path"].endswith((".safetensors", ".png")), self.files.get(asked["path"])
            oid = None if content is None else hashlib.sha256(content).hexdigest() if large else _blob_id(content)
            mode = "lfs" if large else "regular"
            answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise _Answer(200, {"files": answers})

    def _lfs_batch(self) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.large_files:
                upload = {"href": f"{self.hub.url}/lfs/{asked['oid']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs-verify"}}
            objects.append(entry)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def _lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Answer(400, {"error": "the content does not have this hash"})
        self.hub.large_files[oid] = self.body
        raise _Answer(200, b"")

    def _lfs_get(self, oid: str) -> None:
        raise _Answer(200, self.hub.large_files[oid], {"Content-Type": "application/octet-stream"})

    def _lfs_verify(self) -> None:
        raise _Answer(200 if json.loads(self.body)["oid"] in self.hub.large_files else 404)

    def _commit(self) -> None:
        entries = [json.loads(line) for line in self.body.decode().splitlines()]
        header = next(entry["value"] for entry in entries if entry["key"] == "header")
        if header.get("parentCommit") not in (None, self.repository.head):
            raise _Answer(412, {"error": "A commit has happened since"})
        files = dict(self.files)
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        self.repository.messages.append(header["summary"])
        self.repository.commits.append(files)
        head = self.repository.head
        url = f"{self.hub.url}/{self.key}/commit/{head}"
        raise _Answer(200, {"success": True, "commitOid": head, "commitUrl": url, "hookOutput": ""})

    def _refs(self) -> None:
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": self.repository.head}
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit}
            for tag, commit in self.repository.tags.items()
        ]
        raise _Answer(200, {"branches": [branch], "converts": [], "tags": tags})

    def _tag(self) -> None:
        tag = json.loads(self.body)["tag"]
        if tag in self.repository.tags:
            raise _Answer(409, {"error": f"Tag {tag} exists already"})
        self.repository.tags[tag] = self.commit
        raise _Answer(200)

    def _info(self) -> None:
        info = {"id": self.repo, "sha": self.commit, "private": self.repository.private, "gated": False, "tags": []}
        raise _Answer(200, info | {"siblings": [{"rfilename": path} for path in self.files]})

    def _entry(self, path: str) -> dict[str, Any]:
        content = self.files.get(path)
        if content is None:
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        entry = {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.hub.large_files:
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 132}
        return entry

    def _tree(self, under: str | None = None) -> None:
        prefix = f"{under}/" if under else ""
        paths = {path for path in self.files if path.startswith(prefix)}
        if under and not paths:
            raise _absent("Entry", "EntryNotFound")
        paths |= {path[: place.start()] for path in paths for place in re.finditer("/", path)}
        if "recursive=true" not in self.path.lower():
            paths = {path for path in paths if "/" not in path.removeprefix(prefix)}
        raise _Answer(200, [self._entry(path) for path in sorted(paths) if path.startswith(prefix)])

    def _paths_info(self) -> None:
        asked = re.findall(r"paths=([^&]*)", self.body.decode())
        paths = [unquote(path) for path in asked] or json.loads(self.body)["paths"]
        there = [
            path for path in paths if path in self.files or any(name.startswith(f"{path}/") for name in self.files)
        ]
        raise _Answer(200, [self._entry(path) for path in there])

    def _resolve(self, path: str) -> None:
        headers = {"X-Repo-Commit": self.commit, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if self.repository.gated:
            raise _Answer(401, {"error": "gated"}, headers | {"X-Error-Code": "GatedRepo"})
        if path not in self.files:
            raise _Answer(404, {"error": "Entry not found"}, headers | {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET" and path in self.hub.held:
            self.hub.held[path].wait()
        content = self.files[path]
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.hub.large_files:
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            other_host = self.hub.url.replace("127.0.0.1", "localhost")  # the Hub, too, sends to another host
            raise _Answer(302, b"", headers | linked | {"Location": f"{other_host}/lfs/{sha256}"})
        headers["ETag"] = f'"{_blob_id(content)}"'
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            raise _Answer(206, content[first : last + 1], headers)
        raise _Answer(200, content, headers)

    _routes = {  # noqa: RUF012 (a table, never changed)
        r"GET /api/whoami-v2": _whoami,
        r"POST /api/repos/create": _create,
        r"POST /api/validate-yaml": _validate,
        rf"POST /api/{KIND}/{REPO}/preupload/{REVISION}": _preupload,
        rf"POST /(?:(?P<kind>space)s/)?{REPO}\.git/info/lfs/objects/batch": _lfs_batch,
        r"PUT /lfs/(?P<oid>[0-9a-f]{64})": _lfs_put,
        r"(?:GET|HEAD) /lfs/(?P<oid>[0-9a-f]{64})": _lfs_get,
        r"POST /lfs-verify": _lfs_verify,
        rf"POST /api/{KIND}/{REPO}/commit/{REVISION}": _commit,
        rf"POST /api/{KIND}/{REPO}/tag/{REVISION}": _tag,
        rf"GET /api/{KIND}/{REPO}/refs": _refs,
        rf"GET /api/{KIND}/{REPO}(?:/revision/{REVISION})?": _info,
        rf"GET /api/{KIND}/{REPO}/tree/{REVISION}(?:/(?P<under>.+))?": _tree,
        rf"POST /api/{KIND}/{REPO}/paths-info/{REVISION}": _paths_info,
        rf"(?:GET|HEAD) /(?:(?P<kind>space|dataset)s/)?{REPO}/resolve/{REVISION}/(?P<path>.+)": _resolve,
    }
    _writing = (_create, _commit, _tag)


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit_id(number: int, files: dict[str, bytes]) -> str:
    listing = json.dumps([number, sorted((path, _blob_id(content)) for path, content in files.items())])
    return hashlib.sha1(listing.encode()).hexdigest()
