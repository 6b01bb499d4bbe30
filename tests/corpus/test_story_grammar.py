import math
import random
from itertools import product

import pytest

from corpus.stories.grammar import (
    Draw,
    Grammar,
    NotAStoryError,
    Options,
    Parser,
    Recall,
    Rename,
    Sampler,
    parse,
    phrases,
    words,
)

TOY = Grammar(
    {
        "tale": phrases("[A trait] [name:hero] had [a thing:thing][middle]"),
        "middle": phrases(
            ".",
            "! {hero.He} lost {a thing}, and [name:friend] found it.{owner=friend}[end]",
            "? Or [trait] [thing:other]?{owner=hero}{thing=other}[end]",
        ),
        "end": phrases(" {hero} is well.", " {owner.He} has the {thing} [number] by [number]."),
        "name": words("Ann, Bob, Cy"),
        "thing": words("orb, pan"),
        "trait": words("old, big, odd"),
        "number": words("two, three", once=False),
    },
    {"Ann": {"He": "She"}, "Bob": {"He": "He"}, "Cy": {"He": "He"}},
    start="tale",
)


class ScriptedSampler(Sampler):
    """Draws what a script says, then always the first free option, and notes how many were free each time."""

    def __init__(self, grammar: Grammar, script: list[int]) -> None:
        super().__init__(grammar, random.Random(0))
        self.script = script
        self.drawn: list[tuple[int, int]] = []  # (which of the free options, how many were free)

    def draw(self, options: Options, article: str) -> int:
        free = [i for i, word in enumerate(options.templates) if not (options.once and word in self.used)]
        choice = self.script[len(self.drawn)] if len(self.drawn) < len(self.script) else 0
        self.drawn.append((choice, len(free)))
        return free[choice]


def all_texts(grammar: Grammar) -> list[tuple[str, float]]:
    """Every text of a small grammar with its log-probability, by walking through every sequence of draws."""
    texts, scripts = [], [[]]
    while scripts:
        script = scripts.pop()
        walker = ScriptedSampler(grammar, script)
        walker.walk()
        texts.append((walker.text, walker.log_probability))
        choices = [choice for choice, _ in walker.drawn]
        for place in range(len(script), len(choices)):
            scripts += [[*choices[:place], other] for other in range(1, walker.drawn[place][1])]
    return texts


def read(grammar: Grammar, text: str) -> float:
    walker = Parser(grammar, text)
    try:
        walker.walk()
    except NotAStoryError:
        return -math.inf
    return walker.log_probability


@pytest.fixture(scope="module")
def toy_texts() -> list[tuple[str, float]]:
    return all_texts(TOY)


def test_a_toy_grammar_is_a_probability_distribution(toy_texts):
    assert math.fsum(math.exp(log_p) for _, log_p in toy_texts) == pytest.approx(1.0, abs=1e-12)


def test_every_text_has_one_derivation(toy_texts):
    assert len({text for text, _ in toy_texts}) == len(toy_texts) == 18 * (1 + 10 + 10)


def test_reading_gives_the_probability_of_writing(toy_texts):
    for text, log_p in toy_texts:
        assert read(TOY, text) == pytest.approx(log_p, abs=1e-12)


def test_everything_else_has_probability_zero(toy_texts):
    texts = {text for text, _ in toy_texts}
    for text, other in product(sorted(texts)[::97], ("Ann", "Bob", "Cy", "She", "He", "orb", "pan", "two", "old")):
        for changed in {text.replace(word, other) for word in ("Ann", "Bob", "Cy", "She", "He", "orb", "two")} | {
            text[:-1],
            text + " ",
        }:
            assert (read(TOY, changed) > -math.inf) == (changed in texts)


def test_a_word_comes_once_and_a_number_again(toy_texts):
    for text, _ in toy_texts:
        assert sum(text.lower().count(trait) for trait in ("old", "big", "odd")) <= 2
        assert "? Or" not in text or text.count("orb") >= 1 <= text.count("pan")
    assert any("two by two" in text for text, _ in toy_texts)


def test_parse():
    assert parse("[A trait] {hero.He} saw {a thing}{b=a}[name:x]!") == (
        Draw(symbol="trait", article="A", remember=None),
        " ",
        Recall(fact="hero", article="", form="He"),
        " saw ",
        Recall(fact="thing", article="a", form=None),
        Rename(new="b", old="a"),
        Draw(symbol="name", article="", remember="x"),
        "!",
    )


@pytest.mark.parametrize("template", ["[thing", "thing]", "{}", "[a  b c]", "{hero he}"])
def test_a_broken_template_is_refused(template):
    with pytest.raises(AssertionError):
        parse(template)


@pytest.mark.parametrize(
    "templates",
    [
        ("pen", "pencil"),
        ("to [thing]", "to {hero}"),
        ("[thing] fell", "[thing] rose"),
        ("{hero} ran", "{hero} ran off"),
        ("", "x"),
    ],
)
def test_options_that_share_a_beginning_are_refused(templates):
    with pytest.raises(AssertionError, match="share a beginning"):
        phrases(*templates)


def test_options_may_differ_in_their_facts_alone():
    options = phrases("{hero} won", "{friend} won", "nobody won")
    assert options.depends_on_facts
    grammar = Grammar(
        {"start": phrases("[name:hero] met [name:friend]: [end]"), "end": options, "name": words("Ann, Bob")},
        {},
        "start",
    )
    assert sorted(text for text, _ in all_texts(grammar)) == [
        "Ann met Bob: Ann won",
        "Ann met Bob: Bob won",
        "Ann met Bob: nobody won",
        "Bob met Ann: Ann won",
        "Bob met Ann: Bob won",
        "Bob met Ann: nobody won",
    ]


def test_facts_that_turn_out_alike_are_refused():
    symbols = {"start": phrases("[name:hero]{friend=hero}: [end]"), "end": phrases("{hero} won", "{friend} lost")}
    grammar = Grammar(symbols | {"name": words("Ann, Bob")}, {}, "start")
    Sampler(grammar, random.Random(0)).walk()
    symbols["end"] = phrases("{hero} won", "{friend} won")
    with pytest.raises(AssertionError, match="end"):
        Sampler(Grammar(symbols | {"name": words("Ann, Bob")}, {}, "start"), random.Random(0)).walk()


def test_a_grammar_knows_its_symbols():
    with pytest.raises(AssertionError, match=r"\[start\] draws the unknown \[thing\]"):
        Grammar({"start": phrases("[thing]")}, {}, "start")
    with pytest.raises(AssertionError, match=r"\[thing\] is not of words"):
        Grammar({"start": phrases("[a thing]"), "thing": phrases("orb", "pan")}, {}, "start")
