# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false
"""From the logits of the next token to one drawn token.

The filters follow transformers' order and meaning, so that settings mean here what they mean in `generate`:
repetition penalty, temperature, top-k, top-p, min-p, typical. Top-k, top-p and min-p keep the likeliest tokens up to
some rank, so they look at a few ranks and never sort the vocabulary. The draw inverts the cumulative distribution
at one uniform number from a generator that belongs to one sampler: the same seed gives the same tokens wherever the
logits agree, and nothing touches torch's global generator. All of it runs on the CPU in float32 (sums in float64),
whatever device the logits came from.

Axes: V vocabulary, R ranks (the likeliest first), C candidates (what the filters left).
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from modeling.sampling_settings import SamplingSettings

SMALLEST = torch.finfo(torch.float32).tiny
CERTAIN = torch.ones(1)
FEW_RANKS = 256


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
    uniform: float | None = None  # the random number, from 0 to below 1, that chose it; None when greedy


class Candidates(NamedTuple):
    """Tokens to draw from: the first `size` of these."""

    ids: Tensor | None  # (R); None: every token of the vocabulary in its order
    probability: Tensor  # (R), up to a common factor
    cumulative: Tensor  # (R), the running sum of `probability`, float64
    size: int

    @property
    def total(self) -> float:
        """What the candidates' probabilities add up to."""
        return self.cumulative[self.size - 1].item()


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
        candidates = self._candidates(logits_V, model_V)
        token_id, probability, uniform = self._invert(candidates)
        if self._penalised:
            self._is_seen_V[token_id] = True
        return Draw(
            token_id,
            model_V[token_id].item(),
            probability,
            candidates.size,
            _alternatives(model_V, candidates, alternatives) if alternatives else (),
            uniform,
        )

    def distribution(self, logits_V: Tensor) -> Tensor:
        """The probabilities (V, float32, on the CPU) that `draw` would draw from; the logits must be finite."""
        logits_V = logits_V.detach().to("cpu", torch.float32)
        return _spread(self._candidates(logits_V, torch.softmax(logits_V, -1)), len(logits_V))

    def candidates(self, logits_V: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens that `draw` would draw from, ids and probabilities (C), in the order in which it takes them: the
        token that it draws is the first at which the running sum of the probabilities passes `Draw.uniform`."""
        logits_V = logits_V.detach().to("cpu", torch.float32)
        found = self._candidates(logits_V, torch.softmax(logits_V, -1))
        ids_C = torch.arange(found.size) if found.ids is None else found.ids[: found.size]
        return ids_C, found.probability[: found.size] / found.total

    def _candidates(self, logits_V: Tensor, model_V: Tensor) -> Candidates:
        """What the settings leave of the model's distribution."""
        candidates = self._likeliest(logits_V, model_V)
        return self._typical(candidates) if self.settings.typical_p < 1 and candidates.size > 1 else candidates

    def _likeliest(self, logits_V: Tensor, model_V: Tensor) -> Candidates:
        """What all settings but the typical share leave."""
        settings, scores_V = self.settings, logits_V
        if self._penalised:
            penalty = settings.repetition_penalty
            penalised_V = torch.where(scores_V < 0, scores_V * penalty, scores_V / penalty)
            scores_V = torch.where(self._is_seen_V, penalised_V, scores_V)
        if settings.temperature == 0:
            return Candidates(torch.argmax(scores_V, 0, keepdim=True), CERTAIN, CERTAIN, 1)
        if 0 < settings.top_k < len(scores_V):
            scores_R, ids_R = _top_k(scores_V, settings.top_k)
            return self._cut(ids_R, torch.softmax(self._cooled(scores_R), -1))
        scores_V = self._cooled(scores_V)
        probability_V = model_V if scores_V is logits_V else torch.softmax(scores_V, -1)
        if settings.top_p == 1 and settings.min_p == 0:
            cumulative_V = torch.cumsum(probability_V, 0, dtype=torch.float64)
            return Candidates(None, probability_V, cumulative_V, len(probability_V))
        # Top-p and min-p keep the first so many ranks: look at a few, and at more while the cut is not among them.
        ranks = FEW_RANKS
        while True:
            probability_R, ids_R = torch.topk(probability_V, min(ranks, len(probability_V)))
            candidates = self._cut(ids_R, probability_R)
            if candidates.size < len(ids_R) or len(ids_R) == len(probability_V):
                return candidates
            ranks *= 8

    def _cooled(self, scores: Tensor) -> Tensor:
        """Scores over the temperature; from their maximum, and by no less than the smallest float32: no overflow."""
        if self.settings.temperature == 1:
            return scores
        return (scores - scores.max()).div_(max(self.settings.temperature, SMALLEST))

    def _cut(self, ids_R: Tensor, probability_R: Tensor) -> Candidates:
        """The ranks that top-p and then min-p keep, from probabilities in falling order.

        Top-p drops the unlikeliest tokens that add up to at most 1 - top_p: those from which on the likelier ones add
        up to top_p already.
        """
        cumulative_R = torch.cumsum(probability_R, 0, dtype=torch.float64)
        count = len(ids_R)
        if self.settings.top_p < 1:
            count = min(count, int(torch.searchsorted(cumulative_R, self.settings.top_p)) + 1)
        if self.settings.min_p > 0:
            count = min(count, int((probability_R >= self.settings.min_p * probability_R[0]).sum()))
        return Candidates(ids_R, probability_R, cumulative_R, count)

    def _typical(self, candidates: Candidates) -> Candidates:
        """The candidates whose surprisal is nearest the entropy, up to the share `typical_p`, and those as near as the
        last of them (Meister et al., "Locally Typical Sampling", 2022)."""
        probability_C = candidates.probability[: candidates.size]
        share_C = probability_C.double() / candidates.total
        surprisal_C = -share_C.log()
        distance_C = (surprisal_C - (share_C * surprisal_C).nansum()).abs()
        nearest_C, order_C = distance_C.sort()
        count = int((share_C[order_C].cumsum(0) < self.settings.typical_p).sum())
        kept_C = (distance_C <= nearest_C[min(count, len(nearest_C) - 1)]).nonzero()[:, 0]
        probability_C = probability_C[kept_C]
        ids_C = kept_C if candidates.ids is None else candidates.ids[kept_C]
        return Candidates(ids_C, probability_C, torch.cumsum(probability_C, 0, dtype=torch.float64), len(ids_C))

    def _invert(self, candidates: Candidates) -> tuple[int, float, float | None]:
        """The token at which the cumulative distribution passes a uniform number, its probability, and that number.

        Each token uses up one number, so that the n-th tokens of two texts with one seed share theirs.
        """
        if self.settings.temperature == 0 and candidates.ids is not None:
            return int(candidates.ids), 1.0, None
        total = candidates.total
        uniform = torch.rand((), generator=self.generator, dtype=torch.float64).item()
        target = min(uniform * total, math.nextafter(total, 0.0))
        index = int(torch.searchsorted(candidates.cumulative, target, right=True))
        token_id = index if candidates.ids is None else int(candidates.ids[index])
        return token_id, candidates.probability[index].item() / total, uniform


def _top_k(scores_V: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and ids, in falling order, of the k highest scores and of all that tie with the last of them."""
    scores_R, ids_R = torch.topk(scores_V, k + 1)
    if scores_R[k].item() < scores_R[k - 1].item():
        return scores_R[:k], ids_R[:k]
    with_ties = torch.topk(scores_V, int((scores_V >= scores_R[k - 1]).sum()))
    return with_ties.values, with_ties.indices


def _spread(candidates: Candidates, vocab_size: int) -> Tensor:
    """The candidates' probabilities over the vocabulary, 0 for the others."""
    probability_C = candidates.probability[: candidates.size] / candidates.total
    if candidates.ids is None:
        return probability_C
    return torch.zeros(vocab_size).index_copy_(0, candidates.ids[: candidates.size], probability_C)


def _alternatives(model_V: Tensor, candidates: Candidates, count: int) -> tuple[Alternative, ...]:
    model_R, ids_R = torch.topk(model_V, min(count, len(model_V)))
    after_R = _spread(candidates, len(model_V))[ids_R]
    return tuple(map(Alternative, ids_R.tolist(), model_R.tolist(), after_R.tolist()))
