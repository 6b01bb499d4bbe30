"""The run beside the page: what is trained, what the page opens on, what is said. A real one trains in tests/page."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpus.local import fingerprint
from panels.training.companion import CompanionRun
from panels.training.launcher import Launcher
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_checkpoint, save_run


class ScriptLauncher(Launcher):
    """A launcher whose process runs a script in the place of training."""

    script = (
        "import sys, time; from filelock import FileLock; run = sys.argv[1]\n"
        "lock = FileLock(run + '/.lock'); lock.acquire(); print('ready', flush=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: pass\n"
    )

    def command(self, run, arguments):
        self.arguments = [*arguments]
        return [sys.executable, "-c", self.script, str(run.path)]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[ScriptLauncher]:
    """A launcher of an empty home, and none of its processes left behind."""
    launcher = ScriptLauncher(tmp_path)
    yield launcher
    for process in launcher._ours.values():
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def companion_of(launcher: Launcher, *words: str, bundle: str = "bundle") -> tuple[CompanionRun, list[str]]:
    """The run of `--train WORDS`, and the lines that it tells."""
    said: list[str] = []
    return CompanionRun(launcher, words, bundle=Path(bundle), tell=said.append), said


def change(run: Path, **values: object) -> None:
    state = json.loads((run / "run.json").read_text()) | values
    (run / "run.json").write_text(json.dumps(state))


def test_what_the_page_opens_on_and_what_is_trained(launcher: ScriptLauncher, tmp_path: Path) -> None:
    companion, _ = companion_of(launcher, "stories")
    assert companion.run.path == tmp_path / "runs" / "stories"
    assert (companion.model(), companion.is_needed) == (None, True)

    box = save_checkpoint(tmp_path / "pretrained" / "scifi")
    assert (companion.model(), companion.is_needed) == (str(box), True)

    run = save_run(tmp_path / "runs" / "stories")
    assert (companion.model(), companion.is_needed) == (str(run), False)
    change(run, status="stopped")
    assert (companion.model(), companion.is_needed) == (str(box), True)
    change(run, status="finished", cut_short="The time limit ended it at 34 of 900 steps.")
    assert (companion.model(), companion.is_needed) == (str(box), True)
    change(run, cut_short=None, step=20)
    assert not companion.is_needed
    assert not companion_of(launcher, "stories", "--steps", "20")[0].is_needed
    assert companion_of(launcher, "stories", "--steps=21")[0].is_needed

    bundle = shutil.copytree(box, tmp_path / "bundle")
    assert (companion.model(), companion.is_needed) == (str(bundle), False)
    change(run, status="stopped")
    assert (companion.model(), companion.is_needed) == (str(bundle), True)
    shutil.rmtree(run)
    assert (companion.model(), companion.is_needed) == (str(bundle), False)


def test_a_run_that_is_not_trained_because_of_a_bundle_is_told(launcher: ScriptLauncher, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "bundles" / "debug")
    companion, said = companion_of(launcher, "debug", bundle="bundles/debug")
    companion.start()
    wait_for(lambda: said)
    companion.stop()
    assert said == [
        "runs/debug: not trained: the model in bundles/debug is taken for its; to train one, remove bundles/debug"
    ]
    assert launcher._ours == {}


def test_the_folder_of_the_run_is_the_one_that_training_takes(launcher: ScriptLauncher, tmp_path: Path) -> None:
    for words in (["modern", "--run-dir", "deep/one", "--seed", "3"], ["modern", "--seed", "3", "--run-dir=deep/one"]):
        companion, _ = companion_of(launcher, *words)
        assert companion.run.path == tmp_path / "deep" / "one"
        assert companion.words == ["modern", "--seed", "3"]
    with pytest.raises(ValueError, match=r"--train best\.json: expected the folder of its run, got none"):
        companion_of(launcher, "best.json")


def test_a_run_goes_on_with_the_page_and_stops_with_it(launcher: ScriptLauncher, tmp_path: Path) -> None:
    change(save_run(tmp_path / "runs" / "stories"), status="stopped", steps=900)
    companion, said = companion_of(launcher, "stories", "--corpus", "books")
    companion.start()
    companion.start()  # once
    wait_for(lambda: companion.run.is_locked and said)
    assert launcher.arguments == ["stories", "--corpus", "books", "--resume"]
    assert said[0].startswith("runs/stories: training beside the page")

    another, told = companion_of(ScriptLauncher(tmp_path), "stories")  # a second page
    another.start()
    wait_for(lambda: told)
    assert told == ["runs/stories: another process trains it already; the page shows it"]

    companion.stop()
    assert not companion.run.is_locked
    assert said[1:] == [
        "runs/stories: saving the training …",
        "runs/stories: stopped after step 20 of 900; saved, and the same command goes on from there",
    ]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("import sys; sys.exit('error: there is no file books')", "not trained: there is no file books"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"not trained: its process ended; .*page\.log may"),
        (
            "import json, pathlib, sys; run = pathlib.Path(sys.argv[1]) / 'run.json'\n"
            "run.write_text(json.dumps({'status': 'running', 'step': 7, 'steps': 900}))",
            "crashed after step 7 of 900; the same command goes on from its last checkpoint",
        ),
        (
            "import json, pathlib, sys; run = pathlib.Path(sys.argv[1]) / 'run.json'\n"
            "run.write_text(json.dumps({'status': 'finished', 'step': 34, 'steps': 34, 'seconds': 158,\n"
            "  'cut_short': 'The time limit ended it.', 'resume_command': 'make demo'}))",
            r"The time limit ended it\. Go on: make demo",
        ),
    ],
    ids=["refused", "killed at once", "killed", "cut short"],
)
def test_a_run_that_ends_is_told_in_the_terminal(launcher: ScriptLauncher, script: str, line: str) -> None:
    launcher.script = script
    companion, said = companion_of(launcher, "stories")
    companion.start()
    wait_for(lambda: any(re.search(f"^runs/stories: {line}", each) for each in said))
    assert companion.trouble is None
    companion.stop()
    assert not any("saving" in each for each in said)


def test_what_stands_in_the_way_of_training_is_told_on_the_page_too(launcher: ScriptLauncher, tmp_path: Path) -> None:
    other = RunFolder(save_run(tmp_path / "runs" / "other"))
    with other.lock():
        companion, said = companion_of(launcher, "stories")
        companion.start()
        wait_for(lambda: said)
    assert companion.trouble is not None
    assert companion.trouble.startswith("One run at a time: other is running")
    assert said == [f"runs/stories: not trained: {companion.trouble}"]
    (tmp_path / "runs" / "stories").write_text("a file")
    companion, said = companion_of(launcher, "stories")
    companion.start()
    wait_for(lambda: said)
    assert "runs/stories: cannot be written" in said[0]


def test_a_text_that_has_changed_since_a_finished_run_is_told(launcher: ScriptLauncher, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The lamp burned low.")
    run = save_run(tmp_path / "runs" / "stories")
    (run / "recipe.json").write_text(json.dumps({"config": {"corpus": {"source": "local", "paths": [str(book)]}}}))
    corpus = {"source": "local", "paths": [str(book)]}
    (run / "tokens").mkdir()
    manifest = {"made_from": {"corpus": corpus}, "sources": fingerprint([book])}
    (run / "tokens" / "manifest.json").write_text(json.dumps(manifest))
    save_checkpoint(tmp_path / "bundle")
    book.write_text("The lamp burned low. It has grown.")
    companion, said = companion_of(launcher, "stories", "--corpus", str(book))
    companion.start()
    wait_for(lambda: said)
    assert companion.trouble is not None
    assert "expected the text that the tokens of this run are of, but it has changed since" in companion.trouble
    assert "KEEP_TOKENS=1" in companion.trouble
    assert launcher._ours == {}
    companion.stop()
    kept, told = companion_of(launcher, "stories", "--corpus", str(book), "--keep-tokens")
    assert kept.wait_for_model() == str(run)
    assert (kept.trouble, told) == (None, [])
    kept.stop()


def test_a_bundle_that_cannot_be_made_is_told_with_the_command(launcher: ScriptLauncher, tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "stories")
    (tmp_path / "bundles" / "mine").mkdir(parents=True)
    (tmp_path / "bundles" / "mine" / "mine.txt").write_text("not a bundle")
    companion, said = companion_of(launcher, "stories", bundle="bundles/mine")
    companion.start()
    wait_for(lambda: said)
    assert companion.trouble is not None
    assert companion.trouble.startswith("bundles/mine was not exported: ")
    assert companion.trouble.endswith("Once that is fixed: python -m hub_export bundle runs/stories --out bundles/mine")
    companion.stop()
