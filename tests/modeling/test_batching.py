"""Many texts written at once: each is what it is alone, whoever joins and leaves meanwhile."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from modeling.batch_decoder import BatchDecoder
from modeling.batching import ROOM, BatchGenerator, batch_generator
from modeling.fast_decoder import FastDecoder
from modeling.generation import SamplingSettings, Step, stream
from tests.modeling import models
from tests.modeling.test_fast_decoder import CONTEXT, MODERN, VOCABULARY, build

LONG = 100_000
GREEDY = SamplingSettings(temperature=0, max_new_tokens=10)


@pytest.fixture(scope="module", params=["scratchgpt", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    """One of ours, and one that is not."""
    if request.param == "scratchgpt":
        return build(**MODERN)
    ids = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1}
    return models.gpt2(n_layer=1, n_embd=32, n_positions=CONTEXT, **ids)


@pytest.fixture(scope="module")
def batch(model: Any) -> BatchGenerator:
    return BatchGenerator(model, width=4)


def write(batch: BatchGenerator, prompt: list[int], settings: SamplingSettings, **options: Any) -> tuple[Any, str]:
    """The steps of a text, and why it ended."""
    steps: list[Step] = []
    running = batch.stream(prompt, settings, **options)
    while True:
        try:
            steps.append(next(running))
        except StopIteration as end:
            return steps, end.value


def draw_text(draw: random.Random) -> dict[str, Any]:
    """A prompt, shorter or longer than the context, and how to continue it."""
    settings = SamplingSettings(
        max_new_tokens=draw.randint(1, CONTEXT + 6),
        temperature=draw.choice([0.0, 0.8, 1.5]),
        top_k=draw.choice([0, 5]),
        top_p=draw.choice([1.0, 0.9]),
        min_p=draw.choice([0.0, 0.05]),
        repetition_penalty=draw.choice([1.0, 1.3]),
        seed=draw.randrange(1000),
    )
    prompt = [draw.randrange(VOCABULARY) for _ in range(draw.randint(0, CONTEXT + 5))]
    stops = draw.sample(range(VOCABULARY), draw.choice([0, 2]))
    return {"prompt": prompt, "settings": settings, "stop_token_ids": stops, "alternatives": draw.choice([0, 3])}


def test_a_text_is_the_same_in_200_companies(batch):
    """Bit for bit: the tokens, their probabilities and alternatives, and the ending."""
    draw = random.Random(0)
    texts = [draw_text(draw) for _ in range(60)]
    alone = [write(batch, **text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            company = draw.sample(range(len(texts)), draw.randint(2, 8))
            for index, found in zip(company, pool.map(lambda i: write(batch, **texts[i]), company), strict=True):
                assert found == alone[index]


def test_the_tokens_are_those_of_stream(batch, model):
    draw = random.Random(1)
    for _ in range(10):
        text = draw_text(draw)
        options = {name: text[name] for name in ("stop_token_ids", "alternatives")}
        expected = list(stream(model, text["prompt"], text["settings"], **options))
        found, _ = write(batch, **text)
        assert [step.token_id for step in found] == [step.token_id for step in expected]
        for one, other in zip(found, expected, strict=True):
            assert (one.position, one.context_used, one.kept) == (other.position, other.context_used, other.kept)
            assert one.probability == pytest.approx(other.probability, abs=1e-4)
            assert [each.token_id for each in one.alternatives] == [each.token_id for each in other.alternatives]


def test_a_stop_token_ends_a_text_and_is_no_part_of_it(batch):
    steps, _ = write(batch, [1, 2, 3], GREEDY)
    stop = steps[-1].token_id
    before = next(number for number, step in enumerate(steps) if step.token_id == stop)
    assert write(batch, [1, 2, 3], GREEDY, stop_token_ids=[stop]) == (steps[:before], "stop_token")


def test_texts_share_the_passes_of_the_model(model):
    batch = BatchGenerator(model, width=4)
    assert len(write(batch, [1, 2], GREEDY)[0]) == 10
    assert batch.widths == {1: 9}  # the first token comes with the prompt
    deadline = time.monotonic() + 120

    def write_until_shared(seed: int) -> str:
        settings = SamplingSettings(max_new_tokens=LONG, seed=seed)
        return write(batch, [1, 2], settings, should_stop=lambda: 4 in batch.widths or time.monotonic() > deadline)[1]

    with ThreadPoolExecutor(6) as pool:
        assert {*pool.map(write_until_shared, range(6))} == {"stopped"}
    assert max(batch.widths) == 4  # of six texts four at a time


def test_each_text_ends_by_itself(batch):
    stopped = threading.Event()
    forever = SamplingSettings(max_new_tokens=LONG, seed=1)
    with ThreadPoolExecutor(4) as pool:
        by_stop = pool.submit(write, batch, [1], forever, should_stop=stopped.is_set)
        by_time = pool.submit(write, batch, [2], forever, deadline=time.monotonic() + 0.2)
        closed = batch.stream([3], forever)
        next(closed)
        assert write(batch, [4], GREEDY)[1] == "length"
        assert by_time.result(10)[1] == "deadline"
        assert not by_stop.done()
        stopped.set()
        steps, ending = by_stop.result(10)
        assert (len(steps) > 0, ending) == (True, "stopped")
        closed.close()
    assert wait_until_idle(batch)


def wait_until_idle(batch: BatchGenerator) -> bool:
    """Whether no text is left in the batch after a moment."""
    deadline = time.monotonic() + 10
    while batch._texts:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_error_of_one_text_is_its_own(batch):
    def ask() -> bool:
        raise LookupError("its own")

    forever = SamplingSettings(max_new_tokens=LONG, seed=1)
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(write, batch, [token], GREEDY) for token in range(3)]
        with pytest.raises(LookupError, match="its own"):
            write(batch, [1], forever, should_stop=ask)
        assert [future.result(10)[1] for future in others] == ["length"] * 3
    with pytest.raises(ValueError, match="expected token ids from 0 to 22, got 99"):
        batch.stream([99], GREEDY)


def test_broken_weights_end_every_text_with_the_reason():
    model = build(**MODERN)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    batch = BatchGenerator(model, width=2)
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(write, batch, [1, 2], GREEDY) for _ in range(3)]:
            with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity"):
                future.result(10)
    assert wait_until_idle(batch)


def test_an_error_of_a_pass_reaches_all_of_it(monkeypatch):
    batch = BatchGenerator(build(**MODERN), width=2)

    def fail(*_: Any) -> Any:
        raise MemoryError("no room")

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(batch.decoder, "step", fail)
        for future in [pool.submit(write, batch, [1, 2], GREEDY) for _ in range(2)]:
            with pytest.raises(MemoryError, match="no room"):
                future.result(10)
    assert write(batch, [1, 2], GREEDY)[1] == "length"  # it works on


@pytest.mark.parametrize("family", [models.gemma2, models.bloom, models.mamba, models.rwkv, models.bamba])
def test_a_model_that_cannot_has_none(family):
    assert batch_generator(family()) is None


@pytest.mark.parametrize("config", [{}, {"head_dim": 6}, {"max_position_embeddings": 1000}], ids=str)
def test_a_model_whose_texts_are_too_large_is_refused_before_its_tables_are_computed(config, monkeypatch):
    model = build(**MODERN | config)
    with torch.inference_mode():
        decoder = BatchDecoder(model, 2)
    slots = decoder.groups[0]
    own = sum(block.buffer_TW.nbytes for block in decoder.first.blocks)
    slot = sum(2 * layer.keys_NGTD[0, :, 0].nbytes for layer in slots.layers) * slots.whole_pieces(decoder.context)
    size = ROOM * max(own, slot)
    monkeypatch.setattr("modeling.batching.MEMORY", size)
    assert batch_generator(model) is not None
    monkeypatch.setattr("modeling.batching.MEMORY", size - 1)
    monkeypatch.delattr(FastDecoder, "__init__")  # which computes them
    assert batch_generator(model) is None


def test_a_model_that_is_too_large_has_none(monkeypatch):
    model = build(**MODERN)
    assert batch_generator(model) is not None
    monkeypatch.setattr("modeling.batching.MEMORY", 1000)
    assert batch_generator(model) is None
