"""SentencePiece: vocabularies trained by its own library, in its own file format, and the same as a `tokenizer.json`.

BPE with byte fallback, as the `wiki` tutorial's course trains it (after Llama): digits apart, no normalization. Unlike
there no space is put before a text, so that decoding gives the text back and a text may be encoded in pieces.
"""

import io
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from storage.files import atomic_file
from storage.text import replace_surrogates
from tokenization.bpe import check_found, read_texts
from tokenization.spans import SENTENCEPIECE_WORDS, SPACE

logger = logging.getLogger(__name__)
MODEL_FILE = "tokenizer.model"
VOCAB_FILE = "tokenizer.vocab"
# The same over a text. The library learns from lines, and a tab ends a word in the format in which it reads counts. It
# leaves out lines of more than 4,192 bytes, so longer words are cut, as Chinese has them: at most 512 x (3 + 4) bytes.
COUNTED = re.compile(r" {1,512}[^ \t\n\r\0]{0,512}|[^ \t\n\r\0]{1,512}")
# A warning in the library's log, with its message.
WARNING = re.compile(r"^W\d{4} .*?\] (.*)", re.MULTILINE)
PROBES = ("a", "  a  b ", "ﬁ Å e\u0301 ½\u3000Ａ\u00a0\u200b")


def train_sentencepiece(texts: Iterable[str], vocab_size: int, *, progress: bool = False) -> PreTrainedTokenizerFast:
    """A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, the 256 bytes, then pieces by rank and single characters.

    Nothing is normalized; characters too rare for a token of their own are written in bytes. So every text survives,
    except that U+2581, which represents a space, comes back as one. The library counts words itself only when it has
    all texts in memory; here they are counted as they come, and it learns from the counts.

    Args:
        texts: the documents; an iterator is read once and not kept.
        vocab_size: all tokens together.

    The library's warnings are logged as one.

    Raises:
        ValueError: texts without a word, or a vocabulary larger than they support, or too small for their characters.
    """
    counts: Counter[str] = Counter()
    for text in read_texts(texts, "counting words", progress):
        counts.update(COUNTED.findall(replace_surrogates(text)))
    check_found(counts, "none with a word")
    model = io.BytesIO()
    try:
        with warnings_logged():
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(f"{word}\t{count}" for word, count in counts.items()),
                input_format="tsv",
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                byte_fallback=True,
                split_digits=True,
                allow_whitespace_only_pieces=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                minloglevel=1,
            )
    except RuntimeError as error:
        raise _explained(error, vocab_size) from error
    return convert_sentencepiece(model.getvalue())


@contextmanager
def warnings_logged() -> Generator[None]:
    """Logs what the library warns of in the block as one warning. It writes to standard error, past `sys.stderr`."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        written.seek(0)
        if found := dict.fromkeys(WARNING.findall(written.read())):
            logger.warning("SentencePiece warns: %s", " ".join(found))


def convert_sentencepiece(model: bytes, *, name: str = "the model") -> PreTrainedTokenizerFast:
    """The same vocabulary for the Rust backend: the same ids for every text.

    The bytes of the model stay with the tokenizer, as its attribute `sentencepiece_model`, for `save_tokenizer`.

    Args:
        model: the content of a `.model` file: BPE, no normalization, with or without a space put before a text.
        name: of the file, for messages.

    Raises:
        ValueError: it is no SentencePiece model, or one of another kind.
    """
    library = open_library(model, name=name)
    prefix = _dummy_prefix(library)
    size = library.get_piece_size()
    pieces = [library.id_to_piece(index) for index in range(size)]
    special = [index for index in range(size) if library.is_control(index) or library.is_unknown(index)]
    normal = {
        piece: -library.get_score(index)
        for index, piece in enumerate(pieces)
        if index not in special and not library.is_byte(index) and not library.is_unused(index)
    }
    if prefix is None or [*normal.values()] != [*range(len(normal))] or library.unk_id() < 0:
        raise ValueError(
            f"{name}: expected a SentencePiece model of type BPE that leaves the text as it is (normalization "
            "identity, extra spaces kept), got another: train one with `python -m tokenization train sentencepiece`"
        )
    has_bytes = any(library.is_byte(index) for index in range(size))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in normal
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    unknown = pieces[library.unk_id()]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    rust = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=unknown, byte_fallback=has_bytes, fuse_unk=not has_bytes)
    )
    spaces = normalizers.Replace(" ", SPACE)
    rust.normalizer = normalizers.Sequence([normalizers.Prepend(prefix), spaces]) if prefix else spaces
    rust.pre_tokenizer = pre_tokenizers.Split(Regex(SENTENCEPIECE_WORDS), behavior="isolated")
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    begin, end = (pieces[index] if index >= 0 else None for index in (library.bos_id(), library.eos_id()))
    special_tokens = [pieces[index] for index in special]
    tokenizer = wrap(rust, special_tokens, begin=begin, end=end or unknown, unknown=unknown)
    vars(tokenizer)["sentencepiece_model"] = model
    return tokenizer


def wrap(
    rust: Tokenizer, special_tokens: Iterable[str], *, end: str, begin: str | None = None, unknown: str | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer of transformers for one of the Rust backend; `end` ends, pads, and begins unless `begin` does."""
    rust.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        bos_token=begin or end,
        eos_token=end,
        pad_token=end,
        unk_token=unknown,
        clean_up_tokenization_spaces=False,
    )


def open_library(model: bytes, *, name: str = "the model") -> sentencepiece.SentencePieceProcessor:
    """The library's own tokenizer of a `.model` file's content; ValueError where it is no such file."""
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected a SentencePiece model, got {len(model):,} bytes that are none: check the path, or "
            "train one with `python -m tokenization train sentencepiece`"
        ) from error


def write_sentencepiece(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes `tokenizer.model`, for the library, and `tokenizer.vocab`, its tokens and scores for reading."""
    model: bytes = vars(tokenizer)["sentencepiece_model"]
    library = open_library(model)
    with atomic_file(Path(folder, MODEL_FILE), "wb") as file:
        file.write(model)
    with atomic_file(Path(folder, VOCAB_FILE)) as file:
        for index in range(library.get_piece_size()):
            file.write(f"{library.id_to_piece(index)}\t{library.get_score(index):g}\n")


def _dummy_prefix(library: sentencepiece.SentencePieceProcessor) -> str | None:
    """What the model puts before a text; None where it changes more of it than its spaces."""
    for prefix in ("", SPACE):
        if all(library.normalize(text) == prefix + text.replace(" ", SPACE) for text in PROBES):
            return prefix
    return None


def _explained(error: RuntimeError, vocab_size: int) -> ValueError:
    message = str(error)
    if largest := re.search(r"value <= (\d+)", message):
        return ValueError(
            f"expected vocab_size of at most {largest[1]}, which is all that the texts support, got {vocab_size}: "
            "take that, or give more text"
        )
    if smallest := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return ValueError(
            f"expected vocab_size of at least {smallest[1]} (special tokens, 256 bytes and the characters of the "
            f"texts), got {vocab_size}"
        )
    return ValueError(f"SentencePiece cannot learn from these texts: {message}")
