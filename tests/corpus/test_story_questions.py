"""Questions about generated stories: the answer stands in the story, and only one does."""

import re
from collections import Counter

from corpus.stories import generate_stories
from corpus.stories.questions import generate_chats
from corpus.stories.words import COLOUR


def test_a_question_stands_behind_the_story_of_its_number() -> None:
    chats = list(generate_chats(seed=5, count=3, start=2))
    assert chats == list(generate_chats(seed=5, count=5))[2:]
    stories = [story.text for story in generate_stories(seed=5, count=3, start=2)]
    for chat, story in zip(chats, stories, strict=True):
        asked, answer = chat.messages
        assert (asked.role, answer.role) == ("user", "assistant")
        assert asked.content.startswith(f"{story}\n\n")
        assert asked.content.endswith("?")


def test_the_answer_is_in_the_story() -> None:
    kinds: Counter[str | None] = Counter()
    for chat in generate_chats(seed=6, count=300):
        kinds[chat.kind] += 1
        story, question = chat.messages[0].content.rsplit("\n\n", 1)
        answer = chat.messages[1].content.removeprefix("An ").removeprefix("A ").removesuffix(".")
        assert re.search(rf"\b{answer}\b", story, flags=re.IGNORECASE)
        if chat.kind == "colour":
            thing = question.removeprefix("What colour is the ").removesuffix("?")
            before = re.findall(rf"(\w+) {thing}\b", story)
            assert {word for word in before if word in COLOUR.templates} == {answer.lower()}
    assert set(kinds) == {"hero", "what the hero is", "what the friend is", "colour", "owner"}
    assert min(kinds.values()) > 30
