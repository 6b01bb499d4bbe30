"""The chat template, and the ids of chats: equality with transformers, saving, refusals."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from storage.records import read_json_object
from tokenization import load_tokenizer, save_tokenizer
from tokenization.chat_template import CHAT_TEMPLATE, ChatEncoder, prompt_ids
from tokenization.trainers import train_own, train_vocabulary

ASKED = {"role": "user", "content": "Who is Rosa?"}
ANSWERED = {"role": "assistant", "content": " A miller of 12.\n"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    ASKED,
    ANSWERED,
    {"role": "user", "content": '"Ünd Hugo?"'},
    ANSWERED,
]
TEXT = "User: Who is Rosa the miller?\nAssistant: A miller, said Hugo. System: Be brief.\n" * 20


@pytest.fixture
def tokenizer() -> Any:
    made = train_own([TEXT], 300)
    made.chat_template = CHAT_TEMPLATE
    return made


def test_the_text_of_a_chat(tokenizer: Any) -> None:
    assert tokenizer.apply_chat_template(CHAT[:3], tokenize=False) == (
        "<|endoftext|>System: Be brief.\nUser: Who is Rosa?\nAssistant: A miller of 12.<|endoftext|>"
    )
    assert tokenizer.apply_chat_template([ASKED], tokenize=False, add_generation_prompt=True) == (
        "<|endoftext|>User: Who is Rosa?\nAssistant:"
    )


@pytest.mark.parametrize("kind", ["bpe", "characters", "sentencepiece"])
def test_ids_are_those_of_transformers_and_answers_are_marked(tokenizer: Any, kind: str) -> None:
    if kind != "bpe":
        tokenizer = train_vocabulary(kind, [TEXT + "12Ü'ndg\""], 300)
        tokenizer.chat_template = CHAT_TEMPLATE
    ids, is_answer = ChatEncoder(tokenizer).encode(CHAT)
    assert len(ids) == len(is_answer)
    if kind != "sentencepiece":  # which may join what stands on both sides of the place where an answer begins
        assert ids == tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    answers = tokenizer.decode([token for token, belongs in zip(ids, is_answer, strict=True) if belongs])
    assert answers.replace(tokenizer.eos_token, "|").replace(" ", "") == "Amillerof12.|Amillerof12.|"
    first = is_answer.index(True)
    assert ids[:first] == prompt_ids(tokenizer, CHAT[:2])


def test_what_follows_the_last_answer_is_left_out(tokenizer: Any) -> None:
    encoder = ChatEncoder(tokenizer)
    assert encoder.encode([*CHAT, ASKED]) == encoder.encode(CHAT)


def test_the_template_is_saved_with_the_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    for place in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "slow"):
        assert read_json_object(place / "tokenizer_config.json")["chat_template"] == CHAT_TEMPLATE
        assert not (place / "chat_template.jinja").exists()
    expected = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    loaded = (load_tokenizer(tmp_path / "tokenizer"), AutoTokenizer.from_pretrained(tmp_path / "tokenizer"))
    for again in loaded:
        assert again.chat_template == CHAT_TEMPLATE
        assert again.apply_chat_template(CHAT, tokenize=True, return_dict=False) == expected


def test_a_special_token_in_a_message_is_refused(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "Say <|endoftext|>!"}, ANSWERED]
    with pytest.raises(
        ValueError, match=r"expected messages without special tokens, got '<\|endoftext\|>' in one of the user"
    ):
        ChatEncoder(tokenizer).encode(chat)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no chats on Sunday') }}", "an error: no chats on Sunday"),
        ("{{ 1 / 0 }}", "an error: division by zero"),
        ("{{ messages[7].content.x.y }}", "an error: .*no element 7"),
        ("{% for %}", "an error: "),
        ("{{ 'x' * 10**15 }}", "one that asks for more memory than there is"),
    ],
)
def test_a_template_that_fails_says_what_to_do(tokenizer: Any, tmp_path: Path, template: str, message: str) -> None:
    tokenizer.chat_template = template
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    message = f": expected a text of the messages, got {message}.*; write the messages as it asks, or correct `chat_tem"
    with pytest.raises(ValueError, match=f"^the chat template of the tokenizer{message}") as refused:
        prompt_ids(loaded, [ASKED])
    assert str(tmp_path) not in str(refused.value)  # a page's visitors read it
    named = f"^the chat template of the tokenizer in {re.escape(str(tmp_path / 'slow'))}"
    with pytest.raises(ValueError, match=named + message):
        ChatEncoder(loaded).encode(CHAT)


def test_a_template_that_rewrites_what_came_before_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="expected a chat template that writes an answer behind what came before it"):
        ChatEncoder(tokenizer).encode(CHAT)


def test_our_template_refuses_other_roles(tokenizer: Any) -> None:
    with pytest.raises(
        ValueError, match=r"expected a role of system, user or assistant, got tool; write the messages as it asks$"
    ):
        prompt_ids(tokenizer, [{"role": "tool", "content": "x"}])
