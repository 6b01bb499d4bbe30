"""What the page is told of generated tokens: rows of their probabilities, alternatives, and the texts of both."""

import pytest

from panels.generate import Token, generate
from panels.sampling import settings_from
from panels.tabs.write.token_rows import ALTERNATIVES, TokenRows
from panels.tabs.write.token_texts import ENDS, NO_TEXT, PART, Texts
from tests.panels.tiny_model import CONTEXT


def written(loaded, prompt: str, *, stop: str = "", **values) -> tuple[list[Token], str]:
    """The tokens that the model writes, and the text that it leaves, without a last character that stays incomplete."""
    drafts = list(generate(loaded, prompt, settings_from(**values), stop=stop, alternatives=ALTERNATIVES, interval=0.0))
    return [token for draft in drafts for token in draft.tokens], drafts[-1].text.removesuffix(drafts[-1].rest)


def rows_of(loaded, prompt: str, tokens: list[Token], *, at_once: int = 1) -> tuple[list[list], list[list]]:
    """Pieces and rows of `tokens`, as they come with drafts of `at_once` tokens."""
    rows, pieces, found = TokenRows(loaded, prompt), [], []
    for start in range(0, len(tokens), at_once):
        more = rows.add(tokens[start : start + at_once])
        pieces += more["pieces"]
        found += more["tokens"]
    return pieces, found


@pytest.mark.parametrize("prompt", ["The lamp", "", "é", "👩 The lamp"])
def test_the_tokens_are_the_text_and_their_rows_what_the_decoder_said(loaded, prompt):
    tokens, text = written(loaded, prompt, seed=2, max_new_tokens=3 * CONTEXT, temperature=2)
    pieces, rows = rows_of(loaded, prompt, tokens)
    assert len(rows) == 3 * CONTEXT
    assert any(token.is_inside for token in tokens)
    assert prompt + "".join(row[0] for row in rows) == text
    assert len({tuple(piece) for piece in pieces}) == len(pieces)
    for (_, piece, before, after, kept, is_inside, flat), token in zip(rows, tokens, strict=True):
        assert pieces[piece][0] == token.token_id
        assert (before, after) == pytest.approx((token.model_probability, token.probability), rel=1e-2)
        assert (kept, is_inside) == (token.kept, int(token.is_inside))
        chosen = [pieces[number][0] for number in flat[::3]]
        assert chosen == [each.token_id for each in token.alternatives]
        assert flat[1::3] == pytest.approx([each.model_probability for each in token.alternatives], rel=1e-2)
        assert flat[2::3] == pytest.approx([each.probability for each in token.alternatives], rel=1e-2)


def test_rows_do_not_depend_on_how_many_come_together(loaded):
    tokens, _ = written(loaded, "She <b>", seed=1, max_new_tokens=30)
    one, all_at_once = rows_of(loaded, "She <b>", tokens), rows_of(loaded, "She <b>", tokens, at_once=30)
    assert one == all_at_once


@pytest.mark.parametrize("stop", ["e", " the", "qu", "zzz", "\n"])
def test_a_stop_text_cuts_the_tokens_where_it_cuts_the_text(loaded, stop):
    tokens, text = written(loaded, "The lamp", seed=11, max_new_tokens=60, temperature=1.5, stop=stop)
    assert "The lamp" + "".join(token.text for token in tokens) == text
    assert stop not in text[len("The lamp") :]


def test_a_piece_puts_in_the_text_that_the_tokenizer_writes(loaded):
    tokens, _ = written(loaded, "The lamp", seed=5, max_new_tokens=40, temperature=2)
    pieces, rows = rows_of(loaded, "The lamp", tokens)
    obstacles = set()
    for (*_, flat), token in zip(rows, tokens, strict=True):
        for token_id, _, text, why in (pieces[number] for number in flat[::3]):
            obstacles.add(why)
            decoded = loaded.tokenizer.decode([token_id])
            assert why or text == decoded
            assert not (token.is_inside and not why)
            assert bool(why) == (token.is_inside or "\ufffd" in decoded or token_id in loaded.stop_token_ids)
    assert {"", PART} <= obstacles


def test_tokens_that_add_no_text_say_why(loaded):
    texts = Texts(loaded, "The lamp")
    assert texts.of([], [loaded.tokenizer.eos_token_id, 0xE2, 10**6]) == [("", ENDS), ("", PART), ("", NO_TEXT)]
    assert texts.of([], [ord("a")]) == [("a", "")]
    assert texts.of([], [ord("a")], is_inside=True) == [("", PART)]
