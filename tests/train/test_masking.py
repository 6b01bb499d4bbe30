"""Which tokens are hidden, by what, and that it depends on seed and position alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.test_batches import write_split
from tokenization import ScratchGPTTokenizer
from train.data.batches import IGNORED, Batch, PackedWindows, RandomWindows
from train.data.masking import MaskedBatches, Masking, mask_tokens

VOCABULARY, SPECIAL = 50, (0, 7, 49)
MASK = 49


def hide(ids: torch.Tensor, rate: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return mask_tokens(
        ids,
        generator=np.random.default_rng(seed),
        mask_token_id=MASK,
        vocab_size=VOCABULARY,
        special_ids=SPECIAL,
        rate=rate,
    )


def within_5_sigma(count: int, trials: int, share: float) -> bool:
    return abs(count - trials * share) <= 5 * math.sqrt(trials * share * (1 - share))


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_the_shares_are_those_of_bert(rate: float) -> None:
    ids_BL = torch.randint(VOCABULARY, (200, 500), generator=torch.Generator().manual_seed(1))
    hidden_BL, target_BL = hide(ids_BL, rate)
    ordinary_BL = ~torch.isin(ids_BL, torch.tensor(SPECIAL))
    selected_BL = target_BL != IGNORED
    selected = int(selected_BL.sum())
    assert within_5_sigma(selected, int(ordinary_BL.sum()), rate)
    became = hidden_BL[selected_BL]
    masked, same = int((became == MASK).sum()), int((became == ids_BL[selected_BL]).sum())
    assert within_5_sigma(masked, selected, 0.8)
    ordinary = VOCABULARY - len(SPECIAL)
    assert within_5_sigma(same, selected, 0.1 + 0.1 / ordinary)  # a random token may be the same one
    other = became[(became != MASK) & (became != ids_BL[selected_BL])]
    for token in set(range(VOCABULARY)) - set(SPECIAL):
        assert within_5_sigma(int((other == token).sum()), selected, 0.1 / ordinary * (1 - 1 / ordinary))
    assert not torch.isin(other, torch.tensor(SPECIAL)).any()


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=6, max_size=6), min_size=1, max_size=4),
    rate=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**31),
)
def test_what_always_holds(rows: list[list[int]], rate: float, seed: int) -> None:
    ids_BL = torch.tensor(rows)
    before = ids_BL.clone()
    hidden_BL, target_BL = hide(ids_BL, rate, seed)
    assert ids_BL.equal(before)
    assert hidden_BL.dtype == target_BL.dtype == torch.int64
    special_BL = torch.isin(ids_BL, torch.tensor(SPECIAL))
    selected_BL = target_BL != IGNORED
    assert target_BL[selected_BL].equal(ids_BL[selected_BL])
    assert hidden_BL[~selected_BL].equal(ids_BL[~selected_BL])
    assert not (selected_BL & special_BL).any()
    assert selected_BL.any() == (~special_BL).any()  # never an empty loss, where there is anything to predict


def test_a_tokenizer_without_a_mask_token() -> None:
    with pytest.raises(ValueError, match="expected a tokenizer with a mask token, got one without"):
        Masking.of(ScratchGPTTokenizer.from_merges([]), 0.15)


def masking(rate: float = 0.3) -> Masking:
    return Masking(mask_token_id=MASK, vocab_size=VOCABULARY, special_ids=SPECIAL, rate=rate)


@pytest.mark.parametrize("packed", [False, True])
def test_batches_go_on_where_they_were(tmp_path: Path, packed: bool) -> None:
    split = write_split(tmp_path, [number % 49 for number in range(400)])

    def make(seed: int = 3) -> MaskedBatches:
        windows = (
            PackedWindows(split, batch_size=4, length=8, seed=seed, end_of_text=0)
            if packed
            else RandomWindows(split, batch_size=4, length=8, seed=seed)
        )
        return MaskedBatches(windows, masking(), seed=seed)

    batches, states, drawn = make(), [], []
    for _ in range(40):
        states.append(batches.state_dict())
        drawn.append(batches.next())
    for state, batch in zip(states, drawn, strict=True):
        again = make()
        again.load_state_dict(state)
        same = again.next()
        assert same.input_BL.equal(batch.input_BL)
        assert same.target_BL.equal(batch.target_BL)
    assert not make(seed=4).next().target_BL.equal(drawn[0].target_BL)


def test_masks_are_dynamic(tmp_path: Path) -> None:
    """One window again and again: hidden elsewhere each time."""
    split = write_split(tmp_path, list(range(1, 6)) + list(range(8, 12)))
    batches = MaskedBatches(RandomWindows(split, batch_size=1, length=8, seed=0), masking(), seed=0)
    assert len({tuple(batches.next().target_BL[0].tolist()) for _ in range(50)}) > 20


def windows(batch_size: int) -> list[Batch]:
    ids = torch.randint(VOCABULARY, (10, 12), generator=torch.Generator().manual_seed(1))
    ids[3] = 0
    return [Batch(part, part) for part in ids.split(batch_size)]


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_validation_masks_do_not_depend_on_batching(rate: float) -> None:
    for method in (Masking.hide_fixed, Masking.hide_one):
        one, other = (method(masking(rate), windows(size)) for size in (10, 3))
        assert [len(batch.input_BL) for batch in other] == [3, 3, 3, 1]
        for side in ("input_BL", "target_BL"):
            assert torch.cat([getattr(batch, side) for batch in other]).equal(getattr(one[0], side))


def test_one_is_hidden_in_each_window() -> None:
    (given_,) = windows(10)
    (batch,) = masking().hide_one([given_])
    selected_BL = batch.target_BL != IGNORED
    assert selected_BL.sum(1).tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]  # the fourth holds special tokens alone
    assert batch.input_BL[selected_BL].tolist() == [MASK] * 9
    assert batch.target_BL[selected_BL].equal(given_.input_BL[selected_BL])
    assert batch.input_BL[~selected_BL].equal(given_.input_BL[~selected_BL])
    assert not torch.isin(batch.target_BL[selected_BL], torch.tensor(SPECIAL)).any()
