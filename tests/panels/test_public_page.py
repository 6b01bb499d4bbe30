"""A page as anybody may meet it, in a process of its own: random requests, files of the machine, other web sites,
markup and secrets; once as a Space serves it, once on one's own machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from panels.tabs.learn.upload import LARGEST_FILE
from storage.records import write_json
from tests.fuzz.campaign import run_campaign, served
from tests.fuzz.requests import API, Function, functions_of
from tests.panels.tiny_model import save_run
from tests.serving import ROOT

MARKUP = "<img src=x onerror=alert(1)>"
"""A name that a folder can have."""
SECRET = "hf_nobody-is-to-read-this"
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
"""A block of code in Markdown, whose content is text; a string in it has no line of its own."""
FILES = (
    "/etc/passwd",
    "../../../../etc/passwd",
    "....//....//etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/proc/self/environ",
)


class Page:
    """A page that is served."""

    def __init__(self, address: str, process: Any, output: Path) -> None:
        self.client = httpx.Client(base_url=address, timeout=60)
        self.address, self.process, self.output = address, process, output
        self.home = output.parent
        self.config: dict[str, Any] = self.client.get("/config").json()
        self.functions = functions_of(self.config, leave_out=frozenset({"start-run", "learn-resume", "strip-resume"}))

    def components(self, kind: str) -> dict[str, Any]:
        """The components of a type, by their elem_id."""
        return {each["props"].get("elem_id"): each for each in self.config["components"] if each["type"] == kind}

    @staticmethod
    def _value(component: dict[str, Any], text: str) -> Any:
        value = component["props"].get("value")
        takes_text = component["type"] in ("textbox", "html", "api") and not isinstance(value, (int, float))
        return text if takes_text else 0 if component["type"] == "dataset" else value

    def answers(self, function: Function, text: str, session: str = "visitor") -> Iterator[dict[str, Any]]:
        """What a function answers, message for message, when every text that it takes is `text`."""
        values = [self._value(each, text) for each in function.inputs]
        fields = {"number": 1, "text": text, "tokens": [[1, text]], "again": "append"}
        body = {"data": values, "fn_index": function.index, "session_hash": session, "event_data": fields}
        assert self.client.post(f"{API}/queue/join", json=body).status_code == 200
        with self.client.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    yield message
                    if message["msg"] == "process_completed":
                        return


def _page(tmp_path_factory: pytest.TempPathFactory, *, is_public: bool) -> Iterator[Page]:
    home = tmp_path_factory.mktemp("home-of-the-page")
    run = save_run(home / "runs" / MARKUP)
    write_json(run / "prompts.json", [f"{MARKUP} </script>{MARKUP}", "She asked"])
    sample = {"step": 20, "prompt": MARKUP, "text": f"{MARKUP} {MARKUP}", "seed": 1}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 20, "tokens_seen": 1, "train_loss": 3.0}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", SECRET)
        with served(cwd=home, is_public=is_public) as (address, process, output):
            page = Page(address, process, output)
            yield page
            page.client.close()
            assert "Traceback" not in output.read_text()


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a Space."""
    yield from _page(tmp_path_factory, is_public=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of one's own machine."""
    yield from _page(tmp_path_factory, is_public=False)


@pytest.fixture(params=["public", "own"])
def page(request: pytest.FixtureRequest) -> Page:
    """Each of them."""
    return request.getfixturevalue(request.param)


def test_random_requests_break_nothing(page: Page) -> None:
    is_public = page.config["space_id"] is not None
    found = run_campaign(page.address, page.process, page.output, count=250, seed=0, is_public=is_public, seconds=120)
    assert found.is_clean, found.report()
    assert min(found.statuses[200], found.statuses[400], found.statuses[404]) > 10, found.report()
    assert found.memory_after - found.memory_before < 100e6, found.report()


@pytest.mark.parametrize("path", FILES)
def test_no_file_of_the_machine_is_served(page: Page, path: str) -> None:
    inside = page.home / "runs" / MARKUP / "run.json"
    places = ["file=", "file/", "stream/", "static/", "custom_component/", "proxy="]
    for place in [f"{API}/{each}" for each in places] + ["/static/", "/assets/", "/svelte/", "/"]:
        for each in (path, str(inside), str(ROOT / "app.py")):
            answer = page.client.get(f"{place}{each}")
            assert answer.status_code in (403, 404, 405, 422), (place, each, answer.status_code)
            assert "root:" not in answer.text
            assert "latest_checkpoint" not in answer.text


def test_an_uploaded_file_stays_in_its_place_and_is_never_run_by_a_browser(own: Page) -> None:
    for name in ("../../../escaped.html", "/tmp/escaped.html", "a\\..\\escaped.html"):
        answer = own.client.post(f"{API}/upload", files={"files": (name, b"<script>alert(1)</script>")})
        (path,) = answer.json()
        assert Path(path).name.endswith("escaped.html")
        assert not (own.home.parent / "escaped.html").exists()
        assert not Path("/tmp/escaped.html").exists()
        again = own.client.get(f"{API}/file={path}")
        assert again.headers["content-disposition"].startswith("attachment")
        assert again.headers["x-content-type-options"] == "nosniff"
    whole = b"x" * (LARGEST_FILE + 1)
    assert own.client.post(f"{API}/upload", files={"files": ("a.txt", whole)}).status_code == 413


def test_a_public_page_takes_no_files_trains_nothing_and_loads_nothing_else(public: Page, own: Page) -> None:
    assert public.client.post(f"{API}/upload", files={"files": ("a.txt", b"x")}).status_code == 404
    assert "start-run" in own.components("button")
    assert not {"start-run", "take-over", "strip-use"} & public.components("button").keys()
    assert "model-choice" in own.components("dropdown")
    assert "model-choice" not in public.components("dropdown")
    assert not public.components("file")
    lists = {each["id"] for each in public.components("dropdown").values()}
    reading = [each for each in public.functions if lists & {one["id"] for one in each.inputs}]
    assert len(reading) >= 4
    for function in reading:
        for path in ("/etc", str(public.home), "gpt2", "alice/model"):
            data = [path if each["type"] == "dropdown" else each["props"].get("value") for each in function.inputs]
            answer = public.client.post(f"{API}/run/predict", json={"data": data, "fn_index": function.index})
            assert answer.status_code in (400, 404), answer.text
            assert "expected one of the choices that are there by now" in answer.text or "not accept" in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_other_web_sites_can_neither_call_nor_read_a_page_of_ones_own(own: Page, origin: str) -> None:
    calls = {
        f"{API}/queue/join": {"data": [], "fn_index": own.functions[0].index, "session_hash": "evil"},
        f"{API}/run/predict": {"data": [], "fn_index": own.functions[0].index},
        f"{API}/call/generate": {"data": ["The"]},
        f"{API}/upload": {},
        "/v1/completions": {"prompt": "The"},
    }
    for path, body in calls.items():
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            headers = {"Origin": origin, "Content-Type": kind}
            answer = own.client.post(path, content=json.dumps(body), headers=headers)
            assert answer.status_code == 403, (path, kind, answer.text)
            assert "Web pages of other sites may not call this one" in answer.text
    asked = own.client.get("/config", headers={"Origin": origin})
    assert "access-control-allow-origin" not in asked.headers
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in own.client.options("/v1/completions", headers=preflight).headers


def test_a_name_that_was_bound_to_this_machine_reaches_nothing(own: Page, public: Page) -> None:
    for path in ("/", "/config", f"{API}/info", "/v1/models"):
        answer = own.client.get(path, headers={"Host": "evil.example:7860"})
        assert answer.status_code == 421
        assert "expected a name of this machine" in answer.text
    forwarded = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    for each in (own, public):
        assert "evil.example" not in each.client.get(f"{API}/info", headers=forwarded).text


def test_a_request_without_a_host_is_answered(own: Page) -> None:
    import socket

    host, port = own.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /config HTTP/1.0\r\nOrigin: http://evil.example\r\n\r\n")
        assert connection.recv(100).split(b"\r\n")[0].split()[1] in (b"400", b"421")


def test_a_browser_is_told_to_guess_no_types_and_to_show_the_page_in_no_frame_of_others(
    own: Page, public: Page
) -> None:
    for path in ("/", "/config", "/nothing", "/v1/models"):
        headers = own.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["content-security-policy"].startswith("frame-ancestors 'self' ")
    assert "content-security-policy" not in public.client.get("/").headers  # the Hub shows a Space in a frame


def test_a_session_that_the_server_does_not_know_is_told_so(page: Page) -> None:
    answer = page.client.get(f"{API}/queue/data", params={"session_hash": "of-before-the-restart"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert json.loads(answer.text.removeprefix("data: "))["session_not_found"] is True
    assert page.client.get(f"{API}/call/generate/nope").status_code == 404


def test_markup_comes_back_as_text(page: Page) -> None:
    shown = {each["id"] for each in page.config["components"] if each["type"] in ("html", "markdown")}
    hidden = {page.components("html")["stream"]["id"]}  # lines of JSON for the page's script, never made into markup
    for each in page.config["components"]:
        if each["id"] in shown:
            assert MARKUP not in str(each["props"].get("value")), each["props"].get("elem_id")
    start = page.client.get("/").text
    assert f"</script>{MARKUP}" not in start
    assert f"<title>{MARKUP}" not in start
    outputs = {each["id"]: each["outputs"] for each in page.config["dependencies"]}
    seen = 0
    for function in page.functions:
        for message in page.answers(function, MARKUP):
            data = (message.get("output") or {}).get("data") or []
            for component, value in zip(outputs[function.index], data, strict=False):
                if component in shown - hidden:
                    seen += "&lt;img" in str(value)
                    assert MARKUP not in CODE.sub("", str(value)), function
    assert seen >= 5


def test_absent_texts_and_files_in_an_event_are_nobodys_error(own: Page) -> None:
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for function in own.functions:
        values = [
            None if each["type"] == "textbox" else 0 if each["type"] == "dataset" else each["props"].get("value")
            for each in function.inputs
        ]
        for fields in ({}, {"number": 1, "text": "The", "file": file}):
            body = {"data": values, "fn_index": function.index, "session_hash": "absent", "event_data": fields}
            answer = own.client.post(f"{API}/run/predict", json=body)
            assert answer.status_code in (200, 400), (function, answer.text)


@pytest.mark.parametrize("value", [None, "x" * 3000, "~nobody/x"], ids=["nothing", "long", "another user"])
def test_what_no_choice_of_a_page_is_is_nobodys_error(value: str | None, own: Page) -> None:
    for function in own.functions:
        body = {"data": [value] * len(function.inputs), "fn_index": function.index, "session_hash": "odd"}
        answer = own.client.post(f"{API}/run/predict", json=body)
        assert answer.status_code in (200, 400), (function, answer.text)
    assert "Traceback" not in own.output.read_text()


def test_no_secret_and_no_place_of_the_machine_is_told(public: Page, own: Page) -> None:
    def texts(page: Page) -> Iterator[str]:
        for path in ("/", "/config", f"{API}/info", f"{API}/openapi.json", f"{API}/startup-events", "/v1/models"):
            yield page.client.get(path).text
        for function in page.functions:
            yield from map(str, page.answers(function, "The lamp", session="reader"))
        yield page.client.post("/v1/completions", json={"prompt": "The", "max_tokens": 1}).text
        yield page.client.post(f"{API}/run/predict", json={"data": [], "fn_index": 10**6}).text

    for text in texts(public):
        for secret in (SECRET, public.home.name, str(ROOT), str(Path.home()) + "/", "site-packages"):
            assert secret not in text
    assert not any(SECRET in text for text in texts(own))
    assert SECRET not in own.output.read_text() + public.output.read_text()
