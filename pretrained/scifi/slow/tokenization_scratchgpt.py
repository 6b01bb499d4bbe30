"""The from-scratch byte-level BPE tokenizer, in the interface of transformers.

Text is cut into pre-tokens by GPT-4's split pattern, each pre-token becomes its UTF-8 bytes, and pairs of neighbouring
tokens are merged in the order in which they were learned. Ids: 0 to 255 are the bytes in order, then the merges in
order, then the special tokens. Every string survives `decode(encode(text))`, lone surrogates included.

Inside, a token id is one character of a Python string (`chr(id)`), so a pre-token is a short string, a pair of tokens a
string of two characters, and a merge is `str.replace`.
"""

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import add
from types import SimpleNamespace
from typing import Any

import regex
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.tokenization_utils_base import TruncationStrategy

# cl100k_base of GPT-4, in the form that minbpe and rustbpe use. Every character of a text falls into exactly one match.
GPT4_SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# Letters and numbers that the Unicode tables of `regex` have and those of the Rust libraries (Unicode 16) do not yet.
# Here as there they are split like symbols, so that a tokenizer gives the same ids everywhere.
LATER_CHARACTERS = (
    "558 58b-58c 88f c5c cdc 208f 209d-209f a7ce-a7cf a7d2 a7d4 a7dd a7e2 a7f1 ab6c-ab6d 107bb-107bf 10940-10959 "
    "10ec5-10ec7 10ed9-10eee 11b0a 11db0-11ddb 11de0-11de9 11df1 1246f 12475-1247f 12550-12686 16ea0-16eb8 16ebb-16ed3 "
    "16ff2-16ff6 187f8-187ff 18cd6-18cda 18d09-18d20 18d80-18df2 18e00-19191 191a0-191d2 1b123-1b128 1b168 1d6a6 "
    "1df1f-1df24 1df2b-1df81 1df90-1df96 1dfcd-1dfff 1e6c0-1e6de 1e6e0-1e6e2 1e6e4-1e6e5 1e6e7-1e6ed 1e6f0-1e6f4 "
    "1e6fe-1e6ff 2b73a-2b73f 2b81e 2cea2-2cead 323b0-33479 3d000-3fc3f"
)
END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"
VOCAB_FILES_NAMES = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
BYTES = 256
CONTINUATION = bytes(range(0x80, 0xC0))  # the bytes of UTF-8 that begin no character
CACHE_ENTRIES = 500_000
# From this many bytes on, going once through all merges is faster than looking for the next one to make.
LONG_WORD = 256


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte: itself where it is printable and no space, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(BYTES)]


def text_to_bytes(text: str) -> bytes:
    """UTF-8; a lone surrogate, which UTF-8 does not have, becomes the three bytes it would have."""
    return text.encode("utf-8", "surrogatepass")


def _decode_errors(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    try:
        return error.object[error.start : error.start + 3].decode("utf-8", "surrogatepass"), error.start + 3
    except UnicodeDecodeError:
        return "\ufffd", error.end


codecs.register_error("scratchgpt", _decode_errors)


def bytes_to_text(data: bytes) -> str:
    """The inverse of `text_to_bytes`; bytes that are no text become U+FFFD, as everywhere."""
    return data.decode("utf-8", "scratchgpt")


def spans_of(contents: Iterable[bytes]) -> list[tuple[int, int]]:
    """Where tokens lie in the text that their bytes make: first character, and the one after the last."""
    spans = []
    end = 0
    for content in contents:
        begins_inside = bool(content) and content[0] & 0xC0 == 0x80
        start = max(0, end - begins_inside)
        end += len(content.translate(None, CONTINUATION))
        spans.append((start, end))
    return spans


class Splitter:
    """Cuts texts into pre-tokens, every character in exactly one: what a pattern passes over is a pre-token too."""

    SYMBOL = "\ue000"

    def __init__(self, pattern: str):
        self.pattern = regex.compile(pattern)
        self.is_gpt4 = pattern == GPT4_SPLIT_PATTERN
        borders = [[int(end, 16) for end in (part.split("-") * 2)[:2]] for part in LATER_CHARACTERS.split()]
        starts = [0, *(last + 1 for _, last in borders)]
        ends = [*(first - 1 for first, _ in borders), 0x10FFFF]
        # For plain ranges `re` is some fifty times faster than `regex`.
        self.known = re.compile("[{}]*".format("".join(map(_range, starts, ends))))
        self.later = re.compile("[{}]".format("".join(_range(first, last) for first, last in borders)))

    def is_plain(self, text: str) -> bool:
        """Whether GPT-4's pattern splits this text unchanged: it has none of `LATER_CHARACTERS`."""
        match = self.known.match(text)
        return self.is_gpt4 and match is not None and match.end() == len(text)

    def __call__(self, text: str) -> list[str]:
        return self.pattern.findall(text) if self.is_plain(text) else list(self._isolate(text))

    def _isolate(self, text: str) -> Iterator[str]:
        end = 0
        for match in self.pattern.finditer(self.later.sub(self.SYMBOL, text)):
            for piece in (text[end : match.start()], text[match.start() : match.end()]):
                if piece:
                    yield piece
            end = match.end()
        if end < len(text):
            yield text[end:]


def _range(first: int, last: int) -> str:
    return f"\\U{first:08x}-\\U{last:08x}"


class PretokenCache(dict[str, tuple[int, ...]]):
    """From pre-token to token ids, computed when first asked for; emptied when it holds `CACHE_ENTRIES` entries."""

    def __init__(self, merged: dict[str, str]):
        super().__init__()
        self.merged = merged
        self.pairs = {token: pair for pair, token in merged.items()}

    def __missing__(self, pretoken: str) -> tuple[int, ...]:
        merged = self.merged
        word = text_to_bytes(pretoken).decode("latin-1")
        if len(word) > LONG_WORD:
            for pair, token in merged.items():
                word = word.replace(pair, token)
        while token := min(filter(None, map(merged.get, map(add, word, word[1:]))), default=None):
            word = word.replace(self.pairs[token], token)
        ids = tuple(map(ord, word))
        if len(pretoken) <= LONG_WORD:
            if len(self) >= CACHE_ENTRIES:
                self.clear()
            self[pretoken] = ids
        return ids

    def __reduce__(self):
        return PretokenCache, (self.merged,)


class ByteLevel:
    """Tells `generate(stop_strings=…)`, by its name, that tokens are bytes in GPT-2's alphabet.

    Since version 5.12 transformers then compares bytes. Otherwise it compares texts, and misses a stop string with a
    character that is spread over several tokens. It looks for this where a Rust backend has its decoder.
    """

    def __getstate__(self) -> bytes:
        return b'{"type": "ByteLevel"}'


class ScratchGPTTokenizer(PreTrainedTokenizer):
    """Byte-level BPE with GPT-4's split pattern.

    Args:
        vocab_file: `vocab.json`, from token to id, bytes written in GPT-2's printable alphabet.
        merges_file: `merges.txt`, one merge a line in the order learned, same alphabet.
        pattern: the split pattern, in the syntax of the `regex` package.
        bos_token, eos_token, pad_token: `<|endoftext|>` unless specified otherwise; none is added to a text by itself.
        add_prefix_space: whether a text that does not begin with a space gets one.

    There is no unknown token: every text has bytes.
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 (the form transformers expects)
    _auto_class = "AutoTokenizer"  # so that what is saved or pushed carries this file
    backend_tokenizer = SimpleNamespace(decoder=ByteLevel())

    def __init__(
        self,
        vocab_file: str | os.PathLike[str],
        merges_file: str | os.PathLike[str],
        *,
        pattern: str = GPT4_SPLIT_PATTERN,
        bos_token: str | None = END_OF_TEXT,
        eos_token: str | None = END_OF_TEXT,
        pad_token: str | None = END_OF_TEXT,
        add_prefix_space: bool = False,
        **kwargs: Any,
    ):
        self._load(*read_vocabulary(vocab_file, merges_file), pattern)
        self._finish(bos_token, eos_token, pad_token, add_prefix_space, kwargs)

    def _load(self, merges: list[tuple[bytes, bytes]], special_tokens: list[str], pattern: str) -> None:
        alphabet = byte_alphabet()
        self.merges = merges
        self.pattern = pattern
        self.token_bytes = [bytes([byte]) for byte in range(BYTES)] + [first + second for first, second in merges]
        ids = {token: index for index, token in enumerate(self.token_bytes)}
        if len(ids) != len(self.token_bytes):
            twice = next(token for index, token in enumerate(self.token_bytes) if ids[token] != index)
            raise ValueError(f"expected merges that each make a new token, got {twice!r} twice")
        merged = {}
        for index, pair in enumerate(merges, start=BYTES):
            for part in pair:
                if ids.get(part, index) >= index:
                    raise ValueError(
                        f"merge {index - BYTES} joins {pair[0]!r} and {pair[1]!r}, but {part!r} is no byte "
                        "and no earlier merge makes it: the merges must be in the order learned"
                    )
            merged[chr(ids[pair[0]]) + chr(ids[pair[1]])] = chr(index)
        self._cache = PretokenCache(merged)
        self.split = Splitter(pattern)
        self._tokens = ["".join(alphabet[byte] for byte in token) for token in self.token_bytes]
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        for token in special_tokens:
            if token in self._ids:
                raise ValueError(f"expected special tokens that are no other token, got {token!r}: choose another name")
            self._ids[token] = len(self._tokens)
            self._tokens.append(token)
            self.token_bytes.append(text_to_bytes(token))

    def _finish(self, bos_token, eos_token, pad_token, add_prefix_space: bool, kwargs: dict[str, Any]) -> None:
        for leaked in ("is_local", "local_files_only"):
            kwargs.pop(leaked, None)
        self.add_prefix_space = add_prefix_space
        super().__init__(
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            pattern=self.pattern,
            add_prefix_space=add_prefix_space,
            **kwargs,
        )
        self.special_tokens_pattern = None  # transformers 5.0 and 5.1 would put [CLS] and [SEP] around every text

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[tuple[bytes, bytes]],
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        *,
        pattern: str = GPT4_SPLIT_PATTERN,
    ) -> "ScratchGPTTokenizer":
        """The tokenizer of these merges (as `train_bpe` returns them), special tokens last.

        `<|endoftext|>`, or else the first special token, is the one that begins, ends and pads; `<|mask|>`, where it is
        among them, the mask token.
        Raises ValueError for merges that are out of order or make a token twice.
        """
        tokenizer = cls.__new__(cls)
        tokenizer._load(list(merges), list(special_tokens), pattern)
        end = END_OF_TEXT if END_OF_TEXT in special_tokens else next(iter(special_tokens), None)
        others = [token for token in special_tokens if token not in (end, MASK)]
        options: dict[str, Any] = {"extra_special_tokens": others} if others else {}
        if MASK in special_tokens and end != MASK:
            options["mask_token"] = MASK
        tokenizer._finish(end, end, end, False, options)
        return tokenizer

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens of the vocabulary, in the order of their ids."""
        return self._tokens[BYTES + len(self.merges) :]

    @property
    def vocab_size(self) -> int:
        """Bytes, merges and special tokens together; tokens added later are counted by `len` alone."""
        return len(self._tokens)

    def get_vocab(self) -> dict[str, int]:
        return {**self._ids, **self.added_tokens_encoder}

    def prepare_for_tokenization(self, text: str, is_split_into_words: bool = False, **kwargs: Any):
        add_prefix_space = kwargs.pop("add_prefix_space", self.add_prefix_space)
        if (is_split_into_words or add_prefix_space) and text and not text[0].isspace():
            text = " " + text
        return text, kwargs

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is special: text that looks like a special token is text."""
        return list(chain.from_iterable(map(self._cache.__getitem__, self.split(text))))

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return list(map(self._tokens.__getitem__, self.encode_ordinary(text)))

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        if index < 0:
            raise ValueError(f"expected token ids from 0 to {len(self) - 1}, got {index}")
        # A model may have more outputs than there are tokens; as in the Rust backend they stand for nothing.
        return self._tokens[index] if index < len(self._tokens) else ""

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        return bytes_to_text(b"".join(map(self._bytes_of, tokens)))

    def offsets(self, token_ids: Iterable[int]) -> list[tuple[int, int]]:
        """Where each token lies in the text that the ids were made of: first character, and the one after the last.

        A token that holds a part of a character lies over the whole of it.
        """
        return spans_of(map(self._bytes_of, self.convert_ids_to_tokens(list(token_ids))))

    def _bytes_of(self, token: str) -> bytes:
        return self.token_bytes[self._ids[token]] if token in self._ids else text_to_bytes(token)

    def _encode_plus(  # pyright: ignore[reportIncompatibleMethodOverride] (takes what every transformers passes)
        self, text: Any, text_pair: Any = None, **kwargs: Any
    ) -> BatchEncoding:
        with_offsets = kwargs.pop("return_offsets_mapping", False)
        encoded = super()._encode_plus(text=text, text_pair=text_pair, **kwargs)
        if not with_offsets:
            return encoded
        texts = [text] if isinstance(text, str) else text
        if (
            text_pair is not None
            or kwargs.get("return_overflowing_tokens")
            or not all(isinstance(t, str) for t in texts)
        ):
            raise ValueError(
                "expected single texts as strings for return_offsets_mapping, got pairs, words or overflowing tokens: "
                "use the fast tokenizer (tokenizer.json) for those"
            )
        has_batch_axis = not isinstance(text, str) or kwargs.get("return_tensors") is not None
        rows = encoded["input_ids"] if has_batch_axis else [encoded["input_ids"]]
        limit = None
        if kwargs.get("truncation_strategy", TruncationStrategy.DO_NOT_TRUNCATE) != TruncationStrategy.DO_NOT_TRUNCATE:
            limit = kwargs.get("max_length")
        split_special_tokens = kwargs.get("split_special_tokens", self.split_special_tokens)
        mapping = []
        for single, row in zip(texts, rows, strict=True):
            tokens = self.tokenize(single, split_special_tokens=split_special_tokens)
            added = len(self.prepare_for_tokenization(single)[0]) - len(single)
            spans = [(max(0, start - added), end - added) for start, end in spans_of(map(self._bytes_of, tokens))]
            if limit is not None and len(spans) > limit:
                spans = spans[:limit] if self.truncation_side == "right" else spans[len(spans) - limit :]
            padding = [(0, 0)] * (len(row) - len(spans))
            left = (kwargs.get("padding_side") or self.padding_side) == "left"
            mapping.append(padding + spans if left else spans + padding)
        offsets = BatchEncoding(
            {"offset_mapping": mapping if has_batch_axis else mapping[0]}, tensor_type=kwargs.get("return_tensors")
        )
        encoded["offset_mapping"] = offsets["offset_mapping"]
        return encoded

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, str]:
        prefix = os.path.join(save_directory, f"{filename_prefix}-" if filename_prefix else "")  # noqa: PTH118
        vocab_file, merges_file = prefix + VOCAB_FILES_NAMES["vocab_file"], prefix + VOCAB_FILES_NAMES["merges_file"]
        with open(vocab_file, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(self._ids, file, ensure_ascii=False, indent=0)
        alphabet = byte_alphabet()
        with open(merges_file, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123
            file.write("#version: 0.2\n")
            for pair in self.merges:
                file.write(" ".join("".join(alphabet[byte] for byte in part) for part in pair) + "\n")
        return vocab_file, merges_file


def read_vocabulary(
    vocab_file: str | os.PathLike[str], merges_file: str | os.PathLike[str]
) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """The merges and the special tokens of a `vocab.json` and a `merges.txt`; ValueError where they do not fit."""
    alphabet = byte_alphabet()
    bytes_of = {character: byte for byte, character in enumerate(alphabet)}
    with open(vocab_file, encoding="utf-8") as file:  # noqa: PTH123
        vocabulary: dict[str, int] = json.load(file)
    with open(merges_file, encoding="utf-8", newline="\n") as file:  # noqa: PTH123
        lines = file.read().split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version:")]
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    expected = alphabet + ["".join(pair) for pair in pairs]
    if tokens[: len(expected)] != expected or sorted(vocabulary.values()) != list(range(len(tokens))):
        raise ValueError(
            f"{vocab_file} does not fit {merges_file}: expected ids 0 to 255 for the bytes in order, "
            f"then {len(pairs)} merges in the order of their file, then special tokens, without gaps"
        )
    merges = []
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"expected two tokens a line in {merges_file}, got {' '.join(pair)!r}")
        merges.append(tuple(bytes(bytes_of[character] for character in part) for part in pair))
    return merges, tokens[len(expected) :]
