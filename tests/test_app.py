"""The page as people meet it: a real process, a real client, a real browser."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from panels.generate import generate
from panels.models import LoadedModel, load_model
from panels.request_queue import WORKERS
from panels.sampling import settings_from
from tests.panels.tiny_model import PROMPTS, save_checkpoint
from tests.serving import ROOT, SEED, Window, button, free_port, serving, set_length, start, wait_until

LONG = 1_000_000  # more tokens than any test waits for


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The folder of a model that is tiny but deep: slow enough to be stopped."""
    return save_checkpoint(tmp_path_factory.mktemp("models") / "tiny", layers=128)


@pytest.fixture(scope="module")
def loaded(model) -> LoadedModel:
    """The same model here, to compare with."""
    return load_model(model)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a running page."""
    with serving(model, cwd=tmp_path_factory.mktemp("elsewhere")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server) -> Iterator[Any]:
    """A client of the API."""
    from gradio_client import Client

    client = Client(server[0], verbose=False)
    yield client
    client.close()


def is_computing(process: psutil.Process) -> bool:
    """Whether the process does more than wait, also on a machine where others compute."""
    before = process.cpu_times().user
    time.sleep(0.5)
    return process.cpu_times().user - before > 0.06


def test_the_api_offers_generate_and_hides_what_is_the_pages_own(client):
    endpoints = client.view_api(return_format="dict")
    known = {"/chat", "/fill", "/generate", "/next_token", "/surprise", "/tokenize"}
    assert set(endpoints["named_endpoints"]) <= known
    assert endpoints["unnamed_endpoints"] == {}
    parameters = endpoints["named_endpoints"]["/generate"]["parameters"]
    assert [(each["parameter_name"], each["parameter_has_default"]) for each in parameters] == [
        ("prompt", False),
        ("max_new_tokens", True),
        ("temperature", True),
        ("top_k", True),
        ("top_p", True),
        ("min_p", True),
        ("repetition_penalty", True),
        ("seed", True),
        ("typical_p", True),
        ("stop", True),
    ]


def test_generate_yields_the_text_so_far(client, loaded):
    texts = list(client.submit("The lamp", 60, 0.9, 20, 0.9, 0.01, 1.1, 5, api_name="/generate"))
    assert len(texts) > 1
    assert all(text.startswith("The lamp") for text in texts)
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    options = settings_from(
        max_new_tokens=60, temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.1, seed=5
    )
    assert texts[-1] == list(generate(loaded, "The lamp", options))[-1].text


def test_same_seed_same_text(client):
    texts = [client.predict("The lamp", max_new_tokens=20, seed=seed, api_name="/generate") for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert client.predict("", max_new_tokens=20, seed=1, api_name="/generate")


def test_other_programs_get_the_pages_text(client, server):
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="any") as other:
        model = other.models.list().data[0].id
        settings = {"temperature": 0.8, "top_p": 0.95, "seed": 5}
        found = other.completions.create(model=model, prompt="The lamp", max_tokens=20, **settings).choices[0]
        with other.completions.create(model=model, prompt="The lamp", max_tokens=20, **settings, stream=True) as stream:
            streamed = "".join(chunk.choices[0].text for chunk in stream)
    text = client.predict("The lamp", max_new_tokens=20, **settings, api_name="/generate")
    assert "The lamp" + found.text == "The lamp" + streamed == text


def test_another_program_that_hangs_up_ends_the_computing(server):
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="any") as other:
        stream = other.completions.create(model=other.models.list().data[0].id, prompt="", max_tokens=LONG, stream=True)
        next(iter(stream))
        wait_until(lambda: is_computing(server[1]))
        stream.close()
        wait_until(lambda: not is_computing(server[1]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature: expected a number, 0 (greedy) or more, got -1"),
        ({"seed": "dice"}, "seed: expected a whole number, got 'dice'"),
        ({"top_p": 1.5}, "top_p: expected a number from 0 to 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected a whole number, 1 or more"),
        ({"prompt": 3}, "prompt: expected text, got int"),
    ],
)
def test_a_wrong_value_is_told(client, values, message):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=re.escape(message)):
        client.predict(**{"prompt": "The"} | values, api_name="/generate")


@pytest.mark.parametrize("prompt", ["\x00\x1b", "👩‍🚀" * 10, "<|endoftext|>", "x" * 100_000])
def test_no_prompt_is_too_odd(client, prompt):
    assert client.predict(prompt, max_new_tokens=3, api_name="/generate").startswith(prompt)


def test_a_lone_surrogate_is_answered(server):
    def post(url: str, body: bytes) -> dict[str, Any]:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    call = f"{server[0]}/gradio_api/call/generate"
    event = post(call, rb'{"data": ["\ud800 alone", 3, 1, 0, 1, 0, 1, 1]}')["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=30) as stream:
        answer = stream.read().decode()
    assert "event: complete" in answer
    assert json.loads(answer.rsplit("data: ", 1)[1])[0].startswith("\ufffd alone")


def test_cancelling_ends_the_computing(client, server):
    job = client.submit("The lamp", LONG, seed=1, api_name="/generate")
    next(iter(job))
    wait_until(lambda: is_computing(server[1]))
    job.cancel()
    wait_until(lambda: not is_computing(server[1]))


def test_nothing_is_served_from_the_disk(server, model):
    for path in (model / "config.json", ROOT / "app.py", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{server[0]}/gradio_api/file={path}", timeout=10)
        refusal.value.close()
        assert refusal.value.code in (403, 404)


@pytest.fixture(scope="module")
def window(browser, server) -> Iterator[Window]:
    """The page in the browser, one for all tests."""
    window = Window(browser, server[0])
    yield window
    window.page.close()


@pytest.fixture
def page(window) -> Iterator[Any]:
    """The page, ready, with an empty document and a random seed."""
    with window.lent() as page:
        button(page, "Clear").click()
        page.get_by_text("A new page.").wait_for()
        page.locator(SEED).fill("")
        yield page


def test_write_continue_and_undo(page, loaded):
    from playwright.sync_api import expect

    assert page.locator("#actions button:visible").all_inner_texts() == [
        "Generate", "Stop", "Retry", "Undo", "Redo", "Clear",
    ]  # fmt: skip
    document = page.get_by_label("Your text")
    document.fill("The lamp")
    page.locator(SEED).fill("5")
    set_length(page, 30)
    button(page, "Generate").click()
    button(page, "Continue").wait_for()
    first = document.input_value()
    assert first == list(generate(loaded, "The lamp", settings_from(seed=5, max_new_tokens=30)))[-1].text
    expect(page.locator("#status")).to_contain_text("30 tokens")
    expect(page.locator("#status")).to_contain_text("seed 5")
    expect(page.locator("#status")).to_contain_text("of 48 tokens of context")
    button(page, "Continue").click()
    expect(page.locator("#status")).to_contain_text("the window has moved past")
    button(page, "Continue").wait_for()
    assert len(document.input_value()) > len(first)
    assert document.input_value().startswith(first)
    button(page, "Undo").click()
    expect(document).to_have_value(first)
    button(page, "Undo").click()
    expect(document).to_have_value("The lamp")
    button(page, "Generate").click()
    expect(document).to_have_value(first)


@pytest.mark.parametrize("way", ["the button", "Escape"])
def test_stop_ends_the_computing(page, server, way):
    from playwright.sync_api import expect

    document = page.get_by_label("Your text")
    set_length(page, 1000)
    document.fill("The lamp")
    document.press("Control+Enter")
    page.get_by_text("tokens/s").wait_for()
    expect(document).not_to_be_editable()
    if way == "Escape":
        page.keyboard.press("Escape")
    else:
        button(page, "Stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped.")
    expect(button(page, "Stop")).to_be_disabled()
    wait_until(lambda: not is_computing(server[1]))
    text = document.input_value()
    expect(page.locator("#status")).to_contain_text(f"{page.locator('#document .layer .token').count()} tokens")
    page.wait_for_timeout(300)
    assert document.input_value() == text
    button(page, "Undo").click()
    expect(document).to_have_value("The lamp")


@pytest.fixture(scope="module")
def lonely_server(tmp_path_factory) -> Iterator[str]:
    """The page of a model that writes one text at a time on each core: its positions depend on the length of the text,
    so it needs its own forward."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    folder = tmp_path_factory.mktemp("models") / "lonely"
    save_checkpoint(folder, layers=128, position_embedding="rope", rope_parameters=rope)
    with serving(folder, cwd=tmp_path_factory.mktemp("elsewhere")) as (address, _):
        yield address


@pytest.fixture
def lonely_page(browser, lonely_server) -> Iterator[Any]:
    """That page, ready."""
    window = Window(browser, lonely_server)
    with window.lent() as page:
        yield page
    window.page.close()


def test_who_waits_sees_how_many_are_before_and_stop_leaves_the_line(lonely_page, lonely_server):
    from gradio_client import Client
    from playwright.sync_api import expect

    page, clients = lonely_page, [Client(lonely_server, verbose=False) for _ in range(WORKERS)]
    jobs = [client.submit("The lamp", LONG, api_name="/generate") for client in clients]
    try:
        for job in jobs:
            next(iter(job))
        set_length(page, 5)
        page.get_by_label("Your text").fill("She asked")
        button(page, "Generate").click()
        expect(page.locator("#status")).to_contain_text("Waiting: 1 request is ahead of yours.")
        button(page, "Stop").click()
        expect(page.locator("#status")).to_contain_text("Nothing was written.")
        expect(button(page, "Generate")).to_be_enabled()
        page.get_by_role("tab", name="Inside").click()
        page.get_by_label("Text to look into").fill("She asked")
        button(page, "Look inside").click()
        expect(page.locator("#inside-status")).to_contain_text("Waiting: 1 request is ahead of yours.")
        page.keyboard.press("Escape")
        expect(page.locator("#inside-status")).to_contain_text("Stopped.")
        expect(page.locator("#inside-stop")).to_be_disabled()
        button(page, "Look inside").click()
        expect(page.locator("#inside-status")).to_contain_text("Waiting: 1 request is ahead of yours.")
    finally:
        for job, client in zip(jobs, clients, strict=True):
            job.cancel()
            client.close()
    page.get_by_role("region", name="Surprise").wait_for()
    page.get_by_role("tab", name="Write").click()
    button(page, "Generate").click()
    button(page, "Continue").wait_for()


def test_beginnings_clear_and_dice(page):
    from playwright.sync_api import expect

    document = page.get_by_label("Your text")
    button(page, PROMPTS[1]).click()
    expect(document).to_have_value(PROMPTS[1])
    button(page, "Clear").click()
    expect(document).to_have_value("")
    button(page, "Undo").click()
    expect(document).to_have_value(PROMPTS[1])
    button(page, "Roll").click()
    expect(page.locator(SEED)).to_have_value(re.compile(r"^\d+$"))


def test_a_wrong_seed_is_told_and_the_page_goes_on(page):
    from playwright.sync_api import expect

    page.locator(SEED).fill("dice")
    button(page, "Generate").click()
    expect(page.locator("#status")).to_contain_text("seed: expected a whole number, got 'dice'.")
    page.locator(SEED).fill("")
    set_length(page, 5)
    button(page, "Generate").click()
    button(page, "Continue").wait_for()


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    wait_until(lambda: page.evaluate("document.documentElement.scrollWidth") <= 360)
    heights = [
        button(page, name).bounding_box()["height"] for name in ("Generate", "Stop", "Retry", "Undo", "Clear", "Roll")
    ]
    assert min(heights) >= 44


def test_a_closed_tab_ends_the_computing(page, server):
    """The last test with the page."""
    set_length(page, 1000)
    button(page, "Generate").click()
    page.get_by_text("tokens/s").wait_for()
    page.close()
    before = server[1].cpu_times().user
    wait_until(lambda: not is_computing(server[1]))
    assert server[1].cpu_times().user - before < 5  # the whole text takes three times that


def test_a_port_in_use(model, tmp_path):
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = occupied.getsockname()[1]
        process = start("--model", model, "--port", port, cwd=tmp_path)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"error: Port {port} on 127.0.0.1 cannot be used" in output
    suggested = re.search(r"`make demo PORT=(\d+)` or `python app.py --port \1`", output)
    assert suggested is not None
    assert port < int(suggested[1]) < port + 100  # the next one that is free
    assert "Traceback" not in output


def test_no_model(tmp_path):
    process = start(cwd=tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith("error: No model here")
    assert "`make demo` trains one" in output


@pytest.mark.slow  # seven seconds for a message; the loader has quick tests of its own
def test_a_model_that_fails_while_loading_ends_the_page(tmp_path):
    folder = save_checkpoint(tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    process = start("--model", folder, "--port", free_port(), cwd=tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "is incomplete: its weights lack" in output
    assert "Traceback" not in output


def test_settings_of_the_terminal_are_refused_for_the_page(model, tmp_path):
    process = start("--model", model, "--top-k", "3", cwd=tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "top_k: only with --terminal" in output
