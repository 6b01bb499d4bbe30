"""Which encoding the bytes of a text are in, and how it is read.

What is UTF-8 but for a few bytes is UTF-8, with U+FFFD for those bytes. Another encoding is taken from what the user
says, from what the file states about itself, or from chardet where it is sure. Where none of them tells, a text whose
letters are mostly ASCII is read as Windows-1252, and for any other one the user is asked. A note says what was assumed.
"""

import codecs
import functools
import io
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

_log = logging.getLogger(__name__)

_BOMS = [  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b")) + b"\x7f"
_UTF8_LEADS = bytes(range(0xC2, 0xF5))
_NOT_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"
_C1 = re.compile("[\x80-\x9f]")

_UTF8 = re.compile(  # Unicode Standard, table 3-7
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}|([\x80-\xff])"
)
_CUT_UTF8 = re.compile(rb"(?:[\xc2-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})\Z")
_MOST_BAD = 1_000  # bytes that are not UTF-8 and outnumber its characters: it is another encoding
_SHORT = 200  # bytes in which a text with letters beyond ASCII may well have one alone, the last

_HEAD = 20_000  # bytes in which a file states its encoding
_STATED = re.compile(  # in the header of Project Gutenberg, in HTML, in XHTML
    rb"""^Character set encoding:\s*([\w-]+)|<meta[^>]+charset\s*=\s*["']?([\w-]+)"""
    rb"""|\A\s*<\?xml[^>]+encoding=["']([\w-]+)""",
    re.M | re.I,
)
_HIGH = re.compile(rb"[\x80-\xff]")
_BEFORE = 200  # bytes of the line before the first of these
_SAMPLE = 1 << 16  # bytes for the detector, from the first line on that is not ASCII
# chardet's confidence from which on it is believed: of 1,793 pieces of 13 texts, 4 to 110 characters long and in 18
# encodings, it was wrong about 4, all of 4 characters; for texts in Latin letters lower, as cp1252 is what is left.
_SURE, _SURE_LATIN = 0.2, 0.1
_LATIN = re.compile(r"cp125[02478]|iso8859-(?:[12349]|1[03456])")
_USUAL = {"shift_jis": "cp932", "shift_jis_2004": "cp932", "euc_jis_2004": "euc_jp"}  # in practice
_FREQUENT = " \n\u3000\u3001\u3002\uff0c"  # in UTF-16 one character in a hundred is one of these in any language
_EXCERPT = 40  # characters
FLAG = "--encoding"
"""How notes and errors name the place where the user says an encoding; the page puts its own field there."""


class NotTextError(ValueError):
    """The bytes are no text in any encoding."""


class Encoding(NamedTuple):
    """How a file is read."""

    codec: str  # Python's name of it
    note: str | None = None  # what the user is told: what was assumed, or which bytes are replaced


@functools.cache
def say_once(message: str) -> None:
    """Log a warning, unless the same one was logged before: a corpus is read more than once."""
    warn(message)


def warn(message: str) -> None:
    """Log a warning on a line of its own: progress bars make room for it."""
    with tqdm.external_write_mode():
        _log.warning(message)


def decode_bytes(raw: bytes, name: str, encoding: str | None = None, say: Callable[[str], None] = say_once) -> str:
    """Text of a file whose encoding is unknown, without a BOM; line ends stay as they are.

    Args:
        raw: the complete file.
        name: what to call it in messages.
        encoding: as for `choose_encoding`.
        say: called with a line for the user where something was assumed or replaced (default: log it once).

    Raises:
        ValueError: what `choose_encoding` raises.
    """
    return "".join(decode(io.BytesIO(raw), name, encoding, say, newline=""))


def decode(
    stream: BinaryIO, name: str, encoding: str | None, say: Callable[[str], None], newline: str | None = None
) -> Iterator[str]:
    """The text of a stream in parts, as `decode_bytes` returns it; the stream is read twice.

    Args:
        newline: None (default) makes every line end `\\n`; "" leaves them.
    """
    start = stream.tell()
    chunks = functools.partial(iter, lambda: stream.read(1 << 18), b"")
    codec, note = choose_encoding(chunks(), name, encoding)
    if note:
        say(note)
    stream.seek(start)
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder(codec)("replace")
    if newline is None:
        decoder = io.IncrementalNewlineDecoder(decoder, translate=True)  # type: ignore[assignment]
    replaced = line = lines = 0
    for chunk in chain(chunks(), [b""]):
        text = decoder.decode(chunk, final=not chunk)
        if not codec.startswith("utf-8") and "\ufffd" in text:  # of UTF-8 the note says it already
            replaced += text.count("\ufffd")
            line = line or lines + text.count("\n", 0, text.index("\ufffd")) + 1
        lines += text.count("\n")
        yield text
    if replaced:
        places = "1 place is" if replaced == 1 else f"{replaced:,} places are"
        say(f"{name}: {places} not {codec} (the first in line {line:,}); replaced by U+FFFD")


def check_encoding(encoding: str | None) -> str | None:
    """Python's name of a text encoding that a user gives.

    Raises:
        ValueError: there is no such encoding.
    """
    if encoding is None:
        return None
    try:
        codec = codecs.lookup(encoding)
        "".encode(codec.name)  # fails for codecs of bytes, such as base64
    except (LookupError, ValueError):
        raise ValueError(
            f"encoding: expected the name of an encoding, such as utf-8, cp1251, koi8-r, gbk, big5, shift_jis or "
            f"utf-16, got {encoding!r}"
        ) from None
    return {"utf-8": "utf-8-sig", "gb2312": "gb18030", "gbk": "gb18030", "ascii": "cp1252"}.get(codec.name, codec.name)


def choose_encoding(chunks: Iterable[bytes], name: str, encoding: str | None = None) -> Encoding:
    """The encoding in which the bytes are read that `chunks` make together, found in one pass over them.

    Args:
        chunks: the complete file, in parts of any size.
        name: what to call it in messages.
        encoding: what the user says; it holds for every text that has no BOM and no characters beyond ASCII in UTF-8.

    Raises:
        NotTextError: they hold NUL bytes and are not UTF-16, or more than one in twenty is a control character.
        ValueError: no encoding is sure.
    """
    given = check_encoding(encoding)
    found = _Bytes()
    for chunk in chunks:
        found.add(chunk)
    found.add(b"", final=True)
    if bom := next((codec for bom, codec in _BOMS if found.head.startswith(bom)), None):
        return Encoding(bom, found.utf8_note(name) if bom == "utf-8-sig" else None)
    if given and given.startswith(("utf-16", "utf-32")):
        return Encoding(given)
    if found.nul and (codec := _utf16(found)):
        return Encoding(codec, _assumed(name, codec, "without a byte order mark", found.head))
    _check_text(found, name)
    is_ascii = not found.bad and not found.good
    if given == "utf-8-sig" or (found.is_utf8 and not (given and is_ascii)):
        return Encoding("utf-8-sig", found.utf8_note(name))
    return Encoding(given) if given else _other(found, name)


class _Bytes:
    """What one pass over the bytes of a file finds."""

    def __init__(self) -> None:
        self.head = self.sample = b""  # the first bytes, and those from the first line on that is not ASCII
        self.size = self.controls = self._lines = 0
        self.nul = self.first_nul = self.nul_line = 0
        self.good = 0  # characters beyond ASCII in UTF-8
        self.bad = self.cut = self.first_bad = self.bad_line = 0  # bytes that are not; of these at the end of the file
        self.is_cp1252 = True
        self._rest = b""  # the beginning of a character
        self._before = b""  # the last bytes before the sample

    def add(self, chunk: bytes, final: bool = False) -> None:
        if len(self.head) < _HEAD:
            self.head += chunk[:_HEAD]
        if nul := chunk.count(0):
            if not self.nul:
                self.first_nul, self.nul_line = self._place(chunk, chunk.index(0), self.size)
            self.nul += nul
        self.controls += len(chunk) - len(chunk.translate(None, _CONTROLS))
        self._add_to_sample(chunk)
        if not (chunk.isascii() and not self._rest):
            self.is_cp1252 = self.is_cp1252 and len(chunk.translate(None, _NOT_IN_CP1252)) == len(chunk)
            self._scan(self._rest + chunk, self.size - len(self._rest), final)
        self.size += len(chunk)
        self._lines += chunk.count(b"\n")

    def _add_to_sample(self, chunk: bytes) -> None:
        if self.sample or not chunk.isascii():
            if not self.sample:
                chunk = self._before + chunk
                first = next(_HIGH.finditer(chunk)).start()
                chunk = chunk[max(chunk.rfind(b"\n", 0, first) + 1, first - _BEFORE) :]
            self.sample += chunk[: _SAMPLE - len(self.sample)]
        else:
            self._before = (self._before + chunk)[-_BEFORE:]

    def _scan(self, data: bytes, position: int, final: bool) -> None:
        """Count what is UTF-8 and what is not in bytes from a position on."""
        cut = _CUT_UTF8.search(data[-3:])
        rest = cut[0] if cut else b""
        self._rest, self.cut = (b"", len(rest)) if final else (rest, 0)
        data = data[: len(data) - len(self._rest)]
        if self.bad > max(_MOST_BAD, self.good):
            return
        try:
            data.decode()
            self.good += len(data) - len(data.translate(None, _UTF8_LEADS))
        except UnicodeDecodeError as error:
            if not self.bad:
                self.first_bad, self.bad_line = self._place(data, error.start, position)
            bad = sum(1 for match in _UTF8.finditer(data) if match[1])
            self.bad += bad
            self.good += sum(1 for _ in _UTF8.finditer(data)) - bad

    def _place(self, data: bytes, index: int, position: int) -> tuple[int, int]:
        return position + index, self._lines + data.count(b"\n", 0, index) + 1

    @property
    def is_utf8(self) -> bool:
        """Whether the bytes are UTF-8 but for damage: no other encoding makes many of its characters by chance.

        The first byte of a character that ends a file which is ASCII before it is one that was cut off, except in a
        short file: `caf\\xe9` is a word.
        """
        is_cut = self.bad == self.cut and (self.cut > 1 or self.size > _SHORT)
        return not self.bad or 0 < self.good >= self.bad or is_cut

    def utf8_note(self, name: str) -> str | None:
        if not self.bad:
            return None
        if self.bad == self.cut:
            what = "ends in the middle of a character"
            return f"{name}: {what} (offset {self.first_bad:,}, line {self.bad_line:,}); U+FFFD stands for it"
        first = "" if self.bad == 1 else "the first: "
        count = "1 byte is" if self.bad == 1 else f"{self.bad:,} bytes are"
        place = f"{first}offset {self.first_bad:,}, line {self.bad_line:,}"
        return f"{name}: {count} not UTF-8 ({place}); replaced by U+FFFD"


def _check_text(found: _Bytes, name: str) -> None:
    if found.nul:
        count = "1 NUL byte" if found.nul == 1 else f"{found.nul:,} NUL bytes, the first"
        place = f"{count} at offset {found.first_nul:,}, line {found.nul_line:,}"
        if found.nul * 100 > found.size:
            raise NotTextError(f"{name}: expected plain text, got a binary file ({place}); leave it out")
        raise NotTextError(
            f"{name}: expected plain text, got {place}; remove them (an editor finds \\x00, or "
            "`tr -d '\\000' < OLD > NEW`) or leave the file out"
        )
    if found.controls * 20 > found.size:
        raise NotTextError(
            f"{name}: expected plain text, got a binary file (mostly control characters); give a .txt file or "
            "leave it out"
        )


def _utf16(found: _Bytes) -> str | None:
    """The byte order of UTF-16 without a BOM, if the bytes are that."""
    shares = {}
    for codec in ("utf-16-le", "utf-16-be"):
        text = _decoded(found.head, codec) or ""
        kinds = (unicodedata.category(character) for character in text if not character.isspace())
        if sum(kind in ("Cc", "Cn", "Co") for kind in kinds) * 100 <= len(text):
            shares[codec] = sum(map(text.count, _FREQUENT)) / max(1, len(text))
    codec = max(shares, key=shares.__getitem__, default=None)
    return codec if codec and shares[codec] > 0.01 else None


def _other(found: _Bytes, name: str) -> Encoding:
    """The encoding of a text that is not UTF-8."""
    import chardet  # a fifth of a second of imports that UTF-8 can do without

    guess = chardet.detect(
        found.sample,
        encoding_era=chardet.EncodingEra.MODERN_WEB,
        prefer_superset=True,
        compat_names=False,
        no_match_encoding="ascii",
    )
    codec, confidence = codecs.lookup(guess["encoding"] or "ascii").name, guess["confidence"]
    if codec in _USUAL and _decoded(found.sample, _USUAL[codec]) is not None:
        codec = _USUAL[codec]
    letters, high = len(re.findall(rb"[A-Za-z]", found.sample)), len(_HIGH.findall(found.sample))
    is_latin = high * 2 < letters and (confidence < _SURE or bool(_LATIN.fullmatch(codec)))
    is_sure = _decoded(found.sample, codec) is not None and (
        confidence >= _SURE or (is_latin and confidence >= _SURE_LATIN and bool(_LATIN.fullmatch(codec)))
    )
    stated = _stated(found)
    if stated and (stated == codec or confidence < _SURE or not is_sure):
        return Encoding(stated, _assumed(name, stated, "which the file states", found.sample))
    if not is_sure and not is_latin:
        likely = f" (perhaps {codec}: {_excerpt(found.sample, codec)})" if codec != "ascii" else ""
        raise ValueError(
            f"{name}: expected text in UTF-8, got another encoding that the text does not tell for sure{likely}; "
            f"say which, such as cp1251, koi8-r, gbk, big5, shift_jis or utf-16 ({FLAG})"
        )
    codec, how = (codec, "recognised") if is_sure else ("cp1252", "assumed")
    return Encoding(codec, _assumed(name, codec, how, found.sample))


def _stated(found: _Bytes) -> str | None:
    """The encoding that the file states about itself, if its bytes can be that."""
    match = _STATED.search(found.head)
    try:
        codec = codecs.lookup(next(filter(None, match.groups())).decode()).name if match else "utf-8"
    except LookupError:
        return None
    if codec in ("iso8859-1", "ascii") and found.is_cp1252:  # what is called that is often Windows-1252
        codec = "cp1252"
    text = None if codec in ("utf-8", "ascii") else _decoded(found.sample, codec)
    return codec if text is not None and not _C1.search(text) else None


def _decoded(sample: bytes, codec: str) -> str | None:
    """The sample in an encoding, without the part of a character at its end; None where it cannot be that."""
    try:
        return codecs.getincrementaldecoder(codec)().decode(sample)
    except (UnicodeDecodeError, LookupError):
        return None


def _assumed(name: str, codec: str, how: str, sample: bytes) -> str:
    excerpt = _excerpt(sample, codec)
    return f"{name}: not UTF-8; read as {codec} ({how}): {excerpt}; if that is wrong, name the encoding ({FLAG})"


def _excerpt(sample: bytes, codec: str) -> str:
    """The first words beyond ASCII, as they are read."""
    text = codecs.getincrementaldecoder(codec)("replace").decode(sample)
    line = next((line for line in text.splitlines() if not line.isascii()), text).strip()
    first = next((index for index, character in enumerate(line) if not character.isascii()), 0)
    start = max(0, first - _EXCERPT // 2) if first > _EXCERPT * 3 // 4 else 0
    words = re.sub("[\0-\x1f\x7f-\x9f]", "\ufffd", line[start : start + _EXCERPT])
    return f"“{'…' if start else ''}{words}{'…' if start + _EXCERPT < len(line) else ''}”"
