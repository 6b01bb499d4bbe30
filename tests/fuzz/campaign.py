"""A page in a process of its own, random requests to it, and what became of page and requests."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.fuzz.requests import API, Request, RequestMaker
from tests.serving import ROOT, free_port

START_LIMIT = 300.0
"""Seconds that a page may take to load its model."""
LISTEN = 2.0
"""Seconds that the answer to an event is listened to; who hangs up then ends its computing."""
WARM_UP = 4_000
"""Requests after which the memory is measured for the first time: until then caches fill, and the sessions that the
page remembers reach their number."""
TRAINS = frozenset({"start-run", "learn-resume", "strip-resume"})
"""Buttons that would start training processes: left out on a page that may train."""
FINE = frozenset({503})
"""Server errors that say a right thing: the queue is full."""


@dataclass(kw_only=True, slots=True)
class Findings:
    """What was found."""

    requests: int = 0
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)  # requests that got a 5xx, no answer, or no end
    tracebacks: int = 0  # in what the server said
    lines: int = 0  # that the server said
    memory_before: int = 0  # bytes
    memory_after: int = 0
    cpu_seconds: float = 0.0  # of the server
    is_same: bool = False  # a normal request is answered as before

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, but for the memory, which the caller judges."""
        return self.is_same and not self.failures and not self.tracebacks

    def report(self) -> str:
        """The findings in lines."""
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        before, after = self.memory_before / 1e6, self.memory_after / 1e6
        lines = [
            f"{self.requests} requests: {statuses}",
            f"{len(self.failures)} failed, {self.tracebacks} tracebacks in {self.lines} lines of the server's output",
            f"memory {before:.0f} MB before, {after:.0f} MB after ({after - before:+.0f} MB)",
            f"{self.cpu_seconds:.0f} CPU seconds of the server",
            f"a normal request afterwards: {'answered as before' if self.is_same else 'ANSWERED OTHERWISE'}",
        ]
        return "\n".join([*lines, *self.failures[:20]])


@contextlib.contextmanager
def served(*arguments: str, cwd: Path, is_public: bool) -> Iterator[tuple[str, psutil.Process, Path]]:
    """Address and process of a page, and the file with what it says; on a public page as a Space serves it."""
    port, output = free_port(), cwd / "output.txt"
    environment = {name: value for name, value in os.environ.items() if name not in ("MODEL", "SPACE_ID")}
    environment |= {"SPACE_ID": "alice/space"} if is_public else {}
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--openai", *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for_model(address, process, output)
            yield address, psutil.Process(process.pid), output
        finally:
            process.terminate()
            process.wait(timeout=60)


def run_campaign(
    address: str, process: psutil.Process, output: Path, *, count: int, seed: int, is_public: bool, seconds: float
) -> Findings:
    """Send `count` random requests, one after the other, or as many as fit into `seconds`."""
    findings, began = Findings(), time.monotonic()
    with httpx.Client(base_url=address, timeout=60) as client:
        config, api = client.get("/config").json(), client.get(f"{API}/info").json()
        maker = RequestMaker(config, api, seed=seed, leave_out=frozenset() if is_public else TRAINS)
        before = normal_answer(client)
        cpu = _cpu_seconds(process)
        for number in range(count):
            if number in (0, min(WARM_UP, count // 2)):  # at first too: the time may be up before the caches are full
                findings.memory_before = process.memory_info().rss
            if time.monotonic() - began > seconds:
                break
            findings.requests += 1
            _send(client, maker.make(), findings)
        findings.is_same = normal_answer(client) == before
        findings.memory_after = process.memory_info().rss
        findings.cpu_seconds = _cpu_seconds(process) - cpu
    said = output.read_text(encoding="utf-8", errors="replace")
    findings.tracebacks, findings.lines = said.count("Traceback"), len(said.splitlines())
    return findings


def normal_answer(client: httpx.Client) -> tuple[str, str]:
    """What a text of a seed is, through the page's API and through OpenAI's."""
    body = {"data": ["The lamp", 8, 0.8, 0, 0.95, 0, 1, 7]}
    event = client.post(f"{API}/call/generate", json=body).json()["event_id"]
    lines = client.get(f"{API}/call/generate/{event}").text.splitlines()
    last = json.loads(next(line for line in reversed(lines) if line.startswith("data: ")).removeprefix("data: "))
    settings = {"temperature": 0.8, "top_p": 0.95, "seed": 7}
    other = client.post("/v1/completions", json={"prompt": "The lamp", "max_tokens": 8, **settings}).json()
    return last[0], other["choices"][0]["text"]


def _send(client: httpx.Client, request: Request, findings: Findings) -> None:
    try:
        built = client.build_request(request.method, request.path, content=request.body, headers=request.headers)
    except (httpx.InvalidURL, ValueError):  # no client can send it
        findings.requests -= 1
        return
    try:
        answer = client.send(built, stream=True)
    except httpx.HTTPError as error:
        findings.failures.append(f"no answer ({type(error).__name__}): {_shown(request)}")
        return
    try:
        text = _read(answer)
        findings.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code not in FINE:
            findings.failures.append(f"{answer.status_code}: {_shown(request)} -> {text[:200]}")
        if request.session is not None and answer.status_code == 200:
            _listen(client, request, text)
    except httpx.HTTPError as error:
        findings.failures.append(f"a broken answer ({type(error).__name__}): {_shown(request)}")
    finally:
        answer.close()


def _read(answer: httpx.Response) -> str:
    """The beginning of an answer; a stream is not waited for longer than LISTEN."""
    content, began = b"", time.monotonic()
    with contextlib.suppress(httpx.ReadTimeout):
        for part in answer.iter_bytes():
            content += part
            if len(content) > 1_000_000 or time.monotonic() - began > LISTEN or b"ALIVE" in content:
                break
    return content.decode("utf-8", "replace")


def _listen(client: httpx.Client, request: Request, text: str) -> None:
    """Read the events that answer a call, as a page does; who hangs up ends the computing."""
    try:
        event = json.loads(text)["event_id"]
    except (ValueError, KeyError, TypeError):
        return
    if request.path.endswith("/queue/join"):
        path, params = f"{API}/queue/data", {"session_hash": request.session}
    else:
        path, params = f"{request.path}/{event}", {}
    began = time.monotonic()
    with (
        contextlib.suppress(httpx.ReadTimeout, httpx.InvalidURL, UnicodeEncodeError),
        client.stream("GET", path, params=params, timeout=LISTEN) as answer,
    ):
        for line in answer.iter_lines():
            is_over = "process_completed" in line or line.startswith(("event: complete", "event: error"))
            if is_over or time.monotonic() - began > LISTEN:
                break


def _wait_for_model(address: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            # 503: it is loading. A page without an answer to a wrong request is not there yet.
            if httpx.post(f"{address}/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the page did not start: {output.read_text(errors='replace')}")


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _shown(request: Request) -> str:
    body = (request.body or b"")[:300].decode("utf-8", "replace")
    headers = {name: value for name, value in request.headers.items() if name != "Content-Type"}
    return f"{request.method} {request.path[:150]} {headers or ''} {body}"
