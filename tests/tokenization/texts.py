"""Random texts of every script, for tests and the fuzzer of the tokenizer."""

import random
import sys

from tokenization.tokenization_scratchgpt import LATER_CHARACTERS

# What each alternative of the split pattern is made of, and what it stops at.
CLASSES = (
    *("'s", "'LL", "'ſ", "'K", "don't", "we've", "Aé中", "x" * 40, "aaaa", "\u0301", "१२३४", "1", "12345", "Ⅷ½"),
    *("!", "?!…", " !\r\n\n", "<|endoftext|>", "<|end", "|>", "😀🏳️‍🌈", "\u200b", "\0", "\x1c\x1f", "_"),
    *(" ", "  ", "\t", "\n", "\r\n", "\r", "\v\f", "\x85\u2028\u2029", "\xa0\u2003\u3000", " \n ", "\n\n  "),
    *(chr(int(part.split("-")[0], 16)) for part in LATER_CHARACTERS.split()),
)


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of up to 30 parts: split classes, any character (lone surrogates in a tenth of the texts), long runs."""
    rng = random.Random(seed)
    plain = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    texts = []
    for _ in range(count):
        codes: list[int] | range = plain if rng.random() < 0.9 else range(0xD700, 0xE000)
        parts = [
            chr(rng.choice(codes)) * rng.choice((1, 1, 2)) if rng.random() < 0.5 else rng.choice(CLASSES)
            for _ in range(rng.randrange(30))
        ]
        if rng.random() < 0.01:
            parts.append(rng.choice("ab1- \n\u2003é") * rng.randrange(3000))
        texts.append("".join(parts))
    return texts
