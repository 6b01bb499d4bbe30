"""The sampling controls, once, for the page's sliders, the API's defaults, the terminal and its flags."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Any

from modeling.sampling_settings import SamplingSettings


@dataclass(frozen=True, slots=True)
class Control:
    """One sampling setting as people see it."""

    name: str  # the field of SamplingSettings
    label: str
    info: str  # one line that says what it does
    hint: str  # the same in the few words that fit beside a slider
    default: float
    minimum: float  # of the slider; the settings themselves accept all that makes sense
    maximum: float
    step: float

    @property
    def kind(self) -> type[int] | type[float]:
        """int for a count, float for all others."""
        return int if isinstance(self.default, int) else float


CONTROLS = (
    Control(
        "max_new_tokens", "Length",
        "Tokens to write at most", "Tokens to write at most",
        default=200, minimum=1, maximum=1000, step=1,
    ),
    Control(
        "temperature", "Temperature",
        "Divides the logits: low is predictable, high is random, 0 is greedy", "0: greedy. Higher: more random",
        default=0.8, minimum=0.0, maximum=2.0, step=0.05,
    ),
    Control(
        "top_k", "Top-k",
        "Draw from the k most likely tokens. 0: off", "The k most likely tokens. 0: off",
        default=0, minimum=0, maximum=200, step=1,
    ),
    Control(
        "top_p", "Top-p",
        "Nucleus sampling: the most likely tokens that together reach this probability. 1: off",
        "Nucleus: the top tokens up to this total probability. 1: off",
        default=0.95, minimum=0.05, maximum=1.0, step=0.01,
    ),
    Control(
        "min_p", "Min-p",
        "Tokens with at least this fraction of the top token's probability. 0: off",
        "At least this fraction of the top token. 0: off",
        default=0.0, minimum=0.0, maximum=0.5, step=0.01,
    ),
    Control(
        "typical_p", "Typical p",
        "Typical sampling: the tokens whose surprise is nearest the entropy, up to this total probability. 1: off",
        "Typical sampling: surprise nearest the entropy. 1: off",
        default=1.0, minimum=0.05, maximum=1.0, step=0.01,
    ),
    Control(
        "repetition_penalty", "Repetition",
        "Repetition penalty: above 1, tokens that are in the text already become less likely. 1: off",
        "Penalty on tokens already in the text. 1: off",
        default=1.0, minimum=1.0, maximum=2.0, step=0.05,
    ),
)  # fmt: skip
DEFAULTS: dict[str, float] = {control.name: control.default for control in CONTROLS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A manner of drawing tokens, by name."""

    name: str
    info: str  # one line that says what it is for
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0

    @property
    def values(self) -> dict[str, float]:
        """The settings by their names; all that shape the distribution are among them."""
        return {name: getattr(self, name) for name in DEFAULTS if name != "max_new_tokens"}


GREEDY = Preset(name="Greedy", info="Always the most likely token", temperature=0.0)
CAREFUL = Preset(
    name="Careful", info="Likely tokens, few repeats", temperature=0.5, top_p=0.9, repetition_penalty=1.1, top_k=40
)
BALANCED = Preset(name="Balanced", info="The default of the page", temperature=0.8, top_p=0.95)
WILD = Preset(name="Wild", info="Surprising tokens, but not the tail of the distribution", temperature=1.4, min_p=0.05)
NEUTRAL = Preset(name="Neutral", info="The model's own distribution: every setting off", temperature=1.0)
PRESETS = (GREEDY, CAREFUL, BALANCED, WILD, NEUTRAL)
"""In the order of their buttons. Every tab that offers one of them takes it from here."""


def number(name: str, value: Any, kind: type[int] | type[float]) -> Any:
    """`value` as a number of `kind`; a count may come as digits or as a whole float (`40.0`), as forms send it.

    Raises ValueError when it is no number, or no whole one where a count is expected."""
    expected = "a whole number" if kind is int else "a number"
    try:
        if isinstance(value, bool):
            raise ValueError
        if kind is float:
            return float(value)
        if isinstance(value, (int, str)):
            return int(value)
        if float(value).is_integer():
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name}: expected {expected}, got {value!r}.")


def settings_from(*, seed: Any = None, **values: Any) -> SamplingSettings:
    """The settings that a form, a request or a command line asks for; what is missing takes its default.

    `seed` None or "" draws one. Raises ValueError for a value that is no number or out of range."""
    kinds = {control.name: control.kind for control in CONTROLS}
    unknown = sorted(values.keys() - kinds.keys())
    if unknown:
        raise ValueError(f"Unknown setting {unknown[0]!r}. The settings are {', '.join([*kinds, 'seed'])}.")
    chosen = {name: number(name, value, kinds[name]) for name, value in (DEFAULTS | values).items()}
    return SamplingSettings(**chosen, seed=None if seed is None or not str(seed).strip() else number("seed", seed, int))


def stop_text(value: Any) -> str:
    """The text that ends a writing, as people type it on one line: `\\n` is a new line, `\\t` a tab, `\\\\` a
    backslash; None is none.

    Raises ValueError when it is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"stop: expected text, got {value!r}.")
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t", "\\": "\\"}[match[1]], value)


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Add a flag for each setting; one that is not given is None."""
    for control in CONTROLS:
        flag = "--" + control.name.replace("_", "-")
        parser.add_argument(flag, type=control.kind, help=f"{control.info} (default: {control.default})")
    parser.add_argument("--seed", type=int, help="The same seed writes the same text (default: a new one each time)")
    parser.add_argument("--stop", help="The writing ends where this text would come; \\n is a new line (default: none)")


def given_settings(arguments: argparse.Namespace) -> dict[str, float]:
    """The settings whose flags were given."""
    values = {name: getattr(arguments, name) for name in (*DEFAULTS, "seed", "stop")}
    return {name: value for name, value in values.items() if value is not None}
