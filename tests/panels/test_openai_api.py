"""Texts from the OpenAI-compatible API over real HTTP, asked by the client that people use."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from panels.generate import encode_prompt, generate
from panels.models import LoadedModel
from panels.sampling import settings_from
from tests.panels.openai_serving import context_of, serving
from tests.panels.tiny_model import save_checkpoint

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "openai.md"


def text_of(loaded: LoadedModel, prompt: str, stop: str = "", **values: Any) -> str:
    """What the page writes behind `prompt` with OpenAI's defaults and `values`."""
    settings = settings_from(**{"temperature": 1, "top_p": 1, "max_new_tokens": 16} | values)
    return list(generate(loaded, prompt, settings, stop=stop))[-1].text.removeprefix(prompt)


def forward(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    """Log probabilities (N, V) of what follows each of `ids`, by one plain forward pass."""
    with torch.no_grad():
        return torch.log_softmax(loaded.model(torch.tensor([ids])).logits[0], -1)


def test_the_model_is_listed(client, checkpoint):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    assert client.completions.create(model=str(checkpoint), prompt="The", max_tokens=1).model == str(checkpoint)


@pytest.mark.parametrize("prompt", ["The lamp", "", "é <|endoftext|>"])
def test_the_same_seed_writes_the_pages_text(client, loaded, prompt):
    settings = {"temperature": 0.9, "top_p": 0.9, "seed": 5}
    extra = {"top_k": 20, "min_p": 0.01, "typical_p": 0.95, "repetition_penalty": 1.1}
    found = client.completions.create(model="tiny", prompt=prompt, max_tokens=30, **settings, extra_body=extra)
    expected = text_of(loaded, prompt, max_new_tokens=30, **settings, **extra)
    assert found.choices[0].text == expected
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 30
    assert found.usage.prompt_tokens == len(encode_prompt(loaded, prompt))
    assert found.usage.total_tokens == found.usage.prompt_tokens + 30
    with client.completions.create(
        model="tiny", prompt=prompt, max_tokens=30, **settings, extra_body=extra, stream=True
    ) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == expected


def test_the_program_of_the_documentation_prints_the_pages_text(address, loaded, capsys):
    (program,) = re.findall(
        r"^```python\n(.*?)^```", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    exec(program.replace("http://127.0.0.1:7860/v1", address), {})
    settings = {"temperature": 0.8, "top_p": 0.95, "seed": 7, "max_new_tokens": 40}
    assert capsys.readouterr().out == f"One morning{text_of(loaded, 'One morning', **settings)}\n"


def test_a_seed_that_was_drawn_is_named_and_draws_the_text_again(client):
    drawn = client.completions.create(model="tiny", prompt="The", seed=-1).choices[0]
    again = client.completions.create(model="tiny", prompt="The", seed=drawn.seed).choices[0]
    assert drawn.text == again.text
    assert client.completions.create(model="tiny", prompt="The", seed=drawn.seed + 1).choices[0].text != drawn.text


def test_prompts_come_as_texts_or_token_ids_and_several_at_once(client, loaded):
    ids = encode_prompt(loaded, "The lamp")
    for prompt in ("The lamp", ids):
        found = client.completions.create(model="tiny", prompt=prompt, seed=5)
        assert found.choices[0].text == text_of(loaded, "The lamp", seed=5)
        assert found.usage.prompt_tokens == len(ids)
    found = client.completions.create(model="tiny", prompt=["The lamp", "She"], n=2, seed=5)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    expected = [text_of(loaded, prompt, seed=seed) for prompt in ("The lamp", "She") for seed in (5, 6)]
    assert [choice.text for choice in found.choices] == expected
    assert found.usage.completion_tokens == 64
    assert found.usage.prompt_tokens == len(ids) + len(encode_prompt(loaded, "She"))
    assert client.completions.create(model="tiny", prompt=[ids, ids], seed=5).choices[1].text == expected[0]


def test_stop_texts_end_it_and_are_left_out(client, loaded):
    whole = text_of(loaded, "The", seed=4, max_new_tokens=20)
    stop = whole[10:12]
    for stops in (stop, ["never this one", stop, ""]):
        found = client.completions.create(model="tiny", prompt="The", seed=4, max_tokens=20, stop=stops).choices[0]
        assert (found.text, found.finish_reason) == (whole[: whole.index(stop)], "stop")
    with client.completions.create(
        model="tiny", prompt="The", seed=4, max_tokens=20, stop=[stop], stream=True
    ) as stream:
        chunks = [chunk.choices[0] for chunk in stream]
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert [chunk.finish_reason for chunk in chunks[-2:]] == [None, "stop"]


def test_a_model_that_ends_its_text_says_stop(tmp_path):
    model = context_of(save_checkpoint(tmp_path / "short", end_of_text_bias=100.0))
    with serving(model) as address, openai.OpenAI(base_url=address, api_key="any") as client:
        choice = client.completions.create(model="short", prompt="The").choices[0]
    assert (choice.text, choice.finish_reason) == ("", "stop")


def test_log_probabilities_are_those_of_a_forward_pass(client, loaded):
    prompt = "The café"
    found = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=12, temperature=0.7, seed=3, logprobs=4, echo=True
    )
    choice, ids = found.choices[0], encode_prompt(loaded, prompt)
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.text.startswith(prompt)
    starts = [
        choice.text[start:].startswith(token)
        for start, token in zip(choice.logprobs.text_offset, choice.logprobs.tokens, strict=True)
    ]
    assert all(starts)
    steps = list(
        generate(loaded, prompt, settings_from(temperature=0.7, top_p=1, seed=3, max_new_tokens=12), interval=0)
    )
    written = [token.token_id for draft in steps for token in draft.tokens]
    ids += written
    log_NV = forward(loaded, ids[:-1])
    assert len(choice.logprobs.token_logprobs) == len(ids) - 1
    for row, token_id, logprob, top in zip(
        log_NV, ids[1:], choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
    ):
        assert logprob == pytest.approx(row[token_id].item(), abs=1e-4)
        best = sorted(top.values(), reverse=True)[:4]
        assert best == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
        assert logprob in top.values()


def test_a_text_is_scored_as_evaluation_programs_do(client, loaded):
    """Token ids in, echo, one token more than asked for: the first token has nothing before it."""
    ids = encode_prompt(loaded, "The lamp burned low.")
    for more in (0, 1):
        found = client.completions.create(
            model="tiny", prompt=[ids], echo=True, logprobs=1, max_tokens=more, temperature=0
        )
        scored = found.choices[0].logprobs
        assert len(scored.token_logprobs) == len(ids) + more
        assert scored.token_logprobs[0] is None
        assert scored.top_logprobs[0] is None
        expected = [row[token].item() for row, token in zip(forward(loaded, ids), ids[1:], strict=False)]
        assert scored.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    assert scored.token_logprobs[-1] == max(scored.top_logprobs[-1].values())  # greedy
    assert found.usage.completion_tokens == 1


def test_a_stream_is_a_chunk_for_each_token_and_counts_at_its_end(client, loaded):
    with client.completions.create(
        model="tiny",
        prompt="é",
        max_tokens=20,
        seed=3,
        temperature=2,
        logprobs=2,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        *chunks, last = list(stream)
    assert last.choices == []
    assert (last.usage.completion_tokens, last.usage.prompt_tokens) == (20, len(encode_prompt(loaded, "é")))
    assert all(chunk.usage is None for chunk in chunks)
    tokens = [chunk.choices[0] for chunk in chunks if chunk.choices[0].logprobs]
    assert len(tokens) == 20
    assert all(len(token.logprobs.tokens) == 1 for token in tokens)
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == text_of(loaded, "é", seed=3, temperature=2, max_new_tokens=20)
    assert [text[: each.logprobs.text_offset[0]] for each in tokens] == [
        "".join(t.text for t in tokens[:i]) for i in range(20)
    ]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices[0].finish_reason == "length"


def test_bytes_that_are_no_whole_character_are_named_as_openai_does(client):
    found = client.completions.create(model="tiny", prompt="The", max_tokens=1, logprobs=100)
    names = list(found.choices[0].logprobs.top_logprobs[0])
    assert any(name.startswith("bytes:\\x") for name in names)


def test_what_is_unknown_is_ignored_and_said(client):
    fields = {
        "mirostat_mode": 2,
        "tfs": 0.9,
        "user": "me",
        "frequency_penalty": 0,
        "best_of": 1,
        "max_context_length": None,
    }
    found = client.completions.create(model="tiny", prompt="The", extra_body=fields)
    assert found.warnings == ["Ignored, as this server does not know it: mirostat_mode, tfs."]


def test_what_was_not_read_is_said(client):
    found = client.completions.create(model="tiny", prompt="The lamp " * 40, max_tokens=2)
    assert len(found.warnings) == 1
    assert "The model sees 48 tokens at once: the first" in found.warnings[0]
    with client.completions.create(model="tiny", prompt="The", max_tokens=60, stream=True) as stream:
        *_, last = list(stream)
    assert "tokens of the text were out of its sight" in last.warnings[0]


def test_a_lone_surrogate_is_answered(address):
    answer = httpx.post(
        f"{address}/completions",
        headers={"Content-Type": "application/json"},
        content=rb'{"prompt": "\ud800 alone", "echo": true, "max_tokens": 2}',
    )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"].startswith("\ufffd alone")


def test_mikupad_is_understood(address, loaded):
    """The request of a front-end that is one HTML file, with the samplers that it has on at the beginning: a key that
    was left empty, fields of other servers, and no model named."""
    request = {
        "model": "", "prompt": "The lamp", "temperature": 0.7, "dynatemp_range": 0, "dynatemp_exponent": 1,
        "repetition_penalty": 1.1, "repetition_penalty_range": 1024, "penalize_nl": False, "ban_eos_token": False,
        "presence_penalty": 0, "frequency_penalty": 0, "top_p": 0.95, "top_k": 40, "typical_p": 1, "min_p": 0, "tfs": 1,
        "xtc_threshold": 0.1, "xtc_probability": 0, "dry_multiplier": 0, "dry_sequence_breakers": '["\\n"]',
        "banned_tokens": [], "max_tokens": 12, "logprobs": 10, "stream": True, "stop": ["\n\n"], "seed": 5,
    }  # fmt: skip
    headers = {"Authorization": "Bearer", "Origin": "http://127.0.0.1:8000"}
    with httpx.stream("POST", f"{address}/completions", json=request, headers=headers) as answer:
        assert answer.status_code == 200
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
    settings = {"temperature": 0.7, "top_p": 0.95, "top_k": 40, "repetition_penalty": 1.1, "seed": 5}
    expected = text_of(loaded, "The lamp", "\n\n", max_new_tokens=12, **settings)
    assert "".join(chunk["text"] for chunk in chunks) == expected
    for chunk in chunks:  # it shows the alternatives to each token, which it takes from the first entry of its chunk
        if chunk["text"]:
            assert 10 <= len(chunk["logprobs"]["top_logprobs"][0]) <= 11


CHAT = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ message.role }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def chat_client(tmp_path_factory) -> Iterator[openai.OpenAI]:
    folder = save_checkpoint(tmp_path_factory.mktemp("models") / "chat")
    for place in (folder, folder / "slow"):
        config = json.loads((place / "tokenizer_config.json").read_text())
        (place / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT}))
    model = context_of(folder)
    with (
        serving(model) as address,
        openai.OpenAI(base_url=address, api_key="any", max_retries=0) as client,
    ):
        yield client


def test_a_chat_is_the_text_of_its_template(chat_client, client):
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "The "}, {"type": "text", "text": "lamp?"}]},
    ]
    found = chat_client.chat.completions.create(
        model="chat", messages=messages, seed=5, max_completion_tokens=12, temperature=1
    )
    written = "system: Be brief.\nuser: The lamp?\nassistant: "
    model = chat_client.completions.create(model="chat", prompt=written, echo=True, max_tokens=12)
    assert model.choices[0].text.startswith(written)
    assert found.choices[0].message.role == "assistant"
    assert found.usage.completion_tokens == 12
    with chat_client.chat.completions.create(
        model="chat",
        messages=messages,
        seed=5,
        max_tokens=12,
        temperature=1,
        logprobs=True,
        top_logprobs=3,
        stream=True,
    ) as stream:
        chunks = [chunk.choices[0] for chunk in stream]
    assert chunks[0].delta.role == "assistant"
    assert "".join(chunk.delta.content or "" for chunk in chunks) == found.choices[0].message.content
    scored = [entry for chunk in chunks if chunk.logprobs for entry in chunk.logprobs.content]
    assert len(scored) == 12
    for entry in scored:
        tops = [other.logprob for other in entry.top_logprobs]
        assert tops == sorted(tops, reverse=True)
        assert len(tops) == 3
        assert entry.logprob <= tops[0]
        assert math.exp(tops[0]) <= 1
    assert chunks[-1].finish_reason == "length"
    with pytest.raises(
        openai.BadRequestError, match=r"messages: expected messages without special tokens, got '<\|end"
    ):
        chat_client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "<|endoftext|>"}])
    with pytest.raises(openai.BadRequestError, match=r"messages: the chat template .* got an error: no tools here"):
        chat_client.chat.completions.create(
            model="chat", messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]
        )
    for wrong, message in (
        ([], "at least one message, got none"),
        ([{"role": "user"}], r'messages\[0\]: expected an object with "role" and "content"'),
        ([{"role": "user", "content": [{"type": "image_url"}]}], r"messages\[0\].content: expected parts of type text"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            chat_client.chat.completions.create(model="chat", messages=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        openai.BadRequestError, match="tiny continues texts and has no chat template: send a prompt to /v1/completions"
    ):
        client.chat.completions.create(model="tiny", messages=messages)


def test_an_answer_in_a_chat_begins_with_no_white_space_as_on_the_page(chat_client, loaded):
    messages: Any = [{"role": "user", "content": "The lamp?"}]
    ids = encode_prompt(loaded, "user: The lamp?\nassistant: ")

    def raw(seed: int) -> str:
        settings = settings_from(temperature=1, top_p=1, max_new_tokens=12, seed=seed)
        return list(generate(loaded, "", settings, prompt_ids=ids[len(loaded.prefix_ids) :]))[-1].text

    seed = next(seed for seed in range(200) if raw(seed)[:1].isspace() and raw(seed).strip())
    asked = {"model": "chat", "messages": messages, "seed": seed, "max_tokens": 12, "temperature": 1}
    assert chat_client.chat.completions.create(**asked).choices[0].message.content == raw(seed).lstrip()
    with chat_client.chat.completions.create(**asked, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == raw(seed).lstrip()
