"""Documents → token shards, in a pass that can be stopped anywhere and resumes where it was last saved.

`tokens/progress.json` says how much of the text is in the shards; `manifest.json` takes its place when all of it is.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from corpus.documents import Document
from storage.checksums import check_seal, sealed
from storage.records import read_json_object, write_json
from storage.shards import SplitWriter
from storage.text import count_bytes
from tokenization.encoding import encode_corpus, token_dtype
from tokenization.spans import is_byte_level, token_bytes

PROGRESS = "progress.json"
BLOCK = 1 << 20  # ids of an array that are taken at a time
_BLOCK, _LAST = Document(text="", name="", is_complete=False), Document(text="", name="")


@dataclass(kw_only=True, slots=True)
class Tally:
    """What is in the shards so far."""

    documents: int = 0  # taken from the corpus, each part of a long one counted
    bytes: dict[str, int] = field(default_factory=lambda: {"train": 0, "validation": 0})
    ends: dict[str, int] = field(default_factory=lambda: {"train": 0, "validation": 0})  # complete documents
    log_probability: float | None = None  # of the validation text, where its source knows it
    pending: list[int] = field(default_factory=list)  # the ids of an unfinished chunk, not in the shards yet


class ShardEncoder:
    """Writes the shards of both splits; each is one sequence `E d1 E d2 E … dn E`, E being the document separator.

    Args:
        folder: the run's `tokens/`.
        end_of_text: id of the document separator.
        chunk: documents without a label are cut by tokens, in chunks of so many …
        fraction: … of which this share at the end is validation.
        made_from: what the shards are made from; what an earlier pass saved counts only if it was made from the same.
        sources: a fingerprint of the files that are read; `sources` becomes that of the earlier pass, where one counts.
        save_tokens: tokens between two saves.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        *,
        end_of_text: int,
        chunk: int,
        fraction: float,
        made_from: dict[str, Any],
        sources: list[dict[str, Any]] | None = None,
        save_tokens: int = 2**24,
    ):
        self.folder, self.tokenizer, self.end_of_text = folder, tokenizer, end_of_text
        self.chunk, self.fraction, self.made_from, self.save_tokens = chunk, fraction, made_from, save_tokens
        self.sources = sources or []
        self.sizes = token_sizes(tokenizer) if is_byte_level(tokenizer) else None
        dtype = token_dtype(len(tokenizer))
        self.writers = {name: SplitWriter(folder=folder, name=name, dtype=dtype) for name in ("train", "validation")}
        self.tally = Tally()
        self.damage = self._restore(folder / PROGRESS) if (folder / PROGRESS).is_file() else None
        """Why what an earlier pass saved does not count, a sentence; None where nothing is damaged."""

    def _restore(self, path: Path) -> str | None:
        """Take what an earlier pass saved, if it was made from the same; the reason where it is damaged."""
        again = "The text is encoded from its beginning."
        try:
            saved = read_json_object(path, again)
            check_seal(path, saved, again)
            if saved["made_from"] != self.made_from:
                return None
            tally, writers = Tally(**saved["tally"]), saved["writers"]
            parts = {name: (writers[name]["tokens"], writers[name]["files"]) for name in self.writers}
        except ValueError as error:
            return str(error)
        except (KeyError, TypeError) as error:  # of an older version, whose file has no checksum
            return f"{path}: expected what an earlier pass saved, got another record ({error}). {again}"
        self.tally, self.sources = tally, saved.get("sources", self.sources)
        for name, writer in self.writers.items():
            writer.tokens, writer.files = parts[name]
            writer.checksums = writers[name].get("sha256", {})
        return None

    def run(self, documents: Iterable[Document], *, size: int | None = None, workers: int = 1) -> None:
        """Encode what is not encoded yet of all `documents`, with `workers` threads, under a progress bar.

        Args:
            size: bytes of all the text, for the time left; None when unknown.

        Raises:
            ValueError: documents without a label under a tokenizer whose tokens do not represent bytes.
        """
        encoded = self._encoded(islice(documents, self.tally.documents, None), workers)
        sized = ((document, ids, count_bytes(document.text)) for document, ids in encoded)
        self._write(
            sized, unit="B", total=size, initial=sum(self.tally.bytes.values()) + self._size(self.tally.pending)
        )

    def run_ids(self, ids: np.ndarray) -> None:
        """Take an array of ids that were encoded before, in which the document separator is where texts end.

        They are cut by tokens, as documents without a label are.

        Raises:
            ValueError: a tokenizer whose tokens do not represent bytes.
        """
        taken = self.tally.documents * BLOCK
        blocks = ((_BLOCK, ids[start : start + BLOCK]) for start in range(taken, len(ids), BLOCK))
        last = [] if int(ids[-1]) == self.end_of_text else [(_LAST, ids[:0])]
        sized = ((document, block, len(block)) for document, block in chain(blocks, last))
        self._write(sized, unit="token", total=len(ids), initial=taken)

    def _write(self, pieces: Iterable[tuple[Document, np.ndarray, int]], **bar: Any) -> None:
        """Append documents with their ids to the shards, under a bar that each advances by the number beside it."""
        if not self.tally.documents:
            self._save()  # from here on a pass that was stopped knows its sources
        saved = self._tokens()
        with tqdm(desc="encoding", unit_scale=True, dynamic_ncols=True, **bar) as shown:
            for document, ids, size in pieces:
                self._append(document, ids)
                shown.update(size)
                if self._tokens() >= saved + self.save_tokens:
                    self._save()
                    saved = self._tokens()
        self._cut(len(self.tally.pending))
        for writer in self.writers.values():
            writer.flush()

    def description(self) -> dict[str, Any]:
        """The manifest's entry of each split."""
        tally = self.tally
        return {
            name: {
                "tokens": writer.tokens,
                "files": writer.files,
                "sha256": writer.checksums,
                "bytes": tally.bytes[name],
                "documents": tally.ends[name],
                "log_probability": tally.log_probability if name == "validation" else None,
            }
            for name, writer in self.writers.items()
        }

    def forget_progress(self) -> None:
        """Remove progress.json, once the manifest is written."""
        (self.folder / PROGRESS).unlink(missing_ok=True)

    def _encoded(self, documents: Iterable[Document], workers: int) -> Iterator[tuple[Document, np.ndarray]]:
        """Each document beside its ids; only the documents that the encoder has in hand are in memory."""
        in_hand: deque[Document] = deque()

        def texts() -> Iterator[str]:
            for document in documents:
                in_hand.append(document)
                yield document.text

        for ids in encode_corpus(self.tokenizer, texts(), workers=workers):
            yield in_hand.popleft(), ids

    def _append(self, document: Document, ids: np.ndarray) -> None:
        tally, end = self.tally, [self.end_of_text]
        tally.documents += 1
        if document.is_complete:
            ids = np.concatenate([ids, np.array(end, dtype=ids.dtype)])
        if document.split is None:
            if self.sizes is None:
                raise ValueError(
                    "splitting by tokens needs a tokenizer whose tokens represent bytes, got "
                    f"{type(self.tokenizer).__name__} over other units: use --data.split text (and the text itself, "
                    "where the corpus is a .npy file)"
                )
            if not tally.pending and not self.writers["train"].tokens:
                tally.pending = end.copy()
            tally.pending += ids.tolist()
            while len(tally.pending) >= self.chunk:
                self._cut(self.chunk)
            return
        name = document.split
        if not self.writers[name].tokens:
            self.writers[name].append(np.array(end))
        self.writers[name].append(ids)
        tally.bytes[name] += count_bytes(document.text)
        tally.ends[name] += document.is_complete
        if name == "validation" and document.log_probability is not None:
            tally.log_probability = (tally.log_probability or 0.0) + document.log_probability

    def _cut(self, length: int) -> None:
        """Move the first `length` pending ids to the shards: their beginning to training, their end to validation."""
        tally = self.tally
        part, tally.pending = np.array(tally.pending[:length], dtype=np.int64), tally.pending[length:]
        border = length - round(length * self.fraction)
        for name, ids in (("train", part[:border]), ("validation", part[border:])):
            self.writers[name].append(ids)
            tally.bytes[name] += self._size(ids)
            tally.ends[name] += int((ids == self.end_of_text).sum())

    def _size(self, ids: list[int] | np.ndarray) -> int:
        """Bytes of the text of some ids; 0 where tokens do not represent bytes."""
        return 0 if self.sizes is None else int(self.sizes[np.asarray(ids, dtype=np.int64)].sum())

    def _tokens(self) -> int:
        return sum(writer.tokens for writer in self.writers.values())

    def _save(self) -> None:
        for writer in self.writers.values():
            writer.flush()
        writers = {
            name: {"tokens": writer.tokens, "files": writer.files, "sha256": writer.checksums}
            for name, writer in self.writers.items()
        }
        progress = {"made_from": self.made_from, "sources": self.sources, "tally": asdict(self.tally)}
        write_json(self.folder / PROGRESS, sealed(progress | {"writers": writers}))


def token_sizes(tokenizer: Any) -> np.ndarray:
    """Bytes that each id represents, int64; special tokens represent none."""
    return np.array([len(token_bytes(tokenizer, index) or b"") for index in range(len(tokenizer))])
