"""Every kind of file that --corpus takes, complete, damaged and too long for memory."""

import gzip
import io
import json
import logging
import lzma
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.clean import clean_gutenberg
from corpus.documents import LONGEST_UNCUT
from corpus.encodings import decode_bytes
from corpus.local import file_of, find_files, read_local

ROOT = Path(__file__).parents[2]
LINES = "".join(f"Sentence {number} of a page, {number**5 % 7919}.\n" for number in range(400))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def records(*texts: str | None, field: str = "text") -> bytes:
    return b"".join(json.dumps({field: text, "id": 7}).encode() + b"\n" for text in texts)


def texts(*paths: Path, **options: object) -> list[str]:
    return [document.text for document in read_local(paths, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_text_records_and_archives(tmp_path: Path, ending: str) -> None:
    for name, content in {
        "a.txt": b"\xef\xbb\xbfone\r\ntwo",
        "b.jsonl": records("three", "four"),
        "c": archive({"x/5.txt": b"five", "x/6#.TXT": "sïxth".encode("cp1252"), "x/empty.txt": b"", "x/y.png": b"\0"}),
        "d": b"seven",
    }.items():
        (tmp_path / f"{name}.{ending}").write_bytes(COMPRESS[ending](content))
    documents = list(read_local([tmp_path]))
    assert [document.text for document in documents] == ["one\ntwo", "three", "four", "five", "sïxth", "seven"]
    suffixes = [document.name.removeprefix(tmp_path.as_posix()) for document in documents]
    assert suffixes == [
        f"/a.txt.{ending}",
        f"/b.jsonl.{ending}#1",
        f"/b.jsonl.{ending}#2",
        f"/c.{ending}#x/5.txt",
        f"/c.{ending}#x/6%23.TXT",
        f"/d.{ending}",
    ]
    files = [file_of(document.name) for document in documents]
    assert list(dict.fromkeys(files)) == [path.as_posix() for path in find_files([tmp_path])]
    assert all(document.is_complete and document.split is None for document in documents)


def test_several_streams_in_a_row_are_one_file(tmp_path: Path) -> None:
    for ending, compress in COMPRESS.items():
        path = tmp_path / f"a.txt.{ending}"
        path.write_bytes(compress(b"one ") + compress(b"") + compress(b"two"))
        assert texts(path) == ["one two"]


def test_uncompressed_archives_and_long_members(tmp_path: Path) -> None:
    page = LINES.encode() * (LONGEST_UNCUT // len(LINES) + 1)
    content = archive({"a.txt": b"first", "b.txt": page, "c.txt": b"last"})
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(content, 1))
    for path in (tmp_path / "a.tar", tmp_path / "a.tgz"):
        documents = list(read_local([path]))
        assert [documents[0].text, documents[-1].text] == ["first", "last"]
        assert "".join(document.text for document in documents[1:-1]).encode() == page
        assert [document.is_complete for document in documents[1:-1]] == [False] * (len(documents) - 3) + [True]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        b"\xef\xbb\xbf" + records("a\r\nb\rc", None, " \n", "") + b"\n" + b'{"text":"\\ud83d\\ude00\\ud800"}'
    )
    documents = list(read_local([path]))
    assert [(document.text, document.name) for document in documents] == [
        ("a\nb\nc", f"{path.as_posix()}#1"),
        ("😀\ufffd", f"{path.as_posix()}#6"),
    ]
    path.write_bytes(records("x", field="body"))
    assert texts(path, text_field="body") == ["x"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    rows = [f"row {number}" if number % 3 else None for number in range(2500)]
    pq.write_table(pa.table({"n": range(2500), "body": pa.array(rows).cast(kind)}), path, row_group_size=700)
    documents = list(read_local([tmp_path], text_field="body"))
    assert [document.text for document in documents] == [row for row in rows if row]
    assert documents[-1].name == f"{path.as_posix()}#2499"
    assert file_of(documents[-1].name) == path.as_posix()


def test_globs_and_folders(tmp_path: Path) -> None:
    for name in ("a1.txt", "a2.txt", "b.txt", "x/a3.txt", "x/y/c.txt", "a[1].txt", ".a0.txt", "settings.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "a?.txt") == ["a1.txt", "a2.txt"]
    assert texts(tmp_path / "*" / "*.txt") == ["x/a3.txt"]
    assert texts(tmp_path / "**" / "[ac]*.txt") == ["a1.txt", "a2.txt", "a[1].txt", "x/a3.txt", "x/y/c.txt"]
    assert texts(tmp_path / "x*") == ["x/a3.txt", "x/y/c.txt"]
    assert texts(tmp_path / "a[1].txt") == ["a[1].txt"]
    assert len(texts(tmp_path)) == 6
    with pytest.raises(ValueError, match=r"z\*.txt: no file or folder matches .*; check the pattern"):
        read_local([tmp_path / "z*.txt"])


@pytest.mark.parametrize("damage", ["cut", "flip", "not"])
@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_file_in_a_folder_yields_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, damage: str
) -> None:
    for name in "abc":
        content = archive({f"{name}{page}.txt": (f"{name}{page}\n" + LINES).encode() for page in range(3)})
        (tmp_path / f"{name}.{ending}").write_bytes(COMPRESS[ending](content))
    broken = tmp_path / f"b.{ending}"
    raw = bytearray(broken.read_bytes())
    raw[len(raw) // 2] ^= 0x55
    broken.write_bytes({"cut": raw[: len(raw) * 3 // 4], "flip": raw, "not": b"no archive at all"}[damage])
    name = {"gz": "gzip", "xz": "xz", "zst": "zstd"}[ending]
    message = rf"b\.{ending}: expected a complete {name} file, got one that is damaged or cut off \(.+\); fetch"
    documents = read_local([tmp_path])
    assert [next(documents).text[:2] for _ in range(3)] == ["a0", "a1", "a2"]
    with pytest.raises(ValueError, match=message):
        next(documents)
    assert [text[:2] for text in texts(tmp_path, skip_broken=True)] == ["a0", "a1", "a2", "c0", "c1", "c2"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"left out: {broken.as_posix()}: expected a complete" in caplog.text


def test_a_long_damaged_file_yields_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(LINES.encode() * (2 * LONGEST_UNCUT // len(LINES)), 1)[:-9])
    with pytest.raises(ValueError, match=r"a.txt.gz: expected a complete gzip file, got one that is damaged"):
        next(read_local([path]))
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(records(LINES) * (2 * LONGEST_UNCUT // len(LINES)))[:-9])
    with pytest.raises(ValueError, match=r"a.jsonl.zst: expected a complete zstd file, got one that is damaged"):
        next(read_local([path]))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(list(COMPRESS)))
    raw = bytearray(COMPRESS[ending](LINES.encode()))
    place = data.draw(st.integers(1 if ending == "gz" else 0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw = raw[:place]
    else:
        raw[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / f"a.txt.{ending}"
    path.write_bytes(raw)
    try:
        found = texts(path)
    except ValueError as error:
        found = str(error)
    # The header of gzip holds bytes without meaning.
    assert found == [LINES] or (isinstance(found, str) and found.startswith(path.as_posix()))


def test_a_damaged_tar_is_noticed(tmp_path: Path) -> None:
    content = bytearray(archive({"a.txt": b"one", "b.txt": b"two", "c.txt": b"three"}))
    content[1024 + 20] ^= 0x55  # in the header of the second
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.tar: expected a complete tar archive, got one that is damaged or cut off"):
        texts(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(content[:520])
    with pytest.raises(ValueError, match=r"a.tar: expected a complete tar archive"):
        texts(tmp_path / "a.tar")


def test_an_archive_is_read_without_its_broken_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.xz"
    path.write_bytes(lzma.compress(archive({"a.txt": b"one", "b.txt": b"\0\0", "c.txt": b"three"})))
    with pytest.raises(ValueError, match=r"a.xz#b.txt: expected plain text, got a binary file"):
        texts(path)
    assert texts(path, skip_broken=True) == ["one", "three"]
    assert "left out: " in caplog.text
    assert "a.xz#b.txt" in caplog.text


def test_records_before_a_wrong_line_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(records("one", "two") + b'{"text": "thr\n' + records("four"))
    (tmp_path / "b.txt").write_text("five")
    with pytest.raises(ValueError, match=r"""a.jsonl:3: expected one JSON object a line, got '{"text": "thr' \(.+\)"""):
        texts(tmp_path)
    assert texts(tmp_path, skip_broken=True) == ["one", "two", "five"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1, 2]", r"a.jsonl:1: expected one JSON object a line, got '\[1, 2\]' \(list\)"),
        (b"[" * 100_000, r"a.jsonl:1: expected one JSON object a line, got '\[{40}…' \(brackets nested too deep\)"),
        (b'{"text": "\xff"}', "a.jsonl:1: expected one JSON object a line"),
        (b'{"body": "x", "id": 1}', "a.jsonl:1: expected a field 'text' with the text, got 'body', 'id'; say which"),
        (b"{}", "a.jsonl:1: expected a field 'text' with the text, got none"),
        (b'{"text": 5}', "a.jsonl:1: expected text in the field 'text', got int; convert the file"),
        (b'{"text": 5, "body": "x"}', "expected text in the field 'text', got int; choose another field: 'body'"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=message):
        texts(path)


def test_a_wrong_field_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(records("x", field="body"))
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="expected a field 'text' with the text, got 'body', 'id'"):
        texts(tmp_path, skip_broken=True)
    with pytest.raises(
        ValueError, match=r"b.parquet: expected a column 'text' with the text, got 'body', 'n'; say which"
    ):
        texts(tmp_path / "b.parquet", skip_broken=True)
    with pytest.raises(
        ValueError, match=r"b.parquet: expected text in the column 'n', got int64; choose another column"
    ):
        texts(tmp_path / "b.parquet", text_field="n")


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [LINES, LINES]}), path)
    raw = path.read_bytes()
    for content in (raw[:-20], b"PAR1", b"some text", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.parquet: expected a parquet file, got one that is damaged"):
            texts(path)


def test_what_holds_no_text_is_named(tmp_path: Path) -> None:
    for name, content, message in [
        ("a.jsonl", b"\n", "a.jsonl: expected text, got an empty file"),
        ("a.xz", lzma.compress(b""), "a.xz: expected text, got an empty file"),
        ("a.zst", b"", "a.zst: expected text, got an empty file"),
        ("a.tar.gz", gzip.compress(archive({})), "a.tar.gz: expected an archive with texts, got one with nothing"),
        (
            "b.xz",
            lzma.compress(archive({"a.xz": b"x"})),
            r"b.xz: expected an archive with texts, got one with 1 .xz; unpack it",
        ),
        (
            "a.doc",
            b"PK\0",
            r"a.doc: expected a text or one of the endings .txt, .*, got a binary file with the ending",
        ),
        ("a.bz2", b"BZh\0", r"a.bz2: expected a text or one of the endings .*\.xz.*ending \.bz2; convert it"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            texts(tmp_path / name)
    with pytest.raises(ValueError, match="expected at least one file that can be read, got none; the last error was"):
        texts(tmp_path, skip_broken=True)


def test_file_of_leaves_other_names_alone() -> None:
    for name in ("C#/book.txt", "a.txt", "The Time Machine (Gutenberg 35)", "notes#1", "x.md"):
        assert file_of(name) == name
    assert file_of("C#/a.jsonl.gz#12") == "C#/a.jsonl.gz"


def test_a_folder_is_read_sorted_and_a_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/y.txt", ".hidden/x.txt", "._b.txt", "c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    assert texts(tmp_path) == ["a/y.txt", "a/z.TXT", "b.txt", "c.md"]
    assert next(read_local([tmp_path])).name == (tmp_path / "a/y.txt").as_posix()
    assert texts(tmp_path / "c.md", tmp_path / "b.txt", tmp_path, tmp_path / "c.md")[:2] == ["c.md", "b.txt"]


def test_a_long_file_without_text_is_named_before_its_first_piece(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good")
    (tmp_path / "b.txt").write_bytes(b"Text.\n" * 3_000_000 + b"\0")
    documents = read_local([tmp_path])
    assert next(documents).text == "good"
    with pytest.raises(
        ValueError, match=r"b.txt: expected plain text, got 1 NUL byte at offset 18,000,000, line 3,000,001"
    ):
        next(documents)


def test_paths_are_checked_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    for paths, message in [
        ([], "expected at least one text file or folder, got none"),
        ([tmp_path / "no.txt"], "no.txt: no such file or folder .* check the path"),
        ([tmp_path / "empty"], "expected a folder with text files .*, got none in it"),
        ([tmp_path / "pipe.txt"], "got something else"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_local(paths)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
def test_an_unreadable_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"/proc/self/mem: expected a readable file, got: .*; check its permissions"):
        texts(Path("/proc/self/mem"))


@pytest.mark.parametrize(
    ("ending", "compress", "encoding"),
    [
        (".txt", bytes, "utf-8-sig"),
        (".txt", bytes, "cp1252"),
        (".txt", bytes, "latin-1"),
        (".txt.gz", lambda raw: gzip.compress(raw, 1), "cp1252"),
        (".zst", zstandard.compress, "utf-8-sig"),
        (".xz", lambda raw: lzma.compress(raw, preset=0), "latin-1"),
    ],
)
def test_a_long_file_is_read_as_a_short_one_is(tmp_path: Path, ending: str, compress, encoding: str) -> None:
    line = "Ein längerer Absatz, wie er in Büchern steht, in einer Zeile.\r\n" * 8 + "\r\n\r"
    text = line * (LONGEST_UNCUT // len(line) + 1) + ("€" if encoding != "latin-1" else "\x81")
    raw = text.encode(encoding)
    path = tmp_path / f"a{ending}"
    path.write_bytes(compress(raw))
    pieces = list(read_local([path]))
    assert "".join(piece.text for piece in pieces) == clean_gutenberg(decode_bytes(raw, "a"))
    assert [piece.is_complete for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {piece.name for piece in pieces} == {path.as_posix()}
    assert len(pieces) >= 16


MEMORY = """
import re, sys
import pyarrow.parquet
from corpus.local import read_local
def kilobytes(field):  # the peak that `resource` knows may be that of the process that started this one
    return int(re.search(field + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1])
before = kilobytes("VmRSS")
size = sum(len(document.text) for document in read_local([sys.argv[1]]))
print(size, (kilobytes("VmHWM") - before) // 1000)
"""


def write_100_megabytes(path: Path) -> None:
    line = b"All work and no play makes Jack a dull boy, says the proverb, and continues for hours like this.\n"
    if path.suffix == ".parquet":
        table = pa.table({"text": [line.decode() * 10] * 10_000})
        with pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
            for _ in range(11):
                writer.write_table(table)
        return
    block = line * 10_000
    if path.name.endswith(".jsonl.zst"):
        block = (b'{"text": "' + line[:-1] * 10 + b'"}\n') * 1000
    opener = {".gz": gzip.open, ".zst": zstandard.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        for number in range(110):
            file.write(block)
            noise = random.Random(number).randbytes(10_000).hex()  # what is all the same is taken for a bomb
            file.write(f"{json.dumps({'text': noise})}\n".encode())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl.zst", "a.parquet"])
def test_memory_stays_flat(tmp_path: Path, name: str) -> None:
    write_100_megabytes(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-B", "-c", MEMORY, str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, megabytes = map(int, done.stdout.split())
    assert size > 90_000_000
    assert megabytes < 80
