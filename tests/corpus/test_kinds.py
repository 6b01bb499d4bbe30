"""Folders of notes, books, tables and chats: every kind of file by its ending, and what is left out of a folder."""

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from corpus.local import file_of, find_files, read_local, read_text
from corpus.readers import accepted_suffixes

CASES = Path(__file__).parents[3] / "shared" / "cases"


def documents(*paths: Path, **options: object) -> tuple[list[tuple[str, str]], list[str]]:
    """(file name and what follows, text) of each document, and what is said, without the folder."""
    said: list[str] = []
    folder = f"{paths[0].parent.as_posix()}/"
    found = list(read_local(paths, say=said.append, **options))  # type: ignore[arg-type]
    return [(d.name.replace(folder, ""), d.text) for d in found], [line.replace(folder, "") for line in said]


def zipped(members: dict[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def docx() -> bytes:
    library = pytest.importorskip("docx")
    document, buffer = library.Document(), io.BytesIO()
    document.add_heading("The ferry", 1)
    document.add_paragraph("It left ").add_run("at noon.").bold = True
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "to", "the island"
    document.add_paragraph("Nobody looked up.")
    document.save(buffer)
    return buffer.getvalue()


def odt() -> bytes:
    library = pytest.importorskip("odfdo")
    document, buffer = library.Document("text"), io.BytesIO()
    document.body.clear()
    document.body.append(library.Header(1, "The ferry"))
    document.body.append(library.Paragraph("It left at noon."))
    document.save(buffer)
    return buffer.getvalue()


CONTAINER = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>{}</rootfiles></container>'
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="b" href="two%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="one.xhtml" media-type="application/xhtml+xml"/>
<item id="p" href="p.png" media-type="image/png"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
PAGE = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>{}</p></body></html>'


def epub(package: str = PACKAGE) -> bytes:
    pytest.importorskip("lxml")
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER.format('<rootfile full-path="OPS/book.opf"/>'),
        "OPS/book.opf": package,
        "OPS/one.xhtml": PAGE.format("Chapter one is <i>short</i>."),
        "OPS/two b.xhtml": PAGE.format("Chapter two é."),
    }
    return zipped(members)  # type: ignore[arg-type]


def pdf(*pages: str) -> bytes:
    """Pages of text, as small as the format allows."""
    count = len(pages)
    objects = ["<</Type/Catalog/Pages 2 0 R>>"]
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(count))
    objects.append(f"<</Type/Pages/Kids[{kids}]/Count {count}>>")
    for number, page in enumerate(pages):
        font = "/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]{font}/Contents {4 + 2 * number} 0 R>>")
        content = f"BT /F 12 Tf 10 50 Td ({page}) Tj ET" if page else ""
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    body, places = "%PDF-1.4\n", []
    for number, item in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj{item}endobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(body)
    body += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return (body + f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF").encode()


HTML = """<html><head><title>T</title><style>p {color: red}</style><script>var x = 1</script></head>
<body><h1>Head</h1><p>One <b>bold</b>
 line &amp; &eacute;.</p><ul><li>a<li>b</ul></body></html>"""
SRT = """1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>It left</i> at noon.\r\n\r\n2
00:00:03,000 --> 00:00:04,000\n{\\an8}Nobody\nlooked up.\n\n3\n00:00:04,000 --> 00:00:05,000\nlooked up.\n"""
VTT = """WEBVTT\n\nNOTE a note\n\nSTYLE\n::cue {}\n\nid\n00:01.000 --> 00:02.000 line:0\n<v Ann>Fish &amp; chips\n"""
CHAT = {"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At noon.\n"}]}
SHARE = {"conversations": [{"from": "human", "value": "When?"}, {"from": "gpt", "value": [{"text": "No"}, {"x": 1}]}]}

KINDS = {
    "a.md": ("# Head\n\n*text*\n", ["# Head\n\n*text*\n"]),
    "a.markdown": ("x\r\ny", ["x\ny"]),
    "a.html": (HTML, ["Head\n\nOne bold line & é.\n\n  * a\n  * b"]),
    "a.srt": (SRT, ["It left at noon.\nNobody\nlooked up.\n"]),
    "a.vtt": (VTT, ["Fish & chips\n"]),
    "a.csv": ('id,text\n1,"a, ""b""\nc"\n2,\n3,d\n', ['a, "b"\nc', "d"]),
    "b.csv": ("\ufefftext;id\nä;1\n", ["ä"]),
    "c.csv": ("id|text\n1|a;b\n", ["a;b"]),
    "d.csv": ('text\nOne day, Rosa; home.\n"a, ""b"" |\nc"\n', ["One day, Rosa; home.", 'a, "b" |\nc']),
    "e.csv": ("text,id\na,1,, \nb\n", ["a", "b"]),
    "a.tsv": ("id\ttext\n1\ta, b\n", ["a, b"]),
    "a.json": ('[{"text": "a"}, "b", null, {"text": ""}]', ["a", "b"]),
    "b.json": ('{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
    "a.jsonl": (json.dumps(CHAT), ["User: When?\nAssistant: At noon.\n"]),
    "b.jsonl": (json.dumps(SHARE), ["Human: When?\nGpt: No\n"]),
    "c.jsonl": (json.dumps({"messages": []}) + "\n" + json.dumps(CHAT), ["User: When?\nAssistant: At noon.\n"]),
    "a.docx": (docx, ["The ferry\nIt left at noon.\nto\tthe island\nNobody looked up."]),
    "a.odt": (odt, ["The ferry\nIt left at noon."]),
    "a.epub": (epub, ["Chapter one is short.\n\n\nChapter two é.\n"]),
    "a.pdf": (lambda: pdf("It left at noon.", "Nobody looked up."), ["It left at noon.\nNobody looked up.\n"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_alone_in_a_zip_and_in_a_folder(tmp_path: Path, name: str) -> None:
    made, expected = KINDS[name]
    content = made.encode() if isinstance(made, str) else made()  # type: ignore[operator]
    path = tmp_path / name.upper()
    path.write_bytes(content)
    found, _ = documents(path)
    assert [text for _, text in found] == expected
    (tmp_path / "z.zip").write_bytes(zipped({f"folder/{name}": content, "folder/x.py": b"x", "__MACOSX/a.md": b"y"}))
    if name == "b.json":  # in folders and archives these are mostly settings
        return
    inside, said = documents(tmp_path / "z.zip")
    assert [text for _, text in inside] == expected
    assert {file_of(document.name) for document in read_local([tmp_path / "z.zip"])} == {f"{tmp_path}/z.zip"}
    assert said[-1] == "z.zip: left out of it: 1 .py, 1 hidden"
    assert len(documents(tmp_path)[0]) == 2 * len(expected)


def test_the_endings_are_listed_once() -> None:
    endings = accepted_suffixes()
    assert len(endings) == len(set(endings))
    assert {Path(name).suffix for name in KINDS} | {".txt", ".zip", ".tar", ".parquet", ".gz"} <= set(endings)


@pytest.mark.parametrize("style", ["{date}, {time} - {message}", "[{date}, {time}] {message}"])
def test_a_whatsapp_export_loses_its_dates_and_notices(tmp_path: Path, style: str) -> None:
    dates = [("31.12.23", "21:15"), ("12/31/23", "9:15\u202fPM"), ("2023-12-31", "21:15:03"), ("31/12/2023", "21.15")]
    messages = ["Ann: When does it leave?", "Bo Li: At noon: be there.", "Bo Li: <Media omitted>", "Ann: OK"]
    notice = style.format(date=dates[0][0], time=dates[0][1], message="Messages are end-to-end encrypted.")
    lines = [
        style.format(date=date, time=time, message=message)
        for (date, time), message in zip(dates, messages, strict=True)
    ]
    lines.insert(1, "And from where?")
    path = tmp_path / "chat.txt"
    path.write_text("\n".join([notice, *lines]) + "\n")
    assert documents(path) == (
        [("chat.txt", "Ann: When does it leave?\nAnd from where?\nBo Li: At noon: be there.\nAnn: OK\n")],
        ["chat.txt: read as a WhatsApp export: 6 lines without their dates, 2 notices and attachments left out"],
    )
    diary = "31.12.23, 21:15 - we left\nA long text: of other lines.\nAnd more.\nAnd more.\n"
    path.write_text(diary)
    assert documents(path) == ([("chat.txt", diary)], [])


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    for name, content in {
        "a.md": "one",
        "b/c.txt": "two",
        "b/copy.md": "one",
        "d.py": "x",
        "e.py": "y",
        "f.png": "z",
        "LICENSE": "w",
        "empty.md": "",
        "blank.md": " \n",
        ".hidden.md": "h",
        ".git/x.txt": "h",
        "settings.json": '{"a": 1}',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    found, said = documents(folder)
    assert found == [("notes/a.md", "one"), ("notes/b/c.txt", "two")]
    kinds = "2 hidden, 2 .py, 1 .png, 1 without an ending, 1 empty, 1 .json without an array of records"
    assert sorted(said[0].removeprefix("notes: 4 files read; left out: ").split(", ")) == sorted(kinds.split(", "))
    assert said[1:] == [
        "1 file is identical to another and counts once: notes/b/copy.md = notes/a.md",
        "1 file without text left out: notes/blank.md",
    ]
    assert [file.name for file in find_files([folder])] == ["a.md", "c.txt", "blank.md"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,body\n1,x\n", "a.csv: expected a column 'text' with the text, got 'id', 'body'; say which"),
        (
            "a.csv",
            "text,label\nfine,2\nHello, world, again,1\n",
            r"a.csv#2: expected 2 cells, as the header has, got 4; put texts that hold the delimiter ',' in quotes",
        ),
        ("a.tsv", "id\ttext\n1\ta\tb\n", r"a.tsv#1: expected 2 cells, .* got 3; .* hold the delimiter '\\t' in quotes"),
        ("a.csv", 'text\n"a"b\n', r"a.csv:2: expected a row of a table, got what is none \(.*\); fix it"),
        ("a.json", "[1]", "a.json#1: expected an array of objects or texts, got one with int; convert it"),
        ("a.json", '[{"text": 1}', r"a.json: expected a JSON array, got '\[\{\"text\": 1\}' \(.*\); fix it"),
        ("a.json", "[" * 100_000, "a.json: expected a JSON array, got brackets nested too deep"),
        ("a.json", '{\n "a": 1\n}', r"a.json:1: expected one JSON object a line, got '\{' "),
        (
            "a.jsonl",
            '[{"text": "a"}]',
            r"a.jsonl:1: expected one JSON .* \(list\); .*; name a file with one array",
        ),
        (
            "a.jsonl",
            '{"text": ["a", "b"]}',
            r"a.jsonl:1: expected text in the field 'text', got a list of str \(a text, or",
        ),
        ("a.jsonl", '{"text": []}', "a.jsonl:1: expected text in the field 'text', got an empty list"),
        ("a.srt", "Just text.\n", r"a.srt: expected subtitles with times \(00:01 --> 00:02\), got none"),
        ("a.txt", "{\\rtf1 x}", "a.txt: expected plain text, got RTF; save it as .txt or .docx"),
        (
            "a.docx",
            "PK",
            r"a.docx: expected a Word document \(.docx\), got one that is damaged or something else \(File is",
        ),
        ("a.odt", zipped({"x": "y"}), r"a.odt: expected an OpenDocument text \(.odt\), got one that is damaged or"),
        ("a.epub", zipped({"x": "y"}), "a.epub: expected an EPUB book, got one that is damaged or something else"),
        ("a.pdf", "%PDF-1.4", "a.pdf: expected a PDF file, got one that is damaged or something else"),
        ("a.pdf", pdf("", ""), r"a.pdf: expected a PDF file with text, got 2 pages without \(pictures of pages\?\)"),
        ("a.zip", zipped({"x.py": "y"}), "a.zip: expected an archive with texts, got one with 1 .py; unpack it first"),
        ("a.zip", zipped({"a.txt": b"x" * 200 + b"\0"}), "a.zip#a.txt: expected plain text, got 1 NUL byte"),
        (
            "a.zip",
            zipped({"a.txt": "long text " * 99})[:-40],
            "a.zip: expected a complete zip archive, got one that is",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message):
        documents(tmp_path / name)


BOMB = zipped({"word/document.xml": b" " * 100_000_000, "mimetype": b""})
ENTITY = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize("ending", ["zip", "docx", "odt", "epub"])
@pytest.mark.parametrize("member", ["../../evil.txt", "/etc/evil.txt", "C:\\evil.txt", "a/..\\..\\evil.txt"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, ending: str, member: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(zipped({"good.txt": "text", member: "x"}))
    with pytest.raises(ValueError, match=r"a member '.*evil.txt', whose name leaves the folder; it is not read"):
        documents(path)
    assert sorted(tmp_path.rglob("*")) == [path]


def test_a_tar_with_such_names_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../evil.txt"))
    with pytest.raises(ValueError, match=r"a member '../evil.txt', whose name leaves the folder"):
        documents(tmp_path / "a.tar")


@pytest.mark.parametrize("ending", ["zip", "docx", "odt", "epub"])
def test_bombs_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(BOMB)
    with pytest.raises(ValueError, match=r"from [\d,]+ to 100,000,000 bytes, as no text does \(a decompression bomb"):
        documents(path)


def test_entities_of_xml_are_not_expanded(tmp_path: Path) -> None:
    for name, content in {
        "a.epub": epub(ENTITY + PACKAGE),
        "a.docx": zipped({"word/document.xml": ENTITY + "<x>&b;</x>"}),
        "a.odt": zipped({"content.xml": ENTITY + "<x>&b;</x>"}),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: expected a document, .* declares entities of XML"):
            documents(tmp_path / name)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ((8, 10), r"expected members that are stored or compressed by .* got 'a\.txt', .* \(method 9\); unpack it"),
        ((4, 6), r"expected a zip archive that Python reads, got one that needs a newer reader .*; unpack it"),
    ],
)
def test_a_zip_that_python_cannot_read_is_named(tmp_path: Path, places: tuple[int, int], message: str) -> None:
    """Compressed by Deflate64, as Windows does with large files, or in a later version of the format."""
    raw = bytearray(zipped({"a.txt": "text"}))
    for place in (places[0], raw.index(b"PK\1\2") + places[1]):
        raw[place] = 9 if places == (8, 10) else 255
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        documents(tmp_path / "a.zip")


def test_an_encrypted_zip_is_named(tmp_path: Path) -> None:
    raw = bytearray(zipped({"a.txt": "text"}, zipfile.ZIP_STORED))
    raw[6] |= 1  # the flag in the header of the member, and in the directory
    raw[raw.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(ValueError, match=r"expected an archive without a password, got one with; unpack it"):
        documents(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("ending", "module", "package"),
    [
        ("html", "inscriptis", "inscriptis"),
        ("epub", "lxml.etree", "lxml"),
        ("docx", "docx", "python-docx"),
        ("odt", "odfdo", "odfdo"),
        ("pdf", "pypdf", "pypdf"),
    ],
)
def test_without_the_extra_a_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    (tmp_path / f"a.{ending}").write_text("<p>x</p>")
    (tmp_path / "b.md").write_text("text")
    message = rf"a.{ending}: reading {ending} files needs the package {package}, .*: pip install -r requirements-r"
    with pytest.raises(ValueError, match=message):
        documents(tmp_path)
    assert [text for _, text in documents(tmp_path, skip_broken=True)[0]] == ["text"]


def test_json_in_another_encoding_is_read_where_the_user_says_so(tmp_path: Path) -> None:
    for name, encoding in {"a.jsonl": "cp1251", "b.json": "cp1251", "c.jsonl": "utf-8", "d.json": "utf-16"}.items():
        text = json.dumps({"text": f"Паром {name}"}, ensure_ascii=False)
        (tmp_path / name).write_bytes((f"[{text}]" if name.endswith("json") else text).encode(encoding))
    found, _ = documents(tmp_path, encoding="cp1251")
    assert [text for _, text in found] == ["Паром a.jsonl", "Паром b.json", "Паром c.jsonl", "Паром d.json"]
    with pytest.raises(ValueError, match=r"a.jsonl:1: expected one JSON object a line, got .* \('utf-8' codec can't"):
        documents(tmp_path)


URL = "https://www.gutenberg.org/files/35/35-0.txt"


def test_an_address_is_no_corpus() -> None:
    for address in (URL, Path(URL)):
        with pytest.raises(
            ValueError,
            match=rf"^{re.escape(str(URL))}: expected a file or folder .*; download it first",
        ):
            read_local([address])


def test_the_text_of_one_file_for_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two\\r\\n"}\n')
    assert read_text(tmp_path / "a.jsonl") == ("one\n\ntwo\n", [])
    (tmp_path / "b.txt").write_bytes("Привет, паром отошёл в полдень.".encode("cp1251"))
    text, (note,) = read_text(tmp_path / "b.txt")
    assert text == "Привет, паром отошёл в полдень."
    assert note.startswith("b.txt: not UTF-8; read as cp1251 (recognised): “Привет,")
    with pytest.raises(ValueError, match=r"^a.jsonl:1: expected a field 'body' with the text, got 'text'"):
        read_text(tmp_path / "a.jsonl", text_field="body")


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    ("case", "names", "said"),
    [
        ("mixed", {"a.md", "b.txt", "c.html", "d.csv"}, ["mixed: 4 files read; left out: 1 .py"]),
        ("notes", {"a.md", "b.markdown"}, []),
        ("array.json", {"array.json"}, []),
        (
            "chats.jsonl",
            {"chats.jsonl"},
            ["chats.jsonl: read as chats: the messages of 'conversations', each a line that begins with who speaks"],
        ),
    ],
)
def test_the_shared_cases(case: str, names: set[str], said: list[str]) -> None:
    found, lines = documents(CASES / case)
    assert {Path(file_of(name)).name for name, _ in found} == names
    assert lines == said
    assert all(text.strip() for _, text in found)
    if case == "chats.jsonl":
        assert found[0][1] == "User: When does ferry 0 leave?\nAssistant: At noon.\n"
