"""The kinds of vocabularies by name; imports nothing heavy."""

from typing import Literal, get_args

Kind = Literal["bpe", "characters", "wordpiece", "sentencepiece", "gpt2"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GPT2 = "openai-community/gpt2"
"""Where GPT-2's vocabulary comes from, unless another place is named."""
