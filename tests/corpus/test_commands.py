"""`python -m corpus download` and `clean`: what they write, and that a killed one continues."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpus.__main__ import main
from corpus.local import read_local
from corpus.resumable import Batch, write_texts
from tests.hub_double import Hub

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def texts(*paths: Path) -> list[str]:
    return [document.text for document in read_local(paths)]


def start(*arguments: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-B", "-m", "corpus", *map(str, arguments)],
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when_saved(process: subprocess.Popen, out: Path, texts: int) -> dict:
    """Kills a step once it has saved so many texts; returns what it saved."""
    state = out.with_name(out.name + ".part.json")
    deadline = time.monotonic() + 60
    while not state.exists() or json.loads(state.read_text())["texts"] < texts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    assert out.with_name(out.name + ".part").exists()
    return json.loads(state.read_text())


def test_clean_writes_a_document_a_record_or_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"one  two\r\n\r\nthree\r\n")
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "four\\nfour"}\n{"text": "\\u0000"}\n{"text": "five é"}\n')
    for name, expected in {
        "c.txt": ["one two\nthree\n\nfour\nfive é\n"],
        "c.txt.zst": ["one two\nthree\n\nfour\nfive é\n"],
        "c.jsonl": ["one two\nthree\n", "four\n", "five é\n"],
        "c.jsonl.zst": ["one two\nthree\n", "four\n", "five é\n"],
    }.items():
        main(["clean", str(tmp_path / "in"), "--out", str(tmp_path / "out" / name)])
        assert texts(tmp_path / "out" / name) == expected
        assert capsys.readouterr().out == f"{tmp_path}/out/{name}: 3 texts, 27 bytes\n"
    assert names(tmp_path / "out") == ["c.jsonl", "c.jsonl.zst", "c.txt", "c.txt.zst"]


def test_notes_and_errors_name_the_flags_of_clean_on_lines_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Паром ушёл в полдень, и собаки лаяли ему вслед.\n", encoding="cp1251")
    (tmp_path / "b.csv").write_text("body\nx\n")
    messages = start("clean", tmp_path, "--out", tmp_path / "c.txt").communicate()[1]
    note = "a.txt: not UTF-8; read as cp1251 (recognised): “Паром ушёл в полдень, и собаки лаяли ему…”; "
    lines = [line.rstrip() for line in messages.replace("\r", "\n").splitlines()]
    assert f"{tmp_path}/{note}if that is wrong, name the encoding (--encoding)" in lines
    assert lines[-1].endswith(
        "b.csv: expected a column 'text' with the text, got 'body'; say which of them holds it (--text-field)"
    )


def test_a_long_text_is_cleaned_in_pieces(tmp_path: Path) -> None:
    lines = [f"Line {number}  of many.\n" for number in range(800_000)]
    (tmp_path / "a.txt").write_text("".join(lines))
    main(["clean", str(tmp_path / "a.txt"), "--out", str(tmp_path / "b.txt")])
    assert (tmp_path / "b.txt").read_text() == "".join(lines).replace("  ", " ") + "\n"


@pytest.mark.slow
def test_a_killed_clean_continues(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "b.jsonl.zst"
    folder.mkdir()
    for number in range(40):
        text = "".join(f"File {number},  line {line % 5000}.\n" for line in range(40_000))
        (folder / f"{number:02}.txt").write_text(text)
    saved = kill_when_saved(start("clean", folder, "--out", out), out, 1)
    assert 0 < saved["texts"] < 40
    with out.with_name("b.jsonl.zst.part").open("ab") as file:  # what a kill may leave behind what counts
        file.write(b"half a frame")
    process = start("clean", folder, "--out", out)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.startswith(f"{out}: 40 texts, ")
    assert "B/s" in errors
    assert names(tmp_path) == ["b.jsonl.zst", "in"]
    assert texts(out) == [path.read_text().replace("  ", " ") for path in sorted(folder.iterdir())]


@pytest.mark.slow
def test_a_killed_download_continues_from_the_shard_it_was_in(tmp_path: Path) -> None:
    rows = [
        [f"Row {row} of shard {shard}. " + "It is a long row. " * 25 for row in range(10_000)] for shard in range(5)
    ]
    files = {}
    for shard, lines in enumerate(rows):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": lines}), buffer)
        files[f"data/train-{shard:05}-of-00005.parquet"] = buffer.getvalue()
    hub, out = Hub(), tmp_path / "rows.txt"
    hub.create("datasets/alice/rows", files)
    held = "data/train-00003-of-00005.parquet"
    hub.held[held] = threading.Event()
    with hub.serve():
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        arguments = ("download", "alice/rows", "--out", out)
        saved = kill_when_saved(start(*arguments, **environment), out, 15_000)
        assert 0 < saved["texts"] < 40_000
        assert '"shard_idx": 1' in json.dumps(saved["position"])
        hub.held[held].set()
        process = start(*arguments, **environment)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.startswith(f"{out}: 50,000 texts, ")
    assert out.read_text() == "".join(f"{row}\n" for shard in rows for row in shard)
    assert names(tmp_path) == ["hf", "rows.txt"]


def test_a_download_stops_at_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "set", tmp_path / "a.jsonl"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(f'{{"text": "row {row}"}}\n' for row in range(3000)))
    main(["download", str(folder), "--out", str(out), "--limit-bytes", "26"])
    assert out.read_text() == "".join(f'{{"text": "row {row}"}}\n' for row in range(6))
    assert capsys.readouterr().out == f"{out}: 6 texts, 30 bytes\n"


def test_downloading_gutenberg_uses_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    from corpus.gutenberg import SCIFI_BOOKS

    for book in SCIFI_BOOKS:
        raw = f"Title: {book.title}\n\n*** START OF THE PROJECT GUTENBERG EBOOK ***\n\nBook {book.id}.\n".encode()
        (tmp_path / f"pg{book.id}.txt").write_bytes(raw)
        (tmp_path / f"pg{book.id}.txt.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  x\n")
    out = tmp_path / "books.jsonl"
    main(["download", "gutenberg", "--out", str(out), "--cache-dir", str(tmp_path)])
    assert texts(out) == [f"Book {book.id}.\n" for book in SCIFI_BOOKS]


def write(path: Path, made_from: dict, *texts: str, error: BaseException | None = None) -> list[int]:
    """Write the texts, then fail with the error; returns the positions that the source was asked for."""
    asked = []

    def read(position: int | None):
        asked.append(position)
        for number, text in enumerate(texts, start=(position or 0) + 1):
            yield Batch([(text, True)], 1, number)
        if error:
            raise error

    write_texts(path, made_from, read, progress=False)
    return asked


BIG = "x" * 8_000_000  # is saved at once


def test_what_was_saved_survives_an_interrupt(tmp_path: Path) -> None:
    out = tmp_path / "b.txt"
    with pytest.raises(KeyboardInterrupt):
        write(out, {"a": 1}, BIG, "lost", error=KeyboardInterrupt())
    assert names(tmp_path) == ["b.txt.part", "b.txt.part.json"]
    assert write(out, {"a": 1}, "two\n") == [1]
    assert out.read_text() == f"{BIG}\ntwo\n"
    assert names(tmp_path) == ["b.txt"]


def test_a_failure_before_anything_was_saved_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path / "a.txt", {}, "one", error=RuntimeError())
    with pytest.raises(ValueError, match=r"a.txt: expected text to write, got none; nothing was left under this name"):
        write(tmp_path / "a.txt", {}, "", "")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_full_disk_at_the_end_is_explained(tmp_path: Path) -> None:
    """Closing the file tries once more to write what it holds."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.txt: the disk has no room for it"):
            write(tmp_path / "a.txt", {}, "x" * 3000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []
    write(tmp_path / "a.txt", {}, "x" * 3000)
    assert (tmp_path / "a.txt").stat().st_size == 3001


def test_another_command_does_not_continue_the_file(tmp_path: Path) -> None:
    out, made_from = tmp_path / "a.txt", {"dataset": "a", "split": "train"}

    def read(position: None):
        yield Batch([(BIG, True)], 1, 1)
        with pytest.raises(ValueError, match=r"a.txt: another process is writing it; wait for it"):
            write(out, made_from, "x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_texts(out, made_from, read, progress=False)
    message = r"a.txt.part: expected what an earlier run .*, got .* another dataset; delete"
    with pytest.raises(ValueError, match=message):
        write(out, made_from | {"dataset": "b"}, "x")
    out.with_name("a.txt.part").write_bytes(b"")  # less than was saved: starts again
    assert write(out, made_from, "new") == [None]
    assert out.read_text() == "new\n"


def test_saved_frames_carry_checksums(tmp_path: Path) -> None:
    write(tmp_path / "a.txt.zst", {}, BIG, "two")
    assert texts(tmp_path / "a.txt.zst") == [f"{BIG}\ntwo\n"]
    assert zstandard.get_frame_parameters((tmp_path / "a.txt.zst").read_bytes()).has_checksum


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "no.txt", "--out", "b.txt"], "error: no.txt: no such file or folder"),
        (["clean", "a.txt", "--out", "b.doc"], "error: b.doc: expected a name that ends with .txt, .jsonl, .txt.zst"),
        (["clean", "a.txt", "--out", "a.txt"], "error: a.txt: expected a name that is free, but it exists"),
        (["clean", "e.jsonl", "--out", "b.txt"], "error: e.jsonl:1: expected a field 'text' with the text, got 'x'"),
        (["clean", "blank.jsonl", "--out", "b.txt"], "error: b.txt: expected text to write, got none"),
        (["clean", "bad.xz", "a.txt", "--out", "b.txt"], "error: bad.xz: expected a complete xz file, got one that is"),
        (["download", "./none", "--out", "b.txt"], "error: ./none: expected a data set of the Hub (owner/name)"),
        (["download", "x", "--out", "b.txt", "--limit-bytes", "0"], "error: limit-bytes: expected at least 1, got 0"),
    ],
)
def test_a_mistake_ends_with_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"a.txt": b"text", "e.jsonl": b'{"x": "y"}', "blank.jsonl": b'{"text": "\\u0000"}', "bad.xz": b"\xfd7zXZ"}
    for name, content in files.items():
        Path(name).write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert str(caught.value).startswith(message)
    assert names(tmp_path) == sorted(files)


def test_the_command_line_explains_itself_and_warns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.xz").write_bytes(b"\xfd7zXZ")
    processes = [
        start("--help"),
        start("download", "--help"),
        start("clean", tmp_path, "--out", tmp_path / "c.txt", "--skip-broken"),
        start("clean", tmp_path / "b.xz", "--out", tmp_path / "d.txt"),
    ]
    (top, top_errors), (download, _), (_, warning), (_, error) = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 1]
    assert "download" in top
    assert "clean" in top
    assert top_errors == ""
    assert "--limit-bytes" in download
    assert f"left out: {tmp_path}/b.xz: expected a complete xz file, got one that is damaged or cut off" in warning
    assert error.splitlines()[-1].startswith(f"error: {tmp_path}/b.xz: expected a complete xz file")
    assert "Traceback" not in warning + error
