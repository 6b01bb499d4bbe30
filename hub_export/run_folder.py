"""The run folder as an exporter reads it: its state, its recipe, its records and its checkpoints."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAUSAL, MASKED = "ScratchGPTForCausalLM", "ScratchGPTForMaskedLM"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """What one training run has written so far."""

    path: Path  # the folder itself
    state: dict[str, Any]  # run.json: status, step, best and latest checkpoint, seconds, tokens seen, evaluation
    recipe: dict[str, Any]  # recipe.json: the recipe's name, its resolved config, library versions

    @classmethod
    def read(cls, path: str | Path) -> "RunFolder":
        """Reads `run.json` and `recipe.json`.

        Raises:
            ValueError: there is no such folder, it is no run folder, or one of the two files is broken.
        """
        path = Path(path)
        if not path.is_dir():
            raise ValueError(
                f"{path}: expected a run folder, but there is no such folder. "
                "Give the folder that `python -m train RECIPE --run-dir DIR` wrote."
            )
        missing = [name for name in ("run.json", "recipe.json") if not (path / name).is_file()]
        if missing:
            raise ValueError(
                f"{path}: expected a run folder with run.json and recipe.json, but {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing. "
                "Give the folder that `python -m train RECIPE --run-dir DIR` wrote, not one inside it."
            )
        return cls(path=path, state=read_object(path / "run.json"), recipe=read_object(path / "recipe.json"))

    def checkpoint(self, name: str = "best") -> Path:
        """Returns the folder of one checkpoint.

        Args:
            name: `best` (default; the latest one when no evaluation has named a best yet), `latest`, or the name of
                a folder such as `step-000500`.

        Raises:
            ValueError: the run has no checkpoint yet, or none of that name.
        """
        folder = self.path / "checkpoints"
        found = sorted(entry.name for entry in folder.iterdir() if _is_step(entry)) if folder.is_dir() else []
        if not found:
            raise ValueError(
                f"{self.path}: expected at least one checkpoint, but this run has none yet. "
                "Let it train until its first checkpoint (`--resume` goes on where it stopped)."
            )
        wanted = name
        if name == "best" and not self.state.get("best_checkpoint"):
            logger.warning("%s: no evaluation has named a best checkpoint yet; taking the latest one", self.path)
            wanted = "latest"
        if wanted in ("best", "latest"):
            recorded = self.state.get(f"{wanted}_checkpoint")
            wanted = Path(recorded).name if isinstance(recorded, str) else found[-1]
        if wanted not in found:
            raise ValueError(
                f"{self.path}: expected a checkpoint called {wanted}, but this run has {', '.join(found)}. "
                "Choose one of these, `best` or `latest`."
            )
        return folder / wanted

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl in order; none when there is no such file."""
        return _read_lines(self.path / "metrics.jsonl")

    def samples(self) -> list[dict[str, Any]]:
        """The records of samples.jsonl (`step`, `prompt`, `text`, `seed`) in order; none when there is no such file."""
        return _read_lines(self.path / "samples.jsonl")


def step_of(checkpoint: Path) -> int:
    """The training step that a checkpoint's name (`step-000500`) tells."""
    return int(checkpoint.name.removeprefix("step-"))


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Raises:
        ValueError: the file is not UTF-8 JSON, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, but it cannot be read ({error}). The file is damaged.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(content).__name__}. The file is damaged.")
    return content


def _is_step(entry: Path) -> bool:
    return entry.is_dir() and re.fullmatch(r"step-\d+", entry.name) is not None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):  # a run that is writing at this moment, or was killed while it did
                break
            raise ValueError(
                f"{path}: expected JSON in line {number}, got {line[:60]!r}. The file is damaged."
            ) from error
    return records
