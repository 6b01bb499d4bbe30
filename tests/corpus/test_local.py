"""Files and folders of the user's own text."""

import os
from pathlib import Path

import pytest

from corpus.local import read_local


def write(path: Path, content: bytes = b"some text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_is_read_sorted_and_below(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/y.txt", ".hidden/x.txt", "._b.txt", "c.md"):
        write(tmp_path / name, name.encode())
    documents = list(read_local([tmp_path]))
    assert [document.text for document in documents] == ["a/y.txt", "a/z.TXT", "b.txt"]
    assert documents[0].name == (tmp_path / "a/y.txt").as_posix()
    assert documents[0].log_probability is None


def test_named_files_keep_their_order_and_are_read_once(tmp_path: Path) -> None:
    first, second = write(tmp_path / "b.md", b"B"), write(tmp_path / "a.txt", b"A")
    (tmp_path / "link.txt").symlink_to(second)
    texts = [document.text for document in read_local([first, str(second), tmp_path, first])]
    assert texts == ["B", "A"]


def test_one_file_is_open_at_a_time(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    write(tmp_path / "b.txt", b"\0")
    documents = read_local([tmp_path])
    assert next(documents).text == "some text\n"
    with pytest.raises(ValueError, match="binary"):
        next(documents)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected text, got an empty file; remove it"),
        (b"\xef\xbb\xbf \r\n\t\n", "expected text, got an empty file; remove it"),
        (b"PK\x03\x04\0\0", r"expected plain text, got a binary file \(NUL bytes\)"),
        (bytes(range(1, 32)) * 10, r"expected plain text, got a binary file \(mostly control characters\)"),
        ("é".encode("utf-16"), "expected text in UTF-8, got UTF-16; save it as UTF-8"),
    ],
)
def test_a_file_without_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(ValueError, match=f"a.txt: {message}"):
        list(read_local([path]))


def test_paths_are_checked_at_once(tmp_path: Path) -> None:
    write(tmp_path / "empty" / "a.md")
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
        list(read_local(["/proc/self/mem"]))
