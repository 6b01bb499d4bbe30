"""What the OpenAI-compatible API refuses, and how; who waits, and who hangs up."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from panels.context import AppContext
from panels.generate import generate
from panels.models import ModelLoader, find_model
from panels.request_queue import RequestQueue
from panels.sampling import settings_from
from tests.panels.openai_serving import context_of, serving
from tests.serving import wait_until

KEY = "sk-mine"
LONG = 1_000_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1}, "temperature: expected a number, 0 (greedy) or more, got -1"),
        ({"temperature": "hot"}, "temperature: expected a number, got 'hot'."),
        ({"top_k": 1.5}, "top_k: expected a whole number, got 1.5."),
        ({"max_tokens": 0}, "max_tokens: expected a whole number, 1 or more, got 0."),
        (
            {"prompt": {"a": 1}},
            "prompt: expected a text, a list of token ids, or a list of texts or of such lists, got {'a': 1}.",
        ),
        ({"prompt": []}, "got an empty list. An empty text"),
        ({"stop": [3]}, "stop: expected a text or a list of texts, got [3]."),
        ({"n": 40}, "n: expected a whole number from 1 to 32, got 40."),
        ({"n": 20, "prompt": ["a", "b"]}, "n: expected at most 32 texts in one request, got 2 prompts and n 20."),
        ({"seed": "dice"}, "seed: expected a whole number from 0 to 2**63 - 1 (-1: a random one), got 'dice'."),
        ({"logprobs": True}, "logprobs: expected a whole number from 0 to 100, got True."),
        ({"stream": 1}, "stream: expected true or false, got 1."),
        (
            {"presence_penalty": 0.5},
            "presence_penalty: not offered here; expected 0 or nothing, got 0.5. repetition_penalty is offered.",
        ),
        ({"logit_bias": {"5": 1}}, "logit_bias: not offered here; expected {} or nothing, got {'5': 1}."),
    ],
)
def test_a_wrong_field_is_named(address, fields, message):
    answer = httpx.post(f"{address}/completions", json={"model": "tiny", "prompt": "The"} | fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] in (*fields, None)


@pytest.mark.parametrize(
    ("prompt", "got"),
    [
        ([-1], "-1"),
        ([5, -1], "-1"),
        ([True], "True"),
        ([1.0], "1.0"),
        ([None], "None"),
        ([1, "a"], "1"),
        (["a", 1], "1"),
        ([1, [2]], "1"),
        (["a", [5, -1]], "[5, -1]"),
        ([[5, "a"]], "[5, 'a']"),
        ([[[5]]], "[[5]]"),
        ([[]], "[]"),
    ],
)
def test_a_list_that_is_no_prompt(address, prompt, got):
    answer = httpx.post(f"{address}/completions", json={"prompt": prompt})
    assert answer.status_code == 400
    expected = "prompt: expected a text, a list of token ids, or a list of texts or of such lists"
    advice = (
        "Token ids are whole numbers, 0 or more; give those of one prompt as a list of their own, without texts or "
        "lists in it."
    )
    assert answer.json()["error"]["message"] == f"{expected}, got a list with {got}. {advice}"
    assert answer.json()["error"]["param"] == "prompt"


@pytest.fixture(scope="module", params=["our tokenizer", "a fast tokenizer"])
def ids_address(request, checkpoint, openai_context, tmp_path_factory) -> Iterator[str]:
    """The API of the tiny model; a fast tokenizer decodes no id beyond 32 bits."""
    context = openai_context
    if request.param == "a fast tokenizer":
        folder = tmp_path_factory.mktemp("fast") / "tiny"
        shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("slow"))
        context = context_of(folder)
        assert context.loader.wait().tokenizer.is_fast
    with serving(context) as address:
        yield address


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"echo": True, "max_tokens": 0}])
@pytest.mark.parametrize("wrong", [320, 5_000_000_000, 2**64])
def test_an_id_beyond_the_vocabulary_is_refused_before_any_text_is_begun(ids_address, fields, wrong):
    message = f"prompt: expected token ids from 0 to 319, got {wrong}: encode the text with the tokenizer that belongs"
    for prompt in ([wrong], [[319], [0, wrong]], ["The", [wrong]]):
        answer = httpx.post(f"{ids_address}/completions", json={"prompt": prompt, "max_tokens": 1} | fields)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(message)
        assert answer.json()["error"]["param"] == "prompt"


def test_the_first_and_the_last_id_of_the_vocabulary_are_prompts(ids_address):
    for prompt in ([0], [319], [[0], [319]], ["The", [319]]):
        answer = httpx.post(f"{ids_address}/completions", json={"prompt": prompt, "max_tokens": 1}, timeout=60)
        assert answer.status_code == 200


def test_a_model_that_is_not_there_and_places_that_are_not(client, address):
    with pytest.raises(openai.NotFoundError, match=r"model: expected one that is here \(tiny\), got 'gpt-4'") as caught:
        client.completions.create(model="gpt-4", prompt="The")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="expected one that is here"):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings: not offered here; there are GET /v1/models"):
        client.embeddings.create(model="tiny", input="The")
    assert httpx.get(f"{address}/completions").status_code == 405


@pytest.mark.parametrize(
    ("headers", "body", "status", "message"),
    [
        (
            {"Content-Type": "text/plain"},
            b"{}",
            415,
            "expected the header Content-Type: application/json, got text/plain",
        ),
        ({"Content-Type": "application/json"}, b"{", 400, "expected JSON, got something else"),
        ({"Content-Type": "application/json"}, b"[1]", 400, "expected a JSON object, got [1]"),
        ({"Content-Type": "application/json"}, b"\xff", 400, "expected JSON, got something else"),
        (
            {"Content-Type": "application/json"},
            b" " * (8 * 2**20 + 1),
            413,
            "expected a body of at most 8,388,608 bytes",
        ),
    ],
)
def test_a_body_that_is_no_request(address, headers, body, status, message):
    answer = httpx.post(f"{address}/completions", headers=headers, content=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_the_key_is_asked_for(openai_context):
    with serving(openai_context, KEY) as address:
        with openai.OpenAI(base_url=address, api_key=KEY) as client:
            assert [model.id for model in client.models.list()] == ["tiny"]
            assert client.completions.create(model="tiny", prompt="The", max_tokens=1).choices
        for key, got in (("sk-other", "got another one"), ("sk-mine2", "got another one")):
            with (
                openai.OpenAI(base_url=address, api_key=key, max_retries=0) as client,
                pytest.raises(openai.AuthenticationError, match=got) as caught,
            ):
                client.models.list()
            assert caught.value.code == "invalid_api_key"
        assert httpx.get(f"{address}/models", headers={"Authorization": f"Basic {KEY}"}).status_code == 401
        without = httpx.get(f"{address}/models")
        assert without.status_code == 401
        assert "`Authorization: Bearer KEY`, got none" in without.json()["error"]["message"]
        assert httpx.post(f"{address}/completions", json={"prompt": "The"}).status_code == 401


def test_a_model_that_is_still_loading(checkpoint):
    loader = ModelLoader(find_model(checkpoint))
    with (
        serving(AppContext(loader=loader)) as address,
        openai.OpenAI(base_url=address, api_key="any", max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.InternalServerError, match="still loading") as caught:
            client.completions.create(model="tiny", prompt="The")
        assert caught.value.status_code == 503
        loader.start().wait()
        assert client.completions.create(model="tiny", prompt="The").choices


def test_a_full_queue_is_answered_at_once_and_who_waits_is_told(openai_context):
    queue = RequestQueue(workers=1, limit=2)
    busy = AppContext(loader=openai_context.loader, writing=queue)
    with serving(busy) as address:
        request = {"prompt": "The", "max_tokens": 2, "stream": True, "seed": 1}
        with queue.join(), httpx.stream("POST", f"{address}/completions", json=request, timeout=30) as waits:
            lines = waits.iter_lines()
            assert next(lines) == ": waiting: 1 ahead"
            full = httpx.post(f"{address}/completions", json={"prompt": "The"})
            assert full.status_code == 429
            assert "The request queue is full: 1 requests compute and 1 wait." in full.json()["error"]["message"]
            assert full.headers["retry-after"]
        with httpx.stream("POST", f"{address}/completions", json=request, timeout=30) as answer:
            assert [*answer.iter_lines()][-2] == "data: [DONE]"
        assert len(queue) == 0


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_ends_the_computing(openai_context, stream):
    queue = RequestQueue()
    with serving(AppContext(loader=openai_context.loader, writing=queue)) as address:
        request = {"prompt": "The", "max_tokens": LONG, "stream": stream}
        with (
            contextlib.suppress(httpx.ReadTimeout),
            httpx.stream("POST", f"{address}/completions", json=request, timeout=2) as answer,
        ):
            next(answer.iter_lines())
            wait_until(lambda: len(queue) == 1)
        wait_until(lambda: len(queue) == 0)


def test_what_fails_on_the_way_is_the_last_event(openai_context, monkeypatch):
    def broken(*arguments: Any, **named: Any) -> Iterator[Any]:
        drafts = list(generate(openai_context.loader.wait(), "The", settings_from(seed=1, max_new_tokens=3)))
        assert drafts[0].tokens[0].text  # else nothing is sent before the error
        yield drafts[0]
        raise ValueError("no token can be drawn")

    monkeypatch.setattr("panels.openai_api.choices.generate_queued", broken)
    with serving(openai_context) as address, openai.OpenAI(base_url=address, api_key="any") as client:
        stream = client.completions.create(model="tiny", prompt="The", stream=True)
        with pytest.raises(openai.APIError, match="no token can be drawn"):
            list(stream)


def test_a_masked_model_says_that_it_does_not_write(masked):
    model = context_of(masked.source.folder)
    with (
        serving(model) as address,
        openai.OpenAI(base_url=address, api_key="any") as client,
        pytest.raises(openai.BadRequestError, match="fills blanks and does not write"),
    ):
        client.completions.create(model="masked", prompt="The")
