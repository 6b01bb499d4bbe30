"""Values that no form sends: wrong types, sizes and ranges, odd Unicode, and the shapes that Gradio reads as files."""

from __future__ import annotations

import random
from typing import Any

TEXTS = (
    "",
    " ",
    "\x00",
    "\ud800",
    "a\udfff b",
    "\ud83d\ude00",
    "\u202eright to left \u05d0\u0627",
    "\ufeff\u200b\u2028\u2029",
    "e\u0301" * 40,
    "👩‍🚀" * 20,
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<|endoftext|>",
    "../../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data",
    "%2e%2e%2f%00",
    "NaN",
    "1e999",
    "-1",
    "0x10",
    "١٢٣",
    "C:\\Windows\\win.ini",
    "a\r\nSet-Cookie: b=c",
    "__class__",
)
NUMBERS = (
    0, 1, -1, 2, 7, 1.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"),
    2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**300,
)  # fmt: skip
STRUCTURES: tuple[Any, ...] = (
    [],
    [None],
    [[]],
    [[[["deep"]]]],
    ["a", 1, None],
    {},
    {"a": 1},
    {"value": 1},
    {"__type__": "update", "value": "x"},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"path": "/etc/passwd", "url": "http://127.0.0.1:1/x", "orig_name": "x", "meta": {"_type": "gradio.FileData"}},
    {"path": "http://169.254.169.254/", "meta": {"_type": "gradio.FileData"}, "is_stream": True},
    [{"path": "../../etc/passwd", "meta": {"_type": "gradio.FileData"}}],
    {"number": 1, "text": "x"},
    {"tokens": [[0, 1], None, "x"]},
    {"blank": -1, "candidate": 99},
    {"again": "append"},
)
LONG = 200_000
"""Characters of the longest text: as long as a chapter, so that 20,000 requests do not only measure the network."""


def hostile_text(draw: random.Random) -> str:
    """A text of `TEXTS`, several of them, random characters of all of Unicode, or a very long one."""
    kind = draw.random()
    if kind < 0.6:
        return draw.choice(TEXTS)
    if kind < 0.75:
        return "".join(draw.choices(TEXTS, k=3))
    if kind < 0.99:
        return "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(1, 40)))
    return "x" * draw.randrange(1000, LONG)


def hostile_value(draw: random.Random) -> Any:
    """Anything that JSON can say, and a little more: NaN and lone surrogates."""
    kind = draw.random()
    if kind < 0.1:
        return draw.choice((None, True, False))
    if kind < 0.35:
        return draw.choice(NUMBERS)
    if kind < 0.7:
        return hostile_text(draw)
    if kind < 0.95:
        return draw.choice(STRUCTURES)
    return [hostile_value(draw) for _ in range(draw.randrange(5))]


def nested(depth: int) -> bytes:
    """JSON that is only brackets, deeper than a recursive reader goes."""
    return b"[" * depth + b"]" * depth
