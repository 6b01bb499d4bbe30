"""Books over real HTTP on this machine, from a server that fails in every way that servers do."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corpus import gutenberg
from corpus.gutenberg import SCIFI_BOOKS, Book, are_books, read_gutenberg, read_gutenberg_files

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "scifi"

MACHINE = Book(id=35, title="The Time Machine", author="H. G. Wells")
ISLAND = Book(id=159, title="The Island of Doctor Moreau", author="H. G. Wells")


def raw_book(title: str, text: str = "It began.") -> bytes:
    body = f"{text}\n\n" * 4000
    lines = (
        f"The Project Gutenberg EBook of {title}\n\nTitle: {title}\n\n"
        f"*** START OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***\n\nProduced by Me\n\n{body}\n"
        f"*** END OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***\n"
    )
    return lines.replace("\n", "\r\n").encode()


Fault = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        faults = self.server.faults.get(self.path, [])
        content = self.server.files.get(self.path)
        if faults:
            faults.pop(0)(self, content or b"")
        elif content is None:
            self.answer(404, b"not here")
        else:
            self.answer(200, content)

    def answer(self, status: int, body: bytes, fields: dict[str, str] | None = None, sent: int | None = None) -> None:
        """An answer; the connection is cut after `sent` bytes of its body."""
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        self.close_connection = sent is not None or self.close_connection

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/cache/epub/35/pg35.txt": raw_book(MACHINE.title), "/files/159/159.txt": raw_book(ISLAND.title)}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def read(server: Server, cache: Path, *books: Book, **settings: float) -> list[str]:
    settings = {"pause": 0.0, "backoff": 0.001, **settings}
    documents = read_gutenberg(books, base_url=server.url, cache_dir=cache, progress=False, **settings)  # type: ignore[arg-type]
    return [document.text for document in documents]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


CLEANED = "It began.\n\n" * 3999 + "It began.\n"
PATH = "/cache/epub/35/pg35.txt"


def test_books_come_cleaned_and_stay_in_the_cache(server: Server, tmp_path: Path) -> None:
    assert read(server, tmp_path, MACHINE, ISLAND) == [CLEANED] * 2
    assert server.requests == [PATH, "/cache/epub/159/pg159.txt", "/files/159/159-0.txt", "/files/159/159.txt"]
    assert names(tmp_path) == ["pg159.txt", "pg159.txt.sha256", "pg35.txt", "pg35.txt.sha256"]
    checksum = hashlib.sha256(server.files[PATH]).hexdigest()
    assert (tmp_path / "pg35.txt.sha256").read_text() == f"{checksum}  pg35.txt\n"
    assert read(server, tmp_path, MACHINE, ISLAND) == [CLEANED] * 2
    assert len(server.requests) == 4


def test_a_damaged_cache_is_fetched_again(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(server, tmp_path, MACHINE)
    (tmp_path / "pg35.txt").write_bytes(server.files[PATH].replace(b"began", b"begun"))
    assert read(server, tmp_path, MACHINE)[0].startswith("It began.")
    assert "does not match its checksum; it is fetched again" in caplog.text
    (tmp_path / "pg35.txt.sha256").unlink()
    read(server, tmp_path, MACHINE)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.faults[PATH] = [lambda handler, _: handler.answer(status, b"busy")] * 2
    assert len(read(server, tmp_path, MACHINE)) == 1
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("corpus.gutenberg.time.sleep", waits.append)
    server.faults[PATH] = [lambda handler, _: handler.answer(429, b"", {"Retry-After": "7"})]
    read(server, tmp_path, MACHINE)
    assert 7.0 in waits
    server.faults[PATH] = [
        lambda handler, _: handler.answer(503, b"", {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"})
    ]
    read(server, tmp_path / "2", MACHINE)
    assert max(waits) == 7.0
    server.faults[PATH] = [lambda handler, _: handler.answer(503, b"", {"Retry-After": "3600"})]
    with pytest.raises(ValueError, match=r"503 .*the server asks to come back in 3600 s \(attempts: 1\)"):
        read(server, tmp_path / "3", MACHINE)


def test_waits_grow_and_requests_keep_their_distance(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("corpus.gutenberg.time.sleep", waits.append)
    server.faults[PATH] = [lambda handler, _: handler.answer(503, b"")] * 9
    with pytest.raises(ValueError, match="attempts: 5"):
        read(server, tmp_path, MACHINE, backoff=8.0, pause=2.0)
    pauses, backoffs = waits[::2], waits[1::2]
    assert pauses[0] == 0.0
    assert all(1.5 < pause <= 2.0 for pause in pauses[1:])
    assert all(0.5 * 8 * 2**n <= wait <= 1.5 * 8 * 2**n for n, wait in enumerate(backoffs[:3]))
    assert 30 <= backoffs[3] <= 90


def test_an_interrupted_download_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.faults[PATH] = [lambda handler, content: handler.answer(200, content, sent=10_000)]
    with pytest.raises(ValueError, match="run the same command again: it continues after the books that are complete"):
        read(server, tmp_path, ISLAND, MACHINE, attempts=1)
    assert names(tmp_path) == ["pg159.txt", "pg159.txt.sha256"]
    server.requests.clear()
    server.faults[PATH] = [lambda handler, content: handler.answer(200, content, sent=10_000)]
    assert read(server, tmp_path, ISLAND, MACHINE) == [CLEANED] * 2
    assert server.requests == [PATH] * 2


def test_the_wrong_book_never_enters_the_cache(server: Server, tmp_path: Path) -> None:
    server.files["/cache/epub/105/pg105.txt"] = raw_book("Persuasion")
    wrong = Book(id=105, title="The Time Machine", author="H. G. Wells")
    with pytest.raises(
        ValueError, match=r"book 105: expected 'The Time Machine', got 'Persuasion': the number belongs"
    ):
        read(server, tmp_path, wrong)
    assert names(tmp_path) == []
    server.files[PATH] = b"<html>This is no book.</html>"
    with pytest.raises(
        ValueError, match="book 35: expected 'The Time Machine', got a text whose header states no title"
    ):
        read(server, tmp_path, MACHINE)
    read_path = tmp_path / "pg105.txt"
    read_path.write_bytes(raw_book("Persuasion"))
    (tmp_path / "pg105.txt.sha256").write_text(hashlib.sha256(raw_book("Persuasion")).hexdigest() + "  pg105.txt\n")
    with pytest.raises(ValueError, match=r"book 105 \(.*pg105.txt\): expected 'The Time Machine', got 'Persuasion'"):
        read(server, tmp_path, wrong)


@pytest.mark.parametrize(
    "elsewhere", ["http://localhost.evil.example/pg35.txt", "http://169.254.169.254/latest", "//[::1]/x", "ftp://x/y"]
)
def test_a_redirect_to_another_site_is_not_followed(server: Server, tmp_path: Path, elsewhere: str) -> None:
    server.faults[PATH] = [lambda handler, content: handler.answer(302, b"", {"Location": elsewhere})]
    with pytest.raises(ValueError, match=r"expected the file, got a redirect to .*, another site; .* by its base URL"):
        read(server, tmp_path, MACHINE)
    assert server.requests == [PATH]
    assert names(tmp_path) == []


def test_a_redirect_within_the_site_is_followed_a_few_times(server: Server, tmp_path: Path) -> None:
    server.faults[PATH] = [lambda handler, content: handler.answer(302, b"", {"Location": "/moved.txt"})]
    server.files["/moved.txt"] = raw_book(MACHINE.title)
    assert read(server, tmp_path, MACHINE) == [CLEANED]
    server.faults["/moved.txt"] = [lambda handler, content: handler.answer(302, b"", {"Location": "/moved.txt"})] * 9
    server.faults[PATH] = [lambda handler, content: handler.answer(302, b"", {"Location": "/moved.txt"})]
    (tmp_path / "pg35.txt").unlink()
    with pytest.raises(ValueError, match="expected the file, got 5 redirects; choose another mirror"):
        read(server, tmp_path, MACHINE)


def test_an_endless_book_is_left(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gutenberg, "_LARGEST_BOOK", 2**20)
    sent = 0

    def endless(handler: Handler, content: bytes) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b"x" * 2**16)
                sent += 2**16
        handler.close_connection = True

    server.faults[PATH] = [endless]
    with pytest.raises(ValueError, match="expected a book of at most 1 MiB, got more; choose another mirror"):
        read(server, tmp_path, MACHINE)
    assert sent < 30 * 2**20
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected 'The Time Machine', got a text whose header states no title"),
        (
            b"<!DOCTYPE html><title>Log in</title>",
            "expected 'The Time Machine', got a text whose header states no title",
        ),
        (b"\x00" * 1000, "expected plain text, got a binary file"),
    ],
)
def test_an_answer_that_is_no_book_is_not_kept(server: Server, tmp_path: Path, body: bytes, message: str) -> None:
    server.files[PATH] = body
    with pytest.raises(ValueError, match=f"book 35: {message}"):
        read(server, tmp_path, MACHINE)
    assert names(tmp_path) == []


def test_a_missing_book_names_what_was_tried(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"book 7: expected 'X', got no such file at http://\S+/pg7.txt, .*7/7-0.txt, "
    ):
        read(server, tmp_path, Book(id=7, title="X", author="Y"))
    server.faults[PATH] = [lambda handler, _: handler.answer(403, b"robots are not welcome")]
    with pytest.raises(ValueError, match=r"pg35.txt: expected the file, got 403 Forbidden; choose another mirror"):
        read(server, tmp_path, MACHINE)


def test_no_network_says_what_works_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as gone:
        pass
    with pytest.raises(ValueError, match=r"got: ConnectError: .* \(attempts: 2\); check the network .* --corpus PATH"):
        read(gone, tmp_path, MACHINE, attempts=2)
    with pytest.raises(ValueError, match="base_url: expected an address that begins with https://"):
        list(read_gutenberg([MACHINE], base_url="www.gutenberg.org", cache_dir=tmp_path))


def test_a_server_that_falls_silent_is_left(server: Server, tmp_path: Path) -> None:
    silence = threading.Event()
    server.faults[PATH] = [lambda handler, _: bool(silence.wait(10)) and None]  # pyright: ignore[reportArgumentType]
    try:
        assert len(read(server, tmp_path, MACHINE, timeout=0.2)) == 1
    finally:
        silence.set()
    assert len(server.requests) == 2


def test_files_with_a_known_number_must_be_that_book(tmp_path: Path) -> None:
    (tmp_path / "b_time_machine_35.txt").write_bytes(raw_book(MACHINE.title))
    (tmp_path / "pg159.txt").write_bytes(raw_book(ISLAND.title))
    (tmp_path / "a_345.txt").write_bytes(raw_book("Dracula"))
    (tmp_path / "notes.txt").write_text("My own.")
    documents = list(read_gutenberg_files([tmp_path], [ISLAND, MACHINE]))
    names = ("a_345.txt", "b_time_machine_35.txt", "notes.txt", "pg159.txt")
    assert [document.name for document in documents] == [(tmp_path / name).as_posix() for name in names]
    wrong = Book(id=35, title="Persuasion", author="Jane Austen")
    with pytest.raises(ValueError, match=r"book 35 \(.*_35.txt\): expected 'Persuasion', got 'The Time Machine'"):
        list(read_gutenberg_files([tmp_path], [wrong]))


def test_a_numbered_file_that_is_none_of_gutenbergs_is_a_text_like_any_other(tmp_path: Path) -> None:
    for name in ("chapter_35.txt", "159.txt"):
        (tmp_path / name).write_text(f"Title: {name}\n\nIt rained again.\n")
    documents = list(read_gutenberg_files([tmp_path], [ISLAND, MACHINE]))
    assert [Path(document.name).name for document in documents] == ["159.txt", "chapter_35.txt"]
    assert not are_books([tmp_path], [ISLAND, MACHINE])
    (tmp_path / "159.txt").write_bytes(raw_book(ISLAND.title))
    (tmp_path / "chapter_35.txt").write_bytes(raw_book(MACHINE.title))
    assert are_books([tmp_path], [ISLAND, MACHINE])
    (tmp_path / "159.txt").write_text("I wrote to Project Gutenberg today.\n")
    with pytest.raises(ValueError, match=r"book 159 .* states no title; .* own with such a name: --corpus\.books any"):
        list(read_gutenberg_files([tmp_path], [ISLAND, MACHINE]))


def test_a_book_without_text_between_its_markers(tmp_path: Path) -> None:
    (tmp_path / "pg35.txt").write_bytes(raw_book(MACHINE.title).replace(b"It began.", b""))
    with pytest.raises(ValueError, match="expected 'The Time Machine', got no text between its markers"):
        list(read_gutenberg_files([tmp_path], [MACHINE]))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA} here")
def test_the_scifi_books_on_disk_are_the_ones_the_recipe_expects() -> None:
    documents = list(read_gutenberg_files([DATA], SCIFI_BOOKS))
    assert {Path(document.name) for document in documents} == {*DATA.glob("*.txt")}
    assert sum(len(document.text.encode()) for document in documents) == 11_246_751
    assert are_books([DATA], SCIFI_BOOKS)
