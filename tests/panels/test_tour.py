"""The guided tour without a page: its numbers against plain forward passes, its HTML, its turn, and what it refuses."""

import copy
import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from panels.context import AppContext
from panels.formats import percent
from panels.generate import encode_prompt, generate
from panels.models import LoadedModel, ModelLoader, load_model
from panels.request_queue import RequestQueue
from panels.sampling import settings_from
from panels.tabs.tour import tab
from panels.tabs.tour.tour import NEAREST, TOKEN_LIMIT, Tour, take_tour
from panels.tabs.tour.view import STEPS, render_tour
from tests.panels.test_vocabularies import make, make_tokenizer
from tests.panels.tiny_model import PROMPTS, TEXT
from tokenization import save_tokenizer
from tokenization.spans import label
from tokenization.trainers import KINDS

SENTENCE = "The lamp burned low in Zürich"
SETTINGS: list[dict[str, Any]] = [{}, {"top_k": 3}, {"temperature": 1.0, "top_p": 1.0}, {"temperature": 0.0}]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A GPT-2, loaded as a foreign model: nothing stands in front of its texts."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    folder.mkdir()
    tokenizer = make_tokenizer("gpt2", folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer) + 3, n_positions=40, n_embd=16, n_layer=3, n_head=2, initializer_range=0.4
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return load_model(folder)


@torch.no_grad()
def check(tour: Tour, loaded: LoadedModel, head: Any, norm: Any) -> None:
    """Each number of a tour is that of one forward pass of the model and of its embedding table."""
    ids = encode_prompt(loaded, tour.text)
    named = [label(loaded.tokenizer, each) for each in range(loaded.model.config.vocab_size)]
    assert [(each.token_id, each.label) for each in tour.tokens] == [(each, named[each]) for each in ids]
    plain = copy.deepcopy(loaded.model)
    plain.set_attn_implementation("eager")
    out = plain(input_ids=torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
    table_VE = loaded.model.get_input_embeddings().weight
    assert (tour.vocabulary, tour.width) == tuple(table_VE.shape)
    for token_id, each in zip(ids, tour.embeddings, strict=True):
        assert each.numbers == pytest.approx(table_VE[token_id].tolist()[: len(each.numbers)])
        cosine_V = torch.cosine_similarity(table_VE[token_id], table_VE[: len(loaded.tokenizer)], dim=-1)
        cosine_V[token_id] = -2
        assert [value for _, value in each.nearest] == pytest.approx(cosine_V.topk(NEAREST).values.tolist(), abs=1e-5)
        assert [named.index(name) for name, _ in each.nearest] == cosine_V.topk(NEAREST).indices.tolist()
    hidden = [*(head(norm(state[0, -1])) for state in out.hidden_states[:-1]), out.logits[0, -1]]
    assert len(tour.layers) == len(hidden) == loaded.model.config.num_hidden_layers + 1
    for row, logits_V in zip(tour.layers, hidden, strict=True):
        best = torch.softmax(logits_V, -1).topk(len(row))
        assert [share for _, share in row] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [name for name, _ in row] == [named[each] for each in best.indices]
    assert not isinstance(tour.attention, str)
    weights_LHK = torch.stack([weights[0, :, -1] for weights in out.attentions])
    assert [share for row in tour.attention.mean for share in row] == pytest.approx(
        weights_LHK.mean(1).flatten().tolist(), abs=1e-4
    )
    for layer, (number, place, weight) in enumerate(tour.attention.strongest):
        assert weight == pytest.approx(weights_LHK[layer, :, 1:-1].max().item(), abs=1e-4)
        assert weights_LHK[layer, number, place].item() == pytest.approx(weight, abs=1e-4)
    model_V = torch.softmax(out.logits[0, -1], -1)
    best = model_V.topk(len(tour.following))
    assert [each.label for each in tour.following] == [named[each] for each in best.indices]
    assert [each.probability for each in tour.following] == pytest.approx(best.values.tolist(), abs=1e-4)
    if (tour.settings.temperature, tour.settings.top_p, tour.settings.top_k) == (1, 1, 0):
        assert [each.sampled for each in tour.following] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("choices", SETTINGS)
def test_every_number_is_that_of_a_plain_forward_pass(loaded: LoadedModel, gpt2: LoadedModel, choices: Any) -> None:
    own, foreign = loaded.model, gpt2.model
    for each, head, norm in (
        (loaded, own.lm_head, own.model.norm), (gpt2, foreign.lm_head, foreign.transformer.ln_f),
    ):  # fmt: skip
        check(take_tour(each, SENTENCE, settings_from(seed=3, **choices)), each, head, norm)
    assert [token.is_added for token in take_tour(loaded, "Low", settings_from(seed=1)).tokens][:2] == [True, False]
    assert not any(token.is_added for token in take_tour(gpt2, "Low", settings_from(seed=1)).tokens)
    attention = take_tour(gpt2, "t", settings_from(seed=1)).attention
    assert not isinstance(attention, str)
    assert attention.strongest == []  # one token attends to itself alone


@pytest.mark.parametrize("choices", SETTINGS)
def test_the_drawn_token_is_the_one_that_write_would_draw(loaded: LoadedModel, choices: dict[str, Any]) -> None:
    tokens = set()
    for seed in range(12):
        tour = take_tour(loaded, SENTENCE, settings_from(seed=seed, **choices))
        written = next(generate(loaded, SENTENCE, settings_from(seed=seed, max_new_tokens=1, **choices), interval=0))
        (first,) = (
            written.tokens
            or next(
                generate(loaded, SENTENCE, settings_from(seed=seed, max_new_tokens=2, **choices), interval=0)
            ).tokens
            or (None,)
        )
        draw = tour.draw
        tokens.add(draw.token_id)
        if first is not None:
            assert (draw.token_id, draw.probability) == (first.token_id, pytest.approx(first.probability, abs=1e-4))
            assert (tour.kept, draw.text in (None, SENTENCE + first.text)) == (first.kept, True)
        assert [draw.segments[0].start, draw.segments[-1].end] == pytest.approx([0.0, 1.0], abs=1e-5)
        assert all(one.end == other.start for one, other in zip(draw.segments, draw.segments[1:], strict=False))
        (fell,) = [each for each in draw.segments if each.is_drawn]
        assert (fell.label, fell.end - fell.start) == (draw.label, pytest.approx(draw.probability, abs=1e-6))
        if draw.uniform is None:
            assert choices == {"temperature": 0.0}
        else:
            assert fell.start <= draw.uniform <= fell.end
    assert (len(tokens) == 1) == (choices == {"temperature": 0.0})


def test_the_page_says_every_number(loaded: LoadedModel) -> None:
    tour = take_tour(loaded, SENTENCE, settings_from(seed=3))
    page = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_tour(tour))))
    for number, name in enumerate(STEPS, 1):
        assert f"{number}. {name}" in page
    for each in tour.tokens:
        assert f"{each.label} {each.token_id}" in page
    assert f"{len(SENTENCE)} characters became {len(tour.tokens) - 1} tokens" in page
    assert not isinstance(tour.layers, str)
    for row in tour.layers:
        for name, share in row:
            assert f"{name} {percent(share)}".replace("\u00a0", " ") in page.replace("\u00a0", " ")
    shares = page[page.index("5. Odds") :].replace("\u00a0", " ")
    for each in tour.following:
        sampled = percent(each.sampled) if each.sampled else "cut"
        assert f"{each.label} {percent(each.probability)} {sampled}".replace("\u00a0", " ") in shares
    assert "temperature of 0.8 divides the logits" in shares
    assert "top-p keeps the most likely tokens up to a total of 95 %" in shares
    assert f"{tour.draw.uniform:.4f} (with the seed 3)" in shares.replace(" (", " (").replace("  ", " ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>{{ 7 * 7 }}", "The \ud83d lone", "a"])
def test_every_tokenizer_and_text_is_shown_as_text(kind: str, text: str, tmp_path: Path) -> None:
    shown = render_tour(take_tour(make(kind, tmp_path / kind, masked=False), text, settings_from(seed=1)))
    shown.encode()
    assert set(re.findall(r"<(\w+)", shown)) <= {
        "section", "nav", "ol", "li", "button", "i", "span", "article", "h2", "p", "b", "small", "a", "div", "table",
        "thead", "tbody", "tfoot", "tr", "th", "td", "canvas",
    }  # fmt: skip


def test_a_model_that_cannot_be_looked_into_says_why_and_shows_the_rest(loaded: LoadedModel) -> None:
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=len(loaded.tokenizer), hidden_size=16, num_hidden_layers=2)).eval()
    tour = take_tour(dataclasses.replace(loaded, model=model, prefix_ids=()), "The lamp", settings_from(seed=2))
    assert isinstance(tour.attention, str)
    page = render_tour(tour)
    assert "MambaForCausalLM shows no attention" in page
    assert "6. Next token" in page


def test_what_does_not_fit_is_refused(loaded: LoadedModel, masked: LoadedModel) -> None:
    for text, message in (
        ("", "text: expected at least one character, got none"),
        ("a" * 301, "text: expected at most 300 characters, got 301"),
        ((TEXT * 2)[:300], f"text: expected at most {TOKEN_LIMIT} tokens, each of which the tour shows, got "),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            take_tour(loaded, text, settings_from(seed=1))
    with pytest.raises(ValueError, match=r"masked fills blanks, .* it draws no next token, which the tour is about"):
        take_tour(masked, "The lamp", settings_from(seed=1))


def test_a_tour_takes_its_turn_and_an_empty_field_an_example(loaded: LoadedModel) -> None:
    loader = ModelLoader(loaded.source)
    loader.start().wait(60)
    context, state = AppContext(loader=loader, queue=RequestQueue(workers=1, limit=2)), tab.TourState()
    with context.queue.join():
        answers = tab.run_tour(context, state, "")
        text, status, *_ = next(answers)
        assert text == PROMPTS[0].rpartition(" ")[0] == "The lamp"
        assert "Computing" in status
        assert "Waiting: 1 request is ahead of yours." in next(answers)[1]
    text, status, result, stop = list(answers)[-1]
    assert text == gr.skip()  # what was typed meanwhile stays
    assert ("Ready." in status, 'class="tour"' in result, stop.interactive) == (True, True, False)
    assert state.tour is not None
    assert state.tour.text == "The lamp"
    typed = "a" * 400
    assert [text for text, *_ in tab.run_tour(context, state, typed)] == [gr.skip()] * 2  # the field has more by now
    assert next(tab.run_tour(context, state, typed, is_typed=False))[0] == typed
    *_, (_, status, result, _) = tab.run_tour(context, state, typed)
    assert ("expected at most 300 characters" in status, result) == (True, "")
    assert len(context.queue) == 0


def test_an_example_is_a_sentence_also_where_the_prompts_are_stories(loaded: LoadedModel) -> None:
    story = "Once upon a time " * 40
    source = dataclasses.replace(loaded.source, prompts=(story, "Who is Rosa?"))
    found = [sample for (sample,) in tab.examples(source)["samples"]]
    assert found == ["Once upon a time Once upon a time Once upon a time", "Who is"]
