"""Models of other people through `CacheDecoder`: whatever they call their cache, each token is read once."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from modeling import cache_decoder
from modeling.cache_decoder import cache_argument
from modeling.generation import SamplingSettings, stream
from modeling.inspection import surprisals
from modeling.loading import context_length
from tests.modeling import models
from tests.modeling.models import CONTEXT, VOCABULARY, build
from tests.modeling.test_generation import GREEDY, PROMPT, tokens


class OldCode(PreTrainedModel):
    """Code as it lies on the Hub: it names `past_key_values`, whatever the installed transformers calls it."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.positions = nn.Embedding(config.rows, 16)
        self.qkv = nn.Linear(16, 48)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        nn.init.normal_(module.weight, std=0.7)

    def compute(self, input_ids: Tensor, cache: Cache | None) -> Tensor:
        past = cache.get_seq_length() if cache is not None else 0
        x_BLE = self.embed(input_ids) + self.positions(torch.arange(past, past + input_ids.shape[1]))
        query, key, value = (part[:, None] for part in self.qkv(x_BLE).chunk(3, -1))
        if cache is not None:
            key, value = cache.update(key, value, 0)
        mask = torch.ones(input_ids.shape[1], key.shape[2], dtype=torch.bool).tril(past)
        x_BLE = x_BLE + functional.scaled_dot_product_attention(query, key, value, mask)[:, 0]
        return x_BLE @ self.embed.weight.t()

    def forward(self, input_ids, past_key_values=None, use_cache=False, return_dict=True) -> Any:
        cache = DynamicCache() if use_cache and past_key_values is None else past_key_values
        logits = self.compute(input_ids, cache)
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)  # pyright: ignore[reportCallIssue]


class NextRename(OldCode):
    """A name that nobody knows yet, in the argument and nowhere in the outputs."""

    def forward(self, input_ids, notes: Cache | None = None, use_cache=False):  # pyright: ignore[reportIncompatibleMethodOverride]
        cache = DynamicCache() if use_cache and notes is None else notes
        return self.compute(input_ids, cache), cache


class Wrapped(PreTrainedModel):
    """A forward that hands on whatever it is given."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.inner = OldCode(config)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        nn.init.normal_(module.weight, std=0.7)

    def forward(self, input_ids, **kwargs):
        return self.inner(input_ids, **kwargs)


class Dropping(OldCode):
    """The fault of our own 0.1.0 under transformers 5.24: the cache comes, and is let drop."""

    def forward(self, input_ids, past_key_values=None, use_cache=False, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
        return OldCode.forward(self, input_ids, None, use_cache)


class WithoutCache(OldCode):
    """It takes a cache and returns none."""

    def forward(self, input_ids, past_key_values=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return CausalLMOutputWithPast(logits=self.compute(input_ids, None))


def remote(kind: type[PreTrainedModel], context: int | None = CONTEXT, rows: int = CONTEXT) -> PreTrainedModel:
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": context, "rows": rows}
    return build(kind, PreTrainedConfig(**sizes))


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass of a model reads."""
    found = []
    inner = cache_decoder.CacheDecoder._forward

    def forward(self, token_ids, options):
        found.append(len(token_ids))
        return inner(self, token_ids, options)

    monkeypatch.setattr(cache_decoder.CacheDecoder, "_forward", forward)
    return found


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Asks for the decoder's log lines; it has said nothing before."""
    cache_decoder._log_reading_again.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records if record.name == "modeling.cache_decoder"]


CACHED = [*models.WITH_CACHE, models.roberta, models.whisper]


@pytest.mark.parametrize("make", CACHED)
def test_after_the_prompt_every_pass_reads_one_token(make, lengths, said, monkeypatch):
    complaints = []
    monkeypatch.setattr(transformers.utils.generic.logger, "warning_once", complaints.append)
    model = make()
    ids = tokens(model, PROMPT, GREEDY)
    assert lengths == [len(PROMPT)] + [1] * (len(ids) - 1)
    assert not said()
    assert not complaints  # of names that transformers has given up
    with torch.inference_mode():
        text = list(PROMPT)
        for token_id in ids:
            assert token_id == model(torch.tensor([text]), use_cache=False).logits[0, -1].argmax()
            text.append(token_id)


@pytest.mark.parametrize("kind", [OldCode, NextRename, Wrapped])
def test_code_from_the_hub_keeps_its_cache_whatever_it_calls_it(kind, lengths, said):
    model = remote(kind)
    ids = tokens(model, PROMPT, GREEDY)
    assert lengths == [len(PROMPT)] + [1] * 9
    assert not said()
    assert ids == uncached(model, 10)
    assert len(set(ids)) > 3


def uncached(model, count: int) -> list[int]:
    text = list(PROMPT)
    for _ in range(count):
        outputs = model(torch.tensor([text]))
        logits = outputs[0] if isinstance(outputs, tuple) else outputs.logits
        text.append(int(logits[0, -1].argmax()))
    return text[len(PROMPT) :]


@pytest.mark.parametrize("kind", [Dropping, WithoutCache])
def test_a_cache_that_a_model_lets_drop_is_noticed_and_said_once(kind, lengths, said):
    model = remote(kind)
    for _ in range(2):
        assert tokens(model, PROMPT, GREEDY) == uncached(model, 10)
    assert lengths[-9:] == list(range(len(PROMPT) + 1, len(PROMPT) + 10))
    [line] = said()
    assert line == (
        f"{kind.__name__}: found no cache in it that works with transformers {transformers.__version__}, so every "
        "token reads the text again, which is slow for long texts"
    )


def test_a_model_without_a_cache_says_so_once(lengths, said):
    for _ in range(2):
        tokens(models.first_gpt(), PROMPT, GREEDY)
    assert lengths[:10] == list(range(len(PROMPT), len(PROMPT) + 10))
    [line] = said()
    assert line.startswith("OpenAIGPTLMHeadModel: found no cache in it that works with transformers ")


@pytest.mark.parametrize("make", [*models.LEARNED_POSITIONS, lambda: remote(OldCode)])
def test_a_text_past_learned_positions_slides_the_window(make):
    model = make()
    assert context_length(model) == CONTEXT
    choices = SamplingSettings(max_new_tokens=3 * CONTEXT, seed=3)
    steps = list(stream(model, PROMPT, choices))
    assert len(steps) == 3 * CONTEXT
    assert max(step.context_used for step in steps) == CONTEXT
    assert len(list(stream(model, [4] * 2 * CONTEXT, choices))) == 3 * CONTEXT


def test_a_model_that_names_no_context_ends_in_words():
    model = remote(OldCode, context=None)
    message = (
        rf"OldCode cannot read {CONTEXT + 1} tokens \(.*\): its config names no context length, but its weights hold "
        r"fewer positions; give it a shorter text, or correct max_position_embeddings in its config\.json"
    )
    with pytest.raises(ValueError, match=message):
        list(stream(model, PROMPT, SamplingSettings(max_new_tokens=2 * CONTEXT)))


def test_a_config_that_names_too_long_a_context_ends_in_words():
    with pytest.raises(ValueError, match=r"names a context of 48, but its weights hold fewer positions; give it a sh"):
        list(stream(remote(OldCode, context=2 * CONTEXT), PROMPT, SamplingSettings(max_new_tokens=2 * CONTEXT)))


LONG_CONTEXT = {
    "llama": lambda: models.llama(max_position_embeddings=300),
    "gpt2": lambda: models.gpt2(n_positions=300),
    "modern": lambda: models.modern(max_position_embeddings=300),
    "mamba": models.mamba,
    "old code": lambda: remote(OldCode, 300, 300),
    "dropping": lambda: remote(Dropping, 300, 300),
}


@pytest.mark.parametrize("kind", LONG_CONTEXT)
def test_a_long_text_is_inspected_in_passes(kind, lengths):
    model = LONG_CONTEXT[kind]()
    text = [(7 * i * i + 3) % VOCABULARY for i in range(290)]
    with torch.no_grad():
        log_LV = torch.log_softmax(model(torch.tensor([text])).logits[0], -1) / -math.log(2)
    bits = [found.bits for found in surprisals(model, text)[1:]]
    assert lengths == {"mamba": [289], "dropping": [256, 33, 289]}.get(kind, [256, 33])
    assert bits == pytest.approx(log_LV[:-1].gather(-1, torch.tensor(text[1:])[:, None])[:, 0].tolist(), abs=2e-3)


def test_which_argument_takes_the_cache():
    current = "cache" if "cache" in inspect.signature(transformers.LlamaForCausalLM.forward).parameters else None
    assert cache_argument(models.llama()) == (current or "past_key_values")
    assert cache_argument(models.mamba()) == (current or "cache_params")
    assert cache_argument(models.rwkv()) == "state"
    assert cache_argument(models.first_gpt()) is None
    assert [cache_argument(remote(kind)) for kind in (OldCode, NextRename, Wrapped)] == [
        "past_key_values",
        "notes",
        "past_key_values",
    ]
