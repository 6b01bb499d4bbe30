"""The folder of a run: every path in it, and every reader and writer of its records.

    runs/NAME/recipe.json  run.json  metrics.jsonl  samples.jsonl  prompts.json  tokenizer/  tokens/  checkpoints/
              loss.png  train.log  output.txt  evaluations.json  .lock

Training writes it, the export and the page read it, and they meet here only.
"""

import contextlib
import logging
import re
import shlex
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from storage.checksums import check_seal, damaged_files, file_checksum, is_seal_broken, sealed
from storage.corpus_facts import describe_corpus
from storage.files import explain_write_errors, locked_file, locked_folder, matching_paths, sync_file
from storage.prompts import PROMPTS, read_prompts
from storage.recipe_copies import recipe_advice
from storage.records import (
    JsonlFollower,
    append_jsonl,
    is_json_object,
    read_json_object,
    read_json_object_or_empty,
    read_jsonl,
    write_json,
    write_jsonl,
)

STATE, RECIPE, METRICS, SAMPLES = "run.json", "recipe.json", "metrics.jsonl", "samples.jsonl"
CHECKPOINTS, TOKENIZER, TOKENS, PICTURE, LOG, OUTPUT, VOCABULARY = (
    "checkpoints", "tokenizer", "tokens", "loss.png", "train.log", "output.txt", "vocab.txt"
)  # fmt: skip
STARTED_BY_PAGE, PAGE_LOG, EVALUATIONS = "page.json", "page.log", "evaluations.json"
TRAINING = "training"
"""Of a checkpoint: the folder with what a resume needs beside the weights."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """One run on the disk. Constructing it reads nothing; `open` checks that the folder is a run.

    `state` and `recipe` are read once per object: make a new one to see what changed.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """A folder that holds run.json and recipe.json, both readable.

        Raises:
            ValueError: there is no such folder, it is no run folder, or one of the two files is broken.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise ValueError(
                f"{path}: expected a run folder, but there is no such folder. "
                "Give the folder that `python -m train RECIPE --run-dir DIR` wrote."
            )
        missing = [name for name in (STATE, RECIPE) if not (run.path / name).is_file()]
        if missing:
            raise ValueError(
                f"{path}: expected a run folder with run.json and recipe.json, but {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing. "
                "Give the folder that `python -m train RECIPE --run-dir DIR` wrote, not one inside it."
            )
        _ = run.state, run.recipe
        return run

    @classmethod
    def containing(cls, folder: Path) -> "RunFolder | None":
        """The run that a folder is, or that it is a checkpoint of."""
        places = (folder, *folder.resolve().parents[:2])
        return next((cls(place) for place in places if cls(place).has_state), None)

    @classmethod
    def all_in(cls, home: Path) -> list["RunFolder"]:
        """The runs of `home`/runs, by name; hidden folders are left out."""
        return [cls(path) for path in matching_paths(home, "runs/*") if cls(path).is_run]

    # Paths

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.path / TOKENIZER

    @property
    def vocabulary(self) -> Path:
        """vocab.txt: the characters of a character tokenizer, one a line in the order of their ids."""
        return self.path / VOCABULARY

    @property
    def tokens(self) -> Path:
        """The folder of the token shards; see `storage.shards`."""
        return self.path / TOKENS

    @property
    def log(self) -> Path:
        """train.log: what the run printed."""
        return self.path / LOG

    @property
    def picture(self) -> Path:
        """loss.png."""
        return self.path / PICTURE

    @property
    def output(self) -> Path:
        """output.txt: the long sample of some recipes."""
        return self.path / OUTPUT

    @property
    def recipe_file(self) -> Path:
        """recipe.json, which `python -m train` takes as a recipe."""
        return self.path / RECIPE

    @property
    def started_by_page(self) -> Path:
        """page.json: written by the page when it starts a run."""
        return self.path / STARTED_BY_PAGE

    @property
    def page_log(self) -> Path:
        """page.log: the output of a process that the page started."""
        return self.path / PAGE_LOG

    # State

    @property
    def has_state(self) -> bool:
        """Whether there is a run.json."""
        return (self.path / STATE).is_file()

    @property
    def is_begun(self) -> bool:
        """Whether the run has made anything of its text: what it was begun with binds the runs that resume it."""
        return self.tokenizer.exists() or self.tokens.exists() or bool(self.checkpoints())

    @property
    def is_run(self) -> bool:
        """Whether the folder is a run's, one that is only beginning included."""
        names = (STATE, RECIPE, ".lock", STARTED_BY_PAGE)
        return not self.path.name.startswith(".") and any((self.path / name).is_file() for name in names)

    @cached_property
    def state(self) -> dict[str, Any]:
        """run.json: status, step, steps, best and latest checkpoint, seconds, tokens seen, evaluation, …

        Of its time limit: `planned_steps` (the steps before a limit shortened them), `max_seconds` (the limit as it is
        now, 0: none), `cut_short` (one sentence on a run that ended before its planned steps, else None) and
        `resume_command` (what continues such a run). Runs of older versions lack these.

        Raises:
            ValueError: it is missing or broken.
        """
        return read_json_object(self.path / STATE, "Delete it and resume the run, which writes this report again.")

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """recipe.json: the recipe's name, its resolved config, the git commit, the versions of the libraries.

        Raises:
            ValueError: it is missing, broken, or not as it was written; the message says what to do.
        """
        content = read_json_object_or_empty(self.recipe_file)
        if not content or is_seal_broken(content):  # only now: the advice reads the copies of all checkpoints
            check_seal(self.recipe_file, read_json_object(self.recipe_file, self.recipe_advice), self.recipe_advice)
        return content

    @property
    def recipe_advice(self) -> str:
        """What to do where recipe.json is damaged, in sentences."""
        return recipe_advice(self.recipe_file, [folder / TRAINING / RECIPE for folder in self.checkpoints().values()])

    def peek_state(self) -> dict[str, Any]:
        """run.json as it is at this moment; empty where it is missing or broken."""
        return read_json_object_or_empty(self.path / STATE)

    def peek_recipe(self) -> dict[str, Any]:
        """recipe.json as it is at this moment; empty where it is missing or broken."""
        return read_json_object_or_empty(self.path / RECIPE)

    def write_state(self, state: dict[str, Any]) -> None:
        """Write run.json."""
        write_json(self.own_path / STATE, state)

    def write_recipe(self, recipe: dict[str, Any]) -> None:
        """Write recipe.json, with a checksum."""
        write_json(self.path / RECIPE, sealed(recipe))

    def state_stamp(self) -> tuple[float, int, int] | None:
        """Modification time (seconds since 1970), size and inode of run.json; None where there is none."""
        try:
            found = (self.path / STATE).stat()
        except OSError:
            return None
        return found.st_mtime, found.st_size, found.st_ino

    def last_change(self) -> float:
        """When the run last wrote its state, its recipe or its folder, in seconds since 1970; 0.0: it is gone."""
        for name in (STATE, RECIPE, "."):
            with contextlib.suppress(OSError):
                return (self.path / name).stat().st_mtime
        return 0.0

    @contextlib.contextmanager
    def lock(self) -> Generator[None]:
        """Keep every other process out for the block; from then on this object writes into that folder only.

        Raises:
            ValueError: another process has the lock.
        """
        busy = "expected a run folder that is free, got one that another process trains in; "
        busy += "wait for it, stop it, or choose another --run-dir"
        with locked_folder(self.path, busy) as self.__dict__["_lock"]:
            yield

    @property
    def own_path(self) -> Path:
        """The folder, to write in; OSError where `lock` was taken and the folder was deleted or replaced since."""
        if lock := self.__dict__.get("_lock"):
            lock.check()
        return self.path

    @property
    def is_locked(self) -> bool:
        """Whether a process trains in the folder now."""
        lock = self.path / ".lock"
        if not lock.is_file():
            return False
        try:
            with FileLock(lock, timeout=0.01, poll_interval=0.005):  # others look too, for a moment each
                return False
        except Timeout:
            return True
        except OSError:  # it vanished meanwhile, or belongs to another user
            return False

    # Checkpoints

    def checkpoint_folder(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.path / CHECKPOINTS / f"step-{step:06d}"

    def checkpoints(self) -> dict[int, Path]:
        """The complete checkpoints by step, in order."""
        found: dict[int, Path] = {}
        for folder in matching_paths(self.path, f"{CHECKPOINTS}/step-*"):
            step = step_of(folder)
            if step is not None and (folder / "config.json").is_file():
                found[step] = folder
        return dict(sorted(found.items()))

    def checkpoint(self, name: str = "best") -> Path:
        """The folder of one checkpoint.

        Args:
            name: `best` (default; the latest one when no evaluation has named a best yet), `latest`, or the name of
                a folder such as `step-000500`.

        Raises:
            ValueError: the run has no checkpoint yet, or none of that name.
        """
        found = [folder.name for folder in self.checkpoints().values()]
        if not found:
            raise ValueError(
                f"{self.path}: expected at least one checkpoint, but this run has none yet. "
                "Let it train until its first checkpoint (`--resume` continues where it stopped)."
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
        return self.path / CHECKPOINTS / wanted

    def good_checkpoint(self) -> Path | None:
        """The latest checkpoint whose files have the checksums that they had when it was written; None: there is none.

        It reads all of it. A checkpoint of an older version has no checksums and counts.
        """
        latest_first = reversed(self.checkpoints().values())
        return next((folder for folder in latest_first if not damaged_files(folder)), None)

    # Records

    def record_checksums(self) -> dict[str, tuple[int, str]]:
        """Size in bytes and checksum of metrics.jsonl and samples.jsonl, which are on the disk after this."""
        found: dict[str, tuple[int, str]] = {}
        for path in (self.own_path / METRICS, self.own_path / SAMPLES):
            sync_file(path)
            if path.is_file():
                found[path.name] = (path.stat().st_size, file_checksum(path))
        return found

    def changed_records(self, checksums: dict[str, tuple[int, str]]) -> list[str]:
        """Which of these files no longer begin as they did when `record_checksums` was called."""
        return [
            name
            for name, (size, checksum) in checksums.items()
            if not (self.path / name).is_file() or file_checksum(self.path / name, size) != checksum
        ]

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl in order; none when there is no such file.

        Raises:
            ValueError: a line is broken.
        """
        return self._records(METRICS)

    def samples(self) -> list[dict[str, Any]]:
        """The records of samples.jsonl (`step`, `prompt`, `text`, `seed`) in order; none when there is no such file.

        Each checkpoint has one of every prompt; between checkpoints, after steps 1, 3, 10, 30, 100 and
        so on, there is one of the first prompt.

        Raises:
            ValueError: a line is broken.
        """
        return self._records(SAMPLES)

    def _records(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        move = shlex.join(["mv", str(path), f"{path}.damaged"])
        return read_jsonl(
            path,
            f"The weights do not depend on it: move it away ({move}) and run the same command again; what was in it "
            "is then missing from the curve or the samples.",
        )

    def record_at(self, step: int, field: str) -> dict[str, Any]:
        """The last record of metrics.jsonl of that step that has `field`; {} when there is none."""
        matching = [record for record in self.metrics() if record.get("step") == step and record.get(field) is not None]
        return matching[-1] if matching else {}

    def evaluation_at(self, step: int) -> dict[str, Any]:
        """The evaluation of a step, from metrics.jsonl (all steps) or run.json (the latest); {} when unknown."""
        record = self.record_at(step, "validation_loss")
        state = self.peek_state()
        return record or ((state.get("evaluation") or {}) if state.get("step") == step else {})

    def evaluations(self, checkpoint: str) -> dict[str, Any]:
        """What was measured of a checkpoint after the training (`--record`), by what it is; {} where nothing was."""
        found = read_json_object_or_empty(self.path / EVALUATIONS).get(checkpoint)
        return found if is_json_object(found) else {}

    def record_evaluation(self, checkpoint: str, measured: dict[str, Any]) -> None:
        """Add to `evaluations`; what has the same name is replaced, and of `texts` those that were measured again."""
        path = self.path / EVALUATIONS
        with locked_file(path):
            everything = read_json_object(path, "Delete it, and measure again.") if path.is_file() else {}
            before = self.evaluations(checkpoint)
            texts = before.get("texts", {}) | measured.get("texts", {})
            write_json(path, everything | {checkpoint: before | measured | ({"texts": texts} if texts else {})})

    def append_metrics(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        append_jsonl(self.own_path / METRICS, record)

    def append_sample(self, record: dict[str, Any]) -> None:
        """A line of samples.jsonl."""
        append_jsonl(self.own_path / SAMPLES, record)

    def rewind(self, step: int) -> None:
        """Remove the records after `step`: a resumed run writes them again.

        Raises:
            ValueError: a line is broken; the message says what to do.
        """
        for name in (METRICS, SAMPLES):
            records = self._records(name)
            if (path := self.path / name).is_file():
                write_jsonl(path, [record for record in records if record["step"] <= step])
        if (path := self.path / EVALUATIONS).is_file():
            with locked_file(path):
                measured = read_json_object_or_empty(path).items()
                write_json(path, {name: value for name, value in measured if (step_of(Path(name)) or 0) <= step})

    def follow_metrics(self) -> JsonlFollower:
        """metrics.jsonl, read while it grows."""
        return JsonlFollower(self.path / METRICS, integer_field="step")

    def follow_samples(self) -> JsonlFollower:
        """samples.jsonl, read while it grows."""
        return JsonlFollower(self.path / SAMPLES, integer_field="step")

    def prompts(self) -> list[str]:
        """Beginnings of held-out text; none when prompts.json is missing."""
        return read_prompts(self.path)

    def write_prompts(self, prompts: list[str]) -> None:
        """Write prompts.json."""
        write_json(self.path / PROMPTS, prompts)

    def append_log(self, message: str) -> None:
        """A line of train.log."""
        path, kept = self.own_path / LOG, "the lines before are kept"
        with explain_write_errors(path, kept), path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(message + "\n")

    # Facts

    @property
    def corpus_config(self) -> dict[str, Any]:
        """The `corpus` section of the config; {} where it is unknown."""
        config = self.peek_recipe().get("config")
        corpus = config.get("corpus") if is_json_object(config) else None
        return corpus if is_json_object(corpus) else {}

    @property
    def trained_on(self) -> str:
        """`describe_corpus` of the run's text, of which the manifest of the tokens says whether it is all books."""
        from storage.shards import MANIFEST  # with numpy, which few readers need

        manifest = read_json_object_or_empty(self.tokens / MANIFEST)
        return describe_corpus(self.corpus_config, only_books=manifest.get("only_books") is True)


def step_of(checkpoint: Path) -> int | None:
    """The step in the name of a checkpoint folder (`step-000500`); None for another name."""
    match = re.fullmatch(r"step-(\d+)", checkpoint.name)
    return int(match[1]) if match else None


def model_name(folder: Path) -> str:
    """`stories`, or `stories, step 900` for a checkpoint of a run: the names of folders, never where they are."""
    run, step = RunFolder.containing(folder), step_of(folder)
    owner = run.path if run else folder.parents[1] if folder.parent.name == CHECKPOINTS else folder
    return owner.resolve().name if step is None else f"{owner.resolve().name}, step {step:,}"
