"""The recipes in a table, for `python -m train --list`."""

import shutil
import textwrap
from typing import NamedTuple


class Overview(NamedTuple):
    """What a recipe is, in a few words. Tests compare the numbers with the recipe's config."""

    parameters: str
    steps: str
    time: str  # on two CPU cores, from the operations that it takes at 0.11 TFLOP/s: docs/recipes.md
    text: str  # by default
    about: str


OVERVIEW = {
    "stories": Overview(
        "1.1 M", "900", "3 min", "stories of our generator", "the modern family; `make demo` trains it"
    ),
    "scifi": Overview("9.0 M", "10,000", "9 h", "26 science-fiction books", "byte-level BPE, pre-LayerNorm, ReLU"),
    "bookcorpus": Overview("124.4 M", "20,000", "15 days", "BookCorpus, of the Hub", "GPT-2 small; causal, or masked"),
    "openwebtext": Overview("14.3 M", "3,000", "3 h", "OpenWebText, of the Hub", "characters, post-LayerNorm"),
    "wikitext": Overview("48.0 M", "30,000", "3 days", "WikiText-103, of the Hub", "WordPiece, no output bias"),
    "wiki": Overview("19.8 M", "10,000", "26 h", "a wiki.txt of your own", "SentencePiece, seven heads"),
    "modern": Overview("6.9 M", "500", "30 min", "26 science-fiction books", "RMSNorm, RoPE, QK-norm, SwiGLU, Muon"),
    "chat": Overview(
        "1.1 M", "300", "1 min", "questions about our stories", "answers; on top of a model (--from): here of `stories`"
    ),
    "debug": Overview("0.03 M", "20", "seconds", "200 of our stories", "the modern family at toy size"),
}
HEAD = ("recipe", *Overview._fields)
NUMBERS = ("parameters", "steps", "time")
NOTES = (
    "Time: about, on two CPU cores. `--corpus PATH` gives any of them a text of yours. RECIPE may also be a file: "
    "best.json of a sweep, or recipe.json of a run. `python -m train RECIPE --help` explains every field."
)


def recipe_table() -> str:
    """A row for each recipe under a head, and notes, for the width of the terminal: what does not fit is wrapped in the
    last column."""
    width = shutil.get_terminal_size(fallback=(120, 24)).columns
    rows = [HEAD, *((name, *overview) for name, overview in OVERVIEW.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    start = sum(widths[:-1]) + 2 * (len(HEAD) - 1)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(size) if name in NUMBERS else cell.ljust(size)
            for name, cell, size in zip(HEAD, row, widths, strict=True)
        ]
        front = "  ".join(cells[:-1]) + "  "
        lines.append(textwrap.fill(front + row[-1], max(width, start + 20), subsequent_indent=" " * start))
    return "\n".join([*lines, "", textwrap.fill(NOTES, max(width, 60))])
