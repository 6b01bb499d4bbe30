"""Long texts come in pieces that make the text again, cut where no tokenizer sees it, in little memory."""

import gzip
import lzma
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.chunking import LONGEST_WHOLE, PIECE, cut_document, cut_text
from corpus.clean import choose_encoding, clean_gutenberg, decode_bytes
from corpus.documents import Document
from corpus.local import read_local

ROOT = Path(__file__).parents[2]
TEXTS = st.lists(st.text("ab 1.é\n\t", max_size=30), max_size=20)


@given(TEXTS, st.integers(1, 40))
@settings(deadline=None)
def test_pieces_make_the_text_again(texts: list[str], size: int) -> None:
    pieces = list(cut_text(texts, size))
    assert "".join(piece for piece, _ in pieces) == "".join(texts)
    assert [is_last for _, is_last in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    assert all(0 < len(piece) <= max(2, size) for piece, _ in pieces)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("one two\nthree four five", "one two\n|three four five"),
        ("one\ntwo\n\n three four", "one\n|two\n\n three four"),
        (" = Titl =\n Some text", " = Titl =\n| Some text"),
        ("One.\n\nTwo, on and on", "One.\n\n|Two, on and on"),
        ("one two three and four", "one two| three and four"),
        ("1.2.3.4.5.6.7.8.9.10.11", "1.2.3.4.5.|6.7.8.9.10.11"),
        ("......................", "...........|..........."),
    ],
)
def test_a_piece_ends_at_the_best_place_in_reach(text: str, cut: str) -> None:
    pieces = [piece for piece, _ in cut_text([text], 12)]
    assert "|".join([pieces[0], "".join(pieces[1:])]) == cut


def test_a_long_document_is_cut_and_keeps_its_labels() -> None:
    line = "A line that is as long as lines are, and a little longer.\n"
    document = Document(text=line * (LONGEST_WHOLE // len(line) + 1), name="a#1", split="train")
    pieces = list(cut_document(document))
    assert "".join(piece.text for piece in pieces) == document.text
    assert {(piece.name, piece.split) for piece in pieces} == {("a#1", "train")}
    assert [piece.is_complete for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(piece.text.endswith("\n") and piece.text[0] == "A" for piece in pieces)
    assert max(len(piece.text) for piece in pieces) <= PIECE
    short = Document(text="short", name="b")
    assert list(cut_document(short)) == [short]


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode), st.integers(1, 7))
@settings(deadline=None, max_examples=300)
def test_the_encoding_is_the_same_in_any_chunks(raw: bytes, size: int) -> None:
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
    try:
        whole = choose_encoding([raw], "a")
    except ValueError as error:
        with pytest.raises(
            ValueError, match="^" + re.escape(str(error)) if "UTF-16" in str(error) else "^a: expected plain"
        ):
            choose_encoding(chunks, "a")
        return
    assert choose_encoding(chunks, "a") == whole
    assert decode_bytes(raw, "a") == raw.decode(whole)
    if whole != "utf-8-sig":
        with pytest.raises(UnicodeDecodeError):
            raw.decode("utf-8")
    if whole == "latin-1":
        with pytest.raises(UnicodeDecodeError):
            raw.decode("cp1252")


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, zstandard.compress, lambda raw: lzma.compress(raw, preset=0)]
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "latin-1"])
def test_a_long_file_is_read_as_a_short_one_is(tmp_path: Path, compress, encoding: str) -> None:
    ending = {bytes: ".txt", gzip.compress: ".txt.gz", zstandard.compress: ".zst"}.get(compress, ".xz")
    line = "Ein längerer Absatz, wie er in Büchern steht, in einer Zeile.\r\n" * 8 + "\r\n\r"
    text = line * (LONGEST_WHOLE // len(line) + 1) + ("€" if encoding != "latin-1" else "\x81")
    raw = text.encode(encoding)
    path = tmp_path / f"a{ending}"
    path.write_bytes(compress(raw))
    pieces = list(read_local([path]))
    assert "".join(piece.text for piece in pieces) == clean_gutenberg(decode_bytes(raw, "a"))
    assert [piece.is_complete for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert {piece.name for piece in pieces} == {path.as_posix()}
    assert len(pieces) >= 16


def test_a_long_binary_file_is_refused_before_its_first_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"A line of text.\n" * 1_100_000 + b"\0")
    with pytest.raises(ValueError, match=r"a.txt: expected plain text, got a binary file \(NUL bytes\)"):
        next(read_local([path]))


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


def make(path: Path, megabytes: int) -> None:
    line = b"All work and no play makes Jack a dull boy, says the proverb, and goes on for hours like this.\n"
    block = line * 10_000
    blocks = megabytes * 1_000_000 // len(block)
    if path.name.endswith(".jsonl.zst"):
        block = (b'{"text": "' + line[:-1] * 10 + b'"}\n') * 1000
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
            for _ in range(blocks):
                writer.write(block)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"text": [line.decode() * 10] * 10_000})
        with pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
            for _ in range(blocks // 10):
                writer.write_table(table)
    else:
        with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
            for _ in range(blocks):
                file.write(block)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl.zst", "a.parquet"])
def test_memory_stays_flat(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make(path, 100)
    done = subprocess.run(
        [sys.executable, "-B", "-c", MEMORY, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, megabytes = map(int, done.stdout.split())
    assert size > 90_000_000
    assert megabytes < 80
