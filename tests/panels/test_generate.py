import dataclasses
import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.generation import stream
from panels.generate import cut_at_stop_text, encode_prompt, generate
from panels.models import LoadedModel, load_model
from panels.sampling import settings_from
from storage.text import replace_surrogates
from tests.panels.tiny_model import CONTEXT, save_checkpoint
from tokenization import ScratchGPTTokenizer, train_bpe


def last_draft(loaded: LoadedModel, prompt: str, **values):
    return list(generate(loaded, prompt, settings_from(**values)))[-1]


def test_the_text_grows_and_is_what_the_tokenizer_decodes(loaded):
    options = settings_from(seed=3, max_new_tokens=60, temperature=1.5)
    drafts = list(generate(loaded, "The lamp", options, interval=0.0))
    assert all(later.text.startswith(earlier.text) for earlier, later in pairwise(drafts))
    assert all(later.new_tokens >= earlier.new_tokens for earlier, later in pairwise(drafts))
    steps = stream(loaded.model, encode_prompt(loaded, "The lamp"), options, stop_token_ids=loaded.stop_token_ids)
    ids = [step.token_id for step in steps]
    assert drafts[-1].text == "The lamp" + loaded.tokenizer.decode(ids)
    assert (drafts[-1].new_tokens, drafts[-1].ending) == (60, "length")
    assert all(draft.ending is None for draft in drafts[:-1])


def test_no_draft_shows_half_a_character(loaded):
    drafts = list(generate(loaded, "é", settings_from(seed=1, max_new_tokens=80, temperature=2), interval=0.0))
    whole = drafts[-1].text
    assert all(whole.startswith(draft.text) for draft in drafts)


def test_the_pace_is_steady_and_does_not_change_the_text(loaded):
    options = settings_from(seed=5, max_new_tokens=40)
    every = list(generate(loaded, "The", options, interval=0.0))
    none = list(generate(loaded, "The", options, interval=1000.0))
    assert len(every) == 41
    assert len(none) == 2
    assert every[-1].text == none[-1].text


def test_the_first_words_do_not_wait_where_the_first_token_is_half_a_character(loaded):
    def texts(seed: int, interval: float) -> list[str]:
        options = settings_from(seed=seed, max_new_tokens=20, temperature=2)
        return [draft.text for draft in generate(loaded, "The", options, interval=interval)]

    drafts = ((seed, texts(seed, 0.0)) for seed in range(100))
    seed, every = next((seed, each) for seed, each in drafts if each[0] == "The" != each[-1])
    assert texts(seed, 1000.0) == ["The", next(text for text in every if text != "The"), every[-1]]


def test_same_seed_same_text_and_a_drawn_seed_is_named(loaded):
    first = last_draft(loaded, "The", seed=7, max_new_tokens=30)
    drawn = last_draft(loaded, "The", max_new_tokens=30)
    assert first.text == last_draft(loaded, "The", seed=7, max_new_tokens=30).text
    assert first.text != last_draft(loaded, "The", seed=8, max_new_tokens=30).text
    assert drawn.text == last_draft(loaded, "The", seed=drawn.seed, max_new_tokens=30).text


def test_the_seeds_of_others_are_left_alone(loaded):
    random.seed(0)
    expected = random.random()
    random.seed(0)
    last_draft(loaded, "The", max_new_tokens=2)
    assert random.random() == expected


def test_past_the_context_the_window_slides(loaded):
    draft = last_draft(loaded, "The lamp", seed=0, max_new_tokens=3 * CONTEXT)
    assert draft.context_length is not None
    assert draft.new_tokens == 3 * CONTEXT
    assert draft.context_used <= draft.context_length == CONTEXT
    assert draft.tokens_out_of_window == draft.prompt_tokens + draft.new_tokens - 1 - draft.context_used > 0
    short = last_draft(loaded, "The lamp", seed=0, max_new_tokens=4)
    assert (short.context_used, short.tokens_out_of_window) == (short.prompt_tokens + 3, 0)


def test_closing_ends_the_computing(loaded):
    looks = 0

    def should_stop() -> bool:
        nonlocal looks
        looks += 1
        return False

    drafts = generate(loaded, "The", settings_from(max_new_tokens=10_000), interval=0.0, should_stop=should_stop)
    next(drafts)
    drafts.close()
    assert looks < 5
    assert list(drafts) == []


def test_should_stop_and_the_time_limit_end_it_and_say_so(loaded):
    options = settings_from(max_new_tokens=10_000)
    assert list(generate(loaded, "The", options, should_stop=lambda: True))[-1].ending == "stopped"
    assert list(generate(loaded, "The", options, time_limit=0.0))[-1].ending == "deadline"


def test_the_models_own_end(tmp_path: Path):
    loaded = load_model(save_checkpoint(tmp_path / "ends", end_of_text_bias=100.0))
    draft = last_draft(loaded, "The lamp")
    assert (draft.text, draft.new_tokens, draft.ending) == ("The lamp", 0, "stop_token")


def test_a_model_may_write_lone_surrogates(loaded, tmp_path):
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe(["\ud800 \ud800 \ud800"], 260))
    (surrogate,) = tokenizer.encode_ordinary("\ud800")
    config = ScratchGPTConfig(vocab_size=260, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = ScratchGPTForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.bias[surrogate] = 100.0
    other = dataclasses.replace(loaded, model=model, tokenizer=tokenizer, prefix_ids=(), stop_token_ids=())
    assert last_draft(other, "a", max_new_tokens=3).text == "a\ufffd\ufffd\ufffd"


def test_a_text_stands_behind_the_separator_as_in_training(loaded):
    separator = loaded.tokenizer.bos_token_id
    assert encode_prompt(loaded, "") == [separator]
    assert encode_prompt(loaded, "The lamp") == [separator, *loaded.tokenizer.encode_ordinary("The lamp")]


def test_text_that_looks_like_a_special_token_is_text(loaded):
    assert loaded.tokenizer.eos_token_id not in encode_prompt(loaded, "<|endoftext|>")[1:]
    assert last_draft(loaded, "<|endoftext|>", max_new_tokens=1).text.startswith("<|endoftext|>")


@pytest.mark.parametrize("prompt", ["", "\x00\x1b[2J", "👩‍🚀", "x" * 100_000, "\ud800 alone", "שלום", "\r\n\t "])
def test_no_prompt_is_too_odd(loaded, prompt):
    draft = last_draft(loaded, prompt, max_new_tokens=2)
    assert draft.text.startswith(replace_surrogates(prompt))
    draft.text.encode()


@settings(max_examples=200)
@given(prompt=st.text("ab", max_size=4), written=st.text("ab", max_size=12), stop=st.text("ab", min_size=1, max_size=4))
def test_a_stop_text_is_found_as_soon_as_it_stands_there_and_never_shown(prompt, written, stop):
    text, shown, is_over = prompt, prompt, False
    for character in written:
        text, is_over, held = cut_at_stop_text(text + character, stop, len(prompt))
        assert text.startswith(shown)
        shown = text[: len(text) - held]
        if is_over:
            break
    assert is_over == (stop in written)
    assert text == prompt + written.partition(stop)[0]
    assert cut_at_stop_text(prompt + written, "", 0) == (prompt + written, False, 0)


@settings(max_examples=200)
@given(
    written=st.text("ab", max_size=12),
    stops=st.lists(st.text("ab", max_size=4), max_size=3),
    sizes=st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
def test_of_several_stop_texts_the_first_to_stand_there_ends_it(written, stops, sizes):
    text, shown, is_over, rest = "", "", False, written
    for size in sizes:  # a token brings several characters
        if is_over or not rest:
            break
        text, is_over, held = cut_at_stop_text(text + rest[:size], stops, 0)
        rest = rest[size:]
        assert text.startswith(shown)
        shown = text[: len(text) - held]
    real = [stop for stop in stops if stop]
    assert is_over == any(stop in written for stop in real)
    assert all(stop not in text for stop in real)
    assert written.startswith(text)


def test_the_writing_ends_at_the_stop_text(loaded):
    options = settings_from(seed=3, max_new_tokens=40, temperature=1.5)
    whole = list(generate(loaded, "The lamp", options))[-1]
    stop = whole.text[20:23]
    at = whole.text.index(stop, len("The lamp"))
    drafts = list(generate(loaded, "The lamp", options, stop=stop, interval=0.0))
    assert (drafts[-1].text, drafts[-1].ending) == (whole.text[:at], "stop_text")
    assert drafts[-1].new_tokens < whole.new_tokens
    assert all(drafts[-1].text.startswith(draft.text) for draft in drafts)
    unused = list(generate(loaded, "The lamp", options, stop="The lamp"))[-1]
    assert (unused.text, unused.ending) == (whole.text, "length")
