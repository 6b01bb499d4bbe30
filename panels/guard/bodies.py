"""Bodies of requests: JSON as RFC 8259 has it, of a limited size and depth, and without lone surrogates."""

from __future__ import annotations

import json
import re
from typing import Any

from panels.guard.refusal import RefusedError, shown
from storage.text import replace_surrogates

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of a body: a text of 20 MB, as training takes it, with its escapes."""
DEPTH_LIMIT = 64
"""Lists and objects within each other; Gradio walks through values by recursion."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""How a surrogate, lone or one of a pair, stands in JSON."""


def parse_json(body: bytes) -> Any:
    """What a body says, without lone surrogates.

    Raises RefusedError (400) for what is no JSON, too deep, or NaN and its like, which JSON does not have."""
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)  # of bytes, json takes surrogates
    except RefusedError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # UnicodeDecodeError too, and an integer with too many digits
        raise RefusedError(400, f"expected JSON, got something else: {error}.") from None
    _check_depth(value)
    return without_surrogates(value) if SURROGATE.search(body) else value


def without_surrogates(value: Any) -> Any:
    """A value of JSON with `storage.text.replace_surrogates` applied to every text in it."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): without_surrogates(each) for name, each in value.items()}
    return value


def _refuse_constant(name: str) -> Any:
    raise RefusedError(400, f"expected JSON, which has no {name}; write null or a number.")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for each in level
            if isinstance(each, (list, dict))
            for inner in (each if isinstance(each, list) else each.values())
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> RefusedError:
    return RefusedError(400, f"expected JSON of at most {DEPTH_LIMIT} lists and objects within each other, got more.")


def check_kind(kind: str) -> None:
    """Raise RefusedError (415) for a header Content-Type that is not JSON's, which no other web site can make a browser
    send here unasked."""
    if (got := kind.partition(";")[0].strip().lower()) != "application/json":
        got = shown(got).strip("'") or "none"
        raise RefusedError(415, f"expected the header Content-Type: application/json, got {got}.")
