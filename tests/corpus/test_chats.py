"""Chats as JSON lines: what is read, and what each mistake says."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from corpus.chats import Message, read_chats

GOOD: list[Any] = [{"role": "user", "content": "Who is Rosa?"}, {"role": "assistant", "content": " A miller.\r\n"}]
READ = (Message("user", "Who is Rosa?"), Message("assistant", "A miller."))


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_messages_are_read_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": GOOD}, {"messages": [{"role": "system", "content": "Hm"}, *GOOD]})
    first, second = read_chats([path])
    assert (first.messages, first.name, first.split) == (READ, f"{path}:1", None)
    assert second.messages == (Message("system", "Hm"), *READ)


def test_an_array_a_packed_file_and_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps([{"messages": GOOD}, {"messages": GOOD}]))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps({"messages": GOOD}).encode()))
    assert [chat.name for chat in read_chats([tmp_path])] == [
        f"{tmp_path}/b.json#1", f"{tmp_path}/b.json#2", f"{tmp_path}/c.jsonl.gz:1",
    ]  # fmt: skip


def test_other_spellings_are_read_and_said(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Who is Rosa?"}, {"from": "gpt", "value": "A miller."}]
    parts = [GOOD[0], {"role": "assistant", "content": [{"type": "text", "text": "A miller."}]}]
    path = write(tmp_path / "a.jsonl", {"conversations": turns}, {"messages": parts})
    said: list[str] = []
    assert [chat.messages for chat in read_chats([path], say=said.append)] == [READ, READ]
    assert said == [
        "roles are read by other names: 'human' as 'user'",
        "roles are read by other names: 'gpt' as 'assistant'",
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "no chat"}, 'expected a chat such as {"messages": [{"role": "user", "content": "…"}, {"role": '
         '"assistant", "content": "…"}]}, got the fields \'text\'; fix the line or leave it out'),
        ({"messages": []}, "got 'messages' with an empty list; fix the line"),
        ({"messages": "hello"}, "got 'messages' with a str; fix the line"),
        ({"messages": ["hello"]}, "message 1: expected an object with 'role' and 'content', got a str; fix the line"),
        ({"messages": [{"role": "user"}]},
         "message 1: expected an object with 'role' and 'content', got the fields 'role'"),
        ({"messages": [GOOD[0], {"role": "tool", "content": "x"}]},
         "message 2: expected a role of 'system', 'user', 'assistant', got 'tool'; rename it, or leave the line out"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": " \n"}]},
         "message 2 (assistant): expected an answer, got an empty one; write it, or leave the line out"),
        ({"messages": [{"role": "user", "content": ""}, GOOD[1]]},
         "message 1 (user): expected a text, got an empty one"),
        ({"messages": [GOOD[0], {"role": "assistant", "content": None}]},
         "message 2 (assistant): expected an answer as content, got null; fix the line"),
        ({"messages": GOOD[:1]},
         "expected at least one answer (a message of the role 'assistant'), got none; write it"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_and_line(tmp_path: Path, record: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": GOOD}, record)
    with pytest.raises(ValueError, match=r".") as refused:
        list(read_chats([path]))
    assert str(refused.value).startswith(f"{path}:2: ")
    assert message in str(refused.value)


def test_a_broken_line_and_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": GOOD})
    with path.open("a") as stream:
        stream.write('{"messages": [\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: expected one JSON object a line, got '\{\"messages\": \['"):
        list(read_chats([path]))
    (tmp_path / "notes.txt").write_text("User: hello\n")
    with pytest.raises(ValueError, match=r"notes\.txt: expected chats as JSON lines, a file that ends in \.jsonl"):
        list(read_chats([tmp_path / "notes.txt"]))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl: expected a line such as .*, got an empty file"):
        list(read_chats([tmp_path / "empty.jsonl"]))
