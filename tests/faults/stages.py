"""The stages from text to Space as commands that can be killed, and what each has to leave."""

import functools
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import corpus.__main__ as corpus_command
import hub_export.__main__ as export_command
import tokenization.__main__ as tokenization_command
import train.__main__ as train_command
import train.loop
import train.sweep.__main__ as sweep_command
import train.sweep.search  # noqa: F401  (imported before the forks, as are the next)
from corpus import gutenberg, resumable
from corpus.stories.generator import generate_stories
from hub_export import space
from storage.checksums import SUMS, damaged_files
from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_manifest
from tests.faults.injection import Ended

TEMPORARY = re.compile(r"\..+\.(tmp|old)")
BOOKS = gutenberg.SCIFI_BOOKS[:4]
TINY = [
    "--corpus.stories", "3", "--corpus.validation-stories", "2", "--tokenizer.vocab-size", "300",
    "--model.hidden-size", "16", "--model.intermediate-size", "32", "--model.head-dim", "8",
    "--model.max-position-embeddings", "32", "--model.residual-dropout", "0.1", "--data.batch-size", "4",
    "--run.evaluate-every", "3", "--run.checkpoint-every", "3", "--run.sample-tokens", "3", "--run.threads", "1",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """One command; the same words continue it after a kill."""

    name: str
    command: Callable[[Path, Path], None]  # given the folder with its inputs, and the one it writes into
    result: Callable[[Path], Any]  # what has to be equal at the end
    broken: Callable[[Path, Any], list[str]]  # what is incomplete under a final name, given the unbroken result
    uses_inputs: bool = True


def stages() -> list[Stage]:
    """All of them, in order."""
    return [
        Stage("download", _download, _files, _differing, uses_inputs=False),
        Stage("cleaning", _clean, _files, _differing),
        Stage("BPE training", _train_bpe, _files, _differing),
        Stage("encoding", _encode, _files, _differing),
        Stage("training", _train, weights, broken_run, uses_inputs=False),
        Stage("search", _search, _search_result, _broken_search),
        Stage("bundling", _bundle, _folder_files, _differing_folders),
        Stage("Space making", _space, _folder_files, _differing_folders),
    ]


def read_sources() -> None:
    """Read what each Space is made of, once, before the forks: the imports of the page, and what is installed."""
    space.requirements("cpu-basic")


def make_inputs(folder: Path) -> None:
    """Texts, a tokenizer, a finished run and a bundle of it."""
    folder.mkdir(parents=True)
    text = "\n\n".join(story.text for story in generate_stories(seed=5, count=120))
    (folder / "text.txt").write_text(text)
    (folder / "other.txt").write_text(text[::-1])
    tokenization_command.main(
        [
            "train",
            "bpe",
            "--corpus",
            str(folder / "text.txt"),
            "--vocab-size",
            "300",
            "--out",
            str(folder / "tokenizer"),
        ]
    )
    train_command.main(["debug", *TINY, "--steps", "6", "--run-dir", str(folder / "run")])
    export_command.main(["bundle", str(folder / "run"), "--out", str(folder / "bundle")])


def leftovers(folder: Path) -> list[str]:
    """What a command must not leave behind: hidden temporaries, and files that are still being written."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in names if TEMPORARY.fullmatch(name.split("/")[-1]) or ".part" in name)


class Books(BaseHTTPRequestHandler):
    """Serves the books under the address that Project Gutenberg has for them."""

    def do_GET(self) -> None:
        """A book, or 404."""
        number = re.fullmatch(r"/cache/epub/(\d+)/pg\d+\.txt", self.path)
        book = next((book for book in BOOKS if number and book.id == int(number[1])), None)
        raw = f"Title: {book.title}\n\n{f'A line of {book.title}. ' * 900}\n".encode() if book else b""
        self.send_response(200 if book else 404)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


ADDRESS: list[str] = []
"""Of the server of the books, once it runs."""


def serve_books() -> None:
    """Serve the books until the process ends; `ADDRESS` gets the address before."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Books)
    ADDRESS.append(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def _download(inputs: Path, out: Path) -> None:
    gutenberg.SCIFI_BOOKS = BOOKS
    gutenberg.time = type("NoPause", (), {"sleep": staticmethod(lambda seconds: None), "monotonic": time.monotonic})
    words = ["download", "gutenberg", "--out", str(out / "books.jsonl"), "--cache-dir", str(out / "cache")]
    corpus_command.main([*words, "--gutenberg-url", ADDRESS[0]])


def _clean(inputs: Path, out: Path) -> None:
    resumable._SAVE_BYTES = 5_000
    texts = [str(inputs / "text.txt"), str(inputs / "other.txt")]
    _in_small_pieces()
    corpus_command.main(["clean", *texts, "--out", str(out / "clean.txt")])


def _in_small_pieces() -> None:
    """Documents of a few lines, so that cleaning saves where it is many times."""
    import corpus.local as local
    from corpus.documents import Document

    read = local.read_files

    def pieces(*given: Any, **named: Any) -> Iterator[Document]:
        for document in read(*given, **named):
            lines = document.text.splitlines(keepends=True)
            for start in range(0, len(lines), 10):
                yield Document(text="".join(lines[start : start + 10]), name=document.name, is_complete=False)
            yield Document(text="The end.\n", name=document.name)

    local.read_files = pieces


def _train_bpe(inputs: Path, out: Path) -> None:
    words = ["train", "bpe", "--corpus", str(inputs / "text.txt"), "--vocab-size", "300", "--out", str(out / "bpe")]
    if not (out / "bpe").exists():  # a vocabulary that is complete is refused, and rightly so
        tokenization_command.main(words)


def _encode(inputs: Path, out: Path) -> None:
    words = ["encode", str(inputs / "tokenizer"), str(inputs / "text.txt"), "--out", str(out / "ids.npy")]
    tokenization_command.main(words)


def _train(inputs: Path, out: Path) -> None:
    train_command.main(["debug", *TINY, "--steps", "12", "--run-dir", str(out / "run"), "--resume"])


def _search(inputs: Path, out: Path) -> None:
    space = ["--space", "optimizer.learning_rate=0.001,0.01", "--startup-trials", "1"]
    sweep = ["debug", "--trials", "2", *space, "--sweep-dir", str(out / "sweep"), "--resume"]
    sweep_command.main([*sweep, *TINY, "--steps", "6"])


def _bundle(inputs: Path, out: Path) -> None:
    export_command.main(["bundle", str(inputs / "run"), "--out", str(out / "made"), "--force"])


def _space(inputs: Path, out: Path) -> None:
    export_command.main(["space", str(inputs / "bundle"), "--out", str(out / "made"), "--force"])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(out: Path) -> dict[str, str]:
    found = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(out).as_posix(): _digest(path) for path in found}


def _folder_files(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in _files(out).items() if not name.endswith(("proof.json", "README.md"))}


def _differing(out: Path, expected: dict[str, str]) -> list[str]:
    """Files with a final name whose content is not that of the unbroken command."""
    in_work = (".part", ".part.json", ".part.lock")
    return [
        name for name, digest in _files(out).items() if not name.endswith(in_work) and expected.get(name) != digest
        if not any(part.startswith(".") for part in name.split("/"))
    ]  # fmt: skip


def _differing_folders(out: Path, expected: dict[str, str]) -> list[str]:
    """A folder under its final name that lacks a file, or has another one."""
    return [] if not (out / "made").exists() or _folder_files(out) == expected else ["made"]


def weights(out: Path) -> dict[str, str]:
    """What a training of 12 steps has to leave: weights, optimizer state, curve and samples."""
    folder = out / "run" / "checkpoints" / "step-000012"
    curve = [
        {key: value for key, value in line.items() if "second" not in key and "utilization" not in key}
        for line in RunFolder(out / "run").metrics()
    ]
    samples = {(line["step"], line["prompt"]): line["text"] for line in RunFolder(out / "run").samples()}
    return {
        "weights": _digest(folder / "model.safetensors"),
        "optimizer": _digest(folder / "training" / "optimizer.safetensors"),
        "curve": json.dumps(curve, sort_keys=True),
        "samples": json.dumps(sorted(map(str, samples.items()))),
    }


def broken_run(out: Path, expected: Any, name: str = "run") -> list[str]:
    """What is incomplete in a run folder under a final name."""
    run = RunFolder(out / name)
    wrong = [
        f"{folder.name}: {damaged_files(folder) or 'no checksums'}"
        for folder in run.path.glob("checkpoints/step-*")
        if not (folder / SUMS).is_file() or damaged_files(folder)
    ]
    if run.tokenizer.exists() and (not (run.tokenizer / SUMS).is_file() or damaged_files(run.tokenizer)):
        wrong.append("tokenizer")
    try:
        manifest = read_manifest(run.tokens)
        for split in ("train", "validation") if manifest else ():
            TokenSplit.open(run.tokens, split).check()
        for path in run.path.glob("*.json"):
            json.loads(path.read_text())
    except ValueError as error:
        wrong.append(str(error))
    return wrong


def _search_result(out: Path) -> dict[str, Any]:
    best = json.loads((out / "sweep" / "best.json").read_text())
    rows = [line.split(",") for line in (out / "sweep" / "trials.csv").read_text().splitlines()]
    kept = [index for index, name in enumerate(rows[0]) if name != "seconds"]
    return {"best": best["value"], "trial": best["trial"], "rows": [[row[index] for index in kept] for row in rows]}


def _broken_search(out: Path, expected: Any) -> list[str]:
    trials = sorted((out / "sweep" / "trials").glob("trial-*"))
    wrong = [line for trial in trials for line in broken_run(trial.parent, None, trial.name)]
    for path in (out / "sweep").glob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            wrong.append(str(error))
    return wrong


def describe_problem(stage: Stage, out: Path, expected: Any, again: Ended) -> str | None:
    """What is wrong after the command that was killed was given again; None where nothing is."""
    if again.status:
        return f"the same command fails ({again.status}): {again.output[-1500:]}"
    if left := leftovers(out):
        return f"left behind: {left}"
    if (result := stage.result(out)) != expected:
        differing = [key for key in expected if result.get(key) != expected[key]]
        return f"another result: {differing or sorted(result.keys() - expected.keys())}"
    return None


def show_progress(stage: Stage, done: int, planned: int, survived: int) -> None:
    """One line on standard error, since a stage may take an hour."""
    print(f"({stage.name}: {done} of {planned}, {survived} survived)", file=sys.stderr, flush=True)


@functools.cache
def find(name: str) -> Stage:
    """A stage by its name."""
    return next(stage for stage in stages() if stage.name == name)


def fresh(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
