"""How tokens are drawn: the settings of `modeling.sampling`, checked without importing torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How tokens are drawn. A value of the wrong type or out of range is a ValueError that names the field."""

    max_new_tokens: int = 200  # tokens to generate at most; 1 or more
    temperature: float = 1.0  # logits are divided by it; 0 takes the most likely token each time (greedy)
    top_k: int = 0  # keep the k most likely tokens, and those tied with the last of them; 0 keeps all
    top_p: float = 1.0  # keep the fewest most likely tokens that hold this much probability; 1 keeps all
    min_p: float = 0.0  # drop tokens with less than this fraction of the most likely token's probability; 0 keeps all
    typical_p: float = 1.0  # keep the tokens whose surprisal is nearest the entropy, to this share; 1 keeps all
    repetition_penalty: float = 1.0  # divides the logits of tokens seen before, multiplies negative ones; 1 is off
    seed: int | None = None  # 0 to 2**63 - 1; None takes a fresh one for every sampler

    def __post_init__(self) -> None:
        self._check("max_new_tokens", "a whole number, 1 or more", whole=True, least=1)
        self._check("temperature", "a number, 0 (greedy) or more")
        self._check("top_k", "a whole number, 0 (keeps all) or more", whole=True)
        self._check("top_p", "a number from 0 to 1 (keeps all)", most=1)
        self._check("min_p", "a number from 0 (keeps all) to 1", most=1)
        self._check("typical_p", "a number from 0.001 to 1 (keeps all)", least=0.001, most=1)
        self._check("repetition_penalty", "a number from 0.01 to 100 (1 is off)", least=0.01, most=100)
        if self.seed is not None:
            self._check("seed", "a whole number from 0 to 2**63 - 1, or None", whole=True, most=2**63 - 1)

    def _check(self, name: str, expected: str, whole: bool = False, least: float = 0, most: float = math.inf) -> None:
        value = getattr(self, name)
        right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right_type or not (least <= value <= most and math.isfinite(value)):
            raise ValueError(f"{name}: expected {expected}, got {value!r}")
