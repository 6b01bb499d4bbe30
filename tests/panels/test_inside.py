"""The Inside tab without a page: its figures against those of other programs, its HTML, and what it refuses."""

import base64
import copy
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from modeling import inspection
from modeling.generation import SamplingSettings, stream
from modeling.inspection import Guess, Surprisal
from panels.context import AppContext
from panels.generate import encode_prompt
from panels.models import LoadedModel, ModelLoader, load_model
from panels.sampling import settings_from
from panels.tabs.inside import tab as inside
from panels.tabs.inside.analysis import (
    LENS_TOKENS,
    ONE,
    Cell,
    Heads,
    Lens,
    ScoredText,
    ScoredToken,
    heads,
    lens,
    next_tokens,
    surprisal,
)
from panels.tabs.inside.view import render_heads, render_lens, render_surprisal
from storage.text import replace_surrogates
from tests.panels.test_inside_requests import shown
from tests.panels.test_vocabularies import make, make_tokenizer
from tests.panels.tiny_model import PROMPTS, TEXT
from tokenization import save_tokenizer
from tokenization.spans import Piece
from tokenization.trainers import KINDS
from train.text_loss import evaluate_text

NASTY = [
    "a",
    "\x00\x07\x1b[2J\u200b",
    "The \ud83d lone one",
    "שלום, عالم!",
    "👩‍🚀 e\u0301 東京",
    bytes(range(256)).decode("latin-1"),
    "<img src=x onerror=alert(1)></script>{{ 7 * 7 }}<|endoftext|>",
    "\n\n\t \r\n",
]


@pytest.fixture(scope="module")
def context(loaded: LoadedModel) -> AppContext:
    """The page's surroundings, its model loaded."""
    loader = ModelLoader(loaded.source)
    loader.start().wait(60)
    return AppContext(loader=loader)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A GPT-2 with GPT-2's kind of tokenizer, which puts nothing in front of a text."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    folder.mkdir()
    tokenizer = make_tokenizer("gpt2", folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=40, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def functions(context: AppContext) -> dict[str, Any]:
    """The functions behind the API's endpoints, by name."""
    return inside.endpoints(context)


@pytest.mark.parametrize("text", ["The lamp", TEXT, TEXT * 3, (TEXT * 4)[:700], *NASTY])
def test_bits_per_byte_are_those_of_evaluate(loaded: LoadedModel, gpt2: LoadedModel, text: str) -> None:
    for each in (loaded, gpt2):
        scored = surprisal(each, text)
        expected = evaluate_text(each.model, each.tokenizer, [replace_surrogates(text)])
        assert scored.bits_per_byte == pytest.approx(expected["bits_per_byte"], abs=1e-5)
        assert scored.perplexity == pytest.approx(expected["perplexity"], rel=1e-5)
        assert (len(scored.tokens), scored.bytes) == (expected["tokens"], expected["bytes"])
        found = [piece for piece, _, _ in scored.tokens]
        assert {place for piece in found for place in range(piece.start, piece.end)} == set(range(len(text)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tokenizer_is_read_as_evaluate_reads_it(kind: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path / kind, masked=False)
    text = TEXT[:80]
    scored = surprisal(model, text)
    expected = evaluate_text(model.model, model.tokenizer, [text])
    assert scored.bits_per_byte == pytest.approx(expected["bits_per_byte"], abs=1e-5)
    assert (len(scored.tokens), scored.bytes) == (expected["tokens"], expected["bytes"])
    assert [token.piece.token_id for token in scored.tokens] == encode_prompt(model, text)[len(model.prefix_ids) :]
    assert lens(model, text).rows
    assert heads(model, text).layers == 1
    if kind == "wordpiece":
        with pytest.raises(ValueError, match="makes no token of this text"):
            surprisal(model, " ")


def test_a_model_without_a_token_to_begin_with_leaves_the_first_out(loaded: LoadedModel) -> None:
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.bos_token = tokenizer.eos_token = None
    bare = dataclasses.replace(loaded, start_ids=(), prefix_ids=(), tokenizer=tokenizer)
    scored = surprisal(bare, "The lamp")
    first, *rest = scored.tokens
    assert (first.surprisal.bits, first.surprisal.rank, first.expected) == (None, None, None)
    assert all(token.surprisal.bits is not None for token in rest)
    assert scored.bytes == len("The lamp") - first.piece.end
    assert "not scored" in render_surprisal(scored)
    single = surprisal(bare, "T")
    assert (single.bits_per_byte, single.perplexity) == (None, None)
    with pytest.raises(ValueError, match="prompt: expected text, since this model has no token to begin with"):
        next_tokens(bare, "", 3, SamplingSettings())


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.5, "top_k": 5, "top_p": 0.8},
        {"min_p": 0.3, "repetition_penalty": 1.5},
        {"typical_p": 0.5},
    ],
)
@pytest.mark.parametrize("prompt", ["The lamp burned", "", TEXT])
def test_next_tokens_mean_what_generate_means(loaded: LoadedModel, prompt: str, choices: dict[str, Any]) -> None:
    settings = settings_from(**choices)
    ids = encode_prompt(loaded, prompt)
    step = next(iter(stream(loaded.model, ids, settings, alternatives=12)))
    found = next_tokens(loaded, prompt, 12, settings)
    assert [each["token_id"] for each in found] == [each.token_id for each in step.alternatives]
    probabilities = [each.model_probability for each in step.alternatives]
    assert [each["probability"] for each in found] == pytest.approx(probabilities, abs=1e-5)
    assert [each["sampled_probability"] for each in found] == pytest.approx(
        [each.probability for each in step.alternatives], abs=1e-4
    )


def test_a_next_token_is_told_as_text_after_the_prompt(loaded: LoadedModel, gpt2: LoadedModel) -> None:
    for each in (loaded, gpt2):
        found = next_tokens(each, "The lamp", len(each.tokenizer), SamplingSettings())
        assert {one["text"] for one in found} >= {"a", " ", "\n"}
        assert sum(one["probability"] for one in found) == pytest.approx(1, abs=1e-4)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        json.dumps(found, ensure_ascii=False).encode()


def test_the_lens_shows_the_end_of_a_text_and_what_came_next(loaded: LoadedModel) -> None:
    view = lens(loaded, TEXT)
    assert len(view.tokens) == len(view.following) == len(view.rows[0]) == LENS_TOKENS
    assert view.tokens[1:] == view.following[:-1]
    assert view.following[-1] is None
    assert view.left_out == len(encode_prompt(loaded, TEXT)) - LENS_TOKENS
    best = next_tokens(loaded, TEXT, 5, SamplingSettings())
    assert [share for _, share in view.rows[-1][-1].guesses] == pytest.approx(
        [each["probability"] for each in best], abs=1e-5
    )
    whole = lens(loaded, "The lamp")
    assert (whole.tokens[0], whole.left_out) == ("<|endoftext|>", 0)
    for row in whole.rows:
        for cell, target in zip(row, whole.following, strict=True):
            assert cell.is_correct == (cell.guesses[0][0] == target)


def test_attention_travels_as_two_bytes_a_weight(loaded: LoadedModel, masked: LoadedModel) -> None:
    view = heads(loaded, TEXT)
    size = len(view.tokens)
    ids = [token_id for token_id, _ in view.tokens]
    assert size == 48  # the tiny model's context
    assert ids == [loaded.tokenizer.bos_token_id, *encode_prompt(loaded, TEXT)[1:][-size + 1 :]]
    assert view.left_out == len(encode_prompt(loaded, TEXT)) - size
    weights = np.frombuffer(base64.b64decode(view.weights), "<u2").reshape(view.layers * view.heads, -1) / ONE
    expected = inspection.attention(loaded.model, ids).flatten(0, 1).numpy()
    assert np.abs(weights - expected[:, *np.tril_indices(size)]).max() < 1e-5
    both = heads(masked, "The lamp burned")
    assert not both.causal
    assert both.tokens[0] == both.tokens[-1] == (masked.tokenizer.bos_token_id, "<|endoftext|>")
    assert len(base64.b64decode(both.weights)) == 2 * both.layers * both.heads * len(both.tokens) ** 2


def test_many_heads_are_shown_on_fewer_tokens(loaded: LoadedModel) -> None:
    limit = 2 * 2 * 20 * 21 // 2
    view = heads(loaded, TEXT, weights_limit=limit)
    assert len(view.tokens) == 20
    assert len(base64.b64decode(view.weights)) == 2 * limit


@pytest.mark.parametrize("look", [surprisal, lens, heads])
def test_what_is_no_text_is_refused(look: Any, loaded: LoadedModel) -> None:
    for text, message in (
        (7, "text: expected text, got int"),
        ("", "text: expected at least one character, got none"),
        ("a" * 100_000, "expected at most 20,000 characters, got 100,000"),
    ):
        with pytest.raises(ValueError, match=message):
            look(loaded, text)


def test_a_masked_model_says_what_it_can_do(masked: LoadedModel) -> None:
    settings = SamplingSettings()
    for look in (surprisal, lens, lambda loaded, text: next_tokens(loaded, text, 3, settings)):
        with pytest.raises(ValueError, match=r"masked fills blanks, reading on both sides of them: .* The tab Fill in"):
            look(masked, "The lamp")
    loader = ModelLoader(masked.source)
    loader.start().wait(60)
    context = AppContext(loader=loader)
    status, views, _, take = inside.arrived(context)
    assert "Its attention is shown here" in status
    assert views["choices"] == (inside.ATTENTION,)
    assert take["visible"] is False  # the tour, which ends at the next token
    status, result = shown(context, "The lamp", inside.ATTENTION)
    assert "trouble" not in status
    assert 'data-causal="0"' in result


@pytest.mark.parametrize("view", inside.VIEWS)
@pytest.mark.parametrize("text", NASTY)
def test_every_text_is_shown_as_text(context: AppContext, view: str, text: str) -> None:
    status, result = shown(context, text, view)
    assert "trouble" not in status
    assert not re.search(r"<(img|script|/script|b>)", result)
    result.encode()
    assert set(re.findall(r"<(\w+)", result)) <= {
        "section", "dl", "div", "dt", "dd", "span", "label", "input", "p", "b", "br", "table", "thead", "tbody",
        "tfoot", "tr", "th", "td", "small", "canvas", "figure", "figcaption", "i",
    }  # fmt: skip


def test_a_view_chosen_while_the_model_loads_stays(context: AppContext) -> None:
    status, view, examples, take = inside.arrived(context)
    assert "Ready." in status
    assert "value" not in view
    assert examples["samples"] == [[prompt] for prompt in PROMPTS]
    assert take["visible"] is True


def test_html_says_each_number() -> None:
    def token(label: str, bits: float, rank: int, expected: str, probability: float) -> ScoredToken:
        piece = Piece(token_id=1, label=label, start=0, end=1, byte_count=1)
        found = Surprisal(token_id=1, bits=bits, rank=rank, likeliest=Guess(2, probability))
        return ScoredToken(piece, found, expected)

    tokens = [token("a\u21b5", 0.0, 1, "a", 1.0), token("b", 6.0, 3000, '"', 0.5), token("c", math.inf, 9, "d", 0.1)]
    scored = ScoredText(tokens=tokens[:2], bytes=3, vocabulary=1024)
    html = re.sub(r"\s+", " ", render_surprisal(scored, 1.5))
    assert (scored.bits, scored.bits_per_byte, scored.perplexity) == (6.0, 2.0, 8.0)
    for expected in (
        "6.0 bits",
        "2.000 (validation text: 1.500)",
        "10.0 bits: all 1,024 tokens equally likely",
        "\u21b5</span><br>",
        '<span class="token surprise s3" role="option" aria-selected="false" tabindex="-1" data-bits="6.00"'
        ' data-probability="1.6 %" data-rank="3,000" data-expected="&#34;" data-share="50.0 %"'
        ' aria-label="b, 6.00 bits">b<',
    ):
        assert expected in html
    endless = ScoredText(tokens=tokens, bytes=4, vocabulary=1024)
    assert endless.perplexity is None
    assert 'data-bits="inf"' in render_surprisal(endless)
    cells = [Cell(guesses=[("<b>", 0.25), ("x", 0.05)], is_correct=True)]
    html = render_lens(Lens(tokens=["a"], following=["<b>"], rows=[cells, cells, cells], left_out=3))
    assert re.findall(r'"row">([^<]+)</th>\s+<td role', html) == ["output", "layer 1", "embedding"]
    assert (html.count('class="cell correct"'), html.count('tabindex="0"')) == (3, 1)
    assert 'data-top="&lt;b&gt;\t25.0\u00a0%\t0.250\nx\t5.0\u00a0%\t0.050"' in html
    assert "the model has read the 3 before them too" in html
    html = render_heads(Heads(tokens=[(7, "</script>")], layers=2, heads=3, causal=True, weights="AA==", left_out=5))
    assert html.count("<canvas") == 2 * 3 + 1
    assert "5 more of\n    the text are left out" in html
    assert "</script>" not in html


def test_the_api_gives_surprise_as_json(functions: dict[str, Any], loaded: LoadedModel) -> None:
    for text in (TEXT, *NASTY):
        answer = functions["surprise"](text)
        json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
        assert answer.keys() == {"tokens", "bits", "bytes", "bits_per_byte"}
        assert answer["tokens"][0].keys() == {"token_id", "text", "start", "end", "bits"}
        scored = surprisal(loaded, text)
        assert answer["bits"] == pytest.approx(scored.bits)
        assert answer["bits_per_byte"] == pytest.approx(answer["bits"] / answer["bytes"])
        for token in answer["tokens"]:
            assert replace_surrogates(text)[token["start"] : token["end"]] == token["text"]


def test_the_api_gives_next_tokens(functions: dict[str, Any], loaded: LoadedModel) -> None:
    found = functions["next_token"]("The lamp", "5", top_k=2)
    assert len(found) == 5
    assert [each["sampled_probability"] > 0 for each in found] == [True, True, False, False, False]
    assert [each.keys() for each in found] == [{"token_id", "text", "probability", "sampled_probability"}] * 5


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("surprise", [""], "text: expected at least one character, got none"),
        ("next_token", ["a" * 100_000], "prompt: expected at most 20,000 characters, got 100,000"),
        ("next_token", ["a", 0], "top: expected a whole number from 1 to 1,000, got 0"),
        ("next_token", ["a", 1001], "top: expected a whole number from 1 to 1,000, got 1001"),
        ("next_token", ["a", "many"], "top: expected a whole number, got 'many'"),
        ("next_token", ["a", 10, -1], "temperature: expected a number, 0 (greedy) or more, got -1"),
        ("next_token", ["a", 10, math.nan], "temperature: expected a numbe"),
        ("next_token", ["a", 10, 1, -2], "top_k: expected a whole number, 0 (keeps all) or more, got -2"),
        ("next_token", ["a", 10, 1, 0, 1.5], "top_p: expected a number from 0 to 1"),
        ("next_token", ["a", 10, 1, 0, 1, 2], "min_p: expected a number from 0 (keeps all) to 1"),
        ("next_token", ["a", 10, 1, 0, 1, 0, 0], "repetition_penalty: expected a number from 0.01 to 100"),
        ("next_token", ["a", 10, 1, 0, 1, 0, 1, 7], "typical_p: expected a number from 0.001 to 1"),
    ],
)
def test_the_api_says_what_is_wrong(functions: dict[str, Any], name: str, arguments: list[Any], message: str) -> None:
    with pytest.raises(gr.Error, match=re.escape(message)):
        functions[name](*arguments)
