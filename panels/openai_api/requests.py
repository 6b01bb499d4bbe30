"""What a request asks for: the fields of OpenAI's JSON, and ours beside them, each checked when it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from panels.sampling import CONTROLS, DEFAULTS
from storage.text import replace_surrogates

CHOICES_LIMIT = 32
"""Texts that one request may ask for."""
LOGPROBS_LIMIT = 100
"""Alternatives to each token that a request may ask for."""
STOPS_LIMIT = 32
"""Stop texts that a request may give; OpenAI takes 4, front-ends send more."""
COMPLETION_TOKENS = 16
"""Tokens of a completion when a request does not say, as OpenAI has it."""
SAMPLER = {
    **{name: value for name, value in DEFAULTS.items() if name != "max_new_tokens"},
    "temperature": 1,
    "top_p": 1,
}
"""The settings of the sampler by their names here and in a request, and their defaults: OpenAI's."""
NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "suffix": "", "best_of": 1,
    "tools": [], "functions": [], "response_format": {"type": "text"},
}  # fmt: skip
"""Fields of OpenAI that change the text and are not offered, with the only value that may come: the one without
effect."""
WITHOUT_EFFECT = ("user", "metadata", "store")
"""Fields of OpenAI that never change the text."""


class FieldError(ValueError):
    """A field of a request that is wrong."""

    def __init__(self, name: str | None, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """What is asked for: texts that continue prompts, or an answer in a chat."""

    prompts: tuple[str | tuple[int, ...], ...] = ()  # texts or token ids; none in a chat
    messages: tuple[Message, ...] = ()  # of a chat
    is_chat: bool = False
    model: str | None = None  # None: whichever there is
    max_tokens: int
    sampler: dict[str, Any] = field(default_factory=dict)  # by the names of SamplingSettings
    seed: int | None = None
    stops: tuple[str, ...] = ()
    count: int = 1  # texts for each prompt
    echo: bool = False  # the prompt comes first
    logprobs: int | None = None  # alternatives to each token; None: no log probabilities at all
    stream: bool = False
    with_usage: bool = False  # counts at the end of a stream
    ignored: tuple[str, ...] = ()  # fields that are unknown here


def read_completion(body: Any) -> TextRequest:
    """A request to `/v1/completions`. Raises FieldError for a wrong field."""
    fields = Fields(body)
    prompts = read_prompts(fields.take("prompt", "a text, token ids, or a list of these", lambda value: True, ""))
    echo = fields.flag("echo")
    logprobs = fields.take(
        "logprobs", f"a whole number from 0 to {LOGPROBS_LIMIT}", lambda value: is_whole(value, 0, LOGPROBS_LIMIT)
    )
    least = 0 if echo else 1
    max_tokens = fields.whole("max_tokens", least, COMPLETION_TOKENS)
    return TextRequest(
        prompts=prompts, echo=echo, logprobs=logprobs, max_tokens=max_tokens, **read_common(fields, len(prompts))
    )


def read_chat(body: Any) -> TextRequest:
    """A request to `/v1/chat/completions`. Raises FieldError for a wrong field."""
    fields = Fields(body)
    messages = read_messages(fields.take("messages", "a list of messages", lambda value: isinstance(value, list)))
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", 0, 0, LOGPROBS_LIMIT)
    named = fields.whole("max_tokens", 1, int(DEFAULTS["max_new_tokens"]))
    return TextRequest(
        messages=messages,
        is_chat=True,
        logprobs=top if wanted else None,
        max_tokens=fields.whole("max_completion_tokens", 1, named),
        **read_common(fields, 1),
    )


def read_common(fields: Fields, prompts: int) -> dict[str, Any]:
    """What both kinds of requests may have; what is left in `fields` then is unknown."""
    kinds = {control.name: control.kind for control in CONTROLS}
    sampler = {name: fields.number(name, kinds[name], default) for name, default in SAMPLER.items()}
    if sampler["top_k"] == -1:  # some programs' way to switch it off
        sampler["top_k"] = 0
    options = fields.take("stream_options", "an object", lambda value: isinstance(value, dict), {})
    found = {
        "model": fields.take("model", "a text", lambda value: isinstance(value, str)) or None,
        "sampler": sampler,
        "seed": fields.take(
            "seed",
            "a whole number from 0 to 2**63 - 1 (-1: a random one)",
            lambda value: is_whole(value, -1, 2**63 - 1),
        ),
        "stops": read_stops(fields.take("stop", "a text or a list of texts", lambda value: True, ())),
        "count": fields.whole("n", 1, 1, CHOICES_LIMIT),
        "stream": fields.flag("stream"),
        "with_usage": Fields(options, "stream_options.").flag("include_usage"),
    }
    found["seed"] = None if found["seed"] == -1 else found["seed"]
    if prompts * found["count"] > CHOICES_LIMIT:
        raise FieldError(
            "n",
            f"n: expected at most {CHOICES_LIMIT} texts in one request, got {prompts} prompts and n {found['count']}.",
        )
    for name, neutral in NEUTRAL.items():
        value = fields.take(name, "nothing", lambda value: True)
        if value not in (None, neutral, *((found["count"],) if name == "best_of" else ())):
            advice = " repetition_penalty is offered." if name.endswith("penalty") else ""
            raise FieldError(
                name, f"{name}: not offered here; expected {neutral!r} or nothing, got {shown(value)}.{advice}"
            )
    for name in WITHOUT_EFFECT:
        fields.take(name, "", lambda value: True)
    return found | {"ignored": fields.left()}


def read_prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """One prompt or several, each a text or token ids. Raises FieldError for anything else."""
    expected = "prompt: expected a text, a list of token ids, or a list of texts or of such lists"
    if isinstance(value, str):
        return (replace_surrogates(value),)
    if not isinstance(value, list):
        raise FieldError("prompt", f"{expected}, got {shown(value)}.")
    if not value:
        raise FieldError("prompt", f'{expected}, got an empty list. An empty text, "", lets the model begin.')
    if is_ids(value):
        return (tuple(value),)
    if wrong := [each for each in value if not isinstance(each, str) and not is_ids(each)]:
        found = next((each for each in wrong if not is_whole(each, 0)), wrong[0])  # first what is no id
        raise FieldError(
            "prompt",
            f"{expected}, got a list with {shown(found)}. Token ids are whole numbers, 0 or more; give those of one "
            "prompt as a list of their own, without texts or lists in it.",
        )
    if len(value) > CHOICES_LIMIT:
        raise FieldError("prompt", f"prompt: expected at most {CHOICES_LIMIT} texts in one request, got {len(value)}.")
    return tuple(replace_surrogates(each) if isinstance(each, str) else tuple(each) for each in value)


def read_stops(value: Any) -> tuple[str, ...]:
    """The stop texts; an empty one stops nothing. Raises FieldError for what is no text, and for too many."""
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) for stop in stops):
        raise FieldError("stop", f"stop: expected a text or a list of texts, got {shown(value)}.")
    if len(stops) > STOPS_LIMIT:
        raise FieldError("stop", f"stop: expected at most {STOPS_LIMIT} texts, got {len(stops)}.")
    return tuple(filter(None, stops))


def read_messages(value: list[Any] | None) -> tuple[Message, ...]:
    """The turns of a chat. Raises FieldError for none, or for one that is no text with a role."""
    if not value:
        raise FieldError("messages", "messages: expected at least one message, got none.")
    return tuple(_message(index, each) for index, each in enumerate(value))


def _message(index: int, value: Any) -> Message:
    name = f"messages[{index}]"
    expected = f'{name}: expected an object with "role" and "content", both texts'
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise FieldError(name, f"{expected}, got {shown(value)}.")
    content = value.get("content")
    if isinstance(content, list):  # parts
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise FieldError(name, f"{name}.content: expected parts of type text, got {shown(content)}.")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise FieldError(name, f"{expected}, got {shown(value)}.")
    return Message(role=value["role"], content=replace_surrogates(content))


class Fields:
    """The fields of a JSON object, each taken by its name; null is as good as not there.

    Args:
        body: what the JSON was.
        prefix: what stands before the names in messages.
    """

    def __init__(self, body: Any, prefix: str = "") -> None:
        if not isinstance(body, dict):
            raise FieldError(None, f"expected a JSON object, got {shown(body)}.")
        self._left = dict(body)
        self._prefix = prefix

    def take(self, name: str, expected: str, is_right: Callable[[Any], bool], default: Any = None) -> Any:
        """The value of a field, `default` where there is none. Raises FieldError for one that is not right."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        if not is_right(value):
            name = self._prefix + name
            raise FieldError(name, f"{name}: expected {expected}, got {shown(value)}.")
        return value

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where there is none."""
        return self.take(name, "true or false", lambda value: isinstance(value, bool), False)

    def whole(self, name: str, least: int, default: int, most: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        expected = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
        return self.take(name, expected, lambda value: is_whole(value, least, most), default)

    def number(self, name: str, kind: type[int] | type[float], default: float) -> Any:
        """A number of any size; SamplingSettings knows its range."""
        kinds, expected = ((int,), "a whole number") if kind is int else ((int, float), "a number")
        return self.take(
            name, expected, lambda value: isinstance(value, kinds) and not isinstance(value, bool), kind(default)
        )

    def left(self) -> tuple[str, ...]:
        """The names that nobody took and that have a value."""
        return tuple(name for name, value in self._left.items() if value is not None)


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Whether `value` is a whole number in this range, and no truth value."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and value >= least and (most is None or value <= most)


def is_ids(value: Any) -> bool:
    """Whether `value` is a list of token ids, at least one."""
    return isinstance(value, list) and bool(value) and all(is_whole(each, 0) for each in value)


def shown(value: Any) -> str:
    """A wrong value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
