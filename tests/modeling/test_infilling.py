"""Blanks: which tokens they are, what the model thinks of them, and what goes into the text."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling import ScratchGPTConfig, ScratchGPTForMaskedLM
from modeling.infilling import fill_ids, fill_in, insert, probabilities_at, surroundings
from tokenization import ScratchGPTTokenizer, plain_ids, train_bpe

TEXT = "the cat sat on the mat and the dog sat on the log near the old red mill"
BYTE_LEVEL: Any = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 300), special_tokens=("<|endoftext|>", "<|mask|>"))


torch.manual_seed(0)
MODEL = ScratchGPTForMaskedLM(
    ScratchGPTConfig(
        vocab_size=len(BYTE_LEVEL), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, initializer_range=0.6,
        bos_token_id=BYTE_LEVEL.eos_token_id, eos_token_id=BYTE_LEVEL.eos_token_id,
    )
).eval()  # fmt: skip


def test_candidates_are_the_models_distribution_at_the_mask() -> None:
    (blank,) = fill_in(MODEL, BYTE_LEVEL, "the ____ sat", top=5, encode=plain_ids)
    end, mask = BYTE_LEVEL.eos_token_id, BYTE_LEVEL.mask_token_id
    ids = [end, *BYTE_LEVEL.encode_ordinary("the"), mask, *BYTE_LEVEL.encode_ordinary(" sat"), end]
    probability_V = MODEL(input_ids=torch.tensor([ids])).logits[0, ids.index(mask)].softmax(-1)
    probability_V[[end, mask]] = 0
    values, tokens = probability_V.topk(5)
    assert [candidate.token_id for candidate in blank.candidates] == tokens.tolist()
    assert [candidate.probability for candidate in blank.candidates] == pytest.approx(values.tolist(), abs=1e-6)


def test_the_space_before_a_blank_belongs_to_it() -> None:
    (blank,) = fill_in(MODEL, BYTE_LEVEL, "the ____ sat", encode=plain_ids)
    assert (blank.start, blank.end) == (3, 8)
    (at_start,) = fill_in(MODEL, BYTE_LEVEL, "____ sat", encode=plain_ids)
    assert (at_start.start, at_start.end) == (0, 4)


@given(
    pieces=st.lists(st.text("ab cé狐", min_size=1, max_size=6), min_size=2, max_size=5),
    blank=st.sampled_from(["____", "___", "<|mask|>"]),
)
@settings(max_examples=25, deadline=None)
def test_the_text_round_every_blank_stays(pieces: list[str], blank: str) -> None:
    text = blank.join(pieces)
    blanks = fill_in(MODEL, BYTE_LEVEL, text, top=3, encode=plain_ids)
    assert len(blanks) == len(pieces) - 1
    for found in blanks:
        assert text[found.start : found.end].lstrip(" ") == blank
        for candidate in found.candidates:
            filled = insert(text, found, candidate)
            assert filled.startswith(text[: found.start])
            assert filled.endswith(text[found.end :])
            assert sum(candidate.probability for candidate in found.candidates) <= 1 + 1e-5


def test_a_long_text_is_seen_through_the_window_round_the_blank() -> None:
    ids = [BYTE_LEVEL.mask_token_id if index == 60 else index % 250 for index in range(100)]
    window = MODEL(input_ids=torch.tensor([ids[44:76]])).logits[0, 16].softmax(-1)
    assert torch.allclose(probabilities_at(MODEL, ids, 60), window)
    assert len(fill_in(MODEL, BYTE_LEVEL, "the cat " * 40 + "____" + " sat on" * 40, encode=plain_ids)) == 1


def test_fill_ids_takes_the_likeliest() -> None:
    ids = [3, BYTE_LEVEL.mask_token_id, 5]
    filled = fill_ids(MODEL, ids, BYTE_LEVEL.mask_token_id)
    assert filled[::2] == [3, 5]
    assert filled[1] == int(MODEL(input_ids=torch.tensor([ids])).logits[0, 1].argmax())
    assert surroundings(MODEL, BYTE_LEVEL) == ([BYTE_LEVEL.eos_token_id],) * 2


@pytest.mark.parametrize(
    ("text", "top", "message"),
    [
        ("no blank", 5, r"expected a text with a blank, ____ or <\|mask\|>, got one without"),
        ("a ____", 0, "top: expected a whole number, 1 or more, got 0"),
    ],
)
def test_what_cannot_be_filled(text: str, top: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill_in(MODEL, BYTE_LEVEL, text, top, encode=plain_ids)
    without = ScratchGPTTokenizer.from_merges([], special_tokens=("<|endoftext|>",))
    with pytest.raises(ValueError, match="got one without a mask token"):
        fill_in(MODEL, without, "a ____", encode=plain_ids)
