"""Runs from the page: what is planned, what is started, what is refused. A real one trains in tests/page."""

import dataclasses
import datetime
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from modeling.sizing import count_parameters
from panels.context import AppContext
from panels.models import ModelLoader, ModelSource
from panels.tabs.learn.estimate import SIZES, RunPlan, assumed_speed, least_bytes, measured_speed
from panels.tabs.learn.form import NOT_ALLOWED, describe_plan, unavailable
from panels.tabs.learn.jobs import CHECKOUT, LARGEST_FILE, Launcher, read_text, slug
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_run
from train.__main__ import parse
from train.checks import check_same_run
from train.config import write_recipe

TEXT = "The lamp burned low. " * 200
TINY = SIZES["tiny"]


class StubLauncher(Launcher):
    """A launcher whose process holds the lock, or fails, and trains nothing."""

    script = (
        "import sys, time; from filelock import FileLock; run = sys.argv[1]\n"
        "FileLock(run + '/.lock').acquire(); print('ready', flush=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: pass\n"
    )

    def __init__(self, home: Path, checkout: Path = CHECKOUT) -> None:
        super().__init__(home, checkout)
        self.arguments: list[str] = []

    def command(self, run, arguments):
        self.arguments = [*arguments, "--run-dir", str(run.path)]
        return [sys.executable, "-c", self.script, str(run.path)]


@pytest.fixture
def launcher(tmp_path: Path):
    """A launcher of an empty home, and none of its processes left behind."""
    launcher = StubLauncher(tmp_path)
    yield launcher
    for process in launcher._ours.values():
        process.kill()
        process.wait()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def log_of(run: RunFolder) -> str:
    return run.page_log.read_text()


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


def test_a_measured_run_replaces_the_assumption(tmp_path: Path) -> None:
    run = save_run(tmp_path / "mine")
    assert measured_speed([RunFolder(run)], TINY) == assumed_speed()  # no time in it
    state = json.loads((run / "run.json").read_text()) | {"seconds": 40.0, "parameters": 30_000}
    run = save_run(tmp_path / "yours")
    (run / "run.json").write_text(json.dumps(state))
    speed = measured_speed([RunFolder(run)], TINY)
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


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("My Café! run", "my-cafe-run"),
        ("../../etc/passwd", "etc-passwd"),
        ("--resume", "resume"),
        (" .hidden ", "hidden"),
        ("con", "run-con"),
        ("x" * 100, "x" * 40),
        ("北京", "run-2026-11-21-1405"),
        ("", "run-2026-11-21-1405"),
        ("\ud800\x00", "run-2026-11-21-1405"),
    ],
)
def test_names_are_harmless(title: str, name: str) -> None:
    assert slug(title, today=datetime.datetime(2026, 11, 21, 14, 5)) == name


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
    found, notes = read_text("pasted", tmp_path / name, **options)
    assert text in found
    assert len(notes) == (note is not None)
    assert note is None or re.match(note, notes[0])
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


def test_the_form_says_how_a_file_was_read(tmp_path: Path) -> None:
    context = AppContext(loader=ModelLoader(ModelSource(given="x", name="x")), home=tmp_path)
    (tmp_path / "old.txt").write_bytes(RUSSIAN.encode("cp1251"))

    def plan(encoding: str) -> str:
        return describe_plan(context, "", str(tmp_path / "old.txt"), encoding, "text", "tiny", 100)

    assert "read as cp1251 (recognised): “Лампа горела" in plan("automatic")
    assert 'class="note"' not in plan("cp1251")
    assert "encoding: expected the name of an encoding" in plan("klingon")


def test_a_run_is_a_process_of_its_own_that_stop_ends(launcher: StubLauncher, tmp_path: Path) -> None:
    run = launcher.start(TEXT, title="Lamp", size=TINY, steps=50)
    assert run.path == (tmp_path / "runs" / "lamp").resolve()
    corpus = run.path / "lamp.txt"
    assert corpus.read_text() == TEXT
    assert launcher.arguments[:3] == ["modern", "--corpus", str(corpus)]
    assert launcher.arguments[-2:] == ["--run-dir", str(run.path)]
    since = launcher.since(run)
    assert since == pytest.approx(time.time(), abs=30)
    wait_for(lambda: "ready" in log_of(run))
    assert launcher.active() == run
    with pytest.raises(ValueError, match="One run at a time: lamp is running"):
        launcher.start(TEXT, title="Second", size=TINY, steps=50)
    assert not (tmp_path / "runs" / "second").exists()

    another = Launcher(tmp_path)  # the page was restarted: it knows the process by its note
    assert another.since(run) == since
    another.stop(run)
    wait_for(lambda: launcher.since(run) is None)
    assert launcher.active() is None
    with pytest.raises(ValueError, match="No process works on lamp any more"):
        launcher.stop(run)


def test_a_name_is_never_taken_twice(launcher: StubLauncher) -> None:
    runs = []
    for _ in range(2):
        runs.append(launcher.start(TEXT, title="Lamp", size=TINY, steps=50))
        launcher._ours[runs[-1].path].kill()
        launcher._ours[runs[-1].path].wait()
    assert [run.path.name for run in runs] == ["lamp", "lamp-2"]


@pytest.mark.parametrize("refused", ["too short", "came without the training program"])
def test_a_refused_start_leaves_nothing(refused: str, launcher: StubLauncher, tmp_path: Path) -> None:
    launcher = launcher if refused == "too short" else StubLauncher(tmp_path, checkout=tmp_path)
    with pytest.raises(ValueError, match=refused):
        launcher.start("short" if refused == "too short" else TEXT, title="Lamp", size=TINY, steps=50)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_a_terminal_is_seen_and_not_stopped(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(save_run(tmp_path / "runs" / "terminal"))
    with run.lock():
        assert launcher.active() == run
        with pytest.raises(ValueError, match="terminal was not started from the page"):
            launcher.stop(run)
    assert launcher.active() is None


def test_a_process_that_took_over_a_number_is_left_alone(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(save_run(tmp_path / "runs" / "old"))
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        created = psutil.Process(innocent.pid).create_time()
        old = json.dumps({"pid": innocent.pid, "created": created - 100})
        for note in (old, "{", "[]", '{"pid": "x"}', '{"pid": null, "created": 1}', '{"pid": -5, "created": 1}'):
            run.started_by_page.write_text(note)
            assert launcher.since(run) is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_run_resumes_from_its_recipe(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(save_run(tmp_path / "runs" / "old"))
    launcher.resume(run)
    assert launcher.arguments == [str(run.recipe_file), "--resume", "--run-dir", str(run.path)]
    run.recipe_file.unlink()
    with pytest.raises(ValueError, match="old ended before it had a recipe: start it again"):
        launcher.resume(run)


def test_the_command_that_resumes_is_that_of_the_same_run(tmp_path: Path) -> None:
    run, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text(TEXT)
    run.mkdir()
    _, config = parse(["modern", "--corpus", str(text), *TINY.arguments(50), "--run-dir", str(run)])
    write_recipe(config, "modern", RunFolder(run))
    name, again = parse([str(run / "recipe.json"), "--resume", "--run-dir", str(run)])
    check_same_run(again, RunFolder(run))
    assert name == "modern"
    assert again == dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))


def test_the_last_error_of_a_process(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert launcher.last_error(run) is None
    run.page_log.write_text("training\nerror: the corpus is too short\r 10%|# | error in a bar\n")
    assert launcher.last_error(run) == "error: the corpus is too short"


def test_a_public_page_trains_only_where_it_may(tmp_path: Path) -> None:
    loader = ModelLoader(ModelSource(given="x", name="x"))
    for is_public, allowed, reason in ((True, False, NOT_ALLOWED), (True, True, None), (False, False, None)):
        context = AppContext(loader=loader, home=tmp_path, is_public=is_public, allow_training=allowed)
        assert unavailable(context) == reason


def test_the_plan_on_the_page(tmp_path: Path) -> None:
    context = AppContext(loader=ModelLoader(ModelSource(given="x", name="x")), home=tmp_path)

    def describe(text: str, size: str, steps: float) -> str:
        return describe_plan(context, text, None, "automatic", "text", size, steps)

    page = describe("x" * 50_000, "tiny", 100)
    assert f"{RunPlan.of(text_bytes=50_000, size=TINY, steps=100).parameters:,}" in page
    assert "assuming" in page
    assert "shown here before it starts" in describe(" ", "tiny", 100)
    assert "Size: expected one of tiny, small, medium, got &#39;&lt;b&gt;&#39;" in describe(TEXT, "<b>", 9)
    assert "from 10 to 5,000, got 12.5" in describe(TEXT, "tiny", 12.5)
