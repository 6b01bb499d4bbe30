"""Data sets of the Hub through the real library: from folders, and over HTTP from a double of the Hub."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.documents import Document
from tests.hub_double import PARQUET_COPY, Fault, Hub
from tests.network_faults import FAULTS, serve_faults

ROOT = Path(__file__).parents[2]


def parquet(texts: Sequence[str | None], field: str = "text") -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({field: texts, "n": range(len(texts))}), buffer, row_group_size=1000)
    return buffer.getvalue()


def json_lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


CONFIGS = b"""---
configs:
- config_name: small
  data_files: small/*.jsonl
- config_name: large
  data_files: large/*.jsonl
---
"""
WITH_SPLITS = {
    "data/train-00000-of-00002.parquet": parquet([f"row {number}" for number in range(2500)]),
    "data/train-00001-of-00002.parquet": parquet(["a\r\nb", None, " ", "c"]),
    "data/validation-00000-of-00001.parquet": parquet(["held out"]),
    "data/test-00000-of-00001.parquet": parquet(["never read"]),
}
TRAIN = [f"row {number}" for number in range(2500)] + ["a\nb", "c"]


@pytest.fixture(scope="module", autouse=True)
def _quiet_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The library reads its cache folder when it is imported, which in this process happens here or never."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def folder(path: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return str(path)


def read(dataset: str, **options: Any) -> list[Document]:
    from corpus.hub import read_hub

    return list(read_hub(dataset, **options))


def test_a_folder_with_splits(tmp_path: Path) -> None:
    name = folder(tmp_path / "set", WITH_SPLITS)
    documents = read(name)
    assert [document.text for document in documents] == [*TRAIN, "held out"]
    assert [document.split for document in documents] == ["train"] * len(TRAIN) + ["validation"]
    assert [documents[0].name, documents[-2].name] == [f"{name}/train#1", f"{name}/train#2504"]
    assert all(document.is_complete for document in documents)


def test_a_set_without_validation_leaves_the_split_open(tmp_path: Path) -> None:
    name = folder(tmp_path / "set", {"train.jsonl": json_lines("one", "two"), "test.jsonl": json_lines("three")})
    assert [(document.text, document.split) for document in read(name)] == [("one", None), ("two", None)]


def test_rows_of_one_running_text_are_joined(tmp_path: Path) -> None:
    rows = [" = Title = \n", "", *[f" Paragraph {number} of the text . \n" for number in range(60_000)], "The end"]
    name = folder(tmp_path / "set", {"train.parquet": parquet([*rows]), "valid.parquet": parquet([" = V = \n"])})
    *train, validation = read(name, joined_rows=True)
    assert "".join(document.text for document in train) == "".join(rows) + "\n"
    assert len(train) >= 2
    assert [document.is_complete for document in train] == [False] * (len(train) - 1) + [True]
    assert all(document.text.startswith(" P") and document.text.endswith(" \n") for document in train[1:-1])
    assert (validation.text, validation.split, validation.is_complete) == (" = V = \n", "validation", True)


def test_reading_continues_from_any_place(tmp_path: Path) -> None:
    from corpus.hub import open_hub

    texts = [f"{number}" for number in range(5200)]
    files = {"train-0.parquet": parquet(texts[:2300]), "train-1.parquet": parquet(texts[2300:])}
    name = folder(tmp_path / "set", files)
    parts = list(open_hub(name).read("train"))
    assert [text for part in parts for text in part.texts] == texts
    for part in parts:
        start = json.loads(json.dumps(part.after))
        rest = list(open_hub(name).read("train", start=start))
        assert [text for later in rest for text in later.texts] == texts[part.first + len(part.texts) - 1 :]
        assert not rest or rest[0].first == part.first + len(part.texts)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (WITH_SPLITS, {"text_field": "body"}, "expected a column 'body' with the text, got 'text', 'n'; say which"),
        (WITH_SPLITS, {"text_field": "n"}, "split 'train': expected text in the column 'n', got int; choose another"),
        ({"test.jsonl": json_lines("x")}, {}, "set: expected a split 'train', got 'test'"),
        (
            {"README.md": CONFIGS, "small/a.jsonl": json_lines("s"), "large/a.jsonl": json_lines("l")},
            {},
            "expected the name of one of its configurations, 'small', 'large', got none; choose one",
        ),
        (
            {"README.md": CONFIGS, "small/a.jsonl": json_lines("s"), "large/a.jsonl": json_lines("l")},
            {"config": "huge"},
            "expected the name of one of its configurations, 'small', 'large', got another; choose one",
        ),
        ({"README.md": b"empty"}, {}, "set: expected a data set that can be read, got: "),
        (
            {"train.parquet": parquet(["a"]), "valid.jsonl": json_lines("b")},
            {},
            "set: expected a data set .*, got: Could",
        ),
        ({"train.parquet": b"PAR1 no parquet"}, {}, "set: expected a data set that can be read, got: "),
    ],
)
def test_a_wrong_folder_is_explained(
    tmp_path: Path, files: dict[str, bytes], options: dict[str, str], message: str
) -> None:
    name = folder(tmp_path / "set", files)
    with pytest.raises(ValueError, match=message):
        read(name, **options)


def test_one_configuration_of_several(tmp_path: Path) -> None:
    files = {"README.md": CONFIGS, "small/a.jsonl": json_lines("s"), "large/a.jsonl": json_lines("l")}
    assert [document.text for document in read(folder(tmp_path / "set", files), config="large")] == ["l"]


ASK = """
import json, sys
from corpus.hub import read_hub
answers = []
for dataset, options in json.loads(sys.argv[1]):
    try:
        answers.append([[document.text, document.name, document.split] for document in read_hub(dataset, **options)])
    except ValueError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


IMPATIENT = """
import time
import corpus.hub, datasets
corpus.hub._TIMEOUT = 0.5
datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
time.sleep = lambda seconds: None
"""


def ask(
    tmp_path: Path, url: str, *questions: tuple[str, dict[str, Any]], before: str = "", **environment: str
) -> list[Any]:
    """What `read_hub` answers in a process of its own, whose Hub is at `url`, after the code `before`."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", before + ASK, json.dumps(questions)],
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_hub_over_http(tmp_path: Path) -> None:
    hub = Hub()
    hub.create("datasets/alice/rows", WITH_SPLITS)
    hub.create("datasets/alice/secret", WITH_SPLITS, gated=True)
    hub.create("datasets/alice/program", {"program.py": b"print('never run')"})
    books = hub.create("datasets/old/books", {"books.py": b"print('never run')"})
    books.branches[PARQUET_COPY] = {
        "plain/train/0000.parquet": parquet(["a book"]),
        "other/train/0000.parquet": parquet(["another book"]),
    }
    hub.moved["datasets/books"] = "datasets/old/books"
    with hub.serve():
        rows, book, other, secret, program, missing, name = ask(
            tmp_path,
            hub.url,
            ("alice/rows", {}),
            ("books", {"config": "plain"}),
            ("old/books", {"config": "other"}),
            ("alice/secret", {}),
            ("alice/program", {}),
            ("bob/rows", {}),
            ("no such name!", {}),
        )
    assert rows[2499:] == [
        ["row 2499", "alice/rows/train#2500", "train"],
        ["a\nb", "alice/rows/train#2501", "train"],
        ["c", "alice/rows/train#2504", "train"],
        ["held out", "alice/rows/validation#1", "validation"],
    ]
    assert not any("test-00000" in request for request in hub.requests if request.startswith("GET"))
    assert book == [["a book", "books/train#1", None]]
    assert other == [["another book", "old/books/train#1", None]]
    assert secret.startswith("alice/secret: is a gated data set; accept its terms on its page at the Hub, log in")
    assert program.startswith(
        "alice/program: needs a loading script, which is not run, and the Hub has no parquet copy"
    )
    assert missing == (
        "bob/rows: expected a data set of the Hub or a folder, got a name that the Hub does not show you; check its "
        "spelling (owner/name), and if it is private log in with `hf auth login`"
    )
    assert name.startswith("no such name!: expected a data set of the Hub (owner/name) or a folder, got neither")


def test_without_a_network(tmp_path: Path) -> None:
    [answer] = ask(tmp_path, "http://127.0.0.1:9", ("alice/rows", {}))
    assert answer.startswith("alice/rows: the Hub cannot be reached (")
    assert "check the network and run the same command again, or use text on this machine: --corpus PATH" in answer
    [answer] = ask(tmp_path, "http://127.0.0.1:9", ("alice/rows", {}), HF_HUB_OFFLINE="1")
    assert "as HF_HUB_OFFLINE is set in the environment" in answer
    [answer] = ask(tmp_path, "http://no-such-host.invalid", ("alice/rows", {}), NO_PROXY="*")
    assert answer.startswith("alice/rows: the Hub cannot be reached (")


def test_every_network_fault_is_explained(tmp_path: Path) -> None:
    faults = FAULTS | {"portal": "something answered in its place, and not in JSON"}
    with serve_faults() as url:
        answers = ask(tmp_path, url, *((f"alice/{fault}", {}) for fault in faults), before=IMPATIENT)
    for (fault, reason), answer in zip(faults.items(), answers, strict=True):
        assert answer.startswith(f"alice/{fault}: the Hub cannot be reached (")
        assert reason in answer
        assert answer.endswith(
            "check the network and run the same command again, or use text on this machine: --corpus PATH"
        )


def test_a_connection_reset_within_a_file_is_explained(tmp_path: Path) -> None:
    hub = Hub(faults=[Fault(request="GET .*/resolve/.*/train-00001-of-00002.parquet", answer="reset")])
    hub.create("datasets/alice/rows", WITH_SPLITS)
    with hub.serve():
        [answer] = ask(tmp_path, hub.url, ("alice/rows", {}), before=IMPATIENT)
    assert answer.startswith("alice/rows: the Hub cannot be reached (")
    assert any("train-00000-of-00002" in request for request in hub.requests)


def test_connection_errors_are_those_of_the_library_that_huggingface_hub_uses() -> None:
    from huggingface_hub import get_session

    from corpus.hub import connection_errors

    library = type(get_session()).__module__.partition(".")[0]
    assert [kind.__module__.partition(".")[0] for kind in connection_errors()] == [library, "builtins", "builtins"]
    assert {"ConnectError", "ReadTimeout", "RemoteProtocolError"} <= {
        kind.__name__ for kind in subclasses(connection_errors()[0])
    }


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))
