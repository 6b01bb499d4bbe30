"""What a card must know of a bundle's tokenizer, read from its files without loading it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hub_export.run_folder import read_object


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """How a tokenizer treats a text."""

    mask_token: str | None  # what hides a token
    surrounds: bool  # whether a call puts special tokens around the text
    spaces: Literal["joined", "dropped", "single"]  # part of the token behind them, no part of any, tokens themselves

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """From tokenizer.json and tokenizer_config.json.

        Raises:
            ValueError: one of them is damaged.
        """
        tokenizer, config = read_object(folder / "tokenizer.json"), read_object(folder / "tokenizer_config.json")
        mask: Any = config.get("mask_token")
        model = tokenizer.get("model") or {}
        template = (tokenizer.get("post_processor") or {}).get("single") or ()
        special = {token.get("content") for token in tokenizer.get("added_tokens") or ()}
        letters = all(len(token) == 1 for token in model.get("vocab") or () if token not in special)
        return cls(
            mask_token=mask.get("content") if isinstance(mask, dict) else mask,
            surrounds=any("SpecialToken" in piece for piece in template),
            spaces="dropped" if model.get("type") == "WordPiece" else "single" if letters else "joined",
        )

    def with_blank(self, text: str) -> str:
        """`text` with the mask token in the place of a word in its middle, or of a letter where tokens are letters."""
        assert self.mask_token is not None
        words = list(re.finditer(r" ?\S+", text))
        start, end = words[len(words) // 2].span() if words else (0, 0)
        if self.spaces == "single":
            start = (start + end) // 2
            end = start + 1
        elif self.spaces == "dropped" and text[start : start + 1] == " ":
            start += 1
        return text[:start] + self.mask_token + text[end:]
