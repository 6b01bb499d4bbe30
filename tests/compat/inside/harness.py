"""What the checks share: their register, the bundle that they look at, and comparisons that say what they found."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, Cache

CAUSAL = ("modern", "classic")
EVERY = (*CAUSAL, "masked")
TOLERANCE = 1e-5
"""How far two numbers that must be equal may lie apart, as a share of the largest one, or of 1 where all are small."""


class CheckError(Exception):
    """A check did not hold; the message says what was expected and what was found."""


@dataclass(frozen=True)
class Check:
    """A function that raises where something is wrong; `group` is its column in the table."""

    name: str
    group: str
    kinds: tuple[str, ...]
    run: Callable[["Bundle"], None]


CHECKS: list[Check] = []


def check(group: str, *kinds: str) -> Callable[[Callable[["Bundle"], None]], Callable[["Bundle"], None]]:
    """Register a function as a check of the bundles of these kinds; its name is the check's."""

    def register(function: Callable[["Bundle"], None]) -> Callable[["Bundle"], None]:
        CHECKS.append(Check(function.__name__, group, kinds, function))
        return function

    return register


class Bundle:
    """A published folder of one kind, with what the project's own environment computed from it."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch, self.kind = folder, scratch, folder.name
        self.tensors = load_file(folder.with_suffix(".safetensors"))
        self.facts: dict[str, Any] = json.loads(folder.with_suffix(".json").read_text(encoding="utf-8"))
        self.prompts: list[str] = self.facts["prompts"]
        self.new_tokens: int = self.facts["new_tokens"]
        self._texts: dict[tuple, Any] = {}

    @property
    def head(self) -> Any:
        """The Auto class of its head."""
        return AutoModelForMaskedLM if self.kind == "masked" else AutoModelForCausalLM

    def load(self, folder: Path | None = None, auto: Any = None, **options: Any) -> Any:
        """A model, ready to be used, by an Auto class (default: of the head)."""
        return (auto or self.head).from_pretrained(folder or self.folder, trust_remote_code=True, **options).eval()

    @cached_property
    def model(self) -> Any:
        """The model with its head; a check that changes it loads one of its own."""
        return self.load()

    @cached_property
    def tokenizer(self) -> Any:
        """tokenizer.json, which needs none of our code."""
        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)

    @property
    def endless(self) -> dict[str, Any]:
        """What keeps the end-of-text token away. (Some versions refuse `min_new_tokens` beside an assistant.)"""
        return {"suppress_tokens": [self.facts["special_ids"]["eos_token_id"]]}

    def prompt_ids(self, number: int = 0) -> torch.Tensor:
        """The ids (1, L) of a prompt."""
        return torch.tensor([self.facts["prompt_ids"][number]])

    def generate(self, ids: torch.Tensor, model: Any = None, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids (B, L) with `new_tokens` more, and the logits (B, new_tokens, V) that each was drawn from."""
        settings = {"max_new_tokens": self.new_tokens, "do_sample": False} | self.endless
        settings |= {"attention_mask": torch.ones_like(ids)} | options
        written = (model or self.model).generate(ids, return_dict_in_generate=True, output_logits=True, **settings)
        logits = getattr(written, "logits", None)
        return written.sequences, torch.stack(logits, dim=1) if logits else torch.empty(0)

    def uncached(self, number: int = 0, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What `generate` gives without a cache for a prompt; it is computed once, with the same seed."""
        key = (number, *sorted(options.items()))
        if key not in self._texts:
            torch.manual_seed(0)
            self._texts[key] = self.generate(self.prompt_ids(number), use_cache=False, **options)
        return self._texts[key]


def expect(holds: object, otherwise: str) -> None:
    """Raise a CheckError that says `otherwise` unless `holds`."""
    if not holds:
        raise CheckError(otherwise)


def expect_close(got: torch.Tensor, expected: torch.Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Raise a CheckError unless two tensors are equal within the tolerance; infinite values must be the same."""
    expect(got.shape == expected.shape, f"{what}: expected the shape {list(expected.shape)}, got {list(got.shape)}")
    got, expected = got.detach().double(), expected.detach().double()
    finite = torch.isfinite(expected)
    expect(torch.equal(finite, torch.isfinite(got)), f"{what}: other values are infinite or not numbers")
    scale = max(1.0, expected[finite].abs().max().item()) if finite.any() else 1.0
    away = (got[finite] - expected[finite]).abs().max().item() if finite.any() else 0.0
    expect(away <= tolerance * scale, f"{what} differ by up to {away:.2g} (values up to {scale:.2g})")


def expect_same_text(got: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Raise a CheckError unless two results of `Bundle.generate` have the same ids and the same logits."""
    expect_close(got[1], expected[1], "logits of the new tokens", tolerance=3e-5)
    expect(torch.equal(got[0], expected[0]), f"expected the tokens {expected[0].tolist()}, got {got[0].tolist()}")


def expect_error(call: Callable[[], Any], kinds: tuple[type[Exception], ...], *words: str) -> None:
    """Raise a CheckError unless `call` raises an error of these kinds whose message has all these words."""
    try:
        call()
    except kinds as error:
        missing = [word for word in words if word not in str(error)]
        expect(not missing, f"expected a message with {missing[:1]}, got {type(error).__name__}: {error}")
        return
    except Exception as error:
        raise CheckError(f"expected a {kinds[0].__name__}, got {type(error).__name__}: {error}") from error
    raise CheckError(f"expected a {kinds[0].__name__} with {list(words)}, but there was no error")


def cache_of(outputs: Any) -> Cache:
    """The cache among a model's outputs, whatever the field is called."""
    found = [value for value in dict(outputs).values() if isinstance(value, Cache)]
    expect(len(found) == 1, f"expected one cache among the outputs, got {len(found)}")
    return found[0]


def remote_module(model_or_config: Any) -> Any:
    """The module of a class that came from a bundle's own code."""
    module = sys.modules[type(model_or_config).__module__]
    expect(module.__name__.startswith("transformers_modules."), f"expected the bundle's own code, got {module}")
    return module
