"""Generation at batch 1 on one CPU thread: our `stream` beside transformers' `generate` on a GPT2LMHeadModel.

Shape: 6 layers, width 256, context 256, vocabulary 8,257. GPT-2's width must divide by its heads, so it has 4 heads of
64. Ours runs twice: with the sci-fi recipe's own 6 heads of 42, and as GPT-2's twin, its weights copied over, whose
greedy tokens must be the same. The peers take turns within a round, so that whatever else the machine does hits all of
them.
"""

import statistics
import time
from collections.abc import Callable

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers.utils import logging

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.generation import SamplingSettings, stream

CONTEXT, VOCABULARY, PROMPT = 256, 8257, 16
BASE = {"greedy": "generate, GPT-2", "sampled": "generate, GPT-2, sampled"}


def run(*, new_tokens: int = 200, rounds: int = 5) -> dict:
    """Times the peers.

    Args:
        new_tokens: tokens generated in one measurement, after a prompt of 16.
        rounds: measurements of each peer, after one to warm up.

    Returns:
        `tokens_per_second` (median by peer), `ratio` (to GPT-2 under `generate`, greedy or sampled alike; median of
        the ratios within a round), and `same_greedy_tokens` (the twin's, in all positions).
    """
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    try:
        peers = make_peers(new_tokens)
        outputs = {name: peer() for name, peer in peers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(rounds):
            for name, peer in peers.items():
                start = time.perf_counter()
                peer()
                seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)

    def ratio(name: str) -> float:
        base = seconds[BASE["sampled" if "sampled" in name else "greedy"]]
        return statistics.median(theirs / ours for theirs, ours in zip(base, seconds[name], strict=True))

    return {
        "new_tokens": new_tokens,
        "tokens_per_second": {name: round(new_tokens / statistics.median(times)) for name, times in seconds.items()},
        "ratio": {name: round(ratio(name), 2) for name in peers},
        "same_greedy_tokens": outputs["stream, GPT-2's twin"] == outputs["generate, GPT-2"],
    }


def make_peers(new_tokens: int) -> dict[str, Callable[[], list[int]]]:
    """Everything that is timed, by name: each a call that returns the generated ids."""
    torch.manual_seed(0)
    gpt2_config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=256,
        n_layer=6,
        n_head=4,
        bos_token_id=VOCABULARY - 1,
        eos_token_id=VOCABULARY - 1,
    )
    gpt2 = GPT2LMHeadModel(gpt2_config).eval()
    ours, twin = ScratchGPTForCausalLM(ScratchGPTConfig()).eval(), twin_of(gpt2)
    prompt = torch.randint(VOCABULARY, (PROMPT,)).tolist()
    greedy = SamplingSettings(max_new_tokens=new_tokens, temperature=0)
    sampled = SamplingSettings(max_new_tokens=new_tokens, temperature=0.8, top_k=50, top_p=0.95, seed=1)
    options = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95}
    return {
        BASE["greedy"]: lambda: generate(gpt2, prompt, new_tokens, do_sample=False),
        BASE["sampled"]: lambda: generate(gpt2, prompt, new_tokens, **options),
        "stream, sci-fi": lambda: streamed(ours, prompt, greedy),
        "stream, sci-fi, sampled": lambda: streamed(ours, prompt, sampled),
        "stream, GPT-2's twin": lambda: streamed(twin, prompt, greedy),
        "stream, GPT-2": lambda: streamed(gpt2, prompt, greedy),
        "generate, sci-fi": lambda: generate(ours, prompt, new_tokens, do_sample=False),
        "recompute, GPT-2": lambda: recomputed(gpt2, prompt, new_tokens),
    }


def generate(model: PreTrainedModel, prompt: list[int], new_tokens: int, **options) -> list[int]:
    """transformers' own generation, with its dynamic cache."""
    ids = torch.tensor([prompt])
    options |= {"attention_mask": torch.ones_like(ids), "max_new_tokens": new_tokens, "eos_token_id": None}
    return model.generate(ids, pad_token_id=0, **options)[0, len(prompt) :].tolist()  # pyright: ignore[reportCallIssue]


def streamed(model: PreTrainedModel, prompt: list[int], settings: SamplingSettings) -> list[int]:
    """Our decoder: `FastDecoder` for ScratchGPT, the forward and cache for others."""
    return [step.token_id for step in stream(model, prompt, settings)]


@torch.inference_mode()
def recomputed(model: PreTrainedModel, prompt: list[int], new_tokens: int) -> list[int]:
    """The tutorials' loop: the whole text through the model again for every token."""
    ids = torch.tensor([prompt])
    for _ in range(new_tokens):
        next_id = model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, next_id], 1)
    return ids[0, len(prompt) :].tolist()


@torch.no_grad()
def twin_of(gpt2: GPT2LMHeadModel) -> ScratchGPTForCausalLM:
    """A ScratchGPT with the shape and the weights of this GPT-2."""
    source = gpt2.config
    config = ScratchGPTConfig(
        vocab_size=source.vocab_size,
        hidden_size=source.n_embd,
        num_hidden_layers=source.n_layer,
        num_attention_heads=source.n_head,
        max_position_embeddings=source.n_positions,
        hidden_act=source.activation_function,
        norm_eps=source.layer_norm_epsilon,
        attention_bias=True,
        lm_head_bias=False,
        tie_word_embeddings=True,
    )
    twin, state = ScratchGPTForCausalLM(config).eval(), gpt2.state_dict()
    weights = {"model.embed_tokens": "wte", "model.embed_positions": "wpe", "model.norm": "ln_f"}
    for layer in range(source.n_layer):
        ours, theirs = f"model.layers.{layer}", f"h.{layer}"
        weights |= {f"{ours}.input_layernorm": f"{theirs}.ln_1", f"{ours}.post_attention_layernorm": f"{theirs}.ln_2"}
        weights |= {f"{ours}.self_attn.{part}_proj": f"{theirs}.attn.c_attn" for part in "qkv"}
        weights |= {f"{ours}.self_attn.o_proj": f"{theirs}.attn.c_proj"}
        weights |= {f"{ours}.mlp.up_proj": f"{theirs}.mlp.c_fc", f"{ours}.mlp.down_proj": f"{theirs}.mlp.c_proj"}
    for name, parameter in twin.named_parameters():
        module, kind = name.rsplit(".", 1)
        value = state[f"transformer.{weights[module]}.{kind}"]
        if weights[module].endswith("c_attn"):
            value = value.chunk(3, dim=-1)["qkv".index(module[-len("q_proj")])]
        transposed = ".c_" in weights[module] and kind == "weight"  # GPT-2 keeps these as (in, out)
        parameter.copy_(value.t() if transposed else value)
    return twin
