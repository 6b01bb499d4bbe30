"""From odd files to shards: names that are no Unicode, characters that no file can hold, NUL."""

import json
import os
import sys
from pathlib import Path

import pytest

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.config import Config
from train.data.prepare import prepare
from train.loop import train

TEXT = "The cat sat on the mat. A dog ran in the park! Was it late? " * 40


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_a_file_whose_name_is_no_unicode_is_trained_on(tiny: Config, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in (b"\xff\xfe.txt", b"b\n\x1b[31m.txt", b"con.txt", b"a:b.txt", b"trailing. .txt"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text(TEXT)
    config = with_fields(tiny, corpus__source="local", corpus__paths=(folder,), run__dir=tmp_path / "run", run__steps=2)
    run = RunFolder(train(config, recipe="debug"))
    assert run.state["status"] == "finished"
    again = with_fields(config, run__resume=True, run__steps=3)  # compares the fingerprints of the files
    assert RunFolder(train(again, recipe="debug")).state["step"] == 3


def test_nul_and_lone_surrogates_come_back_from_the_shards(tiny: Config, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{TEXT}\0 \ud800 \udfff {number}"}) for number in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    config = with_fields(tiny, corpus__source="local", corpus__paths=(tmp_path / "a.jsonl",))
    prepared = prepare(config, RunFolder(tmp_path / "run"), lambda line: None)
    ids = [*prepared.train.read(0, len(prepared.train)), *prepared.validation.read(0, len(prepared.validation))]
    text = prepared.tokenizer.decode(ids)
    assert text.count("\0 \ufffd \ufffd ") == 4
    assert [prompt.encode() for prompt in prepared.prompts]
