"""The logits of the next token of a text, for a page that draws its distribution."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from panels.tabs.write.token_texts import Texts
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from panels.models import LoadedModel

LABELLED = 256
"""The model's likeliest tokens that come with a label."""
NEW_LABELLED = 40
"""The likeliest of the tokens that are not in the text yet, which a repetition penalty lifts to the top."""
TAIL = 28
"""Characters of the text that come back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The next token of one text, before any sampling."""

    logits: str  # float32, little-endian, in base64; one for each token of the vocabulary
    seen: list[int]  # the tokens of the text, which the repetition penalty lowers
    labels: dict[int, str]  # display labels of the tokens that can be among the likeliest, whatever the settings
    texts: dict[int, str]  # what those of them that can be put into the text add to it
    closed: dict[int, str]  # those of them that cannot, and why
    tail: str  # the end of the text
    seconds: float  # that it took


def look(loaded: LoadedModel, text: str) -> Look:
    """The logits of the token that comes after `text`.

    Raises ValueError for an empty text with a model that cannot begin by itself, a model that fills blanks, and logits
    that are no numbers."""
    import torch

    from modeling.inspection import next_token_logits
    from panels.generate import encode_prompt
    from tokenization.spans import label

    began = time.monotonic()
    if loaded.source.masked:
        raise ValueError(f"{loaded.source.name} fills blanks: it has no next token.")
    text = replace_surrogates(text)
    ids = encode_prompt(loaded, text)
    if not ids:
        raise ValueError(f"{loaded.source.name} cannot begin by itself: write something first.")
    logits_V = next_token_logits(loaded.model, ids)
    is_new_V = torch.ones(len(logits_V), dtype=torch.bool)
    is_new_V[ids] = False
    likeliest = logits_V.topk(min(LABELLED, len(logits_V))).indices.tolist()
    new = logits_V.where(is_new_V, -torch.inf).topk(min(NEW_LABELLED, len(logits_V))).indices.tolist()
    named = sorted({*likeliest, *new, *ids})
    contents = dict(zip(named, Texts(loaded, text).of([], named), strict=True))
    return Look(
        logits=base64.b64encode(logits_V.numpy().astype("<f4").tobytes()).decode("ascii"),
        seen=sorted(set(ids)),
        labels={token_id: label(loaded.tokenizer, token_id) for token_id in named},
        texts={token_id: added for token_id, (added, why) in contents.items() if not why},
        closed={token_id: why for token_id, (_, why) in contents.items() if why},
        tail=text[-TAIL:],
        seconds=time.monotonic() - began,
    )
