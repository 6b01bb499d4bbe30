"""Books of Project Gutenberg by number: over HTTP with a cache, or from raw files in a folder.

A book that does not carry the expected title is refused: several numbers that tutorials pass around belong to other
books (105 is Persuasion, 64317 The Great Gatsby, 1513 Romeo and Juliet). A book in the cache is `pgNUMBER.txt`, with
its checksum beside it in the format of sha256sum.
"""

import contextlib
import email.utils
import hashlib
import logging
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from corpus.clean import check_title, clean_gutenberg
from corpus.documents import Document
from corpus.encodings import decode_bytes
from corpus.local import find_files, read_files
from storage.files import atomic_file, explain_write_errors

GUTENBERG_URL = "https://www.gutenberg.org"

_PATHS = ("/cache/epub/{id}/pg{id}.txt", "/files/{id}/{id}-0.txt", "/files/{id}/{id}.txt")
_ABSENT = {404, 410}
_BUSY = {408, 429, 500, 502, 503, 504}
_LARGEST_BOOK = 64 * 2**20  # bytes; the longest novel has 6
_LONGEST_WAIT = 300.0  # seconds; a server that asks for more is not asked again
_MOST_REDIRECTS = 5
_LONGEST_BACKOFF = 60.0  # seconds
_NUMBER = re.compile(r"(?:^|_|pg)(\d+)(?:-[08])?\.txt$", re.I)  # of a file's name
_NOTICE = re.compile(rb"project\s+gutenberg", re.I)
_LONGEST_HEADER = 20_000  # bytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """A book that a recipe asks for."""

    id: int  # its number at Project Gutenberg
    title: str  # which the file must carry; only the main part counts (see `check_title`)
    author: str  # for lists and messages

    @property
    def name(self) -> str:
        """What documents and messages call the book."""
        return f"book {self.id}"


SCIFI_BOOKS = [
    Book(id=35, title="The Time Machine", author="H. G. Wells"),
    Book(id=36, title="The War of the Worlds", author="H. G. Wells"),
    Book(id=5230, title="The Invisible Man", author="H. G. Wells"),
    Book(id=159, title="The Island of Doctor Moreau", author="H. G. Wells"),
    Book(id=1013, title="The First Men in the Moon", author="H. G. Wells"),
    Book(id=775, title="When the Sleeper Wakes", author="H. G. Wells"),
    Book(id=18857, title="A Journey to the Centre of the Earth", author="Jules Verne"),
    Book(id=83, title="From the Earth to the Moon; and, Round the Moon", author="Jules Verne"),
    Book(id=164, title="Twenty Thousand Leagues under the Sea", author="Jules Verne"),
    Book(id=1268, title="The Mysterious Island", author="Jules Verne"),
    Book(id=62, title="A Princess of Mars", author="Edgar Rice Burroughs"),
    Book(id=64, title="The Gods of Mars", author="Edgar Rice Burroughs"),
    Book(id=68, title="Warlord of Mars", author="Edgar Rice Burroughs"),
    Book(id=139, title="The Lost World", author="Arthur Conan Doyle"),
    Book(id=126, title="The Poison Belt", author="Arthur Conan Doyle"),
    Book(id=84, title="Frankenstein; or, The Modern Prometheus", author="Mary Shelley"),
    Book(id=18247, title="The Last Man", author="Mary Shelley"),
    Book(id=43, title="The Strange Case of Dr. Jekyll and Mr. Hyde", author="Robert Louis Stevenson"),
    Book(id=201, title="Flatland: A Romance of Many Dimensions", author="Edwin A. Abbott"),
    Book(id=21970, title="The Scarlet Plague", author="Jack London"),
    Book(id=2701, title="Moby-Dick; or, The Whale", author="Herman Melville"),
    Book(id=19141, title="Edison's Conquest of Mars", author="Garrett P. Serviss"),
    Book(id=32032, title="Second Variety", author="Philip K. Dick"),
    Book(id=53028, title="The Hampdenshire Wonder", author="J. D. Beresford"),
    Book(id=3479, title="The Metal Monster", author="A. Merritt"),
    Book(id=20869, title="The Skylark of Space", author="E. E. Smith and Lee Hawkins Garby"),
]


def read_gutenberg(
    books: Sequence[Book],
    *,
    base_url: str = GUTENBERG_URL,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    pause: float = 1.0,
    attempts: int = 5,
    backoff: float = 1.0,
    timeout: float = 30.0,
) -> Iterator[Document]:
    """The books, cleaned, one document each, in the order given.

    All books are downloaded into the cache first, so that a failure shows before any work on them; those already there
    cost no request.

    Args:
        books: what to read.
        base_url: the site or a mirror with the same layout (default: www.gutenberg.org).
        cache_dir: where the raw files and their checksums are; default: `scratchgpt/gutenberg` in the user's cache.
        progress: whether to show a progress bar (default: yes).
        pause: least seconds between two requests (default: 1).
        attempts: how often a request is made that meets a busy server or a broken connection (default: 5).
        backoff: seconds before the second attempt, doubled for each further one up to a minute, and varied by half
            (default: 1).
        timeout: seconds without an answer after which an attempt fails (default: 30).

    Raises:
        ValueError: no network, no such book, another book under that number, or a file without text.
        OSError: the cache cannot be written.
    """
    site = _Site(base_url, pause=pause, attempts=attempts, backoff=backoff, timeout=timeout)
    for book, path in zip(books, _download(books, site, cache_dir, progress), strict=True):
        yield _read_book(path, book)


def read_gutenberg_files(
    paths: Sequence[str | Path],
    books: Sequence[Book],
    *,
    text_field: str = "text",
    encoding: str | None = None,
    skip_broken: bool = False,
) -> Iterator[Document]:
    """Files on disk as `read_local` reads them, those checked that look like the file of one of `books`.

    That is a file whose name carries its number, such as `time_machine_35.txt`, `pg35.txt` and `35-0.txt`, and whose
    beginning names Project Gutenberg. It must be that book, cleaned of all that is not; any other file passes as local
    text does.

    Args:
        paths: files, folders and globs.
        books: the books whose titles are known.
        text_field, encoding: as for `read_local`.
        skip_broken: as for `read_local`; a book under the wrong number is an error all the same.

    Raises:
        ValueError: a file is another book or holds no text, or what `read_local` raises.
    """

    def read_known(path: Path) -> Document | None:
        book = _claimed_book(path, books)
        if book is None:
            return None
        try:
            # By its path, as any file is: who asks for the file of a document does not ask for a title.
            return replace(_read_book(path, book, encoding), name=path.as_posix())
        except ValueError as error:
            raise ValueError(f"{error}. A text of your own with such a name: --corpus.books any") from error

    return read_files(
        find_files(paths),
        text_field=text_field,
        encoding=encoding,
        skip_broken=skip_broken,
        read_special=read_known,
    )


def are_books(paths: Sequence[str | Path], books: Sequence[Book]) -> bool:
    """Whether `read_gutenberg_files` reads each of these files as one of `books`. Raises ValueError as it does."""
    return all(_claimed_book(path, books) for path in find_files(paths))


def _claimed_book(path: Path, books: Sequence[Book]) -> Book | None:
    """The book that a file looks like, by its name and its beginning; None: none."""
    number = _NUMBER.search(path.name)
    book = next((book for book in books if number and book.id == int(number[1])), None)
    if book is None:
        return None
    try:
        with path.open("rb") as file:
            return book if _NOTICE.search(file.read(_LONGEST_HEADER)) else None
    except OSError:  # it is named when it is read
        return None


def _read_book(path: Path, book: Book, encoding: str | None = None) -> Document:
    """The cleaned text of a raw file that must be the given book."""
    name = f"{book.name} ({path})"
    try:
        text = decode_bytes(path.read_bytes(), name, encoding)
    except OSError as error:
        raise ValueError(f"{name}: expected a readable file, got: {error.strerror}; check its permissions") from error
    check_title(text, book.title, name)
    cleaned = clean_gutenberg(text)
    if not cleaned.strip():
        raise ValueError(f"{name}: expected {book.title!r}, got no text between its markers; fetch the file again")
    return Document(text=cleaned, name=f"{book.title} (Gutenberg {book.id})")


def _download(books: Sequence[Book], site: "_Site", cache_dir: str | Path | None, progress: bool) -> list[Path]:
    """Paths of the books in the cache, after the download of those that are missing or damaged."""
    import filelock
    import platformdirs
    from tqdm import tqdm

    cache = Path(cache_dir) if cache_dir is not None else platformdirs.user_cache_path("scratchgpt") / "gutenberg"
    paths = [cache / f"pg{book.id}.txt" for book in books]
    wanted = [(book, path) for book, path in zip(books, paths, strict=True) if not _is_intact(path)]
    if not wanted:
        return paths
    with explain_write_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(cache / ".lock").acquire()
    done = len(books) - len(wanted)
    with lock, site, tqdm(total=len(books), initial=done, desc="Books", unit="book", disable=not progress) as bar:
        for book, path in wanted:
            if not _is_intact(path):  # another process may have downloaded it in the meantime
                bar.set_postfix_str(book.title)
                raw = site.fetch(book)
                check_title(decode_bytes(raw, book.name), book.title, book.name)
                with atomic_file(path, "wb") as file:
                    file.write(raw)
                with atomic_file(_checksum_path(path)) as file:
                    file.write(f"{hashlib.sha256(raw).hexdigest()}  {path.name}\n")
            bar.update()
    return paths


def _is_intact(path: Path) -> bool:
    checksum = _checksum_path(path)
    if not path.is_file() or not checksum.is_file():
        return False
    if checksum.read_text(encoding="utf-8").partition(" ")[0] == hashlib.sha256(path.read_bytes()).hexdigest():
        return True
    _log.warning("%s: does not match its checksum; it is fetched again", path)
    return False


def _checksum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What a server answered."""

    status_code: int
    reason_phrase: str
    headers: Mapping[str, str]
    content: bytes


class _Site:
    """Project Gutenberg or a mirror: pauses between requests, and retries where the server is busy.

    httpx retries refused connections only, and the retries of huggingface_hub wait as long as any server asks.
    """

    def __init__(self, base_url: str, *, pause: float, attempts: int, backoff: float, timeout: float) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url: expected an address that begins with https:// or http://, got {base_url!r}")
        self.base_url, self.pause, self.attempts, self.backoff = base_url.rstrip("/"), pause, attempts, backoff
        self.timeout = timeout
        self.next_request = 0.0  # on the monotonic clock, in seconds

    def __enter__(self) -> None:
        import httpx  # half a second of imports that a full cache can do without

        self.client = httpx.Client(headers={"User-Agent": "scratchgpt"}, timeout=self.timeout, follow_redirects=True)

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def fetch(self, book: Book) -> bytes:
        """The raw file of a book, from the first of the usual addresses that has it."""
        urls = [self.base_url + path.format(id=book.id) for path in _PATHS]
        for url in urls:
            if (raw := self._get(url, book)) is not None:
                return raw
        raise ValueError(
            f"{book.name}: expected {book.title!r}, got no such file at {', '.join(urls)}; "
            "check the number of the book, or choose another mirror by its base URL"
        )

    def _read(self, url: str) -> _Answer:
        """The complete answer for `url`, after redirects within the site.

        Raises ValueError for a redirect to another site, and for an answer that is larger than any book."""
        request = self.client.build_request("GET", url)
        first = request.url
        for _ in range(_MOST_REDIRECTS):
            response = self.client.send(request, stream=True, follow_redirects=False)
            with contextlib.closing(response):
                if response.next_request is None:
                    return _complete(response, url)
                request = response.next_request
            is_downgrade = first.scheme == "https" and request.url.scheme != "https"
            if is_downgrade or not _is_of_site(request.url.host, first.host):
                raise ValueError(
                    f"{url}: expected the file, got a redirect to {request.url}, another site; where that is a mirror "
                    "which you trust, choose it by its base URL"
                )
        raise ValueError(f"{url}: expected the file, got {_MOST_REDIRECTS} redirects; choose another mirror")

    def _get(self, url: str, book: Book) -> bytes | None:
        """What `url` holds, in as many attempts as allowed; None where the server has no such file."""
        import httpx

        for attempt in count(1):
            time.sleep(max(0.0, self.next_request - time.monotonic()))
            wait = min(_LONGEST_BACKOFF, self.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
            try:
                response = self._read(url)
                if response.status_code == 200:
                    return response.content
                if response.status_code in _ABSENT:
                    return None
                reason = f"{response.status_code} {response.reason_phrase}"
                if response.status_code not in _BUSY:
                    raise ValueError(
                        f"{url}: expected the file, got {reason}; choose another mirror by its base URL, "
                        "or use text on this machine: --corpus PATH"
                    )
                wait = max(wait, _retry_after(response.headers.get("Retry-After", "")))
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {error}"
            finally:
                self.next_request = time.monotonic() + self.pause
            if wait > _LONGEST_WAIT:
                reason += f"; the server asks to come back in {wait:.0f} s"
            if wait > _LONGEST_WAIT or attempt >= self.attempts:
                raise ValueError(
                    f"{book.name}: expected {book.title!r} from {url}, got: {reason} (attempts: {attempt}); check the "
                    "network or choose another mirror, then run the same command again: it continues after the books "
                    "that are complete. Text on this machine needs no network: --corpus PATH"
                )
            _log.warning("%s: %s; next attempt in %.1f s", book.title, reason, wait)
            time.sleep(wait)
        raise AssertionError("an endless loop ended")


def _complete(response: Any, url: str) -> _Answer:
    """A response with its whole body."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > _LARGEST_BOOK:
            raise ValueError(
                f"{url}: expected a book of at most {_LARGEST_BOOK // 2**20} MiB, got more; choose another mirror by "
                "its base URL"
            )
    return _Answer(
        status_code=response.status_code,
        reason_phrase=response.reason_phrase,
        headers=response.headers,
        content=bytes(body),
    )


def _is_of_site(host: str, site: str) -> bool:
    """Whether a host is one of the site's: the same, or with or without `www.` and its like in front."""
    return host == site or host.endswith(f".{site}") or site.endswith(f".{host}")


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number of seconds, or a date; 0 where it holds neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
