import copy
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tokenization import __main__ as command
from tokenization import commands, load_tokenizer, save_tokenizer, train_vocabulary

CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = "The quick  brown fox.\n\nIt's a dog's day: 12 days, <|endoftext|>!\n"


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT * 20)
    return str(path)


@pytest.fixture
def folder(every_kind, tmp_path):
    save_tokenizer(every_kind["bpe"], tmp_path / "bpe")
    return str(tmp_path / "bpe")


def run(*arguments):
    command.main(list(map(str, arguments)))


def fails(*arguments):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    return str(ended.value.code)


@pytest.mark.parametrize(
    ("kind", "size"), [("bpe", 300), ("characters", 0), ("wordpiece", 100), ("sentencepiece", 320)]
)
def test_train(kind, size, corpus, tmp_path, capsys):
    run("train", kind, "--corpus", corpus, "--vocab-size", size, "--out", tmp_path / "made")
    made = load_tokenizer(tmp_path / "made")
    assert made.get_vocab() == train_vocabulary(kind, [TEXT * 20], size).get_vocab()
    assert capsys.readouterr().out == f"{tmp_path / 'made'}: {kind} vocabulary of {len(made)} tokens\n"


def test_train_gpt2_with_a_mask_token(gpt2_folder, tmp_path, capsys):
    run("train", "gpt2", "--source", gpt2_folder, "--mask-token", "--out", tmp_path / "made")
    made = load_tokenizer(tmp_path / "made")
    assert made.mask_token_id == len(made) - 1


def test_train_reads_jsonl(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"body": "abc"}\n{"body": "cd"}\n')
    run(
        "train", "characters", "--corpus", tmp_path / "corpus.jsonl", "--text-field", "body", "--out", tmp_path / "made"
    )
    assert {"a", "b", "c", "d"} < load_tokenizer(tmp_path / "made").get_vocab().keys()


def test_the_encoding_of_a_text_is_assumed_aloud_or_given(tmp_path, caplog):
    (tmp_path / "corpus.txt").write_text("Паром ушёл в полдень, и собаки лаяли ему вслед.\n", encoding="koi8-r")
    for name, flags in {"assumed": [], "given": ["--encoding", "koi8-r"]}.items():
        run("train", "characters", "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / name, *flags)
        assert {"П", "ё"} < load_tokenizer(tmp_path / name).get_vocab().keys()
    (note,) = caplog.messages
    assert "read as koi8-r (recognised): “Паром" in note
    assert note.endswith("name the encoding (--encoding)")


def test_train_refuses(corpus, tmp_path, folder):
    assert fails("train", "bpe", "--out", tmp_path / "new") == (
        "error: expected a text to learn from, got none: name files or folders with --corpus PATH"
    )
    assert "expected a name that is free, but it exists" in fails("train", "bpe", "--corpus", corpus, "--out", folder)
    message = fails("train", "sentencepiece", "--corpus", corpus, "--vocab-size", 9999, "--out", tmp_path / "new")
    assert message.startswith("error: expected vocab_size of at most ")
    assert "no such file or folder" in fails("train", "bpe", "--corpus", tmp_path / "no", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_encode_and_decode(every_kind, folder, corpus, monkeypatch, capsys):
    run("encode", folder, corpus)
    written = capsys.readouterr().out
    assert list(map(int, written.split())) == every_kind["bpe"].encode_ordinary(TEXT * 20)
    assert written.count("\n") == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO(written + "[72, 105]\n"))
    run("decode", folder)
    assert capsys.readouterr().out == TEXT * 20 + "\nHi\n"
    run("decode", folder, "72", "105,33")
    assert capsys.readouterr().out == "Hi!\n"


def test_encode_standard_input_and_ends(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi"))
    run("encode", folder, "--end")
    assert capsys.readouterr().out == "72 105 398\n"


def test_encode_to_a_file(every_kind, folder, corpus, tmp_path, capsys):
    (tmp_path / "b.txt").write_text("Hi")
    run("encode", folder, corpus, tmp_path / "b.txt", "--end", "--out", tmp_path / "ids.npy")
    assert capsys.readouterr().out.endswith("tokens of 2 texts\n")
    ids = np.load(tmp_path / "ids.npy", mmap_mode="r")
    assert ids.dtype == np.uint16
    end = every_kind["bpe"].eos_token_id
    assert ids.tolist() == [*every_kind["bpe"].encode_ordinary(TEXT * 20), end, 72, 105, end]
    run("decode", folder, tmp_path / "ids.npy")
    assert capsys.readouterr().out == TEXT * 20 + "<|endoftext|>Hi<|endoftext|>\n"


def test_a_long_text_is_one_line(folder, tmp_path, monkeypatch, capsys):
    from corpus.documents import Document

    pieces = [("Hi\n", False), ("ho", True), ("!", True)]
    found = [Document(text=text, name="a", is_complete=is_complete) for text, is_complete in pieces]
    monkeypatch.setattr(commands, "read_local", lambda *_, **__: iter(found))
    run("encode", folder, "a", "--end")
    assert capsys.readouterr().out == "72 105 10 104 111 398\n33 398\n"


def test_decode_refuses(folder, every_kind):
    last = len(every_kind["bpe"]) - 1
    assert fails("decode", folder, "1", str(last + 1)) == (
        f"error: expected token ids from 0 to {last}, got {last + 1}: is it the right tokenizer?"
    )
    assert fails("decode", folder, "--", "-1").startswith(f"error: expected token ids from 0 to {last}, got -1")
    for wrong in ("Hi", "--5", "²", "9" * 20):
        assert fails("decode", folder, "--", wrong) == f"error: expected token ids as whole numbers, got '{wrong}'"
    assert "expected a tokenizer folder with tokenizer_config.json" in fails("decode", folder + "/nowhere", "1")


def test_a_line_of_standard_input_that_is_no_ids_ends_the_command(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1 2\n--5\n3\n"))
    assert fails("decode", folder) == "error: expected token ids as whole numbers, got '--5'"


def test_an_array_of_something_else_is_named(folder, tmp_path):
    for name, array in (("a.npy", np.zeros((2, 2), np.uint16)), ("b.npy", np.zeros(3))):
        np.save(tmp_path / name, array)
        message = f"error: {tmp_path / name}: expected one row of whole numbers, got {array.dtype} of shape "
        assert fails("decode", folder, tmp_path / name).startswith(message)


def test_a_file_that_is_no_array_is_named(folder, tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(3))
    (tmp_path / "archive.npy").write_bytes((tmp_path / "a.npz").read_bytes())
    for name, content in {"empty.npy": b"", "text.npy": b"1 2 3\n", "zip.npy": b"PK\3\4", "archive.npy": None}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        message = f"error: {tmp_path / name}: expected an array of token ids, got a file that is damaged or holds "
        said = fails("decode", folder, tmp_path / name)
        assert said.startswith(message)
        assert said.endswith(": write it again with `python -m tokenization encode … --out FILE.npy`")
        assert "\n" not in said


def test_an_end_that_the_tokenizer_does_not_have(every_kind, corpus, tmp_path):
    tokenizer = copy.deepcopy(every_kind["wordpiece"])
    tokenizer.eos_token = None
    save_tokenizer(tokenizer, tmp_path / "endless")
    assert fails("encode", tmp_path / "endless", corpus, "--end") == (
        f"error: --end: expected a tokenizer with an end-of-text token, got {tmp_path / 'endless'}, which has none; "
        "leave out --end, or take another tokenizer"
    )


def test_report(every_kind, folder, gpt2_folder, corpus, tmp_path, capsys):
    save_tokenizer(every_kind["wordpiece"], tmp_path / "words")
    run("report", folder, tmp_path / "words", corpus)
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["bpe", "words"]
    assert f"words: {corpus}, character 10" in table
    run("report", gpt2_folder, tmp_path / "words", corpus, "--text", corpus, "--json")
    measured, words = json.loads(capsys.readouterr().out)
    assert measured["exact_texts"] == 1
    assert measured["name"].endswith(gpt2_folder.name)
    assert words["first_difference"]["character"] == 10


def test_runs_checkpoints_and_bundles_are_tokenizers_too(every_kind, corpus, tmp_path, capsys):
    run_folder, bundle = tmp_path / "run", tmp_path / "bundle"
    checkpoint = run_folder / "checkpoints" / "step-000010"
    for folder in (run_folder / "tokenizer", checkpoint, bundle):
        save_tokenizer(every_kind["bpe"], folder)
    (run_folder / "run.json").write_text("{}")
    (run_folder / "output.txt").write_text(TEXT)
    (bundle / "config.json").write_text("{}")
    run("report", run_folder, checkpoint, bundle, corpus, run_folder / "output.txt", "--json")
    measured = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in measured] == ["run", "run/checkpoints/step-000010", "bundle"]
    assert {one["exact_texts"] for one in measured} == {1}
    run("decode", checkpoint, "72", "105")
    assert capsys.readouterr().out == "Hi\n"


def test_report_refuses(folder, corpus):
    assert "expected at least one tokenizer folder" in fails("report", corpus)
    assert "got tokenizer folders only: name text files too" in fails("report", folder)


def test_as_a_command(folder):
    command_line = [sys.executable, "-m", "tokenization", "decode", folder, "999999"]
    done = subprocess.run(command_line, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: expected token ids")
