"""The copies of recipe.json that checkpoints have, and what to do where the file itself is damaged."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from storage.checksums import FIELD, is_seal_broken
from storage.records import read_json_object_or_empty


def recipe_advice(path: Path, copies: Sequence[Path]) -> str:
    """What to do with a damaged recipe.json, in sentences.

    Args:
        copies: where its copies would be, the latest last.
    """
    intact = next(filter(_is_intact, reversed(copies)), None)
    if intact is None:
        move = shlex.join(["mv", str(path), f"{path}.damaged"])
        way = f"Move it away ({move}) and give the recipe by its name, with the flags that the run was begun with."
    else:
        way = f"A checkpoint has a copy of it ({shlex.join(['cp', str(intact), str(path)])})."
    return f"{way} Where it was changed on purpose, delete the line of its {FIELD}, and it counts as it is."


def _is_intact(copy: Path) -> bool:
    content = read_json_object_or_empty(copy)
    return FIELD in content and not is_seal_broken(content)
