"""Files that lie: bombs in every compression, links and sparse files in archives, lines without end, odd characters."""

import gzip
import io
import json
import lzma
import random
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpus.chats import read_chats
from corpus.local import read_local
from corpus.readers import records
from tests.corpus.test_readers import MEMORY, ROOT, archive, texts
from tokenization import load_tokenizer

SIZE = 70_000_000
"""Bytes; more than anything may expand to that is a few kilobytes."""
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda raw: gzip.compress(raw, 1),
    "xz": lambda raw: lzma.compress(raw, preset=0),
    "zst": lambda raw: zstandard.ZstdCompressor(level=1).compress(raw),
}


@pytest.mark.parametrize("inner", ["a.txt", "a.jsonl", "a.tar", "a"])
@pytest.mark.parametrize("ending", COMPRESS)
def test_a_bomb_is_refused_whatever_is_in_it(tmp_path: Path, ending: str, inner: str) -> None:
    content = {
        "a.txt": lambda: b"-" * SIZE,
        "a.jsonl": lambda: b'{"text": "' + b"-" * SIZE + b'"}\n',
        "a.tar": lambda: archive({"a.txt": b"fine", "b.txt": b"-" * SIZE}),
        "a": lambda: archive({"a.txt": b"fine", "b.png": b"\0" * SIZE}),
    }[inner]()
    path = tmp_path / f"{inner}.{ending}"
    path.write_bytes(COMPRESS[ending](content))
    with pytest.raises(
        ValueError,
        match=rf"{inner}\.{ending}: expected a compressed text, got [\d,]+ bytes that expand to more than 64,000,000",
    ):
        texts(path)
    (tmp_path / "good.txt").write_text("good")
    assert texts(tmp_path, skip_broken=True) == ["good"]


def test_what_text_compresses_to_is_no_bomb(tmp_path: Path) -> None:
    """The same page again and again is far below the limit that its size has."""
    page = "".join(f"{random.Random(number).random()} is a number.\n" for number in range(3000)).encode()
    raw = page * (SIZE // len(page))
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(raw, 1))
    assert "".join(texts(path)).encode() == raw


def sparse_tar(size: int) -> bytes:
    """A tar whose only member says that it is a text of `size` bytes, most of which are not stored (GNU, version 1)."""
    buffer = io.BytesIO()
    entry = tarfile.TarInfo("a.txt")
    entry.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a.txt",
        "GNU.sparse.realsize": str(size),
    }
    body = b"1\n0\n5\n".ljust(512, b"\0") + b"hello"
    entry.size = len(body)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def test_a_sparse_member_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(sparse_tar(10**13))
    with pytest.raises(ValueError, match=r"a\.tar: expected an archive with texts, got one with 1 sparse files"):
        texts(path)


def test_links_and_devices_in_archives_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of this machine")
    members = {
        "soft.txt": tarfile.SYMTYPE,
        "hard.txt": tarfile.LNKTYPE,
        "pipe.txt": tarfile.FIFOTYPE,
        "device.txt": tarfile.CHRTYPE,
    }
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in members.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, str(secret)
            tar.addfile(entry)
        entry = tarfile.TarInfo("good.txt")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"good"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        info = zipfile.ZipInfo("soft.txt")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        made.writestr(info, str(secret))
        made.writestr("good.txt", "better")
    said: list[str] = []
    paths = [tmp_path / "a.tar", tmp_path / "b.zip"]
    assert [document.text for document in read_local(paths, say=said.append)] == ["good", "better"]
    assert said == [f"{tmp_path}/a.tar: left out of it: 2 links", f"{tmp_path}/b.zip: left out of it: 1 links"]


@pytest.mark.parametrize("member", [".", "./", ""])
def test_members_without_a_name_are_left_out(tmp_path: Path, member: str) -> None:
    (tmp_path / "a.tar").write_bytes(archive({member: b"text", "good.txt": b"good"}))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        info = zipfile.ZipInfo("x")
        info.filename = member
        made.writestr(info, "text")
        made.writestr("good.txt", "better")
    assert texts(tmp_path / "a.tar", tmp_path / "b.zip") == ["good", "better"]
    (tmp_path / "a.tar").write_bytes(archive({member: b"text"}))
    with pytest.raises(ValueError, match=r"a\.tar: expected an archive with texts, got one with 1 without a name; unp"):
        texts(tmp_path / "a.tar")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_name_twice_gives_both(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a.txt", "first")
        made.writestr("a.txt", "second")
    assert texts(tmp_path / "a.zip") == ["first", "second"]


def test_members_of_a_zip_that_overlap_are_a_bomb(tmp_path: Path) -> None:
    """As David Fifield's: every entry of the directory is the same bytes, and their sizes add up to those of a zip of
    texts."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = b"".join(random.Random(number).randbytes(4).hex().encode() + b"-" * 1000 for number in range(1000))
    body = packed.compress(raw) + packed.flush()
    assert 30 < len(raw) / len(body) < 150  # each alone is as a text may be
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(raw), len(body), len(raw), 5, 0) + b"a.txt"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, zlib.crc32(raw), len(body), len(raw), 5, *[0] * 6)
    count = 400
    directory = (entry + b"a.txt") * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(local) + len(body), 0)
    path = tmp_path / "a.zip"
    path.write_bytes(local + body + directory + end)
    with pytest.raises(ValueError, match=r"to 403,200,000 bytes, as no text does \(a decompression bomb\?\)"):
        texts(path)


def test_a_zip_that_lies_about_its_sizes_yields_no_more_than_it_says(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.txt", b"-" * 1_000_000)
    raw = buffer.getvalue().replace(struct.pack("<L", 1_000_000), struct.pack("<L", 10))
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.zip: expected a complete zip archive, got one that is damaged"):
        texts(tmp_path / "a.zip")


def test_a_parquet_file_of_one_text_many_times_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["-" * 50_000]))
    pq.write_table(pa.table({"text": column}), path)
    with pytest.raises(ValueError, match=r"a\.parquet#1281: expected a table of texts, got one that expands to more"):
        texts(path)


def test_a_parquet_file_with_texts_that_are_no_utf8_is_named(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    (tmp_path / "b.txt").write_text("good")
    with pytest.raises(
        ValueError, match=r"a\.parquet: expected texts in UTF-8 in the column 'text', got other bytes \('utf-8' codec"
    ):
        texts(tmp_path / "a.parquet")
    assert texts(tmp_path, skip_broken=True) == ["good"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.csv", "a.tsv"])
def test_a_record_without_end_is_named_and_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(records, "LONGEST_RECORD", 600_000)
    path = tmp_path / name
    good = b'{"text": "good"}\n' if name.endswith("json") or name.endswith("jsonl") else b"text\ngood\n"
    good = b'{"text": "good"}\n' if name == "a.ndjson" else good
    path.write_bytes(good + b'{"text": "' * (name[2] in "jn") + b"x" * 1_000_000 + b'"}\n' * (name[2] in "jn"))
    line = good.count(b"\n") + 1
    documents = read_local([path])
    assert next(documents).text.strip() == "good"
    with pytest.raises(ValueError, match=rf"{name}:{line}: expected lines of at most 600,000 bytes, got a longer one"):
        next(documents)
    if name.endswith("sv"):  # a quotation mark that is never closed takes all the rest for one cell
        path.write_bytes(b'text\n"' + b"line\n" * 200_000)
        with pytest.raises(
            ValueError, match=rf"{name}:\d+: expected a row of a table, .*field larger than field limit"
        ):
            texts(path)


def test_what_json_can_hold_and_utf8_cannot(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a\\u0000b"}',
        b'{"text": "\\ud83d\\ude00 \\ud800 \\udfff"}',
        b'{"messages": [{"role": "user\\ud800", "content": "\\udc00hi\\u0000"}]}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    found = texts(tmp_path / "a.jsonl")
    assert found == ["a\0b", "😀 \ufffd \ufffd", "User\ufffd: \ufffdhi\0\n"]
    assert all(text.encode() for text in found)
    (tmp_path / "a.json").write_bytes(b'["\\ud800x", {"text": "\\u0000"}]')
    assert texts(tmp_path / "a.json") == ["\ufffdx", "\0"]
    chat = {"messages": [{"role": "user", "content": "\ud800?"}, {"role": "assistant", "content": "\0\udfff!"}]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat) + "\n")
    (read,) = read_chats([tmp_path / "chats.jsonl"])
    assert [message.content for message in read.messages] == ["\ufffd?", "\0\ufffd!"]
    (tmp_path / "b.jsonl").write_bytes(b'{"\\ud800": "x"}\n')
    with pytest.raises(ValueError, match=r"expected a field 'text' with the text, got '\\ud800'") as error:
        texts(tmp_path / "b.jsonl")
    str(error.value).encode()


@pytest.mark.parametrize("name", ["deep.html", "deep.json", "deep.jsonl", "digits.jsonl", "tags.srt", "open.html"])
def test_nesting_and_numbers_without_end_are_an_error_or_text(tmp_path: Path, name: str) -> None:
    content = {
        "deep.html": "<p>good</p>" + "<div>" * 50_000,
        "deep.json": "[" * 100_000,
        "deep.jsonl": '{"text": ' * 100_000,
        "digits.jsonl": '{"text": "x", "n": ' + "9" * 100_000 + "}\n",
        "tags.srt": "1\n00:01 --> 00:02\n" + "<" * 200_000,
        "open.html": "<p>good</p>" + "<a" * 100_000,
    }[name]
    (tmp_path / name).write_text(content)
    try:
        found = texts(tmp_path / name)
    except ValueError as error:
        found = [str(error)]
    assert found[0].startswith((f"{tmp_path}/{name}", "<" * 1000, "good"))


LONG_LINES = {
    "a.txt": (b"", b"word " * 200_000, b""),
    "letters.txt": (b"", b"x" * 1_000_000, b""),
    "a.txt.zst": (b"", b"word " * 200_000, b""),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")
@pytest.mark.parametrize("name", LONG_LINES)
def test_a_line_of_200_megabytes_takes_little_memory(tmp_path: Path, name: str) -> None:
    begin, block, end = LONG_LINES[name]
    opener = zstandard.open if name.endswith("zst") else open
    with opener(tmp_path / name, "wb") as file:
        file.write(begin)
        for number in range(200):
            file.write(f"{random.Random(number).random()} ".encode() * 300 if name.endswith("zst") else b"")
            file.write(block)
        file.write(end)
    if name.endswith("zst"):
        size = (tmp_path / name).stat().st_size
        with (tmp_path / name).open("ab") as file:  # a frame that is skipped, so that it is no bomb
            file.write(struct.pack("<LL", 0x184D2A50, 2_000_000) + bytes(2_000_000))
        assert size < 2_000_000
    done = subprocess.run(
        [sys.executable, "-B", "-c", MEMORY, str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    length, megabytes = map(int, done.stdout.split())
    assert length >= 200_000_000
    assert megabytes < 80


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_record_of_200_megabytes_takes_a_few_times_its_size(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(b'{"text": "' if name == "a.jsonl" else b"text\n")
        for _ in range(200):
            file.write(b"word " * 200_000)
        file.write(b'"}\n' if name == "a.jsonl" else b"\n")
    done = subprocess.run(
        [sys.executable, "-B", "-c", MEMORY, str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    length, megabytes = map(int, done.stdout.split())
    assert length >= 200_000_000 - 1
    assert megabytes < 1500


COMMAND = """
import re, sys
from tokenization.__main__ import main
main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) // 1000)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")
def test_a_vocabulary_is_learnt_from_a_line_of_300_megabytes_and_encodes_it(tmp_path: Path) -> None:
    """Two commands, each with a peak of resident memory far below the line; the ids are all of its bytes."""
    text, tokenizer, ids = tmp_path / "a.txt", tmp_path / "tokenizer", tmp_path / "a.npy"
    choose = random.Random(0).choice
    block = "".join(f"{choose(('lamp', 'mill', 'Ärger'))}{choose(range(500))} " for _ in range(100_000)).encode()
    with text.open("wb") as file:
        while file.tell() < 300_000_000:
            file.write(block)
    for command in (
        ["train", "bpe", "--corpus", str(text), "--vocab-size", "400", "--out", str(tokenizer)],
        ["encode", str(tokenizer), str(text), "--out", str(ids)],
    ):
        done = subprocess.run(
            [sys.executable, "-B", "-c", COMMAND, *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert int(done.stdout.split()[-1]) < 290, command  # megabytes
    lengths = np.zeros(400, dtype=np.int64)
    for token, token_id in load_tokenizer(tokenizer).get_vocab().items():
        lengths[token_id] = len(token)  # a character stands for each byte
    array = np.load(ids, mmap_mode="r")
    assert len(array) < text.stat().st_size / 2
    assert sum(int(lengths[part].sum()) for part in np.array_split(array, 50)) == text.stat().st_size
