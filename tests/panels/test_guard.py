"""Who may ask the page, in what form, for what, and with which values: the parts of `panels.guard`, each by itself."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import pytest
from gradio.events import api

from panels.guard.bodies import DEPTH_LIMIT, check_kind, parse_json
from panels.guard.calls import check_event, check_session, checked_call
from panels.guard.hosts import check_host, check_origin, host_name, is_loopback, origin_name
from panels.guard.places import check_place
from panels.guard.refusal import RefusedError
from panels.guard.values import check_values
from tests.fuzz.values import nested

HERE = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", True),
        ("page.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_what_means_this_machine_alone(name: str, expected: bool) -> None:
    assert is_loopback(name) is expected


def test_names_are_read_as_browsers_write_them() -> None:
    assert host_name("LocalHost:7860") == "localhost"
    assert host_name("[::1]:7860") == "::1"
    assert host_name("localhost.") == "localhost"
    assert host_name("[::1") == ""
    assert host_name("evil.example@127.0.0.1") == "127.0.0.1"
    assert origin_name("https://Evil.example:8") == "evil.example"
    assert [origin_name(each) for each in ("null", "", "file://", "http://[", "javascript:x")] == [""] * 5


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:1", "[::1]:7860", "mine.example"])
def test_a_page_of_this_machine_answers_to_its_names(host: str) -> None:
    check_host({"host": host}, listens_on="127.0.0.1", allowed={"mine.example"})


@pytest.mark.parametrize("host", ["evil.example:7860", "", "127.0.0.1.evil.example", "192.168.1.5"])
def test_a_name_that_was_bound_to_this_machine_is_refused(host: str) -> None:
    with pytest.raises(
        RefusedError, match=r"Host: expected a name of this machine, such as 127\.0\.0\.1 .* --allow-host"
    ):
        check_host({"host": host}, listens_on="localhost", allowed={"mine.example"})
    check_host({"host": host}, listens_on="0.0.0.0", allowed=())  # its names are not known


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7860", "http://127.0.0.1:7860"),
        ("127.0.0.1:7860", "http://localhost:8000"),  # a front-end of this machine
        ("box:7860", "http://box:8000"),
        ("127.0.0.1:7860", "https://mine.example"),
    ],
)
def test_pages_of_the_same_machine_may_call(host: str, origin: str) -> None:
    check_origin("POST", {"host": host, "origin": origin}, allowed={"mine.example"})


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7860", "http://evil.example"),
        ("127.0.0.1:7860", "null"),
        ("127.0.0.1:7860", "http://127.0.0.1.evil.example"),
        ("box:7860", "http://127.0.0.1:8000"),
        ("", "null"),
    ],
)
def test_scripts_of_other_sites_may_not(host: str, origin: str) -> None:
    headers = {"host": host, "origin": origin}
    for method in ("POST", "PUT", "DELETE"):
        with pytest.raises(RefusedError, match="Web pages of other sites may not call this one") as caught:
            check_origin(method, headers, allowed=())
        assert caught.value.status == 403
    check_origin("GET", headers, allowed=())


def test_a_proxy_names_the_host_that_it_was_called_by() -> None:
    headers = {"host": "10.0.0.2:7860", "origin": "https://my.example", "x-forwarded-host": "my.example"}
    check_origin("POST", headers, allowed=())


def test_json_of_a_body() -> None:
    assert parse_json(b'{"a": ["\\ud83d\\ude00", "\\ud800", 1e400]}') == {"a": ["😀", "\ufffd", float("inf")]}
    assert parse_json(b'{"\\udfff": 1}') == {"\ufffd": 1}
    assert parse_json(nested(DEPTH_LIMIT)) is not None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "expected JSON, got something else"),
        (b"", "expected JSON, got something else"),
        (b"\xff\xfe", "expected JSON, got something else"),
        (b'{"a": "\xed\xa0\x80"}', "expected JSON, got something else"),  # a surrogate as UTF-8 never has it
        ('["\\ud800"]'.encode("utf-16"), "expected JSON, got something else"),
        (b"9" * 5000, "expected JSON, got something else"),
        (b'{"a": NaN}', "expected JSON, which has no NaN; write null or a number."),
        (b"[-Infinity]", "expected JSON, which has no -Infinity"),
        (nested(DEPTH_LIMIT + 1), f"expected JSON of at most {DEPTH_LIMIT} lists and objects within each other"),
        (nested(100_000), f"expected JSON of at most {DEPTH_LIMIT} lists and objects within each other"),
    ],
)
def test_what_is_no_json(body: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message.replace("-", r"\-")) as caught:
        parse_json(body)
    assert caught.value.status == 400


def test_only_json_is_read() -> None:
    check_kind("application/json; charset=utf-8")
    for kind, got in (("text/plain", "text/plain"), ("", "none")):
        with pytest.raises(RefusedError, match=f"expected the header Content-Type: application/json, got {got}"):
            check_kind(kind)


@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/info/", "/gradio_api/run/predict", "/v1/models", "/assets/x.js"]
)
def test_places_of_the_page(path: str) -> None:
    check_place(path, "", takes_files=False)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/vibe-edit",
        "/gradio_api/vibe-code/",
        "/gradio_api/dev/reload",
        "/gradio_api/proxy=http://169.254.169.254/",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/deep_link",
        "/gradio_api/run-history/records",
        "/monitoring/x",
        "/login",
        "/docs",
        "/gradio_api/upload",
    ],
)
def test_places_that_nobody_needs_are_closed(path: str) -> None:
    with pytest.raises(RefusedError, match="there is no such place here") as caught:
        check_place(path, "", takes_files=False)
    assert caught.value.status == 404


def test_files_are_taken_where_there_is_a_field_for_them_and_deep_links_nowhere() -> None:
    check_place("/gradio_api/upload", "upload_id=x", takes_files=True)
    with pytest.raises(RefusedError, match="this page makes no deep links"):
        check_place("/", "deep_link=..%2f..", takes_files=True)


@pytest.fixture(scope="module")
def page() -> Any:
    """A page with a function of its own (0), a public endpoint (1), and one for chats (2)."""

    def double(text: str, times: int = 2) -> str:
        return text * times

    def chat(messages: list[dict[str, str]]) -> str:
        return messages[-1]["content"]

    async def build() -> gr.Blocks:  # Gradio asks for the loop of its thread, and this one may have one of Playwright's
        with gr.Blocks(analytics_enabled=False) as page:
            box = gr.Textbox(label="Text")
            box.change(lambda text: text, box, box, api_visibility="private")
            api(double, api_name="double")
            api(chat, api_name="chat")
        return page

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(build())).result()


def test_a_call_keeps_what_a_page_sends(page: Any) -> None:
    call = {"data": ["a"], "fn_index": 0, "session_hash": "abc-1", "event_data": {"a": 1}, "trigger_id": 1}
    assert checked_call("/gradio_api/queue/join", call, page) == call
    more = {"batched": True, "simple_format": True, "oauth_token": "x", "event_id": "x", "event_data": [1]}
    assert checked_call("/gradio_api/run/predict", {"data": [], "fn_index": 0, **more}, page) == {
        "data": [],
        "fn_index": 0,
    }
    assert checked_call("/gradio_api/call/double", {"data": ["a"], "fn_index": 0}, page) == {"data": ["a"]}
    assert checked_call("/gradio_api/call/v2/double", {"text": "a"}, page) == {"text": "a"}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("run/predict", [], 400, r"expected a JSON object, got \[\]"),
        ("run/predict", {"fn_index": 0}, 400, "data: expected a list of arguments, got None"),
        ("run/predict", {"data": [], "fn_index": 99}, 404, "fn_index: expected the number of a function"),
        ("run/predict", {"data": [], "fn_index": -1}, 404, "fn_index: expected the number of a function"),
        ("run/predict", {"data": [], "fn_index": "0"}, 400, "fn_index: expected a whole number, got '0'"),
        ("run/predict", {"data": [], "fn_index": True}, 400, "fn_index: expected a whole number, got True"),
        ("run/predict", {"data": []}, 404, "'predict': there is no such function; there are /chat, /double"),
        ("call/nope", {"data": []}, 404, "'nope': there is no such function; there are /chat, /double"),
        ("call/double/x", {"data": []}, 404, "'x': there is no such function"),
        ("queue/join", {"data": [], "fn_index": 0}, 400, "session_hash: expected 1 to 64 letters.*, got none"),
        ("queue/join", {"data": [], "session_hash": "a"}, 400, "fn_index: expected .*, got none"),
        ("run/predict", {"data": [], "fn_index": 0, "session_hash": "../x"}, 400, r"session_hash: .* got '\.\./x'"),
        ("run/predict", {"data": [], "fn_index": 0, "trigger_id": "x"}, 400, "trigger_id: expected a whole number"),
        ("call/v2/nope", {}, 404, "'nope': there is no such function; there are /chat, /double"),
        ("call/v2/double", {}, 400, "text: expected a value, got none"),
        ("call/v2/double", {"text": "a", "<b>": 1}, 400, "'<b>': expected one of text, times"),
    ],
)
def test_a_call_that_gradio_cannot_read(page: Any, path: str, body: Any, status: int, message: str) -> None:
    with pytest.raises(RefusedError, match=message) as caught:
        checked_call(f"/gradio_api/{path}", body, page)
    assert caught.value.status == status


def test_sessions_and_events() -> None:
    for session in (None, "5lk3jd02js", "0b0e7ee0-8a4c-4d3e-b9a5-0f3a5c1e2d3f"):
        check_session(session)
    for session in ("", "a b", "x" * 65, 5, ["a"], "é"):
        with pytest.raises(RefusedError, match="session_hash: expected 1 to 64 letters"):
            check_session(session)
    check_event("/gradio_api/call/generate/e1", lambda event: event == "e1")
    check_event("/gradio_api/info", lambda event: False)
    with pytest.raises(RefusedError, match="event_id: expected that of a call whose answer was not read yet, got 'e2'"):
        check_event("/gradio_api/call/generate/e2", lambda event: event == "e1")


WITH_CHOICES = {"choices": ["a", "b"], "label": "Choice"}


@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    return {
        "slider": gr.Slider(0, 2, label="Temperature"),
        "number": gr.Number(label="Version"),
        "checkbox": gr.Checkbox(label="Same"),
        "list": gr.Dropdown(**WITH_CHOICES),
        "open list": gr.Dropdown(**WITH_CHOICES, allow_custom_value=True),
        "radio": gr.Radio(**WITH_CHOICES),
        "samples": gr.Dataset(components=["textbox"], samples=[["a"], ["b"]], label="Samples"),
        "file": gr.File(label="File"),
        "text": gr.Textbox(label="Text"),
        "markup": gr.HTML(label="Markup"),
        "state": gr.State(1),
    }


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "message"),
    [
        ("slider", (0, 2, 0.5), (None, "1", True, 3, -0.1, float("inf"), [], {}), "Temperature: expected a number"),
        ("number", (None, 1, 2.5), ("1", True, float("nan"), [1]), "Version: expected a number, got"),
        ("checkbox", (True, False), (None, 1, "true"), "Same: expected true or false, got"),
        ("list", (None, "a"), ("c", 1, True, ["a"], {}), "Choice: expected one of the choices that are there by now"),
        ("open list", (None, "a", "c"), (1, ["a"], {"path": "/etc/passwd"}), "Choice: expected one of the choices"),
        ("radio", (None, "b"), ("c", 0, []), "Choice: expected one of the choices"),
        ("samples", (0, 1), (None, 2, -1, True, "0", ["a"]), "Samples: expected the number of a sample from 0 to 1"),
        ("file", (None, {"path": "/tmp/x"}), ("/etc/passwd", [], {}, {"path": 1}), "File: expected an uploaded file"),
        ("text", (None, "", "a"), (1, True, ["a"], {"path": "/etc/passwd"}), "Text: expected a text, got"),
        ("markup", (None, "a"), (1, {}), "Markup: expected a text, got"),
        ("state", (None, 5, "a", {"a": 1}), (), ""),
    ],
)  # fmt: skip
def test_values_fit_their_components(
    components: dict[str, Any], kind: str, right: tuple[Any, ...], wrong: tuple[Any, ...], message: str
) -> None:
    for value in right:
        check_values([components[kind]], [value, "more than was asked for"], None)
    for value in wrong:
        with pytest.raises(ValueError, match=message):
            check_values([components[kind]], [value], None)


def test_a_visitor_has_the_choices_that_were_sent_to_them(components: dict[str, Any]) -> None:
    own = components["list"]
    check_values([own], ["c"], {own._id: gr.Dropdown(["c"])})
    with pytest.raises(ValueError, match="Choice: expected one of the choices"):
        check_values([own], ["c"], {})


def test_a_message_shows_a_wrong_value_in_ascii_short_and_without_markup(components: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Text: expected a text") as caught:
        check_values([components["text"]], [["<img src=x onerror=alert(1)>", "\ud800\u202e"]], None)
    assert str(caught.value).endswith(r"got ['&lt;img src=x onerror=alert(1)&gt;', '\ud800\u202e'].")
    with pytest.raises(ValueError, match="Text: expected a text") as caught:
        check_values([components["text"]], [["x" * 10**6]], None)
    assert len(str(caught.value)) < 130
    with pytest.raises(ValueError, match=r"expected 2 values, got 1\. Reload the page"):
        check_values([components["text"]] * 2, ["a"], None)


def test_an_endpoint_for_chats_takes_messages_and_no_other_list(page: Any) -> None:
    inputs, right = page.fns[2].inputs, {"role": "user", "content": "Who is Rosa?"}
    check_values(inputs, [[right, right]], None)
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for wrong in (None, "a", right, ["a"], [{"role": "user"}], [right | file], [right, right | {"content": [file]}]):
        with pytest.raises(ValueError, match="argument 1: expected a list of messages, each of a role and a content"):
            check_values(inputs, [wrong], None)


def test_an_endpoint_takes_no_lists_and_objects(page: Any) -> None:
    inputs = page.fns[1].inputs
    check_values(inputs, [5, None], None)
    with pytest.raises(ValueError, match=r"argument 2: expected a text, a number or nothing, got \{'path'"):
        check_values(inputs, ["a", {"path": "/etc/passwd"}], None)
