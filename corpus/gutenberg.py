"""Books of Project Gutenberg by number: over HTTP with a cache, or from raw files in a folder.

A book that does not carry the expected title is refused: several numbers that tutorials pass around belong to other
books (105 is Persuasion, 64317 The Great Gatsby, 1513 Romeo and Juliet).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.clean import check_title, clean_gutenberg, decode_bytes
from corpus.documents import Document
from corpus.local import find_files, read_bytes, read_files

GUTENBERG_URL = "https://www.gutenberg.org"


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """A book that a recipe asks for."""

    id: int
    """Number of the book at Project Gutenberg."""

    title: str
    """Title the file must carry, compared by its main part (see `check_title`)."""

    author: str
    """Author, for lists and messages."""

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

    All books are fetched into the cache first, so that a failure shows before any work on them; those already there
    cost no request. An interrupted download goes on where it stopped when it is asked for again.

    Args:
        books: what to read.
        base_url: the site or a mirror with the same layout (default: www.gutenberg.org).
        cache_dir: where the raw files and their checksums stay; default: `scratchgpt/gutenberg` in the user's cache.
        progress: whether to show a progress bar (default: yes).
        pause: seconds between two requests (default: 1).
        attempts: how often a request is tried that meets a busy server or a broken connection (default: 5).
        backoff: seconds before the second attempt, doubled for each further one (default: 1).
        timeout: seconds without an answer after which an attempt is given up (default: 30).

    Raises:
        ValueError: no network, no such book, another book under that number, or a file without text.
        OSError: the cache cannot be written.
    """
    from corpus.download import Mirror, fetch  # half a second of imports that lists of books can do without

    mirror = Mirror(base_url=base_url, pause=pause, attempts=attempts, backoff=backoff, timeout=timeout)
    paths = fetch(books, mirror=mirror, cache_dir=cache_dir, progress=progress)
    for book, path in zip(books, paths, strict=True):
        yield read_book(path, book)


def read_gutenberg_files(
    paths: Sequence[str | Path], books: Sequence[Book], *, text_field: str = "text", skip_broken: bool = False
) -> Iterator[Document]:
    """Files on disk as `read_local` reads them, those whose names carry the number of one of `books` checked.

    Numbers are known from names like `time_machine_35.txt`, `pg35.txt` and `35-0.txt`. Such a file must be that book,
    cleaned of all that is not; files of other names pass as local text does.

    Args:
        paths: files, folders and globs.
        books: the books whose titles are known.
        text_field: as for `read_local`.
        skip_broken: as for `read_local`; a book under the wrong number is an error all the same.

    Raises:
        ValueError: a file is another book or holds no text, or what `read_local` raises.
    """
    expected = {book.id: book for book in books}

    def read_known(path: Path) -> Document | None:
        number = re.search(r"(?:^|_|pg)(\d+)(?:-[08])?\.txt$", path.name, re.I)
        book = expected.get(int(number.group(1))) if number else None
        return None if book is None else read_book(path, book)

    return read_files(find_files(paths), text_field=text_field, skip_broken=skip_broken, read_special=read_known)


def read_book(path: Path, book: Book) -> Document:
    """The cleaned text of a raw file that must be the given book.

    Raises:
        ValueError: the file cannot be read, is another book, or holds no text.
    """
    name = f"{book.name} ({path})"
    text = decode_bytes(read_bytes(path), name)
    check_title(text, book.title, name)
    cleaned = clean_gutenberg(text)
    if not cleaned.strip():
        raise ValueError(f"{name}: expected {book.title!r}, got no text between its markers; fetch the file again")
    return Document(text=cleaned, name=f"{book.title} (Gutenberg {book.id})")
