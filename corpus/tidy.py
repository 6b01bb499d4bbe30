"""Preprocessing of a corpus: a line a paragraph or sentence, without what only looks like text."""

import re

_LINE_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\0-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
_SPACES = re.compile(r"[^\S\n]+")


def tidy(text: str, last_line: str = "") -> tuple[str, str]:
    """The text in tidy lines, each with its line end; "" where nothing is left.

    In this order: form feeds, vertical tabs and Unicode's separators of lines and paragraphs become line ends; control
    characters, soft hyphens, zero-width spaces, word joiners and byte order marks go; every run of white space within
    a line becomes one space, and goes at its ends; empty lines go; a line that is the same as the one before it goes.
    Lines that recur elsewhere stay: people say "yes" more than once. Letters, case and punctuation stay as they are.

    Args:
        text: any text, `\\n` as its line end.
        last_line: the last line of what comes before it.

    Returns:
        (text, its last line).
    """
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    kept = []
    for line in _SPACES.sub(" ", text).split("\n"):
        line = line.strip(" ")
        if line and line != last_line:
            kept.append(line + "\n")
            last_line = line
    return "".join(kept), last_line
