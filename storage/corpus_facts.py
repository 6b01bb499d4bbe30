"""What the `corpus` section of a run's config says of its text, for cards and the page."""

import re
from pathlib import Path
from typing import Any


def describe_corpus(corpus: dict[str, Any], *, only_books: bool = False) -> str:
    """What a run was trained on, for a model card or the page, from the `corpus` section of its config.

    It never names a path of the machine. `only_books`: each file of a local text was recognised as one of `books`.
    """
    source = corpus.get("source")
    if source == "stories":
        return f"{corpus.get('stories', 0):,} short English stories made by ScratchGPT's own generator"
    if dataset := hub_dataset(corpus):
        return f"the data set `{dataset}` of the Hugging Face Hub"
    if (source == "gutenberg" or only_books) and corpus.get("books") == "scifi":
        return "books of early science fiction from Project Gutenberg"
    return "Project Gutenberg books" if source == "gutenberg" else "its maker's own text files"


def hub_dataset(corpus: dict[str, Any]) -> str | None:
    """The id of the Hub data set that a run was trained on, from its `corpus` section; None for any other text."""
    dataset = str(corpus.get("dataset") or "") if corpus.get("source") == "hub" else ""
    is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", dataset) and not Path(dataset).is_dir()
    return dataset if is_id else None
