"""The share of written tokens that stand word for word in the training text."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.repeats import repeated_windows
from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_manifest, tokenizer_hash

WINDOW = 50
"""Tokens of a window, those of Lee et al., arXiv:2107.06499, section 6.2."""


def measure(texts: Iterable[list[int]], split: TokenSplit, window: int = WINDOW) -> dict[str, Any]:
    """The share of the windows of some texts, as token ids, that stand in a split."""
    written = list(texts)
    found = repeated_windows(split, written, window)
    windows, memorised = sum(map(len, found)), sum(int(each.sum()) for each in found)
    return {
        "texts": len(written),
        "tokens": sum(map(len, written)),
        "windows": windows,
        "memorised": memorised,
        "share": memorised / windows if windows else None,
    }


def find_tokens(folder: Path, run: Path | None) -> TokenSplit:
    """The training tokens of a model.

    Args:
        folder: of the model.
        run: the run that has them; None: the one that the folder lies in.

    Raises:
        ValueError: there is none, its tokens are gone, or are those of another tokenizer.
    """
    place = RunFolder.containing(folder) if run is None else RunFolder(run)
    manifest = None if place is None else read_manifest(place.tokens)
    if place is None or manifest is None:
        got = "a model that lies in no run folder" if place is None else f"no finished tokens/ in {place.path}"
        raise ValueError(f"--run: expected the run folder with the tokens that the model was trained on, got {got}")
    if manifest["made_from"]["tokenizer"] != tokenizer_hash(folder):
        raise ValueError(f"--run {place.path}: expected tokens of the tokenizer of {folder}, got those of another")
    return TokenSplit.open(place.tokens, "train")
