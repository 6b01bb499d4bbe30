"""From the logits of the next token to one drawn token.

The filters follow transformers' order and meaning, so that settings mean here what they mean in `generate`:
repetition penalty, temperature, top-k, top-p, min-p. The draw inverts the cumulative distribution, in the order of the
token ids, at one uniform number from a generator that belongs to one sampler: the same seed gives the same tokens
wherever the logits agree, and nothing touches torch's global generator. All of it runs on the CPU in float32 (sums in
float64), whatever device the logits came from.

Axes: V vocabulary, C candidates (what the filters left, in the order of their ids), R ranks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny

@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How tokens are drawn. A value of the wrong type or out of range is a ValueError that names the field."""

    max_new_tokens: int = 200  # tokens to generate at most; 1 or more
    temperature: float = 1.0  # logits are divided by it; 0 takes the most likely token each time (greedy)
    top_k: int = 0  # keep the k most likely tokens, and those tied with the last of them; 0 keeps all
    top_p: float = 1.0  # keep the fewest most likely tokens that hold this much probability; 1 keeps all
    min_p: float = 0.0  # drop tokens with less than this fraction of the most likely token's probability; 0 keeps all
    repetition_penalty: float = 1.0  # divides the logits of tokens seen before, multiplies negative ones; 1 is off
    seed: int | None = None  # 0 to 2**63 - 1; None takes a fresh one for every sampler

    def __post_init__(self) -> None:
        self._check("max_new_tokens", "a whole number, 1 or more", whole=True, least=1)
        self._check("temperature", "a number, 0 (greedy) or more")
        self._check("top_k", "a whole number, 0 (keeps all) or more", whole=True)
        self._check("top_p", "a number from 0 to 1 (keeps all)", most=1)
        self._check("min_p", "a number from 0 (keeps all) to 1", most=1)
        self._check("repetition_penalty", "a number above 0 (1 is off)", least=math.ulp(0.0))
        if self.seed is not None:
            self._check("seed", "a whole number from 0 to 2**63 - 1, or None", whole=True, most=2**63 - 1)

    def _check(self, name: str, expected: str, whole: bool = False, least: float = 0, most: float = math.inf) -> None:
        value = getattr(self, name)
        right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right_type or not (least <= value <= most and math.isfinite(value)):
            raise ValueError(f"{name}: expected {expected}, got {value!r}")


class Alternative(NamedTuple):
    """A token that could have come here, with its probability under the model and after the sampler."""

    token_id: int
    model_probability: float  # softmax of the logits as they came
    probability: float  # what the sampler would draw it with; 0 where a filter dropped it


class Draw(NamedTuple):
    """One drawn token."""

    token_id: int
    model_probability: float  # softmax of the logits as they came
    probability: float  # what the sampler drew it with; 1 when greedy
    kept: int  # tokens that the filters left to draw from
    alternatives: tuple[Alternative, ...]  # the likeliest under the model, in that order


class Sampler:
    """Draws tokens under `settings`, one generator and one record of seen tokens for one text.

    `seen_ids` are the tokens of the prompt, all below `vocab_size`: they count for the repetition penalty, as every
    drawn token does afterwards.
    """

    def __init__(self, settings: SamplingSettings, seen_ids: Iterable[int], vocab_size: int) -> None:
        self.settings = settings
        self.generator = torch.Generator()
        if settings.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(settings.seed)
        self._penalised = settings.repetition_penalty != 1
        self._is_seen_V = torch.zeros(vocab_size if self._penalised else 0, dtype=torch.bool)
        if self._penalised:
            self._is_seen_V[list(set(seen_ids))] = True

    def draw(self, logits_V: Tensor, *, alternatives: int = 0) -> Draw:
        """Draw the next token from logits of any float type and device.

        `alternatives` asks for that many of the model's likeliest tokens beside it. NaN or plus infinity among the
        logits is a ValueError; minus infinity is a token that cannot come.
        """
        logits_V = logits_V.detach().to("cpu", torch.float32)
        model_V = torch.softmax(logits_V, -1)
        if math.isnan(model_V[0].item()):
            raise ValueError(
                "no token can be drawn: expected finite logits, got NaN or infinity; the weights are broken, as "
                "after a diverged training run: load an earlier checkpoint"
            )
        ids_C, probability_C = self._filter(logits_V, model_V)
        if self.settings.temperature == 0:
            index, probability = 0, 1.0
        else:
            index, probability = self._invert(probability_C)
        token_id = index if ids_C is None else int(ids_C[index])
        if self._penalised:
            self._is_seen_V[token_id] = True
        return Draw(
            token_id,
            model_V[token_id].item(),
            probability,
            len(probability_C),
            _alternatives(model_V, ids_C, probability_C, alternatives) if alternatives else (),
        )

    def distribution(self, logits_V: Tensor) -> Tensor:
        """The probabilities (V, float32, on the CPU) that `draw` would draw from; the logits must be finite."""
        logits_V = logits_V.detach().to("cpu", torch.float32)
        ids_C, probability_C = self._filter(logits_V, torch.softmax(logits_V, -1))
        return _spread(ids_C, probability_C, len(logits_V))

    def _filter(self, logits_V: Tensor, model_V: Tensor) -> tuple[Tensor | None, Tensor]:
        """Ids (None: the whole vocabulary) and probabilities of the candidates."""
        settings = self.settings
        scores = logits_V
        if self._penalised:
            penalty = settings.repetition_penalty
            penalised_V = torch.where(scores < 0, scores * penalty, scores / penalty)
            scores = torch.where(self._is_seen_V, penalised_V, scores)
        if settings.temperature == 0:
            return torch.argmax(scores, 0, keepdim=True), torch.ones(1)
        if settings.temperature != 1:
            # From the maximum, and by no less than the smallest float32, nothing overflows.
            scores = (scores - scores.max()).div_(max(settings.temperature, SMALLEST))
        ids = None
        if 0 < settings.top_k < len(scores):
            ids = _top_k(scores, settings.top_k)
            scores = scores[ids]
        probability = model_V if scores is logits_V else torch.softmax(scores, -1)
        if settings.top_p < 1:
            ids, probability = _keep(ids, probability, _top_p(probability, settings.top_p))
        if settings.min_p > 0:
            stays = probability >= settings.min_p * probability.max()
            ids, probability = _keep(ids, probability, torch.nonzero(stays).flatten())
        return ids, probability

    def _invert(self, probability_C: Tensor) -> tuple[int, float]:
        """The index at which the cumulative distribution passes a uniform number, and its probability."""
        cumulative_C = torch.cumsum(probability_C, 0, dtype=torch.float64)
        total = cumulative_C[-1].item()
        uniform = torch.rand((), generator=self.generator, dtype=torch.float64).item()
        target = min(uniform * total, math.nextafter(total, 0.0))
        index = int(torch.searchsorted(cumulative_C, target, right=True))
        return index, probability_C[index].item() / total


def _top_k(scores_V: Tensor, k: int) -> Tensor:
    """Ids, ascending, of the k highest scores and of all that tie with the last of them."""
    best_R, ids_R = torch.topk(scores_V, k + 1)
    if best_R[k] < best_R[k - 1]:
        return ids_R[:k].sort().values
    return torch.nonzero(scores_V >= best_R[k - 1]).flatten()


def _top_p(probability_C: Tensor, top_p: float) -> Tensor:
    """Which candidates stay, ascending: all but the unlikeliest whose probabilities add up to at most 1 - top_p.

    Candidates below half of (1 - top_p) / C cannot add up to that much: they go first, unsorted.
    """
    to_lose = 1 - top_p
    index = torch.nonzero(probability_C >= to_lose / (2 * len(probability_C))).flatten()
    ascending, order = torch.sort(probability_C[index], stable=True)
    lost = torch.cumsum(ascending, 0, dtype=torch.float64)
    lost += 1 - lost[-1].item()
    first = min(int(torch.searchsorted(lost, to_lose, right=True)), len(index) - 1)
    return index[order[first:].sort().values]


def _keep(ids_C: Tensor | None, probability_C: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates at `index`, with their probabilities scaled to add up to 1."""
    probability = probability_C[index]
    return index if ids_C is None else ids_C[index], probability / probability.sum()


def _spread(ids_C: Tensor | None, probability_C: Tensor, vocab_size: int) -> Tensor:
    """Candidates' probabilities over the whole vocabulary, 0 where none is."""
    return probability_C if ids_C is None else torch.zeros(vocab_size).index_copy_(0, ids_C, probability_C)


def _alternatives(model_V: Tensor, ids_C: Tensor | None, probability_C: Tensor, count: int) -> tuple[Alternative, ...]:
    model_R, ids_R = torch.topk(model_V, min(count, len(model_V)))
    after_R = _spread(ids_C, probability_C, len(model_V))[ids_R]
    return tuple(map(Alternative, ids_R.tolist(), model_R.tolist(), after_R.tolist()))
