"""Two texts side by side: against the texts written alone, and against the models' own forward."""

import dataclasses
import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from modeling.generation import Step, stream
from modeling.inspection import surprisals
from modeling.sampling import SamplingSettings
from panels.generate import encode_prompt, generate
from panels.models import LoadedModel, load_model
from panels.tabs.compare.comparison import (
    END,
    Comparison,
    Probability,
    Side,
    Text,
    compare,
    compare_settings,
    first_difference,
)
from panels.tabs.compare.view import Title, render_comparison, sentence
from tests.panels.tiny_model import CONTEXT, TEXT, save_checkpoint
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe

PROMPT = "The lamp burned"


def settings(**values: Any) -> SamplingSettings:
    return SamplingSettings(**{"max_new_tokens": 40, "seed": 5, **values})


def steps_of(loaded: LoadedModel, chosen: SamplingSettings, prompt: str = PROMPT) -> list[Step]:
    """The tokens that a side writes alone, each with the whole vocabulary as its alternatives."""
    steps = stream(
        loaded.model,
        encode_prompt(loaded, prompt),
        chosen,
        stop_token_ids=loaded.stop_token_ids,
        alternatives=len(loaded.tokenizer),
    )
    return list(steps)


def last(a: Side, b: Side, prompt: str = PROMPT, **options: Any) -> Comparison:
    *_, end = compare(a, b, prompt, **options)
    return end


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same architecture and tokenizer with weights that are a little different, and may end a text."""
    folder = save_checkpoint(tmp_path_factory.mktemp("models") / "other", end_of_text_bias=0.0)
    loaded = load_model(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.004)
    return loaded


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same weights behind another tokenizer of the same size."""
    folder = save_checkpoint(tmp_path_factory.mktemp("models") / "foreign")
    size = len(load_model(folder).tokenizer)
    save_tokenizer(ScratchGPTTokenizer.from_merges(train_bpe([TEXT[::-1]], size)), folder)
    return load_model(folder)


def test_the_first_difference_is_that_of_brute_force():
    dice = random.Random(0)
    for _ in range(500):
        a, b = ([dice.randrange(2) for _ in range(dice.randrange(6))] for _ in range(2))
        expected = next((index for index in range(min(len(a), len(b))) if a[: index + 1] != b[: index + 1]), None)
        assert first_difference(a, b) == expected


def test_both_texts_are_those_that_each_side_writes_alone(loaded, other):
    chosen = (settings(temperature=0.9), settings(temperature=1.4, top_k=50, repetition_penalty=1.2))
    end = last(Side(loaded=loaded, settings=chosen[0]), Side(loaded=other, settings=chosen[1]))
    for page, model, values in zip(end.texts, (loaded, other), chosen, strict=True):
        alone = list(generate(model, PROMPT, values))[-1]
        assert (PROMPT + page.text, page.tokens, page.ending) == (alone.text, alone.new_tokens, alone.ending)


@pytest.mark.parametrize("prompt", [PROMPT, "", "<|endoftext|> “café”\n" * 20])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_they_part_where_the_tokens_written_alone_differ_with_the_models_own_chances(loaded, other, prompt, seed):
    chosen = (settings(seed=seed, temperature=0.9), settings(seed=seed, temperature=1.1, top_p=0.8))
    end = last(Side(loaded=loaded, settings=chosen[0]), Side(loaded=other, settings=chosen[1]), prompt)
    texts = [steps_of(*side, prompt) for side in ((loaded, chosen[0]), (other, chosen[1]))]
    items = [[step.token_id for step in steps] for steps in texts]
    items = [ids + [END] * (page.ending == "stop_token") for ids, page in zip(items, end.texts, strict=True)]
    index = next(index for index in range(len(items[0])) if items[0][: index + 1] != items[1][: index + 1])
    assert end.divergence is not None
    assert end.divergence.tokens == index
    for fork, token_id in zip(end.divergence.branches, (items[0][index], items[1][index]), strict=True):
        assert token_id != END
        for side in (0, 1):
            found = {each.token_id: each for each in texts[side][index].alternatives}[token_id]
            assert fork.probabilities[side] == pytest.approx((found.model_probability, found.probability), abs=1e-5)


def test_chances_equal_the_forward_also_when_the_window_has_slid(loaded, other):
    for seed in range(20):
        chosen = settings(seed=seed, temperature=0.2, max_new_tokens=12)
        parting = last(Side(loaded=loaded, settings=chosen), Side(loaded=other, settings=chosen), TEXT).divergence
        if parting is not None and parting.tokens is not None and parting.tokens > 1:
            break
    else:
        raise AssertionError("no seed keeps the two together for two tokens")
    steps = steps_of(loaded, chosen, TEXT)
    ids = [*encode_prompt(loaded, TEXT), *(step.token_id for step in steps[: parting.tokens])]
    seen = ids[-steps[parting.tokens].context_used :]
    assert len(seen) < CONTEXT < len(ids)
    with torch.no_grad():
        model_V = torch.softmax(loaded.model(torch.tensor([seen])).logits[0, -1], -1)
    own = parting.branches[0].probabilities[0]
    assert own is not None
    assert own.model == pytest.approx(float(model_V[steps[parting.tokens].token_id]), abs=1e-5)


def test_a_text_that_ends_parts_from_one_that_goes_on(tmp_path, loaded):
    ending = load_model(save_checkpoint(tmp_path / "ends", end_of_text_bias=100.0))
    end = last(Side(loaded=loaded, settings=settings()), Side(loaded=ending, settings=settings()))
    assert end.divergence is not None
    assert end.texts[1] == Text(text="", tokens=0, byte_count=0, bits=0.0, ending="stop_token")
    fork = end.divergence.branches[1]
    assert (end.divergence.tokens, fork.label, fork.probabilities[1]) == (0, None, Probability(1.0, 1.0))
    with torch.no_grad():
        logits_V = loaded.model(torch.tensor([encode_prompt(loaded, PROMPT)])).logits[0, -1]
    expected = float(torch.softmax(logits_V, -1)[loaded.stop_token_ids[0]])
    assert fork.probabilities[0] is not None
    assert fork.probabilities[0].model == pytest.approx(expected, abs=1e-6)
    words = "".join(part for part, _ in sentence(end))
    assert words.startswith("They diverge at token 1: A wrote ")
    assert words.endswith(", B ended the text (100\u00a0%).")


def test_the_same_twice_never_parts(loaded):
    side = Side(loaded=loaded, settings=settings())
    end = last(side, side)
    assert end.texts[0] == end.texts[1]
    assert end.divergence is None
    assert sentence(end) == [("They never diverge: 40 tokens, word for word the same.", False)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_different_tokenizers_the_characters_decide(loaded, foreign, seed):
    sides = [Side(loaded=model, settings=settings(seed=seed)) for model in (loaded, foreign)]
    end = last(sides[0], sides[1])
    a, b = (page.text for page in end.texts)
    place = next(index for index in range(len(a)) if a[: index + 1] != b[: index + 1])
    assert not end.shares_tokens
    assert end.divergence is not None
    assert (end.divergence.tokens, end.divergence.characters) == (None, place)
    for number, (fork, side) in enumerate(zip(end.divergence.branches, sides, strict=True)):
        assert fork.start <= place < fork.end
        assert fork.probabilities[1 - number] is None
        own = fork.probabilities[number]
        assert own in {(step.model_probability, step.probability) for step in steps_of(side.loaded, side.settings)}
        assert end.texts[number].text[fork.start : fork.end]
    html = render_comparison(end, (Title(name="a", settings={}), Title(name="b", settings={})))
    assert "cannot be compared" in html
    assert html.count("not comparable") == 2


def test_bits_per_byte_are_the_models_own_surprises(loaded):
    prompt = "The"
    side = Side(loaded=loaded, settings=settings(max_new_tokens=20))
    page = last(side, side, prompt).texts[0]
    ids = [*encode_prompt(loaded, prompt), *(step.token_id for step in steps_of(loaded, side.settings, prompt))]
    bits = sum(each.bits or 0.0 for each in surprisals(loaded.model, ids)[-20:])
    written = b"".join(loaded.tokenizer.token_bytes[token_id] for token_id in ids[-20:])
    assert page.bits == pytest.approx(bits, rel=1e-4)
    assert page.byte_count == len(written)
    assert page.bits_per_byte == pytest.approx(bits / len(written), rel=1e-4)


def test_it_streams_and_one_seed_is_drawn_for_both(loaded):
    side = Side(loaded=loaded, settings=settings(seed=None))
    found = list(compare(side, side, PROMPT, interval=0.0))
    assert len({each.seed for each in found}) == 1
    assert [each.texts[0].tokens for each in found[:3]] == [1, 2, 3]
    assert all(after.texts[1].text.startswith(before.texts[1].text) for before, after in pairwise(found))
    assert found[-1].texts[0].text == found[-1].texts[1].text
    again = dataclasses.replace(side.settings, seed=found[0].seed)
    assert list(compare_settings(loaded, PROMPT, again, again))[-1].texts == found[-1].texts


def test_stop_and_the_time_limit_end_both(loaded):
    side = Side(loaded=loaded, settings=settings(max_new_tokens=10**6))
    asked: list[bool] = []
    end = last(side, side, should_stop=lambda: asked.append(True) or len(asked) > 20)
    assert [page.ending for page in end.texts] == ["stopped", "stopped"]
    assert max(page.tokens for page in end.texts) < 20
    assert [page.ending for page in last(side, side, time_limit=0.0).texts] == ["deadline", "deadline"]


def test_a_model_for_blanks_is_refused(loaded, masked):
    with pytest.raises(ValueError, match="fills blanks and does not write"):
        last(Side(loaded=loaded, settings=settings()), Side(loaded=masked, settings=settings()))


def test_text_stays_text(loaded, other):
    evil = '</script><img src=x onerror="alert(1)">\u202e{{ 1 + 1 }}'
    chosen = (settings(temperature=0.5), settings(temperature=1.5))
    end = last(Side(loaded=loaded, settings=chosen[0]), Side(loaded=other, settings=chosen[1]), evil)
    html = render_comparison(
        end, (Title(name="<b>x</b>", settings={"temperature": 0.5}), Title(name="y", settings={"temperature": 1.5}))
    )
    assert "<img" not in html
    assert "<b>x</b>" not in html
    assert html.count("&lt;img src=x onerror=&#34;alert(1)&#34;&gt;") == 2
    assert "temperature 0.5" in html
    assert html.count("<mark") == 2
