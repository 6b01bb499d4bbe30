"""The numbers that the bars are drawn from."""

import base64

import numpy as np
import pytest
import torch

from modeling.inspection import next_token_logits
from panels.generate import encode_prompt
from panels.models import load_model
from panels.sampling import settings_from
from panels.tabs.inside.analysis import next_tokens
from panels.tabs.write import next_token
from panels.tabs.write.next_token import look
from panels.tabs.write.token_texts import ENDS, PART
from tests.panels.tiny_model import save_checkpoint


def logits_of(found: next_token.Look) -> np.ndarray:
    return np.frombuffer(base64.b64decode(found.logits), "<f4")


@pytest.mark.parametrize("text", ["", "The lamp", "\ud800 and \x00", "The sea was quiet. " * 40])
def test_a_look_is_the_models_own(loaded, text):
    found = look(loaded, text)
    ids = encode_prompt(loaded, text.replace("\ud800", "\ufffd"))
    assert np.array_equal(logits_of(found), next_token_logits(loaded.model, ids).numpy())
    assert found.seen == sorted(set(ids))
    assert set(ids) <= found.labels.keys()
    assert found.tail == text.replace("\ud800", "\ufffd")[-next_token.TAIL :]
    assert found.seconds > 0


def test_what_can_come_to_the_top_has_a_label(loaded, monkeypatch):
    monkeypatch.setattr(next_token, "LABELLED", 5)
    monkeypatch.setattr(next_token, "NEW_LABELLED", 3)
    found = look(loaded, "The lamp burned")
    order = (-torch.tensor(logits_of(found))).argsort().tolist()
    new = [token_id for token_id in order if token_id not in found.seen]
    assert found.labels.keys() == {*order[:5], *new[:3], *found.seen}


def test_tokens_without_a_text_are_closed(loaded):
    found = look(loaded, "The lamp")
    assert found.closed[loaded.tokenizer.eos_token_id] == ENDS
    assert found.closed[0xE2] == PART
    assert ord("a") not in found.closed


def test_tokens_come_with_what_they_add_to_the_text(loaded):
    found = look(loaded, "The lamp")
    assert found.texts.keys() == found.labels.keys() - found.closed.keys()
    assert found.texts == {token_id: loaded.tokenizer.decode([token_id]) for token_id in found.texts}


def test_a_model_for_blanks_has_no_next_token(masked):
    with pytest.raises(ValueError, match="fills blanks: it has no next token"):
        look(masked, "The lamp")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_weights_are_told(tmp_path, value):
    broken = load_model(save_checkpoint(tmp_path / "broken"))
    with torch.no_grad():
        broken.model.lm_head.bias[65] = value
    with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity"):
        look(broken, "The lamp")
    with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity"):
        next_tokens(broken, "The lamp", 5, settings_from())
