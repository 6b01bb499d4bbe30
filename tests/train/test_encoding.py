"""Documents → shards: everything is written once, also after a stop."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from corpus.documents import Document
from storage.shards import TokenSplit
from tokenization import ScratchGPTTokenizer
from train.data.encoding import PROGRESS, ShardEncoder, token_sizes

TOKENIZER = ScratchGPTTokenizer.from_merges([(b"a", b"b"), (b"ab", b"c")], special_tokens=("<|endoftext|>",))
END: Any = TOKENIZER.eos_token_id


def make(folder: Path, tokenizer: Any = TOKENIZER, *, chunk: int = 40, made_from: str = "this") -> ShardEncoder:
    return ShardEncoder(
        folder,
        tokenizer,
        end_of_text=tokenizer.eos_token_id,
        chunk=chunk,
        fraction=0.1,
        made_from={"corpus": made_from},
        save_tokens=3000,
    )


def read(encoder: ShardEncoder) -> dict[str, list[int]]:
    splits = {
        name: TokenSplit(encoder.folder, entry) for name, entry in encoder.description().items() if entry["files"]
    }
    return {name: split.read(0, len(split)).tolist() for name, split in splits.items()}


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=12), chunk=st.integers(20, 200))
def test_the_end_of_every_chunk_is_for_validation(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chunk: int
) -> None:
    documents = [Document(text="x" * length, name="") for length in lengths]
    encoder = make(tmp_path_factory.mktemp("tokens"), chunk=chunk)
    encoder.run(documents)
    ids = [END] + [token for length in lengths for token in [ord("x")] * length + [END]]
    expected: dict[str, list[int]] = {"train": [], "validation": []}
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        border = len(part) - round(len(part) * 0.1)
        expected["train"] += part[:border]
        expected["validation"] += part[border:]
    assert read(encoder) == {name: tokens for name, tokens in expected.items() if tokens}
    description = encoder.description()
    assert sum(description[name]["bytes"] for name in description) == sum(lengths)


def documents_of(count: int) -> list[Document]:
    return [
        Document(
            text=f"abcab {number} é",
            name=str(number),
            split="validation" if number % 3 == 0 else "train",
            is_complete=number % 4 != 1,
            log_probability=-1.5,
        )
        for number in range(count)
    ]


def test_labelled_documents_go_where_they_belong(tmp_path: Path) -> None:
    documents = documents_of(10)
    encoder = make(tmp_path)
    encoder.run(documents)
    for name, ids in read(encoder).items():
        own = [document for document in documents if document.split == name]
        expected = [END]
        for document in own:
            expected += TOKENIZER.encode_ordinary(document.text) + [END] * document.is_complete
        assert ids == expected
        entry = encoder.description()[name]
        assert entry["bytes"] == sum(len(document.text.encode()) for document in own)
        assert entry["documents"] == sum(document.is_complete for document in own) == ids.count(END) - 1
        assert entry["log_probability"] == (-1.5 * len(own) if name == "validation" else None)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_stopped_pass_resumes_and_gives_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], labelled: bool
) -> None:
    documents = documents_of(3000) if labelled else [Document(text="abécabx" * 5, name=str(n)) for n in range(3000)]
    size = sum(len(document.text.encode()) for document in documents)
    whole = make(tmp_path / "whole")
    whole.run(documents)

    def breaking(at: int) -> Iterator[Document]:
        yield from documents[:at]
        raise KeyboardInterrupt

    seen = []
    for at in (1300, 2200):
        encoder = make(tmp_path / "broken")
        seen.append(encoder.tally.documents)
        with pytest.raises(KeyboardInterrupt):
            encoder.run(breaking(at))
    encoder = make(tmp_path / "broken")
    seen.append(encoder.tally.documents)
    assert 0 == seen[0] < seen[1] < seen[2], "each pass begins where the one before was saved"
    capfd.readouterr()
    encoder.run(documents, size=size)
    *_, bar = capfd.readouterr().err.strip().split("\r")
    assert bar.startswith("encoding: 100%"), "the bar counts bytes, what was done before included"
    counts = re.search(r"([\d.]+k)/([\d.]+k)", bar)
    assert counts is not None
    assert counts[1] == counts[2]
    assert read(encoder) == read(whole)
    without_files = [{**entry, "files": None} for entry in encoder.description().values()]
    assert without_files == [{**entry, "files": None} for entry in whole.description().values()]
    encoder.forget_progress()
    assert not (tmp_path / "broken" / PROGRESS).exists()
    assert make(tmp_path / "whole", made_from="another corpus").tally.documents == 0


@pytest.mark.parametrize(
    ("pattern", "new", "is_sealed"),
    [
        (r'"documents": \d+', '"documents": 1200', True),
        ('"train"', '"trbin"', True),
        ('"tally"', '"tallx"', True),
        ('"tally"', '"tallx"', False),
        ("{", "[", True),
    ],
)
def test_damaged_progress_begins_again_and_says_so(tmp_path: Path, pattern: str, new: str, is_sealed: bool) -> None:
    """As a flipped bit leaves it: a count of documents that is too high would leave some out of the shards."""
    documents = documents_of(3000)
    whole = make(tmp_path / "whole")
    whole.run(documents)

    def breaking() -> Iterator[Document]:
        yield from documents[:2000]
        raise KeyboardInterrupt

    encoder = make(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        encoder.run(breaking())
    path = tmp_path / "broken" / PROGRESS
    saved = path.read_text()
    if not is_sealed:  # as older versions wrote it
        saved = "".join(line for line in saved.splitlines(keepends=True) if "checksum" not in line)
    damaged = re.sub(pattern, new, saved, count=1)
    assert damaged != saved
    path.write_text(damaged)
    encoder = make(tmp_path / "broken")
    assert encoder.tally.documents == 0
    assert encoder.damage is not None
    assert PROGRESS in encoder.damage
    assert encoder.damage.endswith("The text is encoded from its beginning.")
    encoder.run(documents)
    assert read(encoder) == read(whole)
    assert make(tmp_path / "whole").damage is None


def test_what_cannot_be_counted_in_bytes_is_not_split_by_tokens(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<e>": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>", unk_token="?")
    with pytest.raises(ValueError, match=r"needs a tokenizer whose tokens represent bytes.*--data\.split text"):
        make(tmp_path, tokenizer).run([Document(text="a a", name="")])
    encoder = make(tmp_path / "labelled", tokenizer)
    encoder.run([Document(text="a  a", name="", split="train")])
    assert read(encoder)["train"] == [1, 0, 0, 1]
    assert encoder.description()["train"]["bytes"] == 4


def test_token_bytes_are_those_of_the_vocabulary() -> None:
    sizes = token_sizes(TOKENIZER)
    assert sizes[:256].tolist() == [1] * 256
    assert sizes[END] == 0
    text = "abc, a fox — 狐 — asked the way."
    assert sizes[np.array(TOKENIZER.encode_ordinary(text))].sum() == len(text.encode())
