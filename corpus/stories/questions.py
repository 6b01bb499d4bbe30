"""Questions about generated stories, with their answers: a set of chats for instruction tuning, made by ourselves.

The grammar remembers who and what a story is about, so each answer is known. A question stands behind its story, in the
same message: the answer is in the text, and has to be looked up there.
"""

import random
from collections.abc import Iterator

from corpus.chats import Chat, Message
from corpus.stories.grammar import Sampler, with_article
from corpus.stories.plots import GRAMMAR


def generate_chats(*, seed: int, count: int, start: int = 0) -> Iterator[Chat]:
    """Chats number `start` to `start + count - 1` of a seed, named "question 17": a story, a question, the answer.

    The stories are those of `corpus.stories.generator` of the same seed and numbers. Which question is asked is drawn
    from those that the story answers, each as likely.

    Args:
        seed: any integer; another seed gives other stories.
        count: how many chats.
        start: number of the first one.
    """
    for index in range(start, start + count):
        walker = Sampler(GRAMMAR, random.Random(f"{seed}:{index}"))
        walker.walk()
        choices = questions(walker.facts)
        kind = random.Random(f"question:{seed}:{index}").choice(sorted(choices))
        question, answer = choices[kind]
        messages = (Message("user", f"{walker.text}\n\n{question}"), Message("assistant", answer))
        yield Chat(messages=messages, name=f"question {index}", kind=kind)


def questions(facts: dict[str, str]) -> dict[str, tuple[str, str]]:
    """(question, answer) by the kind of the question, for the facts of a story.

    The names of things and colours occur once in a story, so no question has two answers.
    """
    hero, friend = facts["hero"], facts["friend"]
    found = {
        "hero": ("Who is the story about?", f"{hero}."),
        "what the hero is": (f"What is {hero}?", f"{with_article(facts['hero_kind'], 'A')}."),
        "what the friend is": (f"What is {friend}?", f"{with_article(facts['friend_kind'], 'A')}."),
    }
    if (thing := facts.get("thing")) is not None:
        found["colour"] = (f"What colour is the {thing}?", f"{facts['colour'].capitalize()}.")
        if (owner := facts.get("owner")) is not None:
            found["owner"] = (f"Who has the {thing} in the end?", f"{owner}.")
    return found
