"""Long texts are cut into pieces that make the text again, at places that no tokenizer notices."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.documents import LONGEST_UNCUT, PIECE, Document, cut_document, cut_text

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
    document = Document(text=line * (LONGEST_UNCUT // len(line) + 1), name="a#1", split="train")
    pieces = list(cut_document(document))
    assert "".join(piece.text for piece in pieces) == document.text
    assert {(piece.name, piece.split) for piece in pieces} == {("a#1", "train")}
    assert [piece.is_complete for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(piece.text.endswith("\n") and piece.text[0] == "A" for piece in pieces)
    assert max(len(piece.text) for piece in pieces) <= PIECE
    short = Document(text="short", name="b")
    assert list(cut_document(short)) == [short]
