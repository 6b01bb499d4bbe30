"""Inspection of any causal language model of transformers: surprisal, embeddings, logit lens, attention.

Everything goes through the model's own forward. Where a call needs hooks or another attention implementation, it uses
a copy of the modules that shares the weights, so that nothing changes for other threads that use the model meanwhile.

Axes: N tokens of this pass, V vocabulary, E width, H query heads, Q queries, K keys.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modeling.cache_decoder import CacheDecoder
from modeling.generation import StoppedError, check_ids, passes
from modeling.loading import context_length

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "layer_norm", "ln_out", "final_norm")
"""What architectures of transformers call the normalisation before their output layer."""
TOLERANCE = 0.01
"""How far numbers may differ from the model's own, absolutely or relatively, before they count as wrong."""
DEFAULT_CONTEXT = 1024
"""Tokens of a window of a model that names no context length."""
ROWS_AT_A_TIME = 16_384
"""Rows of the embedding table that are compared at once: a copy of a large one would need gigabytes."""


class Guess(NamedTuple):
    """A predicted token."""

    token_id: int
    probability: float  # softmax over the vocabulary


class Similar(NamedTuple):
    """A token with an embedding like another's."""

    token_id: int
    cosine: float  # of the angle between the two embeddings: 1 for the same direction, 0 for a right angle


@dataclass(frozen=True, kw_only=True, slots=True)
class Surprisal:
    """Surprisal of a token of a text, given the tokens before it; None in all three fields of the first token."""

    token_id: int
    bits: float | None  # -log2 of its probability; infinite where that is 0
    rank: int | None  # 1: no token was likelier
    likeliest: Guess | None  # the model's likeliest token
    alternatives: tuple[Guess, ...] = ()  # its likeliest tokens, in that order; as many as requested


def next_token_logits(model: Any, ids: Sequence[int]) -> Tensor:
    """Logits (V, float32, on the CPU) of the token after `ids`, of which the model sees the last context length.

    Raises:
        ValueError: no ids, one outside the vocabulary, or a model whose logits are NaN or infinite.
    """
    decoder = CacheDecoder(model)
    with torch.inference_mode():
        logits_V = [decoder.read(part) for part in passes(decoder, _window(model, ids))][-1].float().cpu()
    if bool(logits_V.isnan().any() or logits_V.isposinf().any()):
        raise ValueError(
            "The next token is unknown: expected finite logits, got NaN or infinity. The weights are broken, as "
            "after a diverged training run; load an earlier checkpoint."
        )
    return logits_V


def scoring_context(model: Any) -> int:
    """Tokens of the windows in which a long text is scored: the context length, 1,024 without a limit."""
    return max(2, context_length(model) or DEFAULT_CONTEXT)


def text_windows(ids: Sequence[int], context: int) -> Iterator[tuple[list[int], int]]:
    """Windows of `context` tokens over a text, each beginning half a context before the tokens that it scores.

    Yields:
        (ids of a window, how many of its last ids are scored); every id but the first is scored once.
    """
    scored = 1
    while scored < len(ids):
        start = 0 if scored == 1 else max(0, scored - context // 2)
        end = min(len(ids), start + context)
        yield list(ids[start:end]), end - scored
        scored = end


@torch.no_grad()
def surprisals(
    model: Any, ids: Sequence[int], *, alternatives: int = 0, should_stop: Callable[[], bool] | None = None
) -> list[Surprisal]:
    """Surprisal of each of `ids`, given those before it. The first one is not scored: put a start token
    (`modeling.generation.start_ids`) before a text to have all of it scored.

    A long text is read in `text_windows`, as `python -m train.evaluate` does.

    Args:
        alternatives: how many of the model's likeliest tokens come with each token (default: none).
        should_stop: called after every pass of the model.

    Raises:
        ValueError: no ids, one outside the vocabulary, or a model whose logits are NaN.
        StoppedError: `should_stop()` returned true.
    """
    ids = check_ids(model, ids)
    found = [Surprisal(token_id=ids[0], bits=None, rank=None, likeliest=None)]
    for window, scored in text_windows(ids, scoring_context(model)):
        position, first = 1, len(window) - scored
        for logits_NV in _logits(model, window[:-1]):
            start, position = max(position, first), position + len(logits_NV)
            targets = window[start:position]
            found += _scored(logits_NV[len(logits_NV) - len(targets) :], targets, alternatives)
            if should_stop is not None and should_stop():
                raise StoppedError
    return found


@torch.no_grad()
def logit_lens(model: Any, ids: Sequence[int], top: int = 5, *, last: int | None = None) -> list[list[list[Guess]]]:
    """The `top` likeliest next tokens after each layer, [layer][position]: the final normalisation and the output layer
    applied to each hidden state (nostalgebraist, "interpreting GPT: the logit lens", 2020).

    Layer 0 is the input of the first block; the last layer is the model's output.

    Args:
        ids: at most the last context length of them is read.
        last: how many of the last positions to return; None: all.

    Raises:
        ValueError: no ids, one outside the vocabulary, `top` or `last` below 1, or a model that computes its logits
            from its last hidden state in a way unknown here.
    """
    if top < 1 or (last is not None and last < 1):
        raise ValueError(f"top and last: expected whole numbers, 1 or more, got {top} and {last}")
    window = _window(model, ids)
    to_logits, hidden_states, logits_NV = _through_the_head(model, window)
    shown = slice(None if last is None else -last, None)
    rows = [_guesses(to_logits(hidden_NE[shown]), top) for hidden_NE in hidden_states[:-1]]
    return [*rows, _guesses(logits_NV[shown], top)]


@torch.no_grad()
def embeddings(model: Any, ids: Sequence[int]) -> Tensor:
    """The embedding of each of `ids` (N, E), float32 on the CPU: its row of the model's input embedding table, before
    anything is added to it or done with it.

    Raises:
        ValueError: no ids, or one outside the vocabulary.
    """
    return model.get_input_embeddings().weight[check_ids(model, ids)].float().cpu()


@torch.no_grad()
def nearest_embeddings(model: Any, ids: Sequence[int], top: int = 3, *, size: int | None = None) -> list[list[Similar]]:
    """The `top` other tokens whose embeddings point most nearly in the direction of that of each of `ids`, the nearest
    first.

    Args:
        size: how many tokens of the table to look at, its first ones; None: all. Tables may be longer than the
            vocabulary, whose further rows mean nothing.

    Raises:
        ValueError: no ids, one outside the vocabulary, or `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top: expected a whole number, 1 or more, got {top}")
    table_VE = model.get_input_embeddings().weight[:size]
    own_NE = torch.nn.functional.normalize(embeddings(model, ids), dim=-1).to(table_VE.device)
    parts = [
        own_NE @ torch.nn.functional.normalize(part_VE.float(), dim=-1).T for part_VE in table_VE.split(ROWS_AT_A_TIME)
    ]
    cosine_NV = torch.cat(parts, 1).cpu()
    for row, token_id in enumerate(ids):
        cosine_NV[row, token_id : token_id + 1] = -torch.inf  # not itself
    best = cosine_NV.topk(min(top, len(table_VE) - 1))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[Similar(*pair) for pair in zip(tokens, values, strict=True)] for tokens, values in rows]


@torch.no_grad()
def attention(model: Any, ids: Sequence[int]) -> Tensor:
    """Attention weights (layers, H, Q, K), float32 on the CPU; masked language models too.

    At most the last context length of `ids` is read.

    Raises:
        ValueError: no ids, one outside the vocabulary, or a model that has no attention to show.
    """
    window = _window(model, ids)
    copied = _shared_copy(model)
    nothing = f"{type(model).__name__} shows no attention: expected a model whose layers attend, and can say how"
    try:
        copied.set_attn_implementation("eager")
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(nothing) from error
    outputs = _forward(copied, window, output_attentions=True)
    weights = [
        weights_1HQK[0] for weights_1HQK in getattr(outputs, "attentions", None) or () if weights_1HQK is not None
    ]
    if not weights or len({weights_HQK.shape for weights_HQK in weights}) > 1:
        raise ValueError(nothing)
    return torch.stack(weights).float().cpu()


def _scored(logits_NV: Tensor, targets: list[int], alternatives: int) -> list[Surprisal]:
    if not targets:
        return []
    log_NV = torch.log_softmax(logits_NV.float(), -1)
    if bool(torch.isnan(log_NV[:, 0]).any()):
        raise ValueError("expected finite logits, got NaN or infinity: the weights are broken; load other ones")
    log_N1 = log_NV.gather(1, torch.tensor(targets, device=log_NV.device)[:, None])
    best = log_NV.max(-1)
    ranks = (log_NV > log_N1).sum(-1) + 1
    columns = (log_N1[:, 0].tolist(), ranks.tolist(), best.indices.tolist(), best.values.exp().tolist())
    others = _guesses(logits_NV, alternatives) if alternatives else [[]] * len(targets)
    return [
        Surprisal(
            token_id=token,
            bits=max(0.0, -value / math.log(2)),
            rank=rank,
            likeliest=Guess(likeliest, share),
            alternatives=tuple(guesses),
        )
        for token, value, rank, likeliest, share, guesses in zip(targets, *columns, others, strict=True)
    ]


def _guesses(logits_NV: Tensor, top: int) -> list[list[Guess]]:
    best = torch.softmax(logits_NV.float(), -1).topk(min(top, logits_NV.shape[-1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[Guess(*pair) for pair in zip(ids, values, strict=True)] for ids, values in rows]


def _logits(model: Any, ids: list[int]) -> Iterator[Tensor]:
    """Logits (N, V) of what comes after each of `ids`, a pass at a time: those of a long text would be large."""
    decoder = CacheDecoder(model)
    for part in passes(decoder, ids):
        yield decoder.read_all(part)


def _forward(model: Any, ids: list[int], **options: Any) -> Any:
    """The model's outputs for one text, without a cache by default."""
    if "use_cache" in inspect.signature(model.forward).parameters:
        options = {"use_cache": False, **options}
    return model(input_ids=torch.tensor([ids], device=model.device), return_dict=True, **options)


def _through_the_head(model: Any, ids: list[int]) -> tuple[Callable[[Tensor], Tensor], list[Tensor], Tensor]:
    """From hidden states to logits, the hidden states (N, E) before the first and after each block, and the model's own
    logits (N, V)."""
    copied, config = _shared_copy(model), model.config.get_text_config(decoder=True)
    trouble = f"no logit lens for {type(model).__name__}: expected"
    head, blocks = copied.get_output_embeddings(), _blocks(copied.base_model, config.num_hidden_layers)
    if head is None or blocks is None:
        raise ValueError(f"{trouble} a list of {config.num_hidden_layers} blocks and an output layer, found none")
    norm: Callable[[Tensor], Tensor] = _final_norm(copied.base_model) or nn.Identity()
    hidden_states: list[Tensor] = []
    head_inputs: list[Tensor] = []
    blocks[0].register_forward_pre_hook(
        lambda block, inputs, named: hidden_states.append(inputs[0] if inputs else named["hidden_states"]),
        with_kwargs=True,
    )
    for block in blocks:
        block.register_forward_hook(
            lambda block, inputs, output: hidden_states.append(output if isinstance(output, Tensor) else output[0])
        )
    head.register_forward_pre_hook(lambda head, inputs: head_inputs.append(inputs[0]))
    logits_NV = _forward(copied, ids).logits[0]
    if len(hidden_states) != len(blocks) + 1 or not _agree(norm(hidden_states[-1]), *head_inputs):
        raise ValueError(
            f"{trouble} a final normalisation called {', '.join(FINAL_NORMS)}, or none, between the last block and the "
            "output layer, found something else"
        )

    def to_logits(hidden_NE: Tensor) -> Tensor:
        return _after_the_head(config, head(norm(hidden_NE)))

    hidden_states = [hidden_1NE[0] for hidden_1NE in hidden_states]
    if not _agree(torch.softmax(to_logits(hidden_states[-1]).float(), -1), torch.softmax(logits_NV.float(), -1)):
        raise ValueError(f"{trouble} its output layer to give its logits, but more happens to them")
    return to_logits, hidden_states, logits_NV


def _agree(*tensors: Tensor) -> bool:
    """Whether these are two tensors, equal up to rounding."""
    shapes = {tensor.shape for tensor in tensors}
    return len(tensors) == 2 and len(shapes) == 1 and torch.allclose(*tensors, atol=TOLERANCE, rtol=TOLERANCE)


def _after_the_head(config: Any, logits: Tensor) -> Tensor:
    """What some architectures do to their logits: a factor (Cohere), a divisor (Granite), a soft limit (Gemma)."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def _final_norm(base: nn.Module) -> nn.Module | None:
    for owner in (base, getattr(base, "decoder", None)):
        for name in FINAL_NORMS:
            if isinstance(norm := getattr(owner, name, None), nn.Module):
                return norm
    return None


def _blocks(base: nn.Module, count: int) -> nn.ModuleList | None:
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    return None


def _shared_copy(model: Any) -> Any:
    """A copy with its own modules, hooks and config, and the same weights in memory."""
    weights = {id(weight): weight for weight in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, weights)


def _window(model: Any, ids: Sequence[int]) -> list[int]:
    """The ids that the model sees."""
    return check_ids(model, ids)[-(context_length(model) or len(ids)) :]
