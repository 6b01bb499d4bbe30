"""Random requests for a page, from what it says of itself: its config, its API's schema, and the shapes of `/v1`."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.values import hostile_text, hostile_value, nested

API = "/gradio_api"
SHORT = 3
"""Tokens of a text that is to be written: longer ones would only take time."""
SESSIONS = 40
"""Visitors that come back; a quarter of the requests are of one who never does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request, as it goes over the wire."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    session: str | None = None  # whose events answer it, where it goes through Gradio's queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """One function of the page's config."""

    index: int
    name: str | None  # in the API; None: the page's own
    queued: bool
    inputs: tuple[dict[str, Any], ...]  # components: `type` and `props`


def functions_of(config: dict[str, Any], *, leave_out: frozenset[str] = frozenset()) -> list[Function]:
    """The functions that the server runs, private ones too, without those of a component whose elem_id is named."""
    components = {each["id"]: each for each in config["components"]}
    found = []
    for each in config["dependencies"]:
        triggers = {components.get(target, {}).get("props", {}).get("elem_id") for target, _ in each["targets"]}
        if each.get("backend_fn") and not triggers & leave_out:
            found.append(
                Function(
                    index=each["id"],
                    name=each["api_name"] if each["api_visibility"] == "public" else None,
                    queued=each["queue"] is not False,
                    inputs=tuple(components[number] for number in each["inputs"]),
                )
            )
    return found


class RequestMaker:
    """Draws requests.

    Args:
        config: what `GET /config` answers.
        api: what `GET /gradio_api/info` answers.
        seed: the same requests in the same order.
        leave_out: elem_ids of components whose functions are not called.
    """

    def __init__(
        self, config: dict[str, Any], api: dict[str, Any], *, seed: int, leave_out: frozenset[str] = frozenset()
    ) -> None:
        self.functions = functions_of(config, leave_out=leave_out)
        self.endpoints = api["named_endpoints"]
        self.components = [each["id"] for each in config["components"]]
        self.draw = random.Random(seed)
        offered = {one.index for one in self.functions}
        self._left_out = [each["id"] for each in config["dependencies"] if each["id"] not in offered]

    def make(self) -> Request:
        """The next request."""
        kinds = (self.event, self.direct, self.endpoint, self.named, self.openai, self.place, self.broken, self.upload)
        (kind,) = self.draw.choices(kinds, (30, 25, 12, 5, 12, 10, 4, 2))
        request = kind()
        if self.draw.random() < 0.05:
            request.headers.update(self.odd_headers())
        return request

    def valid(self, component: dict[str, Any]) -> Any:
        """A value that the component could have."""
        kind, props = component["type"], component["props"]
        if kind in ("slider", "number"):
            return SHORT if (props.get("maximum") or 0) > 100 else props.get("value")
        if kind == "checkbox":
            return self.draw.random() < 0.5
        if kind in ("dropdown", "radio"):
            choices = [value for _, value in props.get("choices") or []]
            return self.draw.choice(choices) if choices else None
        if kind == "dataset":
            return 0
        if kind in ("state", "file"):
            return None
        if kind == "api" and props.get("value") is not None:
            return SHORT if isinstance(props["value"], int) and props["value"] > 100 else props["value"]
        return self.draw.choice(("The lamp", "", "She asked ____ of him", "7"))  # of an API: a prompt, or a seed

    def data(self, function: Function) -> Any:
        """Arguments: most of them right, one of them wrong, or their number, or all of it."""
        values = [self.valid(component) for component in function.inputs]
        kind = self.draw.random()
        if values and kind < 0.55:
            values[self.draw.randrange(len(values))] = hostile_value(self.draw)
        elif kind < 0.7:
            values = [hostile_value(self.draw) for _ in values]
        elif kind < 0.8:
            values = values[: self.draw.randrange(len(values) + 1)]
        elif kind < 0.9:
            values += [hostile_value(self.draw) for _ in range(self.draw.randrange(1, 4))]
        elif kind < 0.93:
            return hostile_value(self.draw)
        return values

    def session(self) -> Any:
        """A session hash: of a visitor who comes back, of a new one, or none that a page makes."""
        kind = self.draw.random()
        if kind < 0.7:
            return f"visitor{self.draw.randrange(SESSIONS)}"
        return f"{self.draw.getrandbits(60):x}" if kind < 0.95 else hostile_value(self.draw)

    def call(self, function: Function) -> dict[str, Any]:
        """The body of a call of a function by its index."""
        body = {
            "data": self.data(function),
            "fn_index": function.index,
            "session_hash": self.session(),
            "trigger_id": self.draw.choice((None, *self.components)),
            "event_data": self.draw.choice((None, hostile_value(self.draw))),
        }
        kind = self.draw.random()
        if kind < 0.05:
            del body[self.draw.choice([*body])]
        elif kind < 0.1:
            body[self.draw.choice([*body, "batched", "simple_format", "oauth_token"])] = hostile_value(self.draw)
        elif kind < 0.13:
            body["fn_index"] = self.draw.choice((-1, 10**9, "0", 1.5, None, True, [0], {"a": 0}))
        # A value drawn for fn_index may be the number of a function that is to be left out.
        return body if body.get("fn_index") not in self._left_out else body | {"fn_index": function.index}

    def event(self) -> Request:
        """An event of the page, through Gradio's queue."""
        body = self.call(self.draw.choice(self.functions))
        return self._post(f"{API}/queue/join", body, session=body.get("session_hash"))

    def direct(self) -> Request:
        """An event of the page, past the queue."""
        function = self.draw.choice(self.functions)
        name = self.draw.choice(("predict", "predict", "predict", str(function.name), "nope", "a/b"))
        return self._post(f"{API}/{self.draw.choice(('run', 'api'))}/{name}", self.call(function))

    def endpoint(self) -> Request:
        """A call of a named endpoint, as curl makes it."""
        name = self.draw.choice([*self.endpoints])
        function = next(one for one in self.functions if f"/{one.name}" == name)
        body: dict[str, Any] = {"data": self.data(function)}
        if self.draw.random() < 0.2:
            body["session_hash"] = self.session()
        return self._post(f"{API}/call{name}", body, session=body.get("session_hash") or "")

    def named(self) -> Request:
        """A call with named arguments."""
        name = self.draw.choice([*self.endpoints, "/nope"])
        parameters = self.endpoints.get(name, {}).get("parameters", [])
        body = {each["parameter_name"]: hostile_value(self.draw) for each in parameters if self.draw.random() < 0.5}
        if "max_new_tokens" in {each["parameter_name"] for each in parameters}:
            body.setdefault("max_new_tokens", SHORT)
        if self.draw.random() < 0.2:
            body[hostile_text(self.draw)] = 1
        return self._post(f"{API}/call/v2{name}", body, session="")

    def openai(self) -> Request:
        """A request of OpenAI's API."""
        if self.draw.random() < 0.2:
            return Request(method="GET", path=f"/v1/models/{self._quoted(hostile_text(self.draw))}")
        place = self.draw.choice(("completions", "completions", "chat/completions", "embeddings"))
        names = (
            "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "seed",
            "stop", "n", "echo", "logprobs", "stream", "stream_options", "messages", "model", "logit_bias", "suffix",
            "best_of", "tools", "response_format", "user", "max_completion_tokens", "top_logprobs",
        )  # fmt: skip
        body: Any = {"prompt": "The", "max_tokens": SHORT}
        if place.startswith("chat"):
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": SHORT}
        for _ in range(self.draw.randrange(3)):
            body[self.draw.choice(names)] = hostile_value(self.draw)
        if isinstance(body.get("max_tokens"), int) and body["max_tokens"] > SHORT:
            body["max_tokens"] = SHORT
        return self._post(f"/v1/{place}", body if self.draw.random() < 0.95 else hostile_value(self.draw))

    def place(self) -> Request:
        """A route of Gradio's that the page does not need, or a file of the machine."""
        text = self._quoted(hostile_text(self.draw)[:200])
        places = (
            f"{API}/file={text}", f"{API}/file=/etc/passwd", f"{API}/file/{text}", f"{API}/proxy=http://127.0.0.1/{text}",
            f"{API}/stream/{text}/1/2/playlist.m3u8", f"{API}/stream/a/b/c/playlist-file", f"/static/{text}",
            f"/assets/../../{text}", f"/svelte/{text}", f"{API}/custom_component/{text}/client/component/x.js",
            f"{API}/call/generate/{text}", f"{API}/info?page={text}", f"/config?page={text}", f"/?deep_link={text}",
            f"{API}/deep_link?session_hash={text}", f"/monitoring/{text}", f"{API}/runs", f"{API}/startup-events",
            f"/login_check?{text}", f"{API}/vibe-code", f"/theme.css?v={text}", f"/pwa_icon/{text}", f"/{text}",
            f"{API}/app_id", "/manifest.json", "/robots.txt", f"{API}/openapi.json", f"{API}/dev/reload",
            f"{API}/queue/status", f"{API}/token", f"{API}/user", "/docs", "/openapi.json",
            f"{API}/run-history/records",
        )  # fmt: skip
        path = self.draw.choice(places)
        if self.draw.random() < 0.8:
            return Request(method=self.draw.choice(("GET", "GET", "HEAD")), path=path)
        posts = ("cancel", "reset", "component_server", "stream/x", "stream/x/close", "vibe-edit", "vibe-code",
                 "undo-vibe-edit", "vibe-starter-queries", "process_recording", "run-history/connect",
                 "login")  # fmt: skip
        body = {
            "session_hash": self.session(),
            "fn_index": 0,
            "event_id": hostile_text(self.draw),
            "component_id": self.draw.choice(self.components),
            "fn_name": self.draw.choice(("preprocess", "__init__", "x")),
            "data": hostile_value(self.draw),
            "prompt": "x",
            "code": "x",
        }
        return self._post(f"{API}/{self.draw.choice(posts)}", body)

    def broken(self) -> Request:
        """A body that is no JSON, or none that fits into memory."""
        path = self.draw.choice((f"{API}/queue/join", f"{API}/run/predict", f"{API}/call/generate", "/v1/completions"))
        bodies = (b"", b"{", b"\xff\xfe", b"null", b"[]", b'"x"', b"1", b'{"data": NaN}', nested(100_000), b"9" * 5000)
        kind = self.draw.choice(("application/json", "application/json", "text/plain", "", "multipart/form-data"))
        return Request(
            method=self.draw.choice(("POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")),
            path=path,
            body=self.draw.choice(bodies),
            headers={"Content-Type": kind} if kind else {},
        )

    def upload(self) -> Request:
        """A file, whose name leads elsewhere."""
        name = self._quoted(hostile_text(self.draw)[:300]) if self.draw.random() < 0.5 else "../../../../tmp/escaped"
        content = b"x" * self.draw.choice((0, 10, 100_000))
        field_name = self.draw.choice(("files", "file", ""))
        head = f'--b\r\nContent-Disposition: form-data; name="{field_name}"; filename="{name}"\r\n\r\n'
        body = head.encode("utf-8", "replace") + content + self.draw.choice((b"\r\n--b--\r\n", b""))
        return Request(
            method="POST",
            path=f"{API}/upload",
            body=body,
            headers={"Content-Type": self.draw.choice(("multipart/form-data; boundary=b", "multipart/form-data"))},
        )

    def odd_headers(self) -> dict[str, str]:
        """Headers that lie about who asks, and through what."""
        choices = (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example"},
            {"Host": ""},
            {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "javascript"},
            {"X-Forwarded-For": "127.0.0.1, ::1", "Forwarded": "host=evil.example"},
            {"X-Gradio-Server": "http://evil.example"},
            {"Cookie": "session=../../x; access-token=x"},
            {"Authorization": "Bearer x"},
            {"Range": "bytes=-1,99999999999999999999-"},
            {"Accept-Encoding": "br;q=9, *"},
            {"Content-Encoding": "gzip"},
            {"Referer": "http://evil.example/" + "x" * 500},
            {"X-Zerogpu-Token": "x", "X-Gradio-User": "app"},
        )
        return dict(self.draw.choice(choices))

    def _post(self, path: str, body: Any, *, session: Any = None) -> Request:
        return Request(
            method="POST",
            path=path,
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            session=session if isinstance(session, str) else None,
        )

    @staticmethod
    def _quoted(text: str) -> str:
        from urllib.parse import quote

        return quote(text.encode("utf-8", "replace"), safe="/.=:%")
