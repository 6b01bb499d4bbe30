"""prompts.json of a run or a bundle: beginnings of held-out text, for the page, the samples and the card."""

from pathlib import Path
from typing import Any

from storage.records import read_json

PROMPTS = "prompts.json"


def read_prompts(folder: Path) -> list[str]:
    """The prompts in the prompts.json of a run or a bundle, blank ones left out; none when there is no such file.

    Raises:
        ValueError: the file is broken.
    """
    path = folder / PROMPTS
    advice = "Delete it: it only has beginnings of texts, which a run that is resumed writes again."
    content: list[Any] = read_json(path, advice) if path.is_file() else []
    return [prompt for prompt in content if isinstance(prompt, str) and prompt.strip()]
