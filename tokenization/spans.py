"""What single tokens are: their bytes, a display label, and where they lie in a text.

For every tokenizer of transformers, each with its way of writing bytes and spaces: our own, byte-level vocabularies in
GPT-2's alphabet, SentencePiece (`▁` for a space, `<0xE2>` for a byte), WordPiece (`##` before what continues a word),
characters.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from storage.text import replace_surrogates
from tokenization.tokenization_scratchgpt import BYTES, ScratchGPTTokenizer, byte_alphabet, spans_of, text_to_bytes

SPACE = "\u2581"
# How the tokens of a SentencePiece vocabulary of ours lie in a text: none holds a space after another character.
SENTENCEPIECE_WORDS = f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+"
SINGLE_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
"""How SentencePiece writes a byte for which there is no other token."""
WHITE_SPACE = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}
"""Signs for white space: ␣ ↵ ⇥."""
RING = "\u25cc"
"""What a combining character at the beginning of a label stands on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One token of a text."""

    token_id: int
    label: str  # for display, as `label` writes it
    start: int  # its first character in the text
    end: int  # the one after its last; tokens inside one character all have that character
    byte_count: int  # bytes of the token; of the characters it covers, where its own are not known


def pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[Piece]:
    """The tokens of a text in which nothing is special: text that looks like a special token is text.

    A tokenizer other than ours cannot take surrogates: the places are then those in `replace_surrogates(text)`.
    """
    ids, offsets = _encode(tokenizer, text)
    reader = _reader(tokenizer)
    distinct = set(ids)
    content_of = {token_id: reader.content(token_id) for token_id in distinct}
    labels = {token_id: reader.label(token_id) for token_id in distinct}
    contents = [content_of[token_id] for token_id in ids]
    known = [content for content in contents if content is not None]
    written = b"".join(known)
    if not is_from_scratch(tokenizer):
        text = replace_surrogates(text)
    if len(known) == len(ids) and written == text_to_bytes(text):
        spans = spans_of(known)
    elif offsets is not None:
        spans = offsets
    else:
        spans = _search(text, contents)
    return [
        Piece(
            token_id=token_id,
            label=labels[token_id],
            start=start,
            end=end,
            byte_count=len(text_to_bytes(text[start:end]) if content is None else content),
        )
        for token_id, content, (start, end) in zip(ids, contents, spans, strict=True)
    ]


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text in which nothing is special, and to which nothing is added; as `encode_corpus`, for one
    text."""
    return _encode(tokenizer, text)[0]


def is_from_scratch(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is `ScratchGPTTokenizer`, also where transformers loaded the class from a copied file."""
    return any(base.__name__ == ScratchGPTTokenizer.__name__ for base in type(tokenizer).__mro__)


def is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether each token represents bytes: it is ours, or its tokens are written in GPT-2's alphabet."""
    return is_from_scratch(tokenizer) or [*decoder_steps(tokenizer)] == ["ByteLevel"]


def decoder_steps(tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, Any]]:
    """The steps of the Rust backend's decoder by their type, in order; none where there is no such decoder."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return {}
    decoder = json.loads(backend.decoder.__getstate__())
    return {step["type"]: step for step in (decoder["decoders"] if decoder["type"] == "Sequence" else [decoder])}


def token_bytes(tokenizer: PreTrainedTokenizerBase, token_id: int) -> bytes | None:
    """The UTF-8 bytes that a token puts into a text; None for a special token, and for an id that is no token.

    SentencePiece's `▁` is a space, and WordPiece's `##` nothing. Over the ids of a text the bytes add up to the text's,
    as far as the tokenizer keeps it (`tokenization.trainers` says which does).
    """
    return _reader(tokenizer).content(token_id)


def label(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """A token for display: its text, with signs for white space, control characters as `\\x07`, and bytes that are no
    whole character as `⟨e2 80⟩`. A special token is itself; WordPiece keeps its `##`; an id that is no token is `⟨no
    token⟩`."""
    return _reader(tokenizer).label(token_id)


def visible_bytes(content: bytes) -> str:
    """Bytes of a text for display, as in `label`."""
    shown: list[str] = []
    for part in re.split("([\udc80-\udcff]+)", content.decode("utf-8", "surrogateescape")):
        if part and "\udc80" <= part[0] <= "\udcff":
            shown.append(f"\u27e8{part.encode('utf-8', 'surrogateescape').hex(' ')}\u27e9")
        else:
            shown.append("".join(map(_visible, part)))
    text = "".join(shown)
    return RING + text if text and unicodedata.category(text[0]) in ("Mn", "Me", "Mc") else text


def _visible(character: str) -> str:
    if character in WHITE_SPACE:
        return WHITE_SPACE[character]
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


class _Reader:
    """How one tokenizer writes its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer: Any = tokenizer
        self.size = len(tokenizer)
        added = tokenizer.added_tokens_decoder
        self.special = {*tokenizer.all_special_ids, *(token_id for token_id, token in added.items() if token.special)}
        self.added = {token_id: token.content for token_id, token in added.items()}
        self.byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
        self.is_ours = is_from_scratch(tokenizer)
        self.ordinary = BYTES + len(self.tokenizer.merges) if self.is_ours else 0
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.steps = decoder_steps(tokenizer)
        self.suffix = getattr(getattr(backend, "model", None), "end_of_word_suffix", None) or ""
        names = self.steps.keys()
        self.is_byte_level = "ByteLevel" in names
        self.has_spaces = "Metaspace" in names or SPACE in str(self.steps.get("Replace", ""))
        self.continues = self.steps.get("WordPiece", {}).get("prefix", "")
        self.is_unknown = backend is None and not self.is_ours

    def content(self, token_id: int) -> bytes | None:
        if token_id in self.special or token_id < 0:
            return None
        if self.is_ours and token_id < self.ordinary:
            return self.tokenizer.token_bytes[token_id]
        if self.is_ours and token_id not in self.added:
            return None
        token = self.added.get(token_id)
        if token is not None:
            return text_to_bytes(token)
        token = self.tokenizer.convert_ids_to_tokens(token_id) if token_id < self.size else None
        if not isinstance(token, str):
            return None
        if self.is_unknown:
            text = self.tokenizer.convert_tokens_to_string([token])
            return None if "\ufffd" in text else text_to_bytes(text)
        if self.suffix:
            token = token.removesuffix(self.suffix)
        if self.is_byte_level:
            known = all(character in self.byte_of for character in token)
            return bytes(map(self.byte_of.__getitem__, token)) if known else text_to_bytes(token)
        if self.has_spaces or "ByteFallback" in self.steps:
            if SINGLE_BYTE.fullmatch(token):
                return bytes([int(token[3:5], 16)])
            return text_to_bytes(token.replace(SPACE, " ") if self.has_spaces else token)
        return text_to_bytes(token.removeprefix(self.continues))

    def label(self, token_id: int) -> str:
        content = self.content(token_id)
        if content is None:
            token = self.tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < self.size else None
            return visible_bytes(text_to_bytes(token)) if isinstance(token, str) and token else "\u27e8no token\u27e9"
        if self.continues and str(self.tokenizer.convert_ids_to_tokens(token_id)).startswith(self.continues):
            return self.continues + visible_bytes(content)
        return visible_bytes(content)


_READERS: WeakKeyDictionary[PreTrainedTokenizerBase, _Reader] = WeakKeyDictionary()


def _reader(tokenizer: PreTrainedTokenizerBase) -> _Reader:
    reader = _READERS.get(tokenizer)
    if reader is None or reader.size != len(tokenizer):
        reader = _READERS[tokenizer] = _Reader(tokenizer)
    return reader


def _encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
    """The ids of a text, and where each lies, as far as the tokenizer knows."""
    if not text:
        return [], None
    if is_from_scratch(tokenizer):
        return tokenizer.encode_ordinary(text), None
    encoded = tokenizer(
        replace_surrogates(text),
        split_special_tokens=True,
        add_special_tokens=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    return encoded["input_ids"], encoded["offset_mapping"] if tokenizer.is_fast else None


def _search(text: str, contents: Sequence[bytes | None]) -> list[tuple[int, int]]:
    """Where tokens lie in a text of which they keep only a part: each at the next place of its text."""
    spans: list[tuple[int, int]] = []
    end = 0
    for content in contents:
        token = (content or b"").decode("utf-8", "replace").strip(" ")
        start = text.find(token, end) if token else end
        start = end if start < 0 else start
        end = min(len(text), start + len(token))
        spans.append((start, end))
    return spans
