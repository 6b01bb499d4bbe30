"""Text in any encoding is read as what it is, or its user is asked."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.documents import LONGEST_UNCUT
from corpus.encodings import NotTextError, choose_encoding, decode_bytes
from corpus.local import read_local, read_text

CASES = Path(__file__).parents[3] / "shared" / "cases"
HINT = "if that is wrong, name the encoding (--encoding)"

TEXTS = {
    "ru": "В начале было слово, и никто не знал, откуда оно пришло. Паром отошёл от пристани в полдень.\n",
    "zh": "渡船在中午离开了码头。没有人抬头看。老人站在岸边，望着河水慢慢流向远方。\n",
    "tw": "渡船在中午離開了碼頭。沒有人抬頭看。老人站在岸邊，望著河水慢慢流向遠方。\n",
    "ja": "渡し船は正午に桟橋を離れた。誰も顔を上げなかった。老人は岸に立って、川を眺めていた。\n",
    "de": "Die Fähre legte um Mittag ab. Niemand blickte auf, als sie über den Fluß fuhr.\n",
    "pl": "Prom odpłynął w południe. Nikt nie podniósł wzroku. Stary człowiek stał na brzegu.\n",
    "en": "The ferry left at noon. “Will it come back?” asked the girl at the café.\n",
}


def read(raw: bytes, encoding: str | None = None, name: str = "a.txt") -> tuple[str, list[str]]:
    said: list[str] = []
    return decode_bytes(raw, name, encoding, said.append), said


@pytest.mark.parametrize(
    ("language", "encoding", "found"),
    [
        ("ru", "cp1251", "cp1251"),
        ("ru", "koi8-r", "koi8-r"),
        ("zh", "gbk", "gb18030"),
        ("tw", "big5", "big5hkscs"),
        ("ja", "shift_jis", "cp932"),
        ("ja", "euc_jp", "euc_jp"),
        ("de", "cp1252", "cp1252"),
        ("pl", "cp1250", "cp1250"),
        ("en", "cp1252", "cp1252"),
        *(
            (language, f"utf-16-{order}", f"utf-16-{order}")
            for language in ("ru", "zh", "en")
            for order in ("le", "be")
        ),
    ],
)
@pytest.mark.parametrize("repeats", [1, 3000])
def test_an_encoding_is_recognised_and_said(language: str, encoding: str, found: str, repeats: int) -> None:
    text = TEXTS[language] * repeats
    got, said = read(text.encode(encoding))
    assert got == text
    (line,) = said
    assert line.startswith(f"a.txt: not UTF-8; read as {found} (")
    first = next(word for word in TEXTS[language].split() if not word.isascii())
    assert first[:5] in line.partition("“")[2]
    assert line.endswith(HINT)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_is_certain_is_not_said(encoding: str) -> None:
    for text in (TEXTS["ru"], TEXTS["en"], "plain\r\n"):
        assert read(text.encode(encoding)) == (text, [])


def test_where_it_is_not_sure_the_user_is_asked() -> None:
    with pytest.raises(
        ValueError, match=r"a.txt: expected text in UTF-8, got another .* \(perhaps cp1251: “Да.”\); say w"
    ):
        read("Да.".encode("cp1251"))
    assert read("Да.".encode("cp866"), "cp866") == ("Да.", [])
    for text in (TEXTS["ru"], TEXTS["zh"]):  # what is UTF-8 is not read otherwise
        assert read(text.encode(), "cp1252") == (text, [])
    assert read(TEXTS["en"].encode("utf-16-le"), "utf-16-le")[0] == TEXTS["en"]
    with pytest.raises(
        ValueError, match=r"encoding: expected the name of an encoding, such as utf-8, .*, got 'klingon'"
    ):
        read(b"x", "klingon")
    with pytest.raises(ValueError, match=r"encoding: expected the name of an encoding, .*, got 'base64'"):
        read(b"x", "base64")


def test_few_letters_beyond_ascii_are_western() -> None:
    assert read(b"caf\xe9") == (
        "café",
        [f"a.txt: not UTF-8; read as cp1252 (assumed): “café”; {HINT}"],
    )
    # A byte that Windows-1252 lacks does not make its quotation marks the controls that Latin-1 has there.
    text, said = read(b"\x93L\xfcbeck\x94 is a city in the north of Germany \x81")
    assert text == "“Lübeck” is a city in the north of Germany \ufffd"
    assert said[1:] == ["a.txt: 1 place is not cp1252 (the first in line 1); replaced by U+FFFD"]


@pytest.mark.parametrize("lead", [b"\xc3", b"\xe2", b"\xf0"])
def test_the_first_byte_of_a_character_at_the_end_of_ascii_was_cut_off(lead: bytes) -> None:
    text = "hello world. " * 80
    line = "a.txt: ends in the middle of a character (offset 1,040, line 1); U+FFFD stands for it"
    assert read(text.encode() + lead) == (text + "\ufffd", [line])
    assert read(text.encode() + b"\xff")[0] == text + "ÿ"


@pytest.mark.parametrize(
    ("damage", "got", "line"),
    [
        (lambda raw: raw[:-1] + b"\xff", "\ufffd", "1 byte is not UTF-8 (offset {last}, line 9); replaced by U+FFFD"),
        (lambda raw: raw[:-2], "", "ends in the middle of a character (offset {cut}, line 9); U+FFFD stands for it"),
        (
            lambda raw: raw.replace(b"\xc3\xa9", b"\xe9", 3),
            "",
            "3 bytes are not UTF-8 (the first: offset 1, line 1); replaced by U+FFFD",
        ),
    ],
)
def test_damage_does_not_make_utf8_another_encoding(damage: Callable[[bytes], bytes], got: str, line: str) -> None:
    raw = ("héllo wörld ça va.\n" * 8 + "The last line—").encode()
    raw = damage(raw + b"x") if got else damage(raw)
    text, said = read(raw)
    assert text == raw.decode("utf-8", "replace")
    assert "\ufffd" in text
    assert "Ã" not in text
    assert said == ["a.txt: " + line.format(last=f"{len(raw) - 1:,}", cut=f"{len(raw) - 1:,}")]


def test_damage_in_a_long_file_is_said_and_the_rest_stays(tmp_path: Path) -> None:
    line = "héllo wörld ça va, und so weiter in derselben Zeile.\n"
    lines = LONGEST_UNCUT // len(line.encode()) + 1
    raw = bytearray((line * lines).encode())
    raw[len(line.encode()) * 1000 + 1] = 0xFF
    path = tmp_path / "a.txt"
    path.write_bytes(raw[:-2] + "—".encode()[:2])
    said: list[str] = []
    text = "".join(piece.text for piece in read_local([path], say=said.append))
    assert text == (raw[:-2] + "—".encode()[:2]).decode("utf-8", "replace")
    offset = len(line.encode()) * 1000 + 1
    # The first byte of é and what is left of it, and the first two of the dash.
    assert said == [f"{path}: 4 bytes are not UTF-8 (the first: offset {offset:,}, line 1,001); replaced by U+FFFD"]


def test_bytes_that_another_encoding_lacks_are_replaced_and_said() -> None:
    text, said = read((TEXTS["ja"] * 20).encode("cp932") + b"\x81\xff\n", "cp932")
    assert text.startswith(TEXTS["ja"])
    assert said == ["a.txt: 1 place is not cp932 (the first in line 21); replaced by U+FFFD"]


@pytest.mark.parametrize(
    ("head", "stated"),
    [
        ("Title: X\nCharacter set encoding: ISO-8859-5\n\n", "iso8859-5"),
        ('<html><head><meta charset="iso-8859-5"></head>\n', "iso8859-5"),
    ],
)
def test_a_file_that_states_its_encoding_is_believed_after_a_check(head: str, stated: str) -> None:
    text = head + TEXTS["ru"] * 3
    got, said = read(text.encode(stated))
    assert got == text
    assert f"read as {stated} (which the file states)" in said[0]
    wrong = text.replace("5", "2").encode("koi8-r")  # KOI8-R is certain, whatever the file says
    assert "read as koi8-r (recognised)" in read(wrong)[1][0]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"ab\n" * 400 + b"\0\0c\0",
            "expected plain text, got 3 NUL bytes, the first at offset 1,200, line 401; remove",
        ),
        (b"\0" + b"ab\n" * 400, "expected plain text, got 1 NUL byte at offset 0, line 1; remove them"),
        (b"PK\3\4\0\0", "expected plain text, got a binary file .2 NUL bytes, the first at offset 4, line 1.; leave"),
        (bytes(range(1, 32)) * 10, "expected plain text, got a binary file .mostly control characters.; give"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(raw: bytes, message: str) -> None:
    for encoding in (None, "cp1251", "utf-8"):
        with pytest.raises(NotTextError, match=f"a.txt: {message}"):
            read(raw, encoding)


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode), st.integers(1, 7))
@settings(deadline=None, max_examples=200)
def test_the_encoding_is_the_same_in_any_chunks(raw: bytes, size: int) -> None:
    def outcome(chunks: list[bytes]) -> object:
        try:
            return choose_encoding(chunks, "a")
        except ValueError as error:
            return str(error)

    expected = outcome([raw])
    assert outcome([raw[start : start + size] for start in range(0, len(raw), size)]) == expected
    if not isinstance(expected, str):
        assert decode_bytes(raw, "a") == raw.decode(expected.codec, "replace")  # type: ignore[attr-defined]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_utf8_is_read_back(text: str, encoding: str) -> None:
    text = text.removeprefix("\ufeff")
    assert read(text.encode(encoding)) == (text, [])


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("min_bad.txt", "min_bad.txt: 1 byte is not UTF-8 (offset 1,100, line 1); replaced by U+FFFD"),
        ("min_cut.txt", "min_cut.txt: ends in the middle of a character (offset 1,100, line 1); U+FFFD stands for it"),
        (
            "utf16le_without_bom.txt",
            "utf16le_without_bom.txt: not UTF-8; read as utf-16-le (without a byte order mark): "
            f"“The ferry left at noon and the dogs bark…”; {HINT}",
        ),
    ],
)
def test_the_shared_cases(file: str, line: str) -> None:
    text, said = read_text(CASES / file)
    assert said == [line]
    assert text.startswith(("héllo wörld ça va. ", "The ferry left at noon"))
    assert text.count("\ufffd") == (not file.startswith("utf16"))
