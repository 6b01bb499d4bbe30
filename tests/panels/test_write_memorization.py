"""The longest passage that stands in the training tokens, against brute force."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panels.context import AppContext
from panels.models import ModelLoader, find_model
from panels.tabs.write import memorization
from panels.tabs.write.memorization import LEAST, longest_repeat, render_note
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_run

SEPARATOR = 9


def save_tokens(run: Path, ids: list[int], sizes: list[int], tokenizer: str = "") -> Path:
    """A run whose training tokens are `ids`, in shards of these sizes and a last one."""
    folder = run / "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    parts = np.split(np.asarray(ids, dtype=np.uint16), np.cumsum(sizes))
    files = [f"train-{number:05d}.npy" for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        np.save(folder / file, part)
    manifest = {
        "end_of_text": SEPARATOR,
        "made_from": {"tokenizer": tokenizer},
        "train": {"files": files, "tokens": len(ids), "bytes": 0, "documents": max(1, ids.count(SEPARATOR) - 1)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return run


def longest(corpus: list[int], written: list[int]) -> int:
    """The length of the longest common run, by trying all."""

    def runs_of(ids: list[int], length: int) -> set[tuple[int, ...]]:
        return {tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)}

    return max(length for length in range(len(written) + 1) if runs_of(corpus, length) & runs_of(written, length))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 2), max_size=90),
    st.lists(st.integers(0, 2), max_size=40),
    st.lists(st.integers(0, 50), max_size=2),
    st.integers(1, 7),
    st.sampled_from([3, 16, 2**18]),
)
def test_it_is_what_brute_force_finds(tmp_path, corpus, written, sizes, least, chunk):
    sizes = [size for size in sizes if size]
    run = save_tokens(tmp_path / "run", corpus, sizes)
    found = longest_repeat(RunFolder(run), written, least=least, seconds=60, chunk=chunk)
    expected = longest(corpus, written)
    assert (found.length if found else 0) == (expected if expected >= least else 0)
    if found:
        assert written[found.start :][: found.length] == corpus[found.position :][: found.length]
        assert found.tokens == len(corpus)
        assert found.searched <= len(corpus)


def test_colliding_hashes_change_nothing(tmp_path, monkeypatch):
    corpus = list(range(10, 200)) * 2
    run = save_tokens(tmp_path, corpus, [100])
    monkeypatch.setattr(
        memorization, "hashes", lambda ids, window: np.zeros(max(0, len(ids) - window + 1), dtype=np.uint64)
    )
    found = longest_repeat(RunFolder(run), [5, *range(50, 90), 5], seconds=60)
    assert found is not None
    assert (found.start, found.length, found.position) == (1, 40, 40)


def test_the_place_is_a_document_and_the_time_is_limited(tmp_path, monkeypatch):
    corpus = [SEPARATOR]
    for document in range(20):
        corpus += [100 + document] * 5 + list(range(200, 230)) + [SEPARATOR]
    run = save_tokens(tmp_path, corpus, [50, 50])
    written = [112] * 3 + list(range(200, 220))
    found = longest_repeat(RunFolder(run), written)
    assert found is not None
    assert (found.length, found.document, found.documents) == (23, 13, 20)
    assert found.position == corpus.index(112) + 2
    assert longest_repeat(RunFolder(run), written, seconds=0) is None
    ticks = iter(range(1000))
    monkeypatch.setattr(memorization.time, "monotonic", lambda: next(ticks))
    part = longest_repeat(RunFolder(run), written, seconds=12, chunk=64)
    assert part is not None
    assert 0 < part.searched < part.tokens == len(corpus)


def test_short_texts_and_short_corpora(tmp_path):
    run = save_tokens(tmp_path, [1, 2, 3], [])
    assert longest_repeat(RunFolder(run), []) is None
    assert longest_repeat(RunFolder(run), [1, 2, 3]) is None
    found = longest_repeat(RunFolder(run), [1, 2, 3], least=3)
    assert found is not None
    assert (found.length, found.searched) == (3, 3)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with a checkpoint and its training tokens."""
    run = save_run(tmp_path / "run")
    tokenizer = hashlib.sha256((run / "checkpoints" / "step-000020" / "tokenizer.json").read_bytes()).hexdigest()
    return save_tokens(run, [SEPARATOR, *range(20, 80), SEPARATOR], [], tokenizer)


def context_of(run: Path) -> AppContext:
    """The context of the run's checkpoint."""
    return AppContext(loader=ModelLoader(find_model(run / "checkpoints" / "step-000020")))


def page_of(ids: range) -> list[tuple[int, str]]:
    """These tokens, which are words in markup."""
    return [(token_id, f" <i>{token_id}") for token_id in ids]


def test_the_note_names_length_and_place_and_stays_text(run):
    note = render_note(context_of(run), page_of(range(30, 60)))
    words = " ".join(note.split())
    assert "30 tokens in a row (30 words) occur word for word in the training text: document 1 of 1, 18% of" in words
    assert "Searched" not in note
    assert "&lt;i&gt;30 &lt;i&gt;31" in note
    assert "<i>" not in note
    assert 'data-start="0" data-length="30"' in note


def test_no_note_without_a_long_passage_or_the_tokens_of_this_tokenizer(run):
    long = page_of(range(30, 60))
    assert render_note(context_of(run), page_of(range(30, 30 + LEAST - 1))) == ""
    assert render_note(context_of(run), page_of(range(1000, 1030))) == ""
    assert render_note(context_of(run), []) == ""
    assert render_note(context_of(run), [(-1, "x")] * 40) == ""
    manifest = run / "tokens" / "manifest.json"
    right = manifest.read_text()
    assert render_note(context_of(run), long)
    manifest.write_text(right.replace('"tokenizer": "', '"tokenizer": "0'))
    assert render_note(context_of(run), long) == ""
    manifest.write_text(right[:-5])
    assert render_note(context_of(run), long) == ""
    manifest.write_text(right)
    (run / "tokens" / "train-00000.npy").unlink()
    assert render_note(context_of(run), long) == ""
    manifest.unlink()
    assert render_note(context_of(run), long) == ""
