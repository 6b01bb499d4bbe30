"""Looking into a causal language model of transformers: what it expects, layer by layer, and where it looks.

Everything works through the model's own forward. Where a call needs the model otherwise (attention written out, a look
at what a layer is given), it asks a twin: the same weights in modules of its own, so that nothing ever changes for
those who use the model meanwhile in other threads.

Axes: N tokens of this pass, V vocabulary, H query heads, Q queries, K keys.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modeling.generation import PREFILL_CHUNK, CacheReader, StoppedError, cache_argument, check_ids
from modeling.loading import context_length

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "layer_norm", "ln_out", "final_norm")
"""What the architectures of transformers call the normalisation before their output layer."""
TOLERANCE = 0.01
"""By how much numbers may differ from the model's own, absolutely or relatively, before they count as wrong."""


class Guess(NamedTuple):
    """A token that a model expects."""

    token_id: int
    probability: float  # softmax over the whole vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Surprise:
    """How well a token of a text was foreseen; None in all three where nothing stands before it."""

    token_id: int
    bits: float | None  # -log2 of its probability, given what stands before it; infinite where that is 0
    rank: int | None  # 1: the model held no token for likelier
    likeliest: Guess | None  # what the model expected most


def next_token_logits(model: Any, ids: Sequence[int]) -> Tensor:
    """Logits (V, float32, on the CPU) of the token after `ids`, of which the model sees the last context length.

    Raises:
        ValueError: for no ids, or one outside the vocabulary.
    """
    window = _window(model, ids)
    reader = CacheReader(model)
    chunk = PREFILL_CHUNK if reader.reads_in_chunks else len(window)
    with torch.inference_mode():
        for start in range(0, len(window), chunk):
            logits_V = reader.read(window[start : start + chunk])
    return logits_V.float().cpu()


@torch.no_grad()
def surprises(model: Any, ids: Sequence[int], *, should_stop: Callable[[], bool] | None = None) -> list[Surprise]:
    """How surprising each of `ids` is, given those before it. The first, before which nothing stands, is not scored:
    put a beginning-of-text token there to have a whole text scored.

    A text longer than the context is read in windows, each beginning half a context before the tokens that it scores,
    as `python -m train.evaluate` reads it. `should_stop` is asked after every pass of the model.

    Raises:
        ValueError: for no ids, one outside the vocabulary, or a model that gives no numbers.
        StoppedError: when `should_stop()`.
    """
    ids = check_ids(model, ids)
    context = max(2, context_length(model) or len(ids))
    found = [Surprise(token_id=ids[0], bits=None, rank=None, likeliest=None)]
    while len(found) < len(ids):
        start = 0 if len(found) == 1 else max(0, len(found) - context // 2)
        position = start + 1
        for logits_NV in _logits(model, ids[start : start + context - 1]):
            behind = max(0, len(found) - position)
            position += len(logits_NV)
            targets = ids[len(found) : position]
            found += _scored(logits_NV[behind : behind + len(targets)], targets)
            if should_stop is not None and should_stop():
                raise StoppedError
    return found


@torch.no_grad()
def logit_lens(model: Any, ids: Sequence[int], top: int = 5, *, last: int | None = None) -> list[list[list[Guess]]]:
    """What the model would say after each layer, were it the last one: [layer][position] the `top` likeliest next
    tokens (nostalgebraist, "interpreting GPT: the logit lens", 2020).

    The final normalisation and the output layer are applied to each hidden state. Layer 0 is the input of the first
    block; the last layer is the model's real output.

    Args:
        ids: at most the last context length of them is read.
        last: how many of the last positions to look at; None: all.

    Raises:
        ValueError: for no ids, one outside the vocabulary, `top` or `last` below 1, or a model whose output is not made
            of its last hidden state in a way known here.
    """
    if top < 1 or (last is not None and last < 1):
        raise ValueError(f"top and last: expected whole numbers, 1 or more, got {top} and {last}")
    window = _window(model, ids)
    to_logits, hidden_states, logits_NV = _through_the_head(model, window)
    shown = slice(None if last is None else -last, None)
    rows = [_guesses(to_logits(hidden_NE[shown]), top) for hidden_NE in hidden_states[:-1]]
    return [*rows, _guesses(logits_NV[shown], top)]


@torch.no_grad()
def attention(model: Any, ids: Sequence[int]) -> Tensor:
    """Attention weights (layers, H, Q, K), float32 on the CPU: how much each token takes from itself and those before.

    At most the last context length of `ids` is read. Works for masked language models too.

    Raises:
        ValueError: for no ids, one outside the vocabulary, or a model that has no attention to show.
    """
    window = _window(model, ids)
    twin = _twin(model)
    nothing = f"{type(model).__name__} shows no attention: expected a model whose layers attend, and can say how"
    try:
        twin.set_attn_implementation("eager")
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(nothing) from error
    outputs = _forward(twin, window, output_attentions=True)
    weights = [
        weights_1HQK[0] for weights_1HQK in getattr(outputs, "attentions", None) or () if weights_1HQK is not None
    ]
    if not weights or len({weights_HQK.shape for weights_HQK in weights}) > 1:
        raise ValueError(nothing)
    return torch.stack(weights).float().cpu()


def _scored(logits_NV: Tensor, targets: list[int]) -> list[Surprise]:
    if not targets:
        return []
    log_NV = torch.log_softmax(logits_NV.float(), -1)
    if bool(torch.isnan(log_NV[:, 0]).any()):
        raise ValueError("expected finite logits, got NaN or infinity: the weights are broken; load other ones")
    log_N1 = log_NV.gather(1, torch.tensor(targets, device=log_NV.device)[:, None])
    best = log_NV.max(-1)
    ranks = (log_NV > log_N1).sum(-1) + 1
    columns = (log_N1[:, 0].tolist(), ranks.tolist(), best.indices.tolist(), best.values.exp().tolist())
    return [
        Surprise(token_id=token, bits=max(0.0, -value / math.log(2)), rank=rank, likeliest=Guess(likeliest, share))
        for token, value, rank, likeliest, share in zip(targets, *columns, strict=True)
    ]


def _guesses(logits_NV: Tensor, top: int) -> list[list[Guess]]:
    best = torch.softmax(logits_NV.float(), -1).topk(min(top, logits_NV.shape[-1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[Guess(*pair) for pair in zip(ids, values, strict=True)] for ids, values in rows]


def _logits(model: Any, ids: list[int]) -> Iterator[Tensor]:
    """Logits (N, V) of what comes after each of `ids`, some tokens at a time where the model can go on from a cache:
    those of a whole text would be large."""
    if len(ids) <= PREFILL_CHUNK or model._is_stateful or cache_argument(model) is None:
        yield _forward(model, ids).logits[0]
        return
    reader = CacheReader(model)
    for start in range(0, len(ids), PREFILL_CHUNK):
        yield reader.read_all(ids[start : start + PREFILL_CHUNK])


def _forward(model: Any, ids: list[int], **options: Any) -> Any:
    """The model's outputs for one text, without a cache unless asked for one."""
    if "use_cache" in inspect.signature(model.forward).parameters:
        options = {"use_cache": False, **options}
    return model(input_ids=torch.tensor([ids], device=model.device), return_dict=True, **options)


def _through_the_head(model: Any, ids: list[int]) -> tuple[Callable[[Tensor], Tensor], list[Tensor], Tensor]:
    """From hidden states to logits, the hidden states (N, E) before the first and after each block, and the model's own
    logits (N, V)."""
    twin, config = _twin(model), model.config.get_text_config(decoder=True)
    trouble = f"no logit lens for {type(model).__name__}: expected"
    head, blocks = twin.get_output_embeddings(), _blocks(twin.base_model, config.num_hidden_layers)
    if head is None or blocks is None:
        raise ValueError(f"{trouble} a list of {config.num_hidden_layers} blocks and an output layer, found none")
    norm: Callable[[Tensor], Tensor] = _final_norm(twin.base_model) or nn.Identity()
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
    logits_NV = _forward(twin, ids).logits[0]
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
    """Whether two tensors are there and the same but for rounding."""
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


def _twin(model: Any) -> Any:
    """The model again, with modules, hooks and a config of its own but the same weights in memory."""
    weights = {id(weight): weight for weight in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, weights)


def _window(model: Any, ids: Sequence[int]) -> list[int]:
    """The ids that the model sees."""
    return check_ids(model, ids)[-(context_length(model) or len(ids)) :]
