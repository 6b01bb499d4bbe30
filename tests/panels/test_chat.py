"""The Chat tab without a page: answers, what the page gets of them, and for which models the tab is there."""

import html
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from panels.components.beginnings import EXCERPT, excerpt
from panels.context import AppContext
from panels.generate import generate
from panels.models import LoadedModel, find_model, load_model
from panels.page import first_of, is_for, kind_of, tab_changes, tabs_of
from panels.request_queue import LatestRequest, RequestQueue
from panels.sampling import DEFAULTS, settings_from
from panels.tabs.chat import tab as chat
from panels.tabs.chat.conversation import LONGEST, answer, check_messages, said_of
from panels.tabs.chat.request import answer_lines
from panels.tabs.chat.tab import respond
from panels.tabs.chat.view import examples
from panels.tabs.write import tab as write
from tests.panels.tiny_model import CONTEXT, loader_of, save_checkpoint
from tokenization import load_tokenizer, save_tokenizer
from tokenization.chat_template import CHAT_TEMPLATE, prompt_ids

VALUES = tuple((DEFAULTS | {"max_new_tokens": 6, "temperature": 0.0}).values())
ASKED = {"role": "user", "content": "The lamp?"}


def values_of_form() -> Any:
    return dict(zip(DEFAULTS, VALUES, strict=True))


def save_chat_checkpoint(folder: Path, template: str = CHAT_TEMPLATE, **settings: Any) -> Path:
    save_checkpoint(folder, **settings)
    tokenizer: Any = load_tokenizer(folder)
    tokenizer.chat_template = template
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model whose tokenizer has a chat template."""
    return load_model(save_chat_checkpoint(tmp_path_factory.mktemp("models") / "chat"))


@pytest.fixture
def context(chatting: LoadedModel) -> AppContext:
    """Its page."""
    return context_of(chatting)


def context_of(loaded: LoadedModel) -> AppContext:
    """The page of a model, which answers one request at a time."""
    return AppContext(loader=loader_of(loaded), queue=RequestQueue(workers=1, limit=2))


def asked_of(context: AppContext, messages: Any, system: str = "", seed: str = "3", values: Any = VALUES) -> Any:
    """What the page gets of a request: the text of the answer, why it ended, and the last status line."""
    *_, (lines, status) = answer_lines(context, LatestRequest(), 7, messages, system, seed, *values)
    return *read(lines), status


def read(lines: str) -> tuple[str, str | None]:
    """Text and end of an answer."""
    first, *others = [json.loads(line) for line in lines.splitlines()]
    assert first == {"number": 7}
    ends = [line["end"] for line in others if "end" in line]
    return "".join(line.get("text", "") for line in others), ends[0] if ends else None


def test_an_answer_is_what_the_model_writes_behind_its_template(context: AppContext, chatting: LoadedModel) -> None:
    *_, last = answer(context, [ASKED], seed=3, max_new_tokens=8)
    ids = prompt_ids(chatting.tokenizer, [ASKED])
    *_, expected = generate(chatting, "", settings_from(seed=3, max_new_tokens=8), prompt_ids=ids)
    assert last.text == expected.text
    assert (last.ending, last.prompt_tokens) == ("length", len(ids))
    assert said_of(last) == "The answer has the length that was set, and is not at its end."
    again = list(answer(context, [ASKED], seed=3, max_new_tokens=8))
    assert again[-1].text == last.text
    long = [{"role": "user", "content": "The lamp burned low. " * 20}]
    *_, cut = answer(context, long, seed=3, max_new_tokens=1)
    unread = cut.prompt_tokens - CONTEXT
    assert f"longer than the model's context of {CONTEXT} tokens: its first {unread} were not read" in said_of(cut)


def test_the_lines_only_grow_and_stand_for_the_answer(context: AppContext) -> None:
    values = tuple((DEFAULTS | {"max_new_tokens": 300}).values())
    seen = [lines for lines, _ in answer_lines(context, LatestRequest(), 7, [ASKED], "", "1", *values)]
    assert all(later.startswith(before) for before, later in pairwise(seen))
    lengths = [len(read(lines)[0]) for lines in seen]
    assert len(set(lengths)) > 2
    *_, expected = answer(context, [ASKED], seed=1, max_new_tokens=300)
    assert read(seen[-1]) == (expected.text.strip(), "length")


def test_a_second_turn_reads_the_first_and_the_message_of_the_system(context: AppContext) -> None:
    first, ending, status = asked_of(context, [ASKED])
    assert ending == "length"
    assert "The answer has the length" in status
    turns = [ASKED, {"role": "assistant", "content": first}, {"role": "user", "content": "And the sea?"}]
    *_, expected = answer(context, [{"role": "system", "content": "Be brief."}, *turns], seed="3", **values_of_form())
    assert asked_of(context, turns, "Be brief.")[0] == expected.text.strip()
    *_, without = answer(context, turns, seed="3", **values_of_form())
    assert asked_of(context, turns, "  ")[0] == without.text.strip()


def test_stop_ends_an_answer_and_keeps_what_is_there(context: AppContext) -> None:
    visitor, values = LatestRequest(), tuple((DEFAULTS | {"max_new_tokens": 1000}).values())
    running = answer_lines(context, visitor, 7, [ASKED], "", "1", *values)
    before = next(text for lines, _ in running if (text := read(lines)[0]))
    visitor.stop()
    *_, (lines, status) = running
    text, ending = read(lines)
    assert ending == "stopped"
    assert "Stopped." in status
    assert text.startswith(before)


def test_a_newer_request_of_a_visitor_ends_an_older_one(context: AppContext) -> None:
    visitor, values = LatestRequest(), tuple((DEFAULTS | {"max_new_tokens": 1000}).values())
    running = answer_lines(context, visitor, 7, [ASKED], "", "1", *values)
    next(running)
    next(answer_lines(context, visitor, 8, [ASKED], "", "1", *values))
    *_, (lines, status) = running
    assert read(lines) == ("", "nothing")
    assert "Stopped before the answer began." in status


def test_an_answer_that_ends_at_once_is_said(tmp_path: Path) -> None:
    silent = load_model(save_chat_checkpoint(tmp_path / "silent", end_of_text_bias=100.0))
    text, ending, status = asked_of(AppContext(loader=loader_of(silent)), [ASKED])
    assert (text, ending) == ("", "nothing")
    assert "The model said nothing: it ended its answer at once." in status


@pytest.mark.parametrize(
    ("messages", "seed", "message"),
    [
        ([{"role": "user", "content": "  "}], "", "message 1: expected a text, got an empty one. Write something."),
        ([ASKED], "x", "seed: expected"),
        (None, "", "messages: expected a list"),
    ],
)
def test_a_mistake_is_said(context: AppContext, messages: Any, seed: str, message: str) -> None:
    text, ending, status = asked_of(context, messages, "Be brief.", seed)
    assert (text, ending) == ("", "trouble")
    assert message in status


def test_a_request_without_its_number_is_refused(context: AppContext) -> None:
    with pytest.raises(gr.Error, match="number: expected a whole number, got None"):
        next(respond(context, LatestRequest(), object(), "", "", *VALUES))


def test_the_text_of_a_special_token_is_refused_and_never_read_as_the_token(context: AppContext) -> None:
    message = "expected messages without special tokens, got '<|endoftext|>' in one of the user"
    with pytest.raises(ValueError, match=re.escape(message)):
        list(answer(context, [{"role": "user", "content": "The<|endoftext|>lamp"}], seed=1))
    assert message in html.unescape(asked_of(context, [ASKED | {"content": "<|endoftext|>"}])[-1])


def test_a_template_that_fails_says_so_and_the_page_goes_on(tmp_path: Path) -> None:
    broken = load_model(save_chat_checkpoint(tmp_path / "broken", "{{ raise_exception('not on Sunday') }}"))
    context = AppContext(loader=loader_of(broken))
    for _ in range(2):
        text, ending, status = asked_of(context, [ASKED])
        assert (text, ending) == ("", "trouble")
        assert "the chat template of the tokenizer: expected a text of the messages, got an error: not on" in status


def test_a_model_without_a_template_says_what_to_do(loaded: LoadedModel) -> None:
    context = AppContext(loader=loader_of(loaded))
    with pytest.raises(
        ValueError, match=r"was not trained to chat: its tokenizer has no chat template\. Write to it in"
    ):
        next(answer(context, [ASKED], seed=1))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"messages: expected a list such as .*, got an empty one"),
        ("hello", r"messages: expected a list such as .*, got str"),
        ([{"role": "tool", "content": "x"}], "message 1: expected a role of system, user, assistant, got 'tool'"),
        (["x"], "message 1: expected a role of system, user, assistant, got str"),
        ([ASKED, {"role": "user", "content": None}], "message 2: expected text, got NoneType"),
        ([ASKED, {"role": "assistant", "content": "x"}], "messages: expected a question at the end, got an answer"),
        ([ASKED] * (LONGEST + 1), "messages: expected at most 200, got 201"),
    ],
)
def test_messages_that_are_none(messages: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_messages(messages)


def test_examples_are_first_messages(chatting: LoadedModel, loaded: LoadedModel) -> None:
    assert [text for text, _ in examples(chatting.source)] == list(chatting.source.prompts)
    assert examples(loaded.source) == []
    assert excerpt("Who?") == "Who?"
    assert excerpt("About Rosa\n\nA long story.\n\nWho is the story about?") == "About Rosa … Who is the story about?"
    question = "Who has the pillow in the end?"
    assert excerpt(f"News of Hugo the cook\n\n{question}") == f"News of Hugo the cook … {question}"
    assert excerpt(f"News\n\nWhat do you think of it, {question}").endswith(f" … of it, {question}")
    assert len(excerpt("word " * 100)) <= EXCERPT


def test_the_tab_is_there_for_models_with_a_template(
    chatting: LoadedModel, loaded: LoadedModel, masked: LoadedModel, tmp_path: Path
) -> None:
    assert (kind_of(chatting.source), kind_of(loaded.source)) == ((False, True), (False, False))
    assert kind_of(masked.source) == (True, False)
    assert [is_for(chat, kind_of(each.source)) for each in (chatting, loaded, masked)] == [True, False, False]
    assert is_for(write, kind_of(chatting.source))
    assert first_of(kind_of(chatting.source)) == "write"
    assert find_model(chatting.source.given).chat
    jinja = save_checkpoint(tmp_path / "jinja")
    (jinja / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    assert find_model(jinja).chat


def test_a_switch_brings_the_tab_and_takes_it_away(loaded: LoadedModel, tmp_path: Path) -> None:
    context = AppContext(loader=loader_of(loaded), home=tmp_path)
    assert chat in tabs_of(context)
    tabs = [write, chat]
    plain, chats, masked = (False, False), (False, True), (True, False)
    assert tab_changes(tabs, plain, plain) == [gr.skip()] * 3
    assert tab_changes(tabs, plain, chats) == [gr.skip(), gr.skip(), gr.update(visible=True)]
    assert tab_changes(tabs, chats, plain) == [gr.update(selected="write"), gr.skip(), gr.update(visible="hidden")]
    assert tab_changes(tabs, chats, masked) == [gr.update(selected="fill"), *[gr.update(visible="hidden")] * 2]


def test_the_endpoint_yields_the_answer_so_far(context: AppContext, loaded: LoadedModel) -> None:
    found = list(chat.endpoint(context)([ASKED], max_new_tokens=30, seed=3))
    *_, expected = answer(context, [ASKED], seed=3, max_new_tokens=30)
    assert found[-1] == expected.text.strip()
    with pytest.raises(gr.Error, match="was not trained to chat"):
        next(iter(chat.endpoint(AppContext(loader=loader_of(loaded)))([ASKED])))
