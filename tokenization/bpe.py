"""The from-scratch BPE trainer: from texts to the merges of a byte-level vocabulary.

Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016), over bytes: starting
from the 256 bytes, join the most frequent pair of neighbouring tokens, again and again. Pairs never cross the border of
a pre-token. Of pairs equally frequent, the one whose token ids are smaller wins (first id, then second).

What makes it fast: each distinct pre-token is kept once, with its count; a merge touches only the places of the pair
(`TokenArray`) and corrects the counts of its neighbours; and the most frequent pair comes from a heap of the frequent
ones, whose entries may be out of date (a count in it can only be too high, so a wrong one is put back with the right
count when it comes up).
"""

import contextlib
import gc
import heapq
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from itertools import chain, pairwise

import numpy as np
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
BLOCK_CHARACTERS = 1 << 22
NO_TOKEN = LARGEST_ID
FEW_PLACES = 128
"""Places up to which a loop joins a pair in less time than NumPy."""
Pair = tuple[int, int]
Places = np.ndarray | list[int]
Group = tuple[int, Places, int]


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
    So texts are first cut there, equal pieces are counted together, and the pattern runs once for each distinct piece.
    """
    counts: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    for block in _blocks(texts, split, counts):
        pieces.update(count_pieces(block))
        if len(pieces) >= PENDING_PIECES:
            split_pieces(pieces, split, counts)
            pieces.clear()
    split_pieces(pieces, split, counts)
    return counts


def _blocks(texts: Iterable[str], split: Splitter, counts: Counter[str]) -> Iterator[str]:
    """The texts with their borders marked, many small ones as one; what cannot be cut goes straight to `counts`."""
    block: list[str] = []
    size = 0
    for text in chain.from_iterable(map(parts_of, texts)) if split.is_gpt4 else texts:
        if SPACE in text or START in text or not split.is_plain(text):
            counts.update(split(text))
            continue
        inner, _, last = mark_borders(text).rpartition(" ")
        # Only the last piece may end in spaces, which would continue in a piece after it.
        counts.update(split(piece_text(last)))
        if inner:
            block.append(inner)
            size += len(inner)
        if size >= BLOCK_CHARACTERS:
            yield " ".join(block)
            block, size = [], 0
    if block:
        yield " ".join(block)


def count_pieces(text: str) -> dict[str, int]:
    """How often each of the pieces between spaces occurs; none may end in NUL.

    The UTF-8 of nearly every piece fits into eight bytes: they are one integer, and sorting integers takes a third of
    the time of making strings and hashing them.
    """
    data = text_to_bytes(text) + b" " + bytes(8)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord(" "))
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts
    eight_bytes_at = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))
    masks = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)
    is_short = lengths <= 8
    short, counts = np.unique(eight_bytes_at[starts[is_short]] & masks[lengths[is_short]], return_counts=True)
    bounds = zip(starts[~is_short].tolist(), ends[~is_short].tolist(), strict=True)
    counted = dict(zip(short.view("S8").tolist(), counts.tolist(), strict=True))
    counted |= Counter([data[start:end] for start, end in bounds])
    return {piece.decode("utf-8", "surrogatepass"): count for piece, count in counted.items()}


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


def mark_borders(text: str) -> str:
    """A text in which a space stands at each border: before spaces that follow a non-space, after newlines before a
    non-space, and nowhere else.

    The space that a piece begins with is the one at its border, and `START` precedes a piece that begins with none;
    other spaces become `SPACE`. The text must contain neither of the two.
    """
    for character in OTHER_WHITESPACE[: ASCII_WHITESPACE if text.isascii() else None]:
        if character in text:
            text = text.replace(character + " ", character + SPACE)
    text = text.replace("  ", " " + SPACE).replace(SPACE + " ", SPACE + SPACE)
    return START + LINE_START.sub("\n " + START, text)


def piece_text(piece: str) -> str:
    """The text of a piece between the spaces of `mark_borders`."""
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
def collector_off() -> Generator[None]:
    """Switches the garbage collector off for the block: merging makes many objects and no cycles."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def merge_words(
    words: Sequence[str], word_counts: Sequence[int], next_id: int, merges: int, *, progress: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Makes up to `merges` merges over words of token ids, one at a time.

    Args:
        words: one character (`chr(id)`) for each token.
        word_counts: how often each word occurs.
        next_id: the id of the first merge, larger than every id in the words; at most `LARGEST_ID - merges`.

    Yields:
        The two ids that are joined, and how often the pair occurred.
    """
    tokens = TokenArray(words, word_counts, next_id)
    places_of: dict[Pair, Places] = {}
    pair_counts: dict[Pair, int] = {}
    for pair, places, count in tokens.pairs():
        places_of[pair], pair_counts[pair] = places, count
    # In the heap are the pairs that occur at least so often: most pairs are rarer, and their turn never comes.
    heap, least = [], 0
    last_id = next_id + merges
    with tqdm(total=merges, desc="merging pairs", unit=" merges", disable=not progress) as bar:
        while next_id < last_id:
            if not heap:
                least = (max(pair_counts.values(), default=0) + 1) // 2
                if not least:
                    break
                heap = [(-count, pair) for pair, count in pair_counts.items() if count >= least]
                heapq.heapify(heap)
            negative_count, pair = heap[0]
            count = pair_counts[pair]
            if count != -negative_count:
                if count < least:
                    heapq.heappop(heap)
                else:
                    heapq.heapreplace(heap, (-count, pair))
                continue
            heapq.heappop(heap)
            for old, new, places, moved in tokens.join(pair, next_id, places_of.pop(pair)):
                pair_counts[old] -= moved
                pair_counts[new] = moved
                places_of[new] = places
                if moved >= least:
                    heapq.heappush(heap, (-moved, new))
            del pair_counts[pair]
            next_id += 1
            bar.update()
            yield *pair, count


class TokenArray:
    """Words as one array with a slot for each token that they began with, where a merge costs what it joins.

    The first and the last slot of a token hold its id. The slots inside it, and one between two words, hold `NO_TOKEN`.
    So the neighbours of a token stand beside it, and whether a pair is still at its place (the first slot of its second
    token) is seen there. NumPy joins a pair that has many places; where they are few, a loop over the same memory takes
    less time than NumPy's calls.

    Args:
        words: one character for each token.
        word_counts: how often each word occurs.
        next_id: the id of the first token that will be made.
    """

    def __init__(self, words: Sequence[str], word_counts: Sequence[int], next_id: int) -> None:
        text = chr(NO_TOKEN).join(["", *words, ""])
        self.ids = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4").astype(np.int32)
        self.counts = np.repeat([0, *word_counts], [1, *(len(word) + 1 for word in words)])  # of the word of each slot
        self.lengths = [1] * next_id  # in slots, by token id

    def pairs(self) -> list[tuple[Pair, Places, int]]:
        """Each pair of neighbours, its places, and how often it occurs."""
        is_token = self.ids != NO_TOKEN
        places = np.flatnonzero(is_token[1:] & is_token[:-1]) + 1
        keys = self.ids[places - 1] * np.int64(NO_TOKEN) + self.ids[places]
        return [(divmod(key, NO_TOKEN), at, count) for key, at, count in self._grouped(keys, places)]

    def join(self, pair: Pair, token: int, places: Places) -> list[tuple[Pair, Pair, Places, int]]:
        """Joins a pair to a new token, whose id is the next one, wherever it still is at its places.

        Returns:
            The pair that was beside each place, the one that is there now, its places, and how often it occurs.
        """
        first, second = pair
        if first == second:
            places = np.sort(places)  # in "aaa" the first two are joined
        join = self._join_few if len(places) <= FEW_PLACES else self._join_many
        before, after = join(first, second, token, places)
        self.lengths.append(self.lengths[first] + self.lengths[second])
        changes = [
            ((second if left == token else left, first), (left, token), at, count)
            for left, at, count in before
            if left != NO_TOKEN
        ]
        changes += [
            ((second, right), (token, right), at, count)
            for right, at, count in after
            if right != NO_TOKEN and right != token  # before that one stands a new token too, which is counted above
        ]
        return changes

    def _join_few(self, first: int, second: int, token: int, places: Places) -> tuple[list[Group], list[Group]]:
        ids, count_of = self.ids.data, self.counts.data.__getitem__
        first_length, second_length = self.lengths[first], self.lengths[second]
        joined: list[int] = []
        for place in places if isinstance(places, list) else places.tolist():
            if ids[place] == second and ids[place - 1] == first:
                ids[place - 1] = ids[place] = NO_TOKEN
                ids[place - first_length] = ids[place + second_length - 1] = token
                joined.append(place)
        before: defaultdict[int, list[int]] = defaultdict(list)
        after: defaultdict[int, list[int]] = defaultdict(list)
        for place in joined:
            start, end = place - first_length, place + second_length
            before[ids[start - 1]].append(start)
            after[ids[end]].append(end)
        return (
            [(left, starts, sum(map(count_of, starts))) for left, starts in before.items()],
            [(right, ends, sum(map(count_of, ends))) for right, ends in after.items()],
        )

    def _join_many(self, first: int, second: int, token: int, places: Places) -> tuple[list[Group], list[Group]]:
        ids, places = self.ids, np.asarray(places)
        first_length, second_length = self.lengths[first], self.lengths[second]
        places = places[(ids[places] == second) & (ids[places - 1] == first)]
        if first == second:  # every other one of those that follow each other
            numbers = np.arange(len(places))
            begins = np.diff(places, prepend=-first_length) != first_length
            places = places[(numbers - np.maximum.accumulate(numbers * begins)) % 2 == 0]
        starts, ends = places - first_length, places + second_length
        ids[places - 1] = ids[places] = NO_TOKEN
        ids[starts] = ids[ends - 1] = token
        return self._grouped(ids[starts - 1], starts), self._grouped(ids[ends], ends)

    def _grouped(self, keys: np.ndarray, places: np.ndarray) -> list[Group]:
        """Each key, the places that have it, and the sum of their counts."""
        order = np.argsort(keys)
        keys, places = keys[order], places[order]
        firsts = np.flatnonzero(np.diff(keys, prepend=-1))
        sums = np.add.reduceat(self.counts[places], firsts)
        bounds = pairwise([*firsts.tolist(), len(keys)])
        return [
            (key, places[start:end], total)
            for key, (start, end), total in zip(keys[firsts].tolist(), bounds, sums.tolist(), strict=True)
        ]
