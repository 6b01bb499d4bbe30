"""The form of the Learn tab: what a run would cost, how a file is read, what is refused."""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus import local
from modeling.sizing import count_parameters
from panels.context import AppContext
from panels.models import ModelLoader, ModelSource
from panels.tabs.learn.estimate import SIZES, RunPlan, Speed, TimedPlan, assumed_speed, least_bytes, measured_speed
from panels.tabs.learn.form import NOT_ALLOWED, describe_plan, unavailable
from panels.tabs.learn.upload import LARGEST_FILE, read_text
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_run
from train.__main__ import parse
from train.checks import given_fields, kept_fields
from train.data.fitting import fit_to_text
from train.recipes import get_recipe

TEXT = "The lamp burned low. " * 200
TINY = SIZES["tiny"]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_planned_model_is_the_one_that_the_command_trains(size, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    name, config = parse(["modern", "--corpus", str(text), *size.arguments(120), "--run-dir", str(tmp_path / "run")])
    built = config.model.build(vocab_size=size.vocabulary, end_of_text=size.vocabulary - 1)
    assert name == "modern"
    assert built.to_dict() == size.config().to_dict()
    plan = RunPlan.of(text_bytes=10**6, size=size, steps=120)
    assert plan.parameters == count_parameters(built)
    assert plan.seconds < RunPlan.of(text_bytes=10**6, size=size, steps=240).seconds
    assert plan.seen_tokens == 120 * config.data.batch_size * config.model.max_position_embeddings
    assert f"{plan.parameters / 1e6:.2g} M" == size.about
    assert config.corpus.paths == (text,)
    assert config.run.steps == 120
    assert config.run.keep_checkpoints >= 120 // config.run.checkpoint_every


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_short_text_changes_no_size_that_the_plan_shows(size, tmp_path: Path) -> None:
    """Also where that is the recipe's value, such as a context of 256."""
    text = tmp_path / "text.txt"
    text.write_text((TEXT * 9)[: least_bytes(size)])
    words = ["modern", "--corpus", str(text), *size.arguments(120)]
    config = parse(words)[1]
    fitted, _ = fit_to_text(config, kept_fields(config, get_recipe("modern"), given_fields(words)))
    assert fitted.model.max_position_embeddings == size.context
    assert (fitted.tokenizer.vocab_size, fitted.data.batch_size) == (size.vocabulary, size.batch)


def test_a_measured_run_replaces_the_assumption(tmp_path: Path) -> None:
    run = save_run(tmp_path / "mine")
    assert measured_speed([RunFolder(run)], TINY.flops()) == assumed_speed()  # no time in it
    state = json.loads((run / "run.json").read_text()) | {"seconds": 40.0, "parameters": 30_000}
    run = save_run(tmp_path / "yours")
    (run / "run.json").write_text(json.dumps(state))
    speed = measured_speed([RunFolder(run)], TINY.flops())
    assert "from your run yours (300 tokens/s)" in speed.source
    assert speed.flops != assumed_speed().flops


def test_short_texts_are_refused_or_warned_about() -> None:
    for size in SIZES.values():
        least = least_bytes(size)
        with pytest.raises(ValueError, match=f"too short for the size {size.name}: expected at least {least:,} bytes"):
            RunPlan.of(text_bytes=least - 1, size=size, steps=100)
        assert "learn it by heart" in (RunPlan.of(text_bytes=least, size=size, steps=100).warning or "")
        assert RunPlan.of(text_bytes=10**8, size=size, steps=100).warning is None


@pytest.mark.parametrize("steps", [0, 9, 5001, 20.5, True, None])
def test_steps_outside_their_range_are_refused(steps) -> None:
    with pytest.raises(ValueError, match="Steps: expected a whole number from 10 to 5,000, got"):
        RunPlan.of(text_bytes=10**6, size=TINY, steps=steps)


def test_a_run_of_so_many_minutes() -> None:
    text = "The lamp burned low, and nobody came. " * 20_000
    short, long = (TimedPlan.of(text=text, minutes=minutes) for minutes in (2, 60))
    assert short.arguments()[:2] == ["--minutes", "2"]
    assert long.choice.bits_per_byte < short.choice.bits_per_byte
    config = long.choice.shape.config(long.choice.vocabulary)
    assert long.parameters == count_parameters(config)
    with pytest.raises(
        ValueError, match=r"too short for a plan: expected at least 2,000 bytes, got 1,999\. Add text, or"
    ):
        TimedPlan.of(text="x" * 1999, minutes=2)
    wrong: list[Any] = [0, 121, 2.5, None]
    for minutes in wrong:
        with pytest.raises(ValueError, match=r"Minutes: expected a whole number from 1 to 120, got"):
            TimedPlan.of(text=text, minutes=minutes)
    slow = Speed(1e6, "assumed")
    with pytest.raises(ValueError, match="Minutes: expected more than 2 on this machine"):
        TimedPlan.of(text=text, minutes=2, speed=slow)


def zipped(**members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.txt", text)
    return content.getvalue()


RUSSIAN = "Лампа горела тихо, и море было спокойно.\n" * 20


@pytest.mark.parametrize(
    ("name", "content", "options", "text", "note"),
    [
        ("book.txt", "\ufeffcafé\r\nnaïve".encode(), {}, "café\nnaïve", None),
        ("old.txt", RUSSIAN.encode("cp1251"), {}, RUSSIAN, r"old\.txt: .*cp1251.*Лампа горела"),
        ("old.txt", RUSSIAN.encode("koi8-r"), {"encoding": "koi8-r"}, RUSSIAN, None),
        ("bad.txt", "Café naïve\nwas ".encode() + b"\xff", {}, "naïve\nwas \ufffd", r"bad\.txt: 1 byte .*line 2"),
        ("page.html", b"<title>T</title><p>The <b>lamp</b> &amp; sea</p>", {}, "The lamp & sea", None),
        ("notes.json", b'[{"text": "one"}, {"text": "two"}]', {}, "one\n\ntwo", None),
        ("rows.csv", b"id,body\n1,The lamp\n2,The sea\n", {"text_field": "body"}, "The lamp\n\nThe sea", None),
        ("two.zip", zipped(a="The lamp", b="The sea"), {}, "The lamp\n\nThe sea", None),
    ],
    ids=["utf-8", "cp1251", "koi8-r", "bad byte", "html", "json", "csv", "zip"],
)
def test_files_of_every_kind_are_read(
    name: str, content: bytes, options: dict[str, str], text: str, note: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    found, notes = read_text("", tmp_path / name, **options)
    assert text in found
    assert len(notes) == (note is not None)
    assert note is None or re.match(note, notes[0])
    unused = f"A run trains on the file, {name}, and not on the pasted text: take one of them away."
    assert read_text("pasted", tmp_path / name, **options) == (found, [*notes, unused])
    assert read_text("a lone \ud800 surrogate", None) == ("a lone \ufffd surrogate", [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, r"gone\.txt could not be read \(No such file"),
        ("empty.txt", b"\n", r"^empty\.txt: expected text, got an empty file"),
        ("binary.txt", bytes(range(256)), r"^binary\.txt: expected plain text, got "),
        ("large.txt", bytes(LARGEST_FILE + 1), "expected at most 20 MB, got 20 MB"),
        ("rows.csv", b"id,body\n1,The lamp\n", "^rows.csv: expected a column 'text'"),
    ],
)
def test_files_that_hold_no_text_are_refused(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text("", tmp_path / name)
    with pytest.raises(ValueError, match="Expected a text to train on, got none: paste one, or choose"):
        read_text(" \n", None)


def test_reading_a_file_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB may be 4 GB of text."""
    line = b"the lamp and the sea\n"
    held: list[int] = []
    read = local.read_local

    def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for document in read(*arguments, **options):
            held.append(len(document.text))
            yield document

    monkeypatch.setattr(local, "read_local", counted)
    monkeypatch.setattr("panels.tabs.learn.upload.LARGEST_TEXT", 1_000_000)
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(line * (3_900_000 // len(line))))
    with pytest.raises(ValueError, match=r"^text\.txt\.gz: expected at most 1,000,000 characters in it, got more$"):
        read_text("", tmp_path / "text.txt.gz")
    for name, content in (("more.txt.gz", gzip.compress(line * 200_000)), ("more.zip", zipped(a="sea " * 1_000_100))):
        held.clear()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{re.escape(name)}: expected .*4,000,[04]00"):
            read_text("", tmp_path / name)
        assert not held
    (tmp_path / "lines.jsonl").write_text('{"text": "the lamp"}\n' * 300_000)
    with pytest.raises(ValueError, match=r"^lines\.jsonl: expected at most 1,000,000 characters in it, got more$"):
        read_text("", tmp_path / "lines.jsonl")
    assert len(held) < 150_000


def test_the_form_says_how_a_file_was_read(tmp_path: Path) -> None:
    context = AppContext(loader=ModelLoader(ModelSource(given="x", name="x")), home=tmp_path)
    (tmp_path / "old.txt").write_bytes(RUSSIAN.encode("cp1251"))

    def plan(encoding: str) -> str:
        return describe_plan(context, "", str(tmp_path / "old.txt"), encoding, "text", "tiny", 100, 10)

    assert "read as cp1251 (recognised): “Лампа горела" in plan("automatic")
    assert "if that is wrong, choose the encoding above" in plan("automatic")
    assert 'class="note"' not in plan("cp1251")
    assert "encoding: expected the name of an encoding" in plan("klingon")


def test_a_public_page_trains_only_where_it_may(tmp_path: Path) -> None:
    loader = ModelLoader(ModelSource(given="x", name="x"))
    for is_public, allowed, reason in ((True, False, NOT_ALLOWED), (True, True, None), (False, False, None)):
        context = AppContext(loader=loader, home=tmp_path, is_public=is_public, allow_training=allowed)
        assert unavailable(context) == reason


def test_the_plan_on_the_page(tmp_path: Path) -> None:
    context = AppContext(loader=ModelLoader(ModelSource(given="x", name="x")), home=tmp_path)

    def describe(text: str, size: str, steps: float) -> str:
        return describe_plan(context, text, None, "automatic", "text", size, steps, 10)

    page = describe("x" * 50_000, "tiny", 100)
    assert f"{RunPlan.of(text_bytes=50_000, size=TINY, steps=100).parameters:,}" in page
    assert "assuming" in page
    assert "shown here before it starts" in describe(" ", "tiny", 100)
    assert "Size: expected one of tiny, small, medium, got &#39;&lt;b&gt;&#39;" in describe(TEXT, "<b>", 9)
    assert "from 10 to 5,000, got 12.5" in describe(TEXT, "tiny", 12.5)
