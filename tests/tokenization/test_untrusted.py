"""Tokenizers that mean harm: wrong types, absurd sizes and ids, patterns and chat templates without end."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenization import ScratchGPTTokenizer, load_tokenizer, save_tokenizer, train_bpe, untrusted
from tokenization.chat_template import prompt_ids
from tokenization.encoding import encode_corpus
from tokenization.merge_trace import replay
from tokenization.untrusted import TimedPattern

TEXT = "The ferry left at noon, and nobody looked up from the deck. " * 3
ENDLESS = r"(?:a|aa)+$"
TRAP = "a" * 40 + "!"
CHAT = [{"role": "user", "content": "Who is Rosa?"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer folder; change it as you like."""
    save_tokenizer(ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 300)), tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def fast_folder(folder: Path) -> Path:
    """One that the Rust library reads alone."""
    for path in (folder / "slow").iterdir():
        path.unlink()
    (folder / "slow").rmdir()
    return folder


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "content",
    [
        "", "null", "[]", "5", "{}", '{"model": 5}', '{"model": {"type": "BPE", "vocab": [], "merges": {}}}', "\0",
        "[" * 1_000_000, '{"a":' * 1_000_000, '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 1e99}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
        '{"model": {"type": "Unigram", "vocab": [["a", "x"]], "unk_id": 99}}',
    ],
    ids=range(14),
)  # fmt: skip
def test_a_tokenizer_json_that_is_none_is_an_error(fast_folder: Path, content: str) -> None:
    (fast_folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r".") as refused:
        load_tokenizer(fast_folder)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("name", ["tokenizer.json", "slow/vocab.json", "slow/merges.txt", "tokenizer_config.json"])
def test_a_file_of_a_hundred_megabytes_is_not_read(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as stream:
        stream.truncate(100_000_001)  # a sparse file: it takes no room
    began = time.process_time()
    with pytest.raises(
        ValueError, match=rf"{name}: expected a file of a tokenizer, of at most 100,000,000 bytes, got 100,000,001"
    ):
        load_tokenizer(folder)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "[]"),
        ("vocab.json", "null"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", '{"a": 1e400}'),
        ("vocab.json", "{" * 500_000),
        ("vocab.json", "[" * 500_000),
        ("merges.txt", "a b c\n"),
        ("merges.txt", "\ud800".encode("utf-16-le", "surrogatepass").decode("latin-1")),
        ("merges.txt", "日 本\n"),
        ("merges.txt", "t h\n" * 100_000),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "5"),
        ("tokenizer_config.json", '{"pattern": "("}'),
        ("tokenizer_config.json", '{"pattern": 5}'),
        ("tokenizer_config.json", '{"eos_token": 5}'),
        ("merge_counts.json", "[" * 500_000),
        ("merge_counts.json", '["many"]'),
    ],
)
def test_files_of_the_from_scratch_class_that_are_none_are_an_error(folder: Path, name: str, content: str) -> None:
    path = folder / "slow" / name
    if name == "tokenizer_config.json" and content.startswith("{"):
        path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(content)))
    else:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r".") as refused:
        load_tokenizer(folder)
    assert len(str(refused.value)) < 1500


def test_ids_out_of_range_and_merges_of_other_characters(folder: Path) -> None:
    change(folder / "slow" / "vocab.json", lambda vocab: vocab.update({"zzz": 2**40}))
    with pytest.raises(ValueError, match=r"vocab\.json does not fit .*expected ids 0 to 255 for the bytes in order"):
        load_tokenizer(folder)
    vocab = {
        token: number for number, token in enumerate([*json.loads((folder / "slow/vocab.json").read_text())][:256])
    }
    (folder / "slow" / "vocab.json").write_text(json.dumps(vocab | {"日本": 256}))
    (folder / "slow" / "merges.txt").write_text("日 本\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a tokenizer that loads, got one that does not \(KeyError: '日'\)"):
        load_tokenizer(folder)


def test_a_pattern_of_the_from_scratch_class_that_never_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "SECONDS", 0.3)
    change(folder / "slow" / "tokenizer_config.json", lambda config: config.update(pattern=ENDLESS))
    tokenizer: Any = load_tokenizer(folder)
    for ask in (tokenizer.encode_ordinary, tokenizer.tokenize, tokenizer):
        with pytest.raises(
            ValueError, match=r"expected a tokenizer that splits any text, but the pattern of this one t"
        ):
            ask(TRAP)
        with pytest.raises(ValueError, match=r"takes more than 0 seconds\. Shorten the text, or take another"):
            ask(TRAP + "\U0001cafe")  # the other way through the class
    assert tokenizer.decode(tokenizer("The ferry")["input_ids"]) == "The ferry"


def test_a_pattern_of_ones_own_is_not_slowed_down(folder: Path) -> None:
    own: Any = load_tokenizer(folder)
    assert not isinstance(own.split.pattern, TimedPattern)
    save_tokenizer(
        ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 300, pattern=r"\S+|\s+"), pattern=r"\S+|\s+"), folder
    )
    tokenizer: Any = load_tokenizer(folder)
    assert isinstance(tokenizer.split.pattern, TimedPattern)
    assert tokenizer.decode(tokenizer.encode_ordinary(TEXT)) == TEXT
    save_tokenizer(tokenizer, folder.with_name("again"))  # as any other
    assert load_tokenizer(folder.with_name("again")).encode(TEXT) == tokenizer.encode(TEXT)


def test_a_pattern_of_the_rust_library_that_never_ends(fast_folder: Path) -> None:
    def plant(content: dict[str, Any]) -> None:
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = ENDLESS

    change(fast_folder / "tokenizer.json", plant)
    tokenizer: Any = load_tokenizer(fast_folder)
    for ask in (tokenizer, tokenizer.tokenize, tokenizer.encode):
        with pytest.raises(
            ValueError, match=r"but the pattern of this one fails: Onig: .*\. Shorten the text, or take"
        ):
            ask(TRAP)
    with pytest.raises(ValueError, match="but the pattern of this one fails: Onig"):
        list(encode_corpus(tokenizer, [TRAP]))
    with pytest.raises(ValueError, match="but the pattern of this one fails: Onig"):
        replay(tokenizer, TRAP)
    assert tokenizer.decode(tokenizer("The ferry")["input_ids"]) == "The ferry"


TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "output": "{% for a in range(99999) %}{% for b in range(999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='xxxx') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "only sometimes": "{% if 'Rosa' in messages[0].content %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}",
    "huge": "{{ 'x' * 10**15 }}",
    "range": "{{ range(10**9) | list }}",
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.mkdir('/tmp/planted') }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "attr": "{{ messages | attr('__class__') | attr('__mro__') }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "types": "{{ messages + 5 }}",
    "syntax": "{% for %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_is_held_to_time_and_memory_and_reaches_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("tokenization.chat_template.TEMPLATE_SECONDS", 1.0)
    change(folder / "slow" / "tokenizer_config.json", lambda config: config.update(chat_template=TEMPLATES[name]))
    tokenizer: Any = load_tokenizer(folder)
    began = time.thread_time()
    try:
        text, refusal = tokenizer.decode(prompt_ids(tokenizer, CHAT)), None
    except ValueError as error:
        text, refusal = "", str(error)
    assert refusal is None or refusal.startswith("the chat template of the tokenizer: expected a text")
    assert time.thread_time() - began < 30
    assert "class" not in text
    assert "globals" not in text
    if name in ("loops", "output", "only sometimes", "doubling"):
        assert text == ""
    assert not Path("/tmp/planted").exists()


def test_a_chat_template_of_others_is_rendered(folder: Path) -> None:
    template = "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content }}{% endfor %}"
    change(folder / "slow" / "tokenizer_config.json", lambda config: config.update(chat_template=template))
    tokenizer: Any = load_tokenizer(folder)
    assert tokenizer.decode(prompt_ids(tokenizer, CHAT * 200)) == "<user>Who is Rosa?" * 200
