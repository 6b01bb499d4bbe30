import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from huggingface_hub.utils import filter_repo_objects

from panels.models import LoadedModel, ModelLoader
from panels.tabs.tokens import tab as tokens
from panels.tabs.tokens import token_lists
from tests.panels.tiny_model import TEXT
from tests.serving import equals
from tokenization import load_tokenizer, save_tokenizer, train_vocabulary
from tokenization.spans import pieces

STRANGE = "<img src=x onerror=alert(1)></script>\"'&amp; <|endoftext|> \ud800 \x00 naïve 😀 שלום"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer with counts, as a run has it."""
    return train_vocabulary("bpe", [TEXT], 320)


@pytest.fixture
def context(loaded: LoadedModel, tokenizer: Any, tmp_path: Path) -> Any:
    """A page's surroundings with that tokenizer, and a folder with two runs."""
    for name, kind in (("words", "wordpiece"), ("signs", "characters")):
        save_tokenizer(train_vocabulary(kind, [TEXT], 60), tmp_path / "runs" / name / "tokenizer")
    (tmp_path / "runs" / "empty").mkdir()
    loader = ModelLoader(loaded.source)
    loader._future.set_result(dataclasses.replace(loaded, tokenizer=tokenizer))
    loader.done.set()
    return SimpleNamespace(loader=loader, home=tmp_path, source=loaded.source, is_public=False, run=None)


def data_of(updates: list[Any]) -> dict[str, Any]:
    """What the page gets, read back from the attribute."""
    import html

    found = re.fullmatch(r'<div data-tokens="([^"<>]*)"></div>', updates[1].strip())
    assert found
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("text", ["", "x", STRANGE, "\ud800", "".join(map(chr, range(256))), TEXT])
def test_data_for_the_page(context: Any, tokenizer: Any, text: str) -> None:
    told = data_of(tokens.show(context, text, None))
    (column,) = told["columns"]
    found = pieces(tokenizer, text)
    assert column["tokens"] == [[p.token_id, p.label, p.start, p.end, p.byte_count] for p in found]
    assert (column["count"], column["characters"]) == (len(found), len(text))
    assert column["bytes"] == len(text.encode("utf-8", "surrogatepass")) == sum(p.byte_count for p in found)
    last = told["replay"]["words"]
    for _, first, second, made, count, places in told["replay"]["merges"]:
        before = sum(map(len, last))
        last = [join(word, first, second, made) for word in last]
        assert (before - sum(map(len, last)), count > 0) == (places, True)
    assert [token_id for word in last for token_id in word] == [p.token_id for p in pieces(tokenizer, text[:300])]
    assert {str(token_id) for word in last for token_id in word} <= told["replay"]["labels"].keys()


def join(word: list[int], first: int, second: int, made: int) -> list[int]:
    """One merge over characters, as the encoder does it."""
    return [*map(ord, "".join(map(chr, word)).replace(chr(first) + chr(second), chr(made)))]


def test_a_text_that_is_typed_while_the_model_loads_keeps_its_own_tokens(context: Any, loaded: LoadedModel) -> None:
    context.loader, state = ModelLoader(loaded.source), tokens.TabState()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(tokens.show_with_model, context, state, tokens.FIRST_TEXT, None)]
        for number, typed in enumerate(("The", "The lamp"), 1):
            asked.append(pool.submit(tokens.show_latest, context, state, typed, None))
            equals(lambda: state.request.number, number)
        assert not any(each.done() for each in asked)
        context.loader._future.set_result(loaded)
        context.loader.done.set()
        answers = [each.result() for each in asked]
    # They come to the page in any order: one of another text would stand beside this one.
    shown = [data_of(answer)["columns"][0]["characters"] for answer in answers if answer != [gr.skip(), gr.skip()]]
    assert {*shown} == {len("The lamp")}


def test_a_page_that_is_opened_shows_its_text_in_tokens(context: Any) -> None:
    told = data_of(tokens.show_with_model(context, tokens.TabState(), tokens.FIRST_TEXT, None))
    assert told["columns"][0]["characters"] == len(tokens.FIRST_TEXT)


def test_long_texts_are_cut_and_too_long_ones_refused(context: Any) -> None:
    status, data = tokens.show(context, "a b" * 33_333, None)
    told = data_of([status, data])
    assert len(told["columns"][0]["tokens"]) == 1_000 < told["columns"][0]["count"]
    assert told["replay"]["cut"] == 300
    assert sum(len(word) for word in told["replay"]["words"]) == 300
    status, data = tokens.show(context, "a" * 100_001, None)
    assert "expected at most 100,000 characters, got 100,001" in status
    assert data["__type__"] == "update"


def test_second_tokenizers(context: Any, loaded: LoadedModel, checkpoint: Path) -> None:
    at_hand = token_lists.choices(context.home)
    assert [name for name in at_hand if name != token_lists.GPT2] == [
        "none", "bytes", "characters", "run signs", "run words",
    ]  # fmt: skip
    text = "naïve 😀"
    expected = {
        "bytes": list(text.encode()),
        "characters": [*map(ord, text)],
        "run words": [p.token_id for p in pieces(load_tokenizer(context.home / "runs/words/tokenizer"), text)],
        "runs/signs": [p.token_id for p in pieces(load_tokenizer(context.home / "runs/signs/tokenizer"), text)],
        str(checkpoint): [p.token_id for p in pieces(loaded.tokenizer, text)],
    }
    for chosen, ids in expected.items():
        told = data_of(tokens.show(context, text, chosen))
        assert [column["name"] for column in told["columns"]] == [context.source.name, chosen]
        assert [token[0] for token in told["columns"][1]["tokens"]] == ids
    assert len(data_of(tokens.show(context, text, "none"))["columns"]) == 1
    assert [p.label for p in token_lists.characters("a \n\ud800")] == ["a", "␣", "↵", "⟨ed a0 80⟩"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("no/such/folder", "no/such/folder is no folder here and no Hub id"),
        ("../..", "cannot load ../..: "),
        ("run gone", "run gone is no folder here and no Hub id"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt; is no folder"),
        ("runs/empty", "expected a tokenizer folder with tokenizer_config.json, got none"),
    ],
)
def test_second_tokenizers_that_are_not_to_be_had(context: Any, chosen: str, message: str) -> None:
    status, data = tokens.show(context, "a", chosen)
    assert message in status
    assert len(data_of([status, data])["columns"]) == 1


def test_a_tokenizer_that_was_changed_is_read_again(context: Any) -> None:
    folder = context.home / "runs" / "words" / "tokenizer"
    assert len(data_of(tokens.show(context, "the", "run words"))["columns"][1]["tokens"]) == 1
    save_tokenizer(train_vocabulary("bpe", ["xy"], 258), folder)
    assert len(data_of(tokens.show(context, "the", "run words"))["columns"][1]["tokens"]) == 3


@pytest.fixture
def repositories(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """Folders in the place of repositories of the Hub, by name; no other is there."""
    folders: dict[str, Path] = {}

    def snapshot(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert "model.safetensors" not in filter_repo_objects(["model.safetensors"], allow_patterns=allow_patterns)
        if repo not in folders:
            raise OSError("401: no access\nmore lines")
        return str(folders[repo])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    token_lists._load.cache_clear()
    yield folders
    token_lists._load.cache_clear()


def test_a_hub_id_is_fetched(context: Any, tokenizer: Any, tmp_path: Path, repositories: dict[str, Path]) -> None:
    save_tokenizer(tokenizer, tmp_path / "theirs")
    repositories["somebody/model"] = tmp_path / "theirs"
    columns = data_of(tokens.show(context, "the", "somebody/model"))["columns"]
    assert columns[1]["tokens"] == columns[0]["tokens"]
    status, _ = tokens.show(context, "the", "somebody/private")
    assert "Second tokenizer: cannot load somebody/private: " in status
    assert "401: no access" in status


def test_a_tokenizer_of_the_hub_is_held_to_the_limits(
    context: Any, tokenizer: Any, tmp_path: Path, repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that backtracks without end is a panic of the Rust library, which is no Exception."""
    theirs = repositories["somebody/evil"] = tmp_path / "theirs"
    save_tokenizer(tokenizer, theirs)
    shutil.rmtree(theirs / "slow")
    content = json.loads((theirs / "tokenizer.json").read_text())
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"(?:a|aa)+$"
    (theirs / "tokenizer.json").write_text(json.dumps(content))
    status, data = tokens.show(context, "a" * 40 + "!", "somebody/evil")
    assert "expected a tokenizer that splits any text, but the pattern of this one" in status
    assert len(data_of([status, data])["columns"]) == 1
    monkeypatch.setattr("tokenization.untrusted.LARGEST", 10)
    token_lists._load.cache_clear()
    assert "expected a file of a tokenizer, of at most 10 bytes" in tokens.show(context, "a", "somebody/evil")[0]


def test_strangers_choose_from_the_list(context: Any, checkpoint: Path) -> None:
    context.is_public = True
    for chosen in (str(checkpoint), "somebody/model", "runs/words", "run ../words"):
        status, data = tokens.show(context, "a", chosen)
        assert "expected one of none, bytes, characters, run signs, run words" in status
        assert len(data_of([status, data])["columns"]) == 1
    assert len(data_of(tokens.show(context, "a", "run words"))["columns"]) == 2


def test_gpt2_of_the_cache(context: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def found(repository: str, name: str) -> str | None:
        return str(tmp_path / "cache" / name) if repository == "gpt2" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", found)
    save_tokenizer(tokenizer, tmp_path / "cache")
    assert token_lists.choices(context.home)[-1] == "GPT-2"
    context.is_public = True
    told = data_of(tokens.show(context, "the", "GPT-2"))
    assert told["columns"][1]["tokens"] == told["columns"][0]["tokens"]


def test_a_model_that_does_not_load(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context.loader = ModelLoader(context.source)
    monkeypatch.setattr("panels.models.LOADING_LIMIT", 0.0)
    assert "still loading" in tokens.show(context, "a", None)[0]
    context.loader._future.set_exception(ValueError("The weights are gone."))
    context.loader.done.set()
    assert "The weights are gone." in tokens.show(context, "a", None)[0]


def test_a_vocabulary_without_merges_says_so(context: Any) -> None:
    model = dataclasses.replace(context.loader.wait(), tokenizer=load_tokenizer(context.home / "runs/words/tokenizer"))
    context.loader = SimpleNamespace(expect=lambda: None, wait=lambda: model)
    told = data_of(tokens.show(context, "the lamp", None))
    assert told["replay"]["message"].startswith("WordPiece takes the longest pieces")
    assert told["replay"]["merges"] == []
