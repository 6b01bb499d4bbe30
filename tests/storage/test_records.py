"""JSON, JSON Lines and text: any text survives, and damage is named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import append_jsonl, read_json, read_json_object, read_jsonl, write_json, write_jsonl
from storage.text import count_bytes, first_line, replace_surrogates, unix_newlines

TEXTS = st.text() | st.text("a\n\r\x1c\x85\u2028\u2029")


@given(st.lists(TEXTS, min_size=1))
def test_any_text_survives_json_lines(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("run") / "samples.jsonl"
    records = [{"step": step, "text": text} for step, text in enumerate(map(replace_surrogates, texts))]
    write_jsonl(path, records[:1])
    for record in records[1:]:
        append_jsonl(path, record)
    assert read_jsonl(path) == records
    write_json(path, records)
    assert read_json(path) == records


def test_a_line_that_is_being_written_is_left_out_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_jsonl(path) == []
    path.write_bytes(b'{"step": 1}\n{"step": 2, "te')
    assert read_jsonl(path) == [{"step": 1}]
    for broken in ('{"step": 2, "te\n', "\n", "[1]\n"):
        path.write_text(f'{{"step": 1}}\n{broken}{{"step": 3}}\n')
        with pytest.raises(ValueError, match=r"metrics\.jsonl: expected JSON in line 2, got '.*'. The file is damaged"):
            read_jsonl(path)


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(ValueError, match=r"run\.json: expected a JSON file, but there is no such file"):
        read_json(path)
    for content in (b"", b'{"a": ', b'"\xff"', b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.json: expected JSON, but it cannot be read \(.+\)"):
            read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"run\.json: expected a JSON object, got a list"):
        read_json_object(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == [1]


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_surrogates_become_characters_or_one_replacement_each(text: str) -> None:
    replaced = replace_surrogates(text)
    assert count_bytes(text) == len(replaced.encode())
    assert replace_surrogates(replaced) == replaced
    assert "".join(c for c in replaced if c != "\ufffd") == "".join(
        c for c in text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore") if c != "\ufffd"
    )


def test_a_pair_of_surrogates_is_a_character_and_a_lone_one_is_not() -> None:
    assert replace_surrogates("a\ud83d\ude00b") == "a😀b"
    assert replace_surrogates("\ud83d") == replace_surrogates("\ude00") == "\ufffd"
    assert replace_surrogates("\ude00\ud83d é") == "\ufffd\ufffd é"
    assert count_bytes("\ud83d\ude00") == 4


def test_unix_newlines() -> None:
    assert unix_newlines("a\r\nb\rc\n\r\r\n") == "a\nb\nc\n\n\n"


@pytest.mark.parametrize(
    ("message", "line"), [("one\ntwo", "one"), (" \n late\n", "late"), ("", "ValueError"), ("x" * 400, "x" * 300)]
)
def test_the_first_line_of_an_error(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
