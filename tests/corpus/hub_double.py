"""A small Hugging Face Hub over real HTTP on 127.0.0.1: the calls that streaming a data set makes."""

import contextlib
import hashlib
import json
import re
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

PARQUET_COPY = "refs/convert/parquet"


@dataclass(kw_only=True, slots=True)
class DatasetRepository:
    branches: dict[str, dict[str, bytes]]  # files by path, by branch
    gated: bool = False


@dataclass(kw_only=True, slots=True)
class DatasetHub:
    url: str = ""
    repositories: dict[str, DatasetRepository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # old name -> new name
    requests: list[str] = field(default_factory=list)  # "METHOD /path", in order
    held: dict[str, threading.Event] = field(default_factory=dict)  # path of a file -> what its sending waits for
    breaks_at: str | None = None  # path of a file, at whose request the connection is reset

    def create(self, name: str, files: dict[str, bytes], *, gated: bool = False) -> DatasetRepository:
        self.repositories[name] = DatasetRepository(branches={"main": files}, gated=gated)
        return self.repositories[name]

    @contextlib.contextmanager
    def serve(self) -> Iterator["DatasetHub"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            for event in self.held.values():
                event.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Answer(Exception):  # noqa: N818 (it carries an answer, not always an error)
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.headers = status, headers or {}
        self.content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()


class _Break(Exception):  # noqa: N818 (no error of ours)
    """The connection is reset."""


class _Handler(BaseHTTPRequestHandler):
    hub: DatasetHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for pattern, method in self._routes.items():
                if match := re.fullmatch(pattern, request):
                    method(self, body, **match.groupdict())
            raise _Answer(404, {"error": f"no such route: {request}"})
        except _Answer as answer:
            with contextlib.suppress(ConnectionError):
                self._send(answer)
        except _Break:
            self.close_connection = True
            reset = struct.pack("ii", 1, 0)  # linger no second
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.content))} | answer.headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    def _files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """The commit of a revision, which is a branch or a commit, and its files."""
        if repo in self.hub.moved:
            new = self.hub.moved[repo]
            raise _Answer(307, b"", {"Location": self.path.replace(f"/datasets/{repo}", f"/datasets/{new}", 1)})
        if repo not in self.hub.repositories:
            raise _Answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        for branch, files in self.hub.repositories[repo].branches.items():
            commit = hashlib.sha1(f"{repo}/{branch}".encode()).hexdigest()
            if revision in (branch, commit):
                return commit, files
        raise _Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})

    def _info(self, body: bytes, repo: str, revision: str = "main") -> None:
        commit, files = self._files(repo, revision)
        siblings = [{"rfilename": path} for path in files]
        raise _Answer(200, {"id": repo, "sha": commit, "siblings": siblings, "tags": [], "private": False})

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _tree(self, body: bytes, repo: str, revision: str, under: str | None = None) -> None:
        _, files = self._files(repo, revision)
        prefix = f"{under}/" if under else ""
        inside = {path: content for path, content in sorted(files.items()) if path.startswith(prefix)}
        if under and not inside:
            raise _Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        folders = {path[: place.start()] for path in inside for place in re.finditer("/", path)}
        wanted = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
        wanted += [self._entry(path, content) for path, content in inside.items()]
        if "recursive=true" not in self.path.lower():
            wanted = [entry for entry in wanted if "/" not in entry["path"].removeprefix(prefix)]
        raise _Answer(200, [entry for entry in wanted if entry["path"].startswith(prefix)])

    def _paths_info(self, body: bytes, repo: str, revision: str) -> None:
        _, files = self._files(repo, revision)
        asked = re.findall(r"paths=([^&]*)", body.decode())
        paths = [unquote(path) for path in asked] or json.loads(body)["paths"]
        found = [self._entry(path, files[path]) for path in paths if path in files]
        folders = [path for path in paths if any(name.startswith(f"{path}/") for name in files)]
        raise _Answer(
            200, found + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
        )

    def _resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        commit, files = self._files(repo, revision)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.hub.repositories[repo].gated:
            raise _Answer(401, {"error": "gated"}, headers | {"X-Error-Code": "GatedRepo"})
        if path not in files:
            raise _Answer(404, {"error": "Entry not found"}, headers | {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET" and path in self.hub.held:
            self.hub.held[path].wait()
        if self.command == "GET" and path == self.hub.breaks_at:
            raise _Break
        content = files[path]
        headers |= {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Content-Type": "application/octet-stream"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            raise _Answer(206, content[first : last + 1], headers)
        raise _Answer(200, content, headers)

    _repo = r"(?P<repo>[^/]+(?:/(?!revision/|tree/|paths-info/|resolve/)[^/]+)?)"
    _revision = r"(?P<revision>refs/convert/parquet|[^/]+)"
    _routes = {  # noqa: RUF012 (a table, never changed)
        rf"GET /api/datasets/{_repo}": _info,
        rf"GET /api/datasets/{_repo}/revision/{_revision}": _info,
        rf"GET /api/datasets/{_repo}/tree/{_revision}(?:/(?P<under>.+))?": _tree,
        rf"POST /api/datasets/{_repo}/paths-info/{_revision}": _paths_info,
        rf"(?:GET|HEAD) /datasets/{_repo}/resolve/{_revision}/(?P<path>.+)": _resolve,
    }


FAULTS = {
    "reset": "Connection reset by peer",
    "hangup": "Server disconnected without sending a response",
    "garbage": "illegal status line",
    "short": "peer closed connection without sending complete message body",
    "packed": "Error -3 while decompressing data",
    "silence": "timed out",
}
"""Faults of the network that `serve_faults` makes, and what the message about each must hold. ("portal" is one more:
an answer that is no JSON, as a login page gives it, about which callers say different things.)"""


@contextlib.contextmanager
def serve_faults() -> Iterator[str]:
    """The address of a Hub whose network fails as the name of the data set asked for says."""
    done = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            match = re.search(rb"/alice/(\w+)", self.request.recv(65536))
            fault = match[1].decode() if match else "hangup"
            if fault == "silence":
                done.wait()
            elif fault == "reset":
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.request.close()
            else:
                self.request.sendall(_FAULTY[fault])

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        thread.join()


_FAULTY = {
    "hangup": b"",
    "garbage": b"no HTTP\r\n\r\n",
    "short": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{",
    "packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "portal": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\n\r\n<p>Login",
}
