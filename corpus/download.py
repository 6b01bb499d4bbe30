"""Fetching books over HTTP into a cache: politely, again where it failed, and on from where it stopped.

A finished book is `pgNUMBER.txt` with its checksum beside it in the format of sha256sum. An unfinished one is
`pgNUMBER.txt.part`, with the address it came from and the server's validator in `.part.json`, so that a later
request can ask for the rest of the same version and no other (RFC 9110, sections 13.1.5 and 14.2).
"""

import email.utils
import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import filelock
import httpx
import platformdirs
from tqdm import tqdm

from corpus.clean import check_title, decode_bytes
from storage.files import atomic_file, explain_write_errors

_PATHS = ("/cache/epub/{id}/pg{id}.txt", "/files/{id}/{id}-0.txt", "/files/{id}/{id}.txt")
_ABSENT = {404, 410}
_BUSY = {408, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 300.0  # seconds; a server that asks for more is left alone
_LONGEST_BACKOFF = 60.0  # seconds

_log = logging.getLogger(__name__)


class WantedBook(Protocol):
    """What is needed of a book to fetch it."""

    @property
    def id(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """A server with the layout of gutenberg.org, and the manners towards it."""

    base_url: str
    """Address in front of the paths, with http:// or https://."""

    pause: float = 1.0
    """Least time between two requests, in seconds."""

    attempts: int = 5
    """How often a request is made that meets a busy server or a broken connection."""

    backoff: float = 1.0
    """Wait before the second attempt, in seconds; doubled for each further one, up to a minute, and varied by half."""

    timeout: float = 30.0
    """Time without an answer after which an attempt is given up, in seconds."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"base_url: expected an address that begins with https:// or http://, got {self.base_url!r}"
            )
        if self.attempts < 1:
            raise ValueError(f"attempts: expected at least 1, got {self.attempts}")


def fetch(
    books: Sequence[WantedBook], *, mirror: Mirror, cache_dir: str | Path | None = None, progress: bool = True
) -> list[Path]:
    """Paths of the raw files of the books in the cache, after fetching those that are not there or damaged.

    Args:
        books: what to fetch.
        mirror: from where.
        cache_dir: the cache (default: `scratchgpt/gutenberg` in the user's cache folder).
        progress: whether to show a progress bar (default: yes).

    Raises:
        ValueError: no network, no such book, or another book under that number.
        OSError: the cache cannot be written.
    """
    cache = Path(cache_dir) if cache_dir is not None else platformdirs.user_cache_path("scratchgpt") / "gutenberg"
    paths = [cache / f"pg{book.id}.txt" for book in books]
    wanted = [(book, path) for book, path in zip(books, paths, strict=True) if not _is_intact(path)]
    if not wanted:
        return paths
    with explain_write_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(cache / ".lock")
        lock.acquire()
    # Compressed answers cannot be resumed in the middle.
    headers = {"User-Agent": "scratchgpt", "Accept-Encoding": "identity"}
    try:
        with (
            httpx.Client(headers=headers, timeout=mirror.timeout, follow_redirects=True) as client,
            tqdm(
                total=len(books), initial=len(books) - len(wanted), desc="Books", unit="book", disable=not progress
            ) as bar,
        ):
            download = _Download(mirror, client, bar)
            for book, path in wanted:
                if not _is_intact(path):  # another process may have brought it in the meantime
                    download.fetch(book, path)
                bar.update()
    finally:
        lock.release()
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


class _TryAgainError(Exception):
    """A request failed in a way that passes."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait  # seconds the server asked for


class _Download:
    def __init__(self, mirror: Mirror, client: httpx.Client, bar: tqdm) -> None:
        self.mirror = mirror
        self.client = client
        self.bar = bar
        self.next_request = 0.0  # on the monotonic clock, in seconds

    def fetch(self, book: WantedBook, path: Path) -> None:
        """Brings a book into the cache under its final name, once it is known to be that book."""
        part = path.with_name(path.name + ".part")
        urls = [self.mirror.base_url.rstrip("/") + pattern.format(id=book.id) for pattern in _PATHS]
        if not any(self._fetch_url(url, part, path, book) for url in urls):
            raise ValueError(
                f"{book.name}: expected {book.title!r}, got no such file at {', '.join(urls)}; "
                "check the number of the book, or choose another mirror by its base URL"
            )
        raw = part.read_bytes()
        try:
            check_title(decode_bytes(raw, book.name), book.title, book.name)
        except ValueError:
            part.unlink()
            raise
        finally:
            _validator_path(part).unlink(missing_ok=True)
        with explain_write_errors(path):
            _checksum_path(path).unlink(missing_ok=True)
            part.replace(path)
        with atomic_file(_checksum_path(path)) as file:
            file.write(f"{hashlib.sha256(raw).hexdigest()}  {path.name}\n")

    def _fetch_url(self, url: str, part: Path, path: Path, book: WantedBook) -> bool:
        """Writes what `url` holds to `part` in as many attempts as allowed; False where the server has no such file."""
        reason = ""
        for attempt in range(self.mirror.attempts):
            try:
                self.bar.set_postfix_str(book.title)
                with explain_write_errors(path):
                    return self._request(url, part)
            except _TryAgainError as error:
                reason = str(error)
                wait = min(_LONGEST_BACKOFF, self.mirror.backoff * 2**attempt) * random.uniform(0.5, 1.5)
                wait = max(wait, error.wait)
                if wait > _LONGEST_WAIT:
                    reason += f"; the server asks to come back in {wait:.0f} s"
                    break
                if attempt + 1 < self.mirror.attempts:
                    self.bar.set_postfix_str(f"{book.title}: {reason}; again in {wait:.1f} s")
                    time.sleep(wait)
        raise ValueError(
            f"{book.name}: expected {book.title!r} from {url}, got: {reason} (tried {attempt + 1} times); check the "
            "network or choose another mirror, then run the same command again: it goes on from what it has. "
            "Text on this machine needs no network: --corpus PATH"
        )

    def _request(self, url: str, part: Path) -> bool:
        time.sleep(max(0.0, self.next_request - time.monotonic()))
        done, headers = _resume_headers(url, part)
        try:
            with self.client.stream("GET", url, headers=headers) as response:
                if response.status_code in _ABSENT:
                    return False
                self._receive(url, response, part, done)
        except httpx.RequestError as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}") from error
        finally:
            self.next_request = time.monotonic() + self.mirror.pause
        return True

    def _receive(self, url: str, response: httpx.Response, part: Path, done: int) -> None:
        status = f"{response.status_code} {response.reason_phrase}"
        if response.status_code in _BUSY:
            raise _TryAgainError(status, _retry_after(response.headers.get("Retry-After")))
        resumed = response.status_code == 206
        if response.status_code == 416 or (
            resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        ):
            part.unlink(missing_ok=True)
            raise _TryAgainError(f"{status}: the server does not continue at byte {done}")
        if response.status_code not in (200, 206):
            raise ValueError(
                f"{url}: expected the file, got {status}; choose another mirror by its base URL, "
                "or use text on this machine: --corpus PATH"
            )
        with part.open("ab" if resumed else "wb") as file:
            if not resumed:
                _validator_path(part).write_text(json.dumps({"url": url, "validator": _validator(response)}))
            for chunk in response.iter_raw():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def _resume_headers(url: str, part: Path) -> tuple[int, dict[str, str]]:
    """Bytes that are there already, and the headers that ask for the rest; (0, {}) where there is nothing to resume."""
    try:
        done = part.stat().st_size
        known = json.loads(_validator_path(part).read_text())
    except (OSError, ValueError):
        return 0, {}
    if not done or known.get("url") != url or not known.get("validator"):
        return 0, {}
    return done, {"Range": f"bytes={done}-", "If-Range": known["validator"]}


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator(response: httpx.Response) -> str | None:
    """What tells this version of a file from others: a strong ETag, else the date of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, which is a number of seconds or a date; 0 where it says nothing."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
