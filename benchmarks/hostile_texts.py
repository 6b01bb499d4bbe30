"""What reads texts, on texts that are hard to read: does it stay linear in the length?

Ten kinds of text that have no borders where English has them, in three sizes each, through everything that a stranger's
text meets: the BPE trainer, both backends of its tokenizer, the corpus encoder, decoding, the streaming decoder, the
pieces of the page, cleaning, the guess of an encoding; and through WordPiece and SentencePiece vocabularies of English,
which have bytes or `[UNK]` for what they do not know. A quadratic function takes nine times as long for three times
the text; `growth` is the exponent, 1 for linear, between the second and the third size.
"""

import functools
import json
import math
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from corpus.clean import clean_gutenberg, clean_lines
from corpus.encodings import decode_bytes
from tokenization import ScratchGPTTokenizer, StreamingDecoder, train_bpe
from tokenization.encoding import build_encoder
from tokenization.saving import build_fast
from tokenization.spans import pieces
from tokenization.trainers import train_vocabulary

SIZES = (10_000, 30_000, 90_000)
VOCABULARY = 1000
ROUNDS = 3
FLOOR = 0.02
"""CPU seconds at the largest size below which a growth says nothing."""
WORDS = "The lamp burned low, and the captain drew a line on the map from the harbour to the stars. "


def kinds(size: int) -> dict[str, str]:
    """The texts, of `size` characters each."""
    draw = random.Random(0)

    def of(alphabet: str) -> str:
        return "".join(draw.choices(alphabet, k=size))

    chinese = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    texts = {
        "DNA on one line": of("ACGT"),
        "one character": "-" * size,
        "Chinese without punctuation": of(chinese),
        "base64": of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
        "digits": of("0123456789"),
        "spaces": " " * size,
        "empty lines": "\n" * size,
        "joined emoji": "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}" * (size // 3),
        "combining marks": "e" + of("\u0300\u0301\u0302\u0308"),
        "control characters": of("abcdefghijklmnopqrstuvwxyz" * 5 + "\x01\x7f\x85\u2028\ufeff"),
    }
    return {name: text[:size] for name, text in texts.items()}


@functools.cache
def of_english(kind: str) -> Any:
    """A small vocabulary of another kind that has seen nothing of the texts."""
    return train_vocabulary(kind, [WORDS * 20], 340)


def stages(text: str) -> dict[str, Callable[[], Any]]:
    """What is measured of a text. The tokenizer has learnt it beside English."""
    tokenizer: Any = ScratchGPTTokenizer.from_merges(train_bpe([WORDS * 20, text], VOCABULARY))
    fast: Any = build_fast(tokenizer)
    encode, _ = build_encoder(tokenizer)
    ids = fast(text)["input_ids"]
    raw = text.encode()
    pieces_of_words, pieces_and_bytes = of_english("wordpiece"), of_english("sentencepiece")
    ids_of_words, ids_and_bytes = pieces_of_words(text)["input_ids"], pieces_and_bytes(text)["input_ids"]

    def stream(tokenizer: Any, ids: list[int]) -> None:
        decoder = StreamingDecoder(tokenizer)
        for token_id in ids:
            decoder.push(token_id)
        decoder.finish()

    return {
        "train": lambda: train_bpe([WORDS * 20, text], VOCABULARY),
        "encode (from scratch)": lambda: tokenizer(text),
        "encode (tokenizers)": lambda: fast(text),
        "encode (corpus)": lambda: list(encode([text])),
        "decode (from scratch)": lambda: tokenizer.decode(ids),
        "decode (tokenizers)": lambda: fast.decode(ids),
        "decode (streaming)": lambda: stream(tokenizer, ids),
        "encode (WordPiece)": lambda: pieces_of_words(text),
        "streaming (WordPiece)": lambda: stream(pieces_of_words, ids_of_words),
        "encode (SentencePiece)": lambda: pieces_and_bytes(text),
        "streaming (SentencePiece)": lambda: stream(pieces_and_bytes, ids_and_bytes),
        "pieces": lambda: pieces(tokenizer, text),
        "clean lines": lambda: clean_lines(text),
        "clean Gutenberg": lambda: clean_gutenberg(text),
        "encoding": lambda: decode_bytes(raw, "text", say=lambda _: None),
    }


def run(*, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Measure every stage on every kind.

    Returns:
        `seconds` of CPU time at the largest size and `growth` for each kind and stage (None: too quick to say), and
        `worst`, the largest growth with its place.
    """
    seconds: dict[str, dict[str, list[float]]] = {}
    for size in sizes:
        for kind, text in kinds(size).items():
            for stage, work in stages(text).items():
                seconds.setdefault(kind, {}).setdefault(stage, []).append(min(_once(work) for _ in range(ROUNDS)))
            print(f"{size:,} {kind}", file=sys.stderr, flush=True)
    ratio = math.log(sizes[-1] / sizes[-2])
    growth = {
        kind: {
            stage: None if times[-1] < FLOOR else round(math.log(times[-1] / max(times[-2], 1e-6)) / ratio, 2)
            for stage, times in by_stage.items()
        }
        for kind, by_stage in seconds.items()
    }
    measured = [(found, kind, stage) for kind in growth for stage, found in growth[kind].items() if found is not None]
    return {
        "characters": sizes[-1],
        "seconds": {kind: {stage: round(times[-1], 3) for stage, times in of.items()} for kind, of in seconds.items()},
        "growth": growth,
        "worst": max(measured, default=None),
    }


def as_table(result: dict[str, Any]) -> str:
    """The result as a Markdown table: CPU seconds at the largest size, and the growth where it can be told."""
    names = list(next(iter(result["seconds"].values())))
    lines = [
        "| " + " | ".join([f"{result['characters']:,} characters", *names]) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for kind, seconds in result["seconds"].items():
        growth = result["growth"][kind]
        cells = [f"{seconds[name]:.2f}" + (f" ({growth[name]})" if growth[name] else "") for name in names]
        lines.append("| " + " | ".join([kind, *cells]) + " |")
    return "\n".join(lines)


def _once(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    found = run()
    print(as_table(found))
    print(json.dumps({"worst": found["worst"]}))
