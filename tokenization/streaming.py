# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Decoding token by token, as far as characters are complete."""

import codecs
import copy
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from tokenization.spans import SINGLE_BYTE, decoder_steps, is_byte_level, is_from_scratch
from tokenization.tokenization_scratchgpt import byte_alphabet, bytes_to_text, text_to_bytes

# Decoders in which the text of a token depends on no token but the one before it, and on that alone whether there is
# one. Single bytes, which ByteFallback decodes together with all those next to them, are the exception.
FROM_PIECES = ["Replace", "ByteFallback", "Fuse"]
LOCAL_DECODERS = (["WordPiece"], ["Fuse"], FROM_PIECES, [*FROM_PIECES, "Strip"])


class StreamingDecoder:
    """Turns token ids into text one by one: all that `push` and `finish` return adds up to `tokenizer.decode(ids)`.

    A character whose bytes are spread over tokens comes out with the last of them. Byte-level tokenizers (ours, and
    those of the Rust backend with GPT-2's alphabet) are decoded from their bytes; others by decoding the ids again from
    the last token whose text was settled, and returning what is new. A run of single bytes (SentencePiece's fallback)
    comes out when it ends, or as U+FFFD from the first byte on that makes it invalid. All this takes time linear in the
    number of tokens. Only where the decoder is unknown, or cleans up spaces across tokens, all ids so far are decoded
    each time.

    Args:
        tokenizer: any tokenizer of transformers.
        skip_special_tokens: as in `decode`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, skip_special_tokens: bool = False):
        self.tokenizer = tokenizer
        self.skipped = set(tokenizer.all_special_ids) if skip_special_tokens else set()
        self.skip_special_tokens = skip_special_tokens
        self.bytewise = is_byte_level(tokenizer) and not tokenizer.clean_up_tokenization_spaces
        self._lossless = is_from_scratch(tokenizer)
        self._byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
        self._special = {str(token) for token in tokenizer.added_tokens_decoder.values()} if self._lossless else set()
        self._pending = b""
        steps = [*decoder_steps(tokenizer)]
        self._is_local = not tokenizer.clean_up_tokenization_spaces and steps in LOCAL_DECODERS
        self._has_runs = "ByteFallback" in steps
        self._is_invalid = False  # the run of single bytes that is open
        self._ids: list[int] = []
        self._returned = ""
        self.is_open = False
        """Whether the last token left a character open: its text is still to come."""

    def follow(self, ids: Sequence[int]) -> None:
        """Begin behind these tokens, whose text is known: some vocabularies write a token by whether one precedes it.

        Their text must end with a complete character. Call it before the first `push`.
        """
        if self.bytewise:
            return
        for token_id in reversed(ids):
            token: Any = self.tokenizer.convert_ids_to_tokens(token_id)
            if SINGLE_BYTE.fullmatch(str(token)) is None:
                self._ids = [token_id]
                self._returned = self._decode()
                return

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the characters that are complete now, often one word, sometimes none."""
        if token_id in self.skipped:
            return ""
        if not self.bytewise:
            text = self._push_local(token_id) if self._is_local else self._push_unknown(token_id)
            self.is_open = text is None
            return text or ""
        self._pending += self._bytes(token_id)
        complete = len(self._pending) - incomplete_tail(self._pending)
        text = self._text(self._pending[:complete])
        self._pending = self._pending[complete:]
        self.is_open = bool(self._pending)
        return text

    def peek(self, token_id: int) -> str | None:
        """What `push` would return for this token; None where the token would leave a character open."""
        branch = copy.copy(self)
        branch._ids = self._ids.copy()
        text = branch.push(token_id)
        return None if branch.is_open else text

    def finish(self) -> str:
        """What is left after the last token: U+FFFD for a character that never became complete, mostly nothing."""
        if not self.bytewise:
            return self._return(self._decode())
        text, self._pending = self._text(self._pending), b""
        return text

    def _bytes(self, token_id: int) -> bytes:
        token: Any = self.tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if token in self._special:
            return text_to_bytes(token)
        if all(character in self._byte_of for character in token):
            return bytes(map(self._byte_of.__getitem__, token))
        return text_to_bytes(token)

    def _text(self, data: bytes) -> str:
        return bytes_to_text(data) if self._lossless else data.decode("utf-8", "replace")

    def _push_local(self, token_id: int) -> str | None:
        """What is new in the text; None inside a run of single bytes, whose text may change."""
        token: Any = self.tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # `decode` skips it
            return None if self.is_open else ""
        self._ids.append(token_id)
        if self._has_runs and SINGLE_BYTE.fullmatch(token):
            return self._push_single_byte(int(token[3:5], 16))
        self._pending, self._is_invalid = b"", False
        return self._settle()

    def _push_single_byte(self, byte: int) -> str | None:
        """As `_push_local`, which has appended its token."""
        # ByteFallback writes U+FFFD for every byte of a run that is not UTF-8 as a whole: one wrong byte changes the
        # characters before it too. What a stream has returned cannot change, and a reader who saves it, counts its
        # tokens or encodes it again needs the text of `decode`. So complete characters wait for the end of their run,
        # which is mostly near: a vocabulary has tokens for most characters of the languages it was trained on. After a
        # wrong byte nothing is uncertain any more.
        if self._is_invalid:
            self._settle()
            return "\ufffd"
        try:
            self._pending += bytes([byte])
            self._pending = self._pending[codecs.utf_8_decode(self._pending, "strict", False)[1] :]
        except UnicodeDecodeError:
            self._is_invalid = True
            return self._settle()
        return None

    def _settle(self) -> str:
        """What is new in the text; the last token is all that is kept, so that the next one is written as after one."""
        new = self._return(self._decode())
        del self._ids[:-1]
        self._returned = self._decode()
        return new

    def _push_unknown(self, token_id: int) -> str | None:
        """What is new in the text; None where its end may change: a half character, or a single byte."""
        self._ids.append(token_id)
        if SINGLE_BYTE.fullmatch(str(self.tokenizer.convert_ids_to_tokens(token_id))):
            return None
        text = self._decode()
        if text.endswith("\ufffd") or not text.startswith(self._returned):
            return None
        return self._return(text)

    def _return(self, text: str) -> str:
        new, self._returned = text[len(self._returned) :], text
        return new

    def _decode(self) -> str:
        text = self.tokenizer.decode(self._ids, skip_special_tokens=self.skip_special_tokens)
        assert isinstance(text, str)
        return text


def incomplete_tail(data: bytes) -> int:
    """How many bytes at the end may begin a UTF-8 character whose other bytes are still to come: 0 to 3."""
    for length, byte in enumerate(reversed(data[-3:]), start=1):
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return length if byte < 0xF5 and length < needed else 0
        if byte < 0x80:
            return 0
    return 0
