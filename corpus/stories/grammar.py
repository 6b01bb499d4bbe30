"""The machinery of the story corpus: a grammar of templates, and walkers that derive texts from it.

A grammar maps a symbol to its options, and an option is a template:

    plain text          is written as it is
    [thing]             one of the options of the symbol "thing" is drawn here
    [thing:lost]        the same, and the word drawn is remembered as the fact "lost"
    [a thing]           the same with "a" or "an" in front; [A thing] starts a sentence
    {lost} {a lost}     the remembered word again, with the article on demand
    {hero.he}           a form that belongs to the remembered word: the pronoun of a name
    {owner=hero}        writes nothing; from here on the fact "owner" is the fact "hero"

Every draw is uniform over the options that are free: all of them, or, where a symbol says *once*, the words that were
not drawn before. A draw is visible in the text at once, because no option's *head* (its text up to its own first draw)
is a prefix of another's. So a text has at most one derivation, and its probability is exactly one over the product of
the numbers of free options along it. A Sampler draws; a Parser finds in a given text which options were drawn. Both
walk the grammar by the same code.
"""

import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, pairwise

_PIECE = re.compile(
    r"\[(?:(?P<draw_article>[aA]) )?(?P<symbol>\w+)(?::(?P<remember>\w+))?\]"
    r"|\{(?P<new>\w+)=(?P<old>\w+)\}"
    r"|\{(?:(?P<fact_article>[aA]) )?(?P<fact>\w+)(?:\.(?P<form>\w+))?\}"
)
_AN_BY_SOUND = {"honest": True, "useful": False, "ukulele": False}


class NotAStoryError(Exception):
    """The text that a Parser was given leaves the grammar."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Draw:
    """A place in a template where an option is drawn."""

    symbol: str  # whose options
    article: str  # "a" or "A" to write the article in front, else ""
    remember: str | None  # the fact that the drawn word becomes


@dataclass(kw_only=True, frozen=True, slots=True)
class Recall:
    """A place in a template where a remembered word is written again."""

    fact: str
    article: str  # as in Draw
    form: str | None  # the form of the word to write instead of the word itself


@dataclass(kw_only=True, frozen=True, slots=True)
class Rename:
    """A place in a template that writes nothing and gives a remembered word a second role."""

    new: str
    old: str


Piece = str | Draw | Recall | Rename


def with_article(word: str, article: str = "a") -> str:
    """The word behind "a" or "an" ("A" or "An"), by its first sound; the bare word for an empty article."""
    if not article:
        return word
    is_an = _AN_BY_SOUND.get(word.split()[0], word[0] in "aeiou")
    return f"{article}{'n' if is_an else ''} {word}"


def parse(template: str) -> tuple[Piece, ...]:
    """Cut a template into its pieces; text outside brackets and braces stays as it is."""
    pieces: list[Piece] = []
    position = 0
    for match in _PIECE.finditer(template):
        if match.start() > position:
            pieces.append(template[position : match.start()])
        position = match.end()
        if match["symbol"]:
            pieces.append(Draw(symbol=match["symbol"], article=match["draw_article"] or "", remember=match["remember"]))
        elif match["new"]:
            pieces.append(Rename(new=match["new"], old=match["old"]))
        else:
            pieces.append(Recall(fact=match["fact"], article=match["fact_article"] or "", form=match["form"]))
    if position < len(template):
        pieces.append(template[position:])
    assert not any(isinstance(piece, str) and set("[]{}") & set(piece) for piece in pieces), template
    return tuple(pieces)


@dataclass(kw_only=True, slots=True)
class Options:
    """What a symbol can be: templates, one of which is drawn."""

    templates: tuple[str, ...]
    are_words: bool  # words take an article and can be remembered; phrases hold draws and facts of their own
    once: bool = False  # each word is drawn at most once in a story
    bodies: tuple[tuple[Piece, ...], ...] = field(init=False)  # the templates, parsed
    heads: tuple[tuple[Piece, ...], ...] = field(init=False)  # each body up to its first draw
    known: frozenset[str] = field(init=False)  # the templates as a set
    articled: dict[str, tuple[str, ...]] = field(init=False)  # words: by article ("", "a", "A"), as they are written
    plain_heads: tuple[str, ...] | None = field(init=False)  # the heads as text, where none holds a fact
    depends_on_facts: bool = field(init=False)  # whether two heads differ depends on a fact

    def __post_init__(self) -> None:
        self.bodies = tuple(parse(template) for template in self.templates)
        self.heads = tuple(_head(body) for body in self.bodies)
        self.known = frozenset(self.templates)
        assert len(self.known) == len(self.templates), f"an option occurs twice: {self.templates}"
        self.articled = {}
        if self.are_words:
            assert all(body == (word,) for body, word in zip(self.bodies, self.templates, strict=True)), (
                "words hold no brackets"
            )
            self.articled = {a: tuple(with_article(word, a) for word in self.templates) for a in ("", "a", "A")}
        has_facts = any(not isinstance(piece, str) for head in self.heads for piece in head)
        self.plain_heads = None if has_facts else tuple("".join(map(str, head)) for head in self.heads)
        verdicts = [_differ(first, second) for first, second in combinations(self.heads, 2)]
        self.depends_on_facts = None in verdicts
        if False in verdicts:
            first, second = list(combinations(self.templates, 2))[verdicts.index(False)]
            raise AssertionError(f"these options share a beginning: {first!r} and {second!r}")


def words(text: str, *, once: bool = True) -> Options:
    """Options that are words or fixed phrases, separated by commas; `once`: each is drawn at most once in a story."""
    return Options(templates=tuple(" ".join(word.split()) for word in text.split(",")), are_words=True, once=once)


def phrases(*templates: str) -> Options:
    """Options that are templates and may be drawn again in the same story."""
    return Options(templates=templates, are_words=False)


def _head(body: tuple[Piece, ...]) -> tuple[Piece, ...]:
    for index, piece in enumerate(body):
        if isinstance(piece, Draw):
            return body[:index]
    return body


def _differ(first: tuple[Piece, ...], second: tuple[Piece, ...]) -> bool | None:
    """Whether two heads differ before either ends: True, False, or None where it depends on a fact."""
    for one, other in zip(_symbols(first), _symbols(second), strict=False):
        if one != other:
            return True if isinstance(one, str) and isinstance(other, str) else None
    return False


def _symbols(head: tuple[Piece, ...]) -> list[Piece]:
    """The head in its smallest parts: single characters, and facts."""
    return [part for piece in head for part in (piece if isinstance(piece, str) else [piece])]


@lru_cache(maxsize=4096)
def _is_prefix_free(texts: tuple[str, ...]) -> bool:
    ordered = sorted(texts)
    return not any(after.startswith(before) for before, after in pairwise(ordered))


class Grammar:
    """Symbols with their options, and the forms (such as pronouns) of words that have any.

    Asserts that every symbol drawn exists and that no option of it begins with another.
    """

    def __init__(self, symbols: Mapping[str, Options], forms: Mapping[str, Mapping[str, str]], start: str) -> None:
        self.symbols = dict(symbols)
        self.forms = {word: dict(of_word) for word, of_word in forms.items()}
        self.start = Draw(symbol=start, article="", remember=None)
        for symbol, options in self.symbols.items():
            for body in options.bodies:
                for piece in body:
                    if isinstance(piece, Draw):
                        assert piece.symbol in self.symbols, f"[{symbol}] draws the unknown [{piece.symbol}]"
                        needs_words = bool(piece.article or piece.remember)
                        assert not needs_words or self.symbols[piece.symbol].are_words, (
                            f"[{piece.symbol}] is not of words"
                        )


class Walker(ABC):
    """Walks a grammar from its start; subclasses define what emitting and drawing do."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.facts: dict[str, str] = {}  # remembered words by role
        self.used: set[str] = set()  # words drawn so far
        self.log_probability = 0.0  # of the draws so far, in nats

    @abstractmethod
    def emit(self, text: str) -> None:
        """Write (or read) text that leaves no choice."""

    @abstractmethod
    def draw(self, options: Options, article: str) -> int:
        """Index of the option drawn, among those that are free; for words, their text is written by `choose`."""

    def walk(self) -> None:
        """Emit one complete text of the grammar."""
        self.choose(self.grammar.start)

    def choose(self, place: Draw) -> None:
        """Draw one of the free options of a symbol and emit it."""
        options = self.grammar.symbols[place.symbol]
        count = len(options.templates)
        if options.once:
            count -= len(options.known & self.used)
        assert count > 0, f"[{place.symbol}] has no free word left"
        if count > 1:
            self.log_probability -= math.log(count)
        if options.depends_on_facts:
            assert _is_prefix_free(tuple(self.fill(head) for head in options.heads)), place.symbol
        index = self.draw(options, place.article) if len(options.templates) > 1 else 0
        if options.are_words:
            word = options.templates[index]
            self.used.add(word)
            if place.remember:
                self.facts[place.remember] = word
            self.emit(options.articled[place.article][index])
        else:
            self.emit_all(options.bodies[index])

    def emit_all(self, pieces: tuple[Piece, ...]) -> None:
        """Emit the pieces of a template in order."""
        for piece in pieces:
            if isinstance(piece, str):
                self.emit(piece)
            elif isinstance(piece, Draw):
                self.choose(piece)
            elif isinstance(piece, Recall):
                self.emit(self.recall(piece))
            else:
                self.facts[piece.new] = self.facts[piece.old]

    def recall(self, piece: Recall) -> str:
        """The text of a remembered word."""
        word = self.facts[piece.fact]
        if piece.form:
            return self.grammar.forms[word][piece.form]
        return with_article(word, piece.article)

    def fill(self, head: tuple[Piece, ...]) -> str:
        """The text of a head with the present facts."""
        return "".join(
            piece if isinstance(piece, str) else self.recall(piece) if isinstance(piece, Recall) else ""
            for piece in head
        )


class Sampler(Walker):
    """Writes a text drawn from the grammar."""

    def __init__(self, grammar: Grammar, rng: random.Random) -> None:
        super().__init__(grammar)
        self.parts: list[str] = []
        self._random = rng.random

    @property
    def text(self) -> str:
        """What was written so far."""
        return "".join(self.parts)

    def emit(self, text: str) -> None:
        self.parts.append(text)

    def draw(self, options: Options, article: str) -> int:
        count = len(options.templates)
        index = int(self._random() * count)
        while options.once and options.templates[index] in self.used:
            index = int(self._random() * count)
        return index


class Parser(Walker):
    """Reads a given text as if it wrote it; raises NotAStoryError where the grammar cannot have written it."""

    def __init__(self, grammar: Grammar, text: str) -> None:
        super().__init__(grammar)
        self.text = text
        self.position = 0  # characters read so far

    def emit(self, text: str) -> None:
        if not self.text.startswith(text, self.position):
            raise NotAStoryError
        self.position += len(text)

    def draw(self, options: Options, article: str) -> int:
        if options.are_words:
            heads = options.articled[article]
        else:
            heads = options.plain_heads or [self.fill(head) for head in options.heads]
        for index, head in enumerate(heads):
            if self.text.startswith(head, self.position):
                if options.once and options.templates[index] in self.used:
                    raise NotAStoryError
                return index
        raise NotAStoryError

    def walk(self) -> None:
        super().walk()
        if self.position != len(self.text):
            raise NotAStoryError
