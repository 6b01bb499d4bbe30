"""The from-scratch BPE trainer: from texts to the merges of a byte-level vocabulary.

Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016), over bytes: starting
from the 256 bytes, join the most frequent pair of neighbouring tokens, again and again. Pairs never cross the border of
a pre-token. Of pairs equally frequent, the one whose token ids are smaller wins (first id, then second).

What makes it fast: each distinct pre-token is kept once, with its count; a merge touches only the words that hold the
pair and corrects the counts of its neighbours; and the most frequent pair comes from a heap whose entries may be out of
date (a count in it can only be too high, so a wrong one is put back with the right count when it comes up). A word is a
`str` with one character for each token id, a pair a string of two, and `str.partition` and `str.split` find its
places.
"""

import contextlib
import gc
import heapq
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from operator import add

from tqdm import tqdm

from tokenization.tokenization_scratchgpt import BYTES, END_OF_TEXT, GPT4_SPLIT_PATTERN, Splitter, text_to_bytes

logger = logging.getLogger(__name__)
LARGEST_ID = 0x10FFFF
# What `\s` matches, the space apart.
OTHER_WHITESPACE = (
    "\t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f"
    "\u3000"
)
ASCII_WHITESPACE = 5
LINE_START = re.compile(r"\n(?=[^\s\0])")
SPACE, START = "\0", "\1"
# How a piece begins that may run together with the one before it when pieces are joined.
NOT_JOINED = START + SPACE + OTHER_WHITESPACE
PENDING_PIECES = 1 << 21


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    pattern: str = GPT4_SPLIT_PATTERN,
    special_tokens: Sequence[str] = (END_OF_TEXT,),
    progress: bool = False,
    on_merge: Callable[[int, bytes, bytes, int], None] | None = None,
) -> list[tuple[bytes, bytes]]:
    """Learns the merges of a byte-level BPE vocabulary.

    Args:
        texts: the documents; an iterator is read once and only a block of it held at a time. No pair crosses documents.
        vocab_size: bytes, merges and special tokens together; `vocab_size - 256 - len(special_tokens)` merges are made.
        pattern: the split pattern, in the syntax of `regex`.
        special_tokens: only counted here; text that looks like one is text.
        progress: whether to show progress bars.
        on_merge: called after each merge with its token id, its two halves and how often the pair occurred.

    Returns:
        The merges in order. Fewer than asked for when no pair of neighbours is left, which is logged as a warning.

    Raises:
        ValueError: a vocabulary smaller than the bytes and the special tokens, or texts without a character.
    """
    base = BYTES + len(special_tokens)
    if not base <= vocab_size <= LARGEST_ID:
        raise ValueError(
            f"expected vocab_size of at least {base} (256 bytes and {len(special_tokens)} special tokens) and at most "
            f"{LARGEST_ID}, got {vocab_size}"
        )
    counts = count_pretokens(read_texts(texts, "counting words", progress), Splitter(pattern))
    check_found(counts, "none or only empty ones")
    words = [text_to_bytes(pretoken).decode("latin-1") for pretoken in counts]
    token_bytes = [bytes([byte]) for byte in range(BYTES)]
    merges: list[tuple[bytes, bytes]] = []
    with collector_off():
        for first, second, count in merge_words(
            words, list(counts.values()), BYTES, vocab_size - base, progress=progress
        ):
            halves = token_bytes[first], token_bytes[second]
            token_bytes.append(halves[0] + halves[1])
            merges.append(halves)
            if on_merge:
                on_merge(len(token_bytes) - 1, *halves, count)
    warn_of_fewer(base + len(merges), vocab_size)
    return merges


def count_pretokens(texts: Iterable[str], split: Splitter) -> Counter[str]:
    """How often each pre-token occurs in a stream of texts, of which only a part is held at a time.

    GPT-4's pattern has a border before every space that follows a non-space and after every newline before a non-space.
    So texts are first cut there by `str.split`, equal pieces are counted together, and the pattern runs once for each
    distinct piece.
    """
    counts: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    parts = chain.from_iterable(map(parts_of, texts)) if split.is_gpt4 else texts
    for text in parts:
        if SPACE in text or START in text or not split.is_plain(text):
            counts.update(split(text))
            continue
        *inner, last = cut_at_borders(text)
        # Only the last piece may end in spaces, which would continue in a piece after it.
        counts.update(split(piece_text(last)))
        pieces.update(inner)
        if len(pieces) >= PENDING_PIECES:
            split_pieces(pieces, split, counts)
            pieces.clear()
    split_pieces(pieces, split, counts)
    return counts


def parts_of(text: str, characters: int = 1 << 20) -> Iterator[str]:
    """Cuts a long text into parts of about so many characters, before a space that follows a character that is none.

    U+2581, which SentencePiece takes for a space, counts as one here.
    """
    start = 0
    while len(text) - start > characters:
        end = text.find(" ", start + characters)
        while end != -1 and (text[end - 1].isspace() or text[end - 1] == "\u2581"):
            end = text.find(" ", end + 1)
        if end == -1:
            break
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def cut_at_borders(text: str) -> list[str]:
    """Cuts a text before spaces that follow a non-space and after newlines before a non-space.

    The space that a piece begins with is left out, and `START` precedes a piece that begins with none; other spaces
    become `SPACE`. The text must contain neither of the two.
    """
    for character in OTHER_WHITESPACE[: ASCII_WHITESPACE if text.isascii() else None]:
        if character in text:
            text = text.replace(character + " ", character + SPACE)
    text = text.replace("  ", " " + SPACE).replace(SPACE + " ", SPACE + SPACE)
    return (START + LINE_START.sub("\n " + START, text)).split(" ")


def piece_text(piece: str) -> str:
    """The text of one of the pieces of `cut_at_borders`."""
    return (piece[1:] if piece.startswith(START) else " " + piece).replace(SPACE, " ")


def split_pieces(pieces: Counter[str], split: Splitter, counts: Counter[str]) -> None:
    """Adds the pre-tokens of counted pieces to `counts`. Pieces that are equally frequent are split as one text."""
    by_count: dict[int, list[str]] = {}
    for piece, count in pieces.items():
        if piece[:1] in NOT_JOINED:
            for pretoken in split(piece_text(piece)):
                counts[pretoken] += count
        else:
            by_count.setdefault(count, [""]).append(piece)
    for count, equally_frequent in by_count.items():
        text = " ".join(equally_frequent).replace(SPACE, " ")
        for pretoken, occurrences in Counter(split(text)).items():
            counts[pretoken] += count * occurrences


def read_texts(texts: Iterable[str], doing: str, progress: bool) -> Iterable[str]:
    """The texts that a vocabulary is learned from, under a progress bar if `progress`; ValueError for a string."""
    if isinstance(texts, str):
        raise ValueError("expected texts as a list or iterator of strings, got one string: put it into a list")
    return tqdm(texts, desc=doing, unit=" texts", leave=False, disable=not progress)


def check_found(found: Collection[str], otherwise: str) -> None:
    """ValueError where there is nothing to learn from in the texts, which are then `otherwise`."""
    if not found:
        raise ValueError(f"expected texts to learn from, got {otherwise}: check the corpus")


def warn_of_fewer(tokens: int, vocab_size: int) -> None:
    """Log a warning where the texts had too few pairs for the vocabulary that was asked for."""
    if tokens < vocab_size:
        logger.warning(
            "the texts have no more pairs to merge: the vocabulary has %d tokens instead of %d", tokens, vocab_size
        )


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Switches the garbage collector off for the block: merging makes many objects and no cycles."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def merge_words(
    words: list[str], word_counts: list[int], next_id: int, merges: int, *, progress: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Makes up to `merges` merges over words of token ids, one at a time.

    Args:
        words: one character (`chr(id)`) for each token; changed in place.
        word_counts: how often each word occurs.
        next_id: the id of the first merge, larger than every id in the words.

    Yields:
        The two ids that are joined, and how often the pair occurred.
    """
    count_of = word_counts.__getitem__
    pair_counts, words_with = _count_pairs(words, word_counts)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    last_id = next_id + merges
    with tqdm(total=merges, desc="merging pairs", unit=" merges", disable=not progress) as bar:
        while heap and next_id < last_id:
            negative_count, pair = heap[0]
            count = pair_counts.get(pair, 0)
            if count != -negative_count:
                if count:
                    heapq.heapreplace(heap, (-count, pair))
                else:
                    heapq.heappop(heap)
                    pair_counts.pop(pair, None)
                    words_with.pop(pair, None)
                continue
            heapq.heappop(heap)
            token = chr(next_id)
            before, between, after = _apply(pair, token, words, words_with.pop(pair))
            first, second = pair
            # (pair that occurs less often now, pair that is new, the words of each occurrence)
            changes = [(left + first, left + token, places) for left, places in before.items()]
            changes += [(second + right, token + right, places) for right, places in after.items()]
            if between:
                changes.append((second + first, token + token, between))
            for old, new, places in changes:
                moved = sum(map(count_of, places))
                pair_counts[old] -= moved
                pair_counts[new] = moved
                words_with[new] = places
                heapq.heappush(heap, (-moved, new))
            del pair_counts[pair]
            next_id += 1
            bar.update()
            yield ord(first), ord(second), count


def _count_pairs(words: list[str], word_counts: list[int]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """How often each pair of neighbours occurs, and the indices of the words that hold it (once for each place)."""
    words_with: defaultdict[str, list[int]] = defaultdict(list)
    for index, word in enumerate(words):
        for pair in map(add, word, word[1:]):
            words_with[pair].append(index)
    count_of = word_counts.__getitem__
    return {pair: sum(map(count_of, places)) for pair, places in words_with.items()}, dict(words_with)


def _apply(
    pair: str, token: str, words: list[str], places: list[int]
) -> tuple[dict[str, list[int]], list[int], dict[str, list[int]]]:
    """Joins a pair in the words that hold it (an index whose word no longer does is passed over).

    Returns the neighbours it had: by the token before it, the words; the words in which it follows itself; by the token
    after it, the words. A word is listed once for each place.
    """
    before: defaultdict[str, list[int]] = defaultdict(list)
    after: defaultdict[str, list[int]] = defaultdict(list)
    between: list[int] = []
    done = -1
    for index in places:
        if index == done:  # the places of a word follow each other; without this, long words would take quadratic time
            continue
        done = index
        left, found, right = words[index].partition(pair)
        if not found:
            continue
        if pair not in right:
            words[index] = left + token + right
            if left:
                before[left[-1]].append(index)
            if right:
                after[right[0]].append(index)
        else:
            parts = words[index].split(pair)
            words[index] = token.join(parts)
            for left, right in pairwise(parts):
                if left:
                    before[left[-1]].append(index)
                if right:
                    after[right[0]].append(index)
            between.extend([index] * parts[1:-1].count(""))
    return before, between, after
