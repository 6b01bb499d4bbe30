"""`write_texts`: kills at every call to the file system in turn, and states that are damaged."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from corpus import resumable
from corpus.resumable import Batch, write_texts
from storage.records import read_json_object

ROOT = Path(__file__).parents[2]
TEXTS = [f"text {number}" for number in range(4)]
WHOLE = "".join(f"{text}\n" for text in TEXTS)

KILLED = """
import json, sys
from pathlib import Path
from corpus import resumable
from tests.corpus.test_resumable import write
from tests.faults.everywhere import kills

resumable._SAVE_BYTES = 1
out = Path(sys.argv[1]) / "a.txt"
for number in kills(lambda: write(out), out.parent):
    left = sorted(path.name for path in out.parent.iterdir())
    said = write(out)
    print(json.dumps([left, said, out.read_text(), sorted(path.name for path in out.parent.iterdir())]))
    out.unlink()
"""


def write(path: Path, source: str = "texts", stop: int = 4) -> str:
    """Write the texts, a batch each; a batch that should not be reached raises."""

    def read(position: int | None):
        for number in range(position or 0, 4):
            if number == stop:
                raise KeyboardInterrupt
            yield Batch([(TEXTS[number], True)], 6, number + 1)

    return write_texts(path, {"source": source}, read, progress=False)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of which two texts are written, and saved."""
    monkeypatch.setattr(resumable, "_SAVE_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.txt", stop=2)
    return tmp_path / "a.txt"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_the_same_call_completes_what_a_kill_at_any_call_leaves(tmp_path: Path) -> None:
    (folder := tmp_path / "out").mkdir()
    command = [sys.executable, "-c", KILLED, str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    said = f"{folder / 'a.txt'}: 4 texts, {sum(map(len, TEXTS))} bytes"
    assert [row[1:] for row in rows] == [[said, WHOLE, ["a.txt"]]] * len(rows)
    complete = [row[0] for row in rows if "a.txt" in row[0]]
    assert complete == [["a.txt", "a.txt.part.json", "a.txt.part.lock"], ["a.txt", "a.txt.part.json"]]
    assert len(rows) > 15


def test_a_complete_file_of_another_command_is_not_taken_for_its_own(begun: Path) -> None:
    state = begun.with_name("a.txt.part.json")
    raw = state.read_bytes()
    write(begun)
    state.write_bytes(raw)  # of two texts, as if somebody had put another file there
    for source in ("texts", "others"):
        with pytest.raises(ValueError, match=r"a\.txt: expected a name that is free, but it exists"):
            write(begun, source)
    assert begun.read_text() == WHOLE


@pytest.mark.parametrize(("old", "new"), [('"texts": 2', '"texts": 3'), ('"size"', '"sizd"'), ("{", "[")])
def test_a_damaged_state_begins_the_file_again_and_says_so(
    begun: Path, caplog: pytest.LogCaptureFixture, old: str, new: str
) -> None:
    state = begun.with_name("a.txt.part.json")
    damaged = state.read_text().replace(old, new, 1)
    assert damaged != state.read_text()
    state.write_text(damaged)
    with caplog.at_level(logging.WARNING):
        assert write(begun).endswith("4 texts, 24 bytes")
    assert "a.txt.part.json" in caplog.text
    assert "the file begins again" in caplog.text
    assert begun.read_text() == WHOLE
    assert [path.name for path in begun.parent.iterdir()] == ["a.txt"]


def test_a_state_of_an_older_version_goes_on(begun: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = begun.with_name("a.txt.part.json")
    content = read_json_object(state)
    del content["checksum"]
    state.write_text(json.dumps(content | {"texts": 12}))  # is believed: there is nothing to check it by
    assert write(begun).endswith("14 texts, 24 bytes")
    assert not caplog.text
