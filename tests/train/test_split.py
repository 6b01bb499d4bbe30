"""Which split a document belongs to."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.documents import Document
from corpus.gutenberg import SCIFI_BOOKS
from tests.corpus.test_gutenberg import raw_book
from tests.train.conftest import with_fields
from train.config import Config
from train.data.split import cut_passages, labelled_documents, split_documents, split_files, split_text

lines = st.lists(st.text(st.sampled_from("ab \n\r"), max_size=40), max_size=30).map("\n".join)


@given(texts=st.lists(lines.filter(bool), max_size=5), chunk=st.integers(10, 90))
def test_text_is_cut_at_line_starts_and_nothing_is_lost(texts: list[str], chunk: int) -> None:
    documents = [Document(text=text, name=str(number)) for number, text in enumerate(texts)]
    pieces = list(split_text(documents, chunk, 0.2))
    for number, text in enumerate(texts):
        own = [piece for piece in pieces if piece.name == str(number)]
        assert "".join(piece.text for piece in own) == text
        assert [piece.is_complete for piece in own] == [False] * (len(own) - 1) + [True]
        for before, after in zip(own, own[1:], strict=False):
            at_line = before.text.endswith("\n") and not after.text[0].isspace()
            assert at_line or (after.text[0].isspace() and "\n" not in after.text.strip("\n ")[:1])


@given(texts=st.lists(lines.filter(bool), max_size=5), characters=st.integers(1, 90), is_in_pieces=st.booleans())
def test_passages_are_the_text_and_long_enough(texts: list[str], characters: int, is_in_pieces: bool) -> None:
    documents = [Document(text=text, name=str(number)) for number, text in enumerate(texts)]
    if is_in_pieces:  # of one text; pieces end after a line end or a word
        documents = [
            Document(text=text.rstrip(" \r") or "a", name="0", is_complete=number == len(texts) - 1)
            for number, text in enumerate(texts)
        ]
    passages = list(cut_passages(documents, characters))
    for name in {document.name for document in documents}:
        own = [passage.text for passage in passages if passage.name == name]
        assert "".join(own) == "".join(document.text for document in documents if document.name == name)
        for before, after in zip(own, own[1:], strict=False):
            assert sum(len(line.strip()) for line in before.split("\n")) >= characters
            assert before.endswith("\n")
            assert after.split("\n")[0].strip()
            if characters == 1 and not is_in_pieces:  # a piece may end in the whitespace that a line begins with
                assert len([line for line in before.split("\n") if line.strip()]) == 1
    assert all(passage.is_complete for passage in passages)


def test_text_is_cut_where_its_chunks_say() -> None:
    text = "".join(f"line {number:03}\n" for number in range(100))  # of nine characters each
    pieces = list(split_text([Document(text=text, name="a")], 90, 0.2))
    assert [len(piece.text) for piece in pieces] == [72, 18] * 10
    assert [piece.split for piece in pieces] == ["train", "validation"] * 10


def test_places_run_on_over_documents() -> None:
    documents = [Document(text=f"{number}\n", name=str(number)) for number in range(20)]
    splits = [piece.split for piece in split_text(documents, 10, 0.2)]
    assert splits[:10] == (["train"] * 4 + ["validation"]) * 2


@pytest.mark.parametrize("text", ["word " * 100, "line\n" * 100, "line\n\n" * 70])
def test_a_text_shorter_than_a_chunk_has_a_validation_part_too(text: str) -> None:
    train, validation = split_text([Document(text=text, name="a")], 1_000_000, 0.1)
    assert (train.split, validation.split) == ("train", "validation")
    assert 0.08 < len(validation.text) / len(text) < 0.12


def test_a_label_of_the_source_is_kept() -> None:
    documents = [Document(text="a\n" * 30, name="a", split="validation"), Document(text="b", name="b", split="train")]
    assert list(split_text(documents, 10, 0.5)) == documents
    assert list(split_documents(documents, 0.5)) == documents


def test_the_last_files_validate() -> None:
    files = [f"/x/{number}.xz" for number in range(20)]
    documents = [Document(text="t", name=f"{file}#{record}") for file in files for record in range(2)]
    heldout = {document.name for document in split_files(documents, files, 0.1) if document.split == "validation"}
    assert heldout == {f"/x/{file}.xz#{record}" for file in (8, 9) for record in range(2)}  # sorted as text


def test_books_of_gutenberg_are_held_out_by_their_files(tiny: Config, tmp_path: Path) -> None:
    """`--corpus.books scifi` reads them as the books they are, which have titles."""
    for number in (35, 36, 84):
        title = next(book.title for book in SCIFI_BOOKS if book.id == number)
        (tmp_path / f"pg{number}.txt").write_bytes(raw_book(title))
    config = with_fields(
        tiny, corpus__source="local", corpus__books="scifi", corpus__paths=(tmp_path,), data__split="files"
    )
    splits = {Path(document.name).name: document.split for document in labelled_documents(config)}
    assert splits == {"pg35.txt": "train", "pg36.txt": "train", "pg84.txt": "validation"}


def test_the_last_of_ten_documents_validates() -> None:
    """Also where there are few, as the 26 books of a download."""
    documents = [Document(text="t", name=str(number)) for number in range(26)]
    splits = [document.split for document in split_documents(documents, 0.1)]
    assert splits == (["train"] * 9 + ["validation"]) * 2 + ["train"] * 6


def test_pieces_of_one_document_stay_together() -> None:
    pieces = [Document(text="t", name="0", is_complete=False)] * 5000 + [Document(text="t", name="0")]
    assert {document.split for document in split_documents(pieces, 0.5)} == {"train"}


def test_one_file_is_split_by_text_and_says_so(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("line\n" * 100)
    config = with_fields(
        tiny,
        corpus__source="local",
        corpus__paths=(tmp_path / "a.txt",),
        data__split="files",
        data__validation_chunk=50,
    )
    said: list[str] = []
    pieces = list(labelled_documents(config, said.append))
    assert {piece.split for piece in pieces} == {"train", "validation"}
    assert said == ["one file cannot be split by files: the end of each 50 characters validates"]
    (tmp_path / "b.txt").write_text("other\n")
    both = replace(config.corpus, paths=(tmp_path,))
    assert [piece.split for piece in labelled_documents(replace(config, corpus=both))] == ["train", "validation"]
