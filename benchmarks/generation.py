"""Generation at batch 1 on one CPU thread: our `stream` beside transformers' `generate` on a GPT2LMHeadModel, and the
limit: no decoder that reads every weight for every token is faster than the matrix-vector products alone.

Shape: 6 layers, width 256, context 256, vocabulary 8,257. Ours runs twice: with the sci-fi recipe's own 6 heads of 42,
and with GPT-2's shape and the same weights as the GPT-2, whose greedy tokens must be the same. The limits are those of
the sci-fi model: its products with nothing between them, and the reading of its weights alone. Times are CPU seconds,
which other work on the machine changes less than seconds.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from benchmarks._limits import read_weights, token_products
from benchmarks._report import Goal
from benchmarks._rounds import CONTEXT, VOCABULARY, ratio, take_turns
from hub_export.exports.stock import stock_model
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.generation import SamplingSettings, stream

PROMPT = 16  # tokens
BASE = {"greedy": "generate, GPT-2", "sampled": "generate, GPT-2, sampled"}
LIMIT = "limit: products alone"
GOALS = (Goal(("ratio", "stream, sci-fi"), at_least=3.0),)


def run(*, new_tokens: int = 200, rounds: int = 5) -> dict:
    """Time the peers.

    Args:
        new_tokens: tokens generated in one measurement, after a prompt of 16.
        rounds: measurements of each peer, after one to warm up.

    Returns:
        `tokens_per_second` (median by peer), `ratio` (to GPT-2 under `generate`, greedy or sampled alike),
        `share_of_limit` (how near our decoder comes to the products alone), and `same_greedy_tokens` (of both models
        with the same weights, in all positions).
    """
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    try:
        peers = make_peers(new_tokens)
        same = peers["stream, same weights"]() == peers[BASE["greedy"]]()
        seconds = take_turns(peers, rounds, time.process_time)
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)
    return {
        "new_tokens": new_tokens,
        "tokens_per_second": {name: round(new_tokens / statistics.median(times)) for name, times in seconds.items()},
        "ratio": {name: ratio(seconds, name, BASE["sampled" if "sampled" in name else "greedy"]) for name in peers},
        "share_of_limit": {name: ratio(seconds, name, LIMIT) for name in ("stream, sci-fi", "stream, sci-fi, sampled")},
        "same_greedy_tokens": same,
    }


def make_peers(new_tokens: int) -> dict[str, Callable[[], list[int] | None]]:
    """Everything that is timed, by name: each a call that returns the generated ids, or only computes (the limits)."""
    torch.manual_seed(0)
    shape = ScratchGPTConfig(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, num_attention_heads=4, hidden_act="gelu_new",
        attention_bias=True, lm_head_bias=False, tie_word_embeddings=True,
    )  # fmt: skip
    ours, same = (ScratchGPTForCausalLM(config).eval() for config in (ScratchGPTConfig(), shape))
    gpt2 = stock_model(same)
    prompt = torch.randint(VOCABULARY, (PROMPT,)).tolist()
    greedy = SamplingSettings(max_new_tokens=new_tokens, temperature=0)
    sampled = SamplingSettings(max_new_tokens=new_tokens, temperature=0.8, top_k=50, top_p=0.95, seed=1)
    options = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95}
    return {
        BASE["greedy"]: lambda: generate(gpt2, prompt, new_tokens, do_sample=False),
        BASE["sampled"]: lambda: generate(gpt2, prompt, new_tokens, **options),
        "stream, sci-fi": lambda: streamed(ours, prompt, greedy),
        "stream, sci-fi, sampled": lambda: streamed(ours, prompt, sampled),
        "stream, same weights": lambda: streamed(same, prompt, greedy),
        "stream, GPT-2": lambda: streamed(gpt2, prompt, greedy),
        "generate, sci-fi": lambda: generate(ours, prompt, new_tokens, do_sample=False),
        "recompute, GPT-2": lambda: recomputed(gpt2, prompt, new_tokens),
        LIMIT: partial(repeated, token_products(ours, torch.float32), new_tokens),
        "limit: weights read alone": partial(repeated, read_weights(ours), new_tokens),
        "limit: products alone, bf16": partial(repeated, token_products(ours, torch.bfloat16), new_tokens),
    }


def generate(model: PreTrainedModel, prompt: list[int], new_tokens: int, **options) -> list[int]:
    """transformers' own generation, with its dynamic cache."""
    ids = torch.tensor([prompt])
    options |= {"attention_mask": torch.ones_like(ids), "max_new_tokens": new_tokens, "eos_token_id": None}
    return model.generate(ids, pad_token_id=0, **options)[0, len(prompt) :].tolist()  # pyright: ignore[reportCallIssue]


def streamed(model: PreTrainedModel, prompt: list[int], settings: SamplingSettings) -> list[int]:
    """Our generator: with the fast decoder for ScratchGPT, the model's forward and cache for others."""
    return [step.token_id for step in stream(model, prompt, settings)]


@torch.inference_mode()
def recomputed(model: PreTrainedModel, prompt: list[int], new_tokens: int) -> list[int]:
    """The tutorials' loop: the complete text through the model again for every token."""
    ids = torch.tensor([prompt])
    for _ in range(new_tokens):
        next_id = model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, next_id], 1)
    return ids[0, len(prompt) :].tolist()


@torch.inference_mode()
def repeated(call: Callable[[], None], times: int) -> None:
    """The call so many times, once for each token."""
    for _ in range(times):
        call()
