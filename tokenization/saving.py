"""Tokenizer folders: what a run, a checkpoint and a bundle hold, and `AutoTokenizer` loads.

tokenizer.json, tokenizer_config.json   the same for the Rust backend; loads for everybody, without remote code
tokenizer.model, tokenizer.vocab        only of a SentencePiece vocabulary: its own file, and its tokens for reading
slow/                                   the from-scratch class: its config (with auto_map), vocab.json, merges.txt,
                                        its source file, merges.vocab, the merges for reading, and merge_counts.json,
                                        how often each pair occurred when it was merged, where that is known
tokenization_scratchgpt.py              the source file again: `subfolder="slow"` looks for it in the root
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from storage.files import atomic_file, atomic_folder
from storage.records import read_json, read_json_object
from tokenization import tokenization_scratchgpt
from tokenization.merge_trace import COUNTS, merge_counts
from tokenization.sentencepieces import MODEL_FILE, VOCAB_FILE, convert_sentencepiece, open_library, write_sentencepiece
from tokenization.spans import is_from_scratch
from tokenization.tokenization_scratchgpt import BYTES, ScratchGPTTokenizer, byte_alphabet, text_to_bytes
from tokenization.trainers import GPT2_FILES, load_gpt2
from tokenization.untrusted import check_sizes, explained, limit_patterns

SLOW = "slow"
CONFIG = "tokenizer_config.json"
LISTING = "merges.vocab"
COUNTS_FILE = "merge_counts.json"
OTHERS_FILES = ("chat_template.jinja", "chat_template.json", "special_tokens_map.json", "added_tokens.json")
"""What other tokenizers keep beside the files that are written here, and transformers would read."""
IN_CONFIG: Any = {"save_jinja_files": False}
"""A chat template goes into tokenizer_config.json, which every version reads and every copy of a tokenizer has."""
SOURCE = Path(tokenization_scratchgpt.__file__)
BACKEND_CLASS, KNOWN_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"
# What a tokenizer that was itself loaded remembers of the place it came from.
TRACES_OF_LOADING = ("is_local", "local_files_only", "name_or_path")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Writes a tokenizer folder; into a folder that exists, beside what is there (a tokenizer in it is replaced).

    Args:
        tokenizer: the from-scratch tokenizer, or any tokenizer of transformers that loads without remote code.

    Raises:
        ValueError: a tokenizer whose class lies in remote code that has no `tokenizer.json`.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    if not folder.exists():
        with atomic_folder(folder) as made:
            _write(tokenizer, made)
        return
    with atomic_folder(folder / ".tokenizer", replace=True) as made:
        _write(tokenizer, made)
    made = folder / ".tokenizer"
    if (folder / SLOW).exists():
        shutil.rmtree(folder / SLOW)
    for name in (MODEL_FILE, VOCAB_FILE, *OTHERS_FILES):
        (folder / name).unlink(missing_ok=True)
    for path in made.iterdir():
        path.replace(folder / path.name)
    made.rmdir()
    complete_config(folder)


def build_fast(tokenizer: ScratchGPTTokenizer) -> PreTrainedTokenizerFast:
    """The from-scratch tokenizer for the Rust backend: same merges, same special tokens.

    Same ids for every text that UTF-8 can hold. The Rust backend takes no lone surrogate, which the from-scratch class
    encodes and decodes.
    """
    alphabet = byte_alphabet()
    merges: Any = [tuple("".join(map(alphabet.__getitem__, part)) for part in pair) for pair in tokenizer.merges]
    specials = tokenizer.special_tokens
    tokens = [*alphabet, *map("".join, merges), *specials]
    vocab = {token: index for index, token in enumerate(tokens)}
    rust = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=False))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tokenizer.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = _decoder([*specials, *map(str, tokenizer.added_tokens_decoder.values())])
    rust.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token_id >= tokenizer.vocab_size:
            (rust.add_special_tokens if token.special else rust.add_tokens)([token])
    named = {
        name: getattr(tokenizer, name)
        for name in ("bos_token", "eos_token", "pad_token", "mask_token")
        if getattr(tokenizer, name) is not None
    }
    others = [token for token in specials if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
        **named,
        **({"extra_special_tokens": others} if others else {}),
        clean_up_tokenization_spaces=False,
        model_max_length=tokenizer.model_max_length,
        model_input_names=list(tokenizer.model_input_names),
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=tokenizer.split_special_tokens,
        **({"chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}),
    )


def _decoder(added: list[str]) -> decoders.Decoder:
    """Bytes from tokens. An added token is text, but the Rust library reads it as bytes where all its characters are in
    GPT-2's alphabet and some are not ASCII (`<|début|>`), so such a one is written in that alphabet first."""
    alphabet = byte_alphabet()
    misread = [token for token in added if not token.isascii() and set(token) <= {*alphabet}]
    written = {token: "".join(alphabet[byte] for byte in text_to_bytes(token)) for token in misread}
    steps = [decoders.Replace(Regex(rf"\A{re.escape(token)}\z"), content) for token, content in written.items()]
    return decoders.Sequence([*steps, decoders.ByteLevel()]) if steps else decoders.ByteLevel()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The from-scratch class where the folder holds it in `slow/`, else what `AutoTokenizer` makes of the folder.

    Foreign files do too: a SentencePiece file (`.model`, as `convert_sentencepiece` takes it) instead of a folder, or a
    folder with no more than a `tokenizer.model`, or with GPT-2's `vocab.json` and `merges.txt`.

    Raises ValueError when there is no tokenizer in the folder, or one that does not load: a file that is damaged, of
    another kind or larger than any tokenizer's. What comes back raises ValueError for a text on which a pattern that is
    not ours takes too long.
    """
    folder = Path(folder)
    check_sizes(folder)
    with explained(folder):
        return limit_patterns(_load(folder))


def _load(folder: Path) -> PreTrainedTokenizerBase:
    model = folder if folder.is_file() else folder / MODEL_FILE
    if (folder / SLOW / CONFIG).exists():
        tokenizer = ScratchGPTTokenizer.from_pretrained(folder / SLOW)
        if (folder / SLOW / COUNTS_FILE).exists():
            vars(tokenizer)[COUNTS] = _read_counts(folder / SLOW / COUNTS_FILE, len(tokenizer.merges))
        return tokenizer
    if (folder / CONFIG).exists():
        from transformers import AutoTokenizer  # imports torch, which is seconds; our own class does without

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if model.exists():
            data = model.read_bytes()
            open_library(data, name=str(model))
            tokenizer.sentencepiece_model = data
        return tokenizer
    if model.exists():
        return convert_sentencepiece(model.read_bytes(), name=str(model))
    if any((folder / name).exists() for name in GPT2_FILES):
        return load_gpt2(folder)
    raise ValueError(f"{folder}: expected a tokenizer folder with {CONFIG}, got none: check the path")


def complete_config(folder: str | Path) -> None:
    """Writes into a folder's tokenizer_config.json, and that of its `slow/`, what saving a tokenizer leaves open.

    `model_max_length` becomes the context of the model whose config.json lies in the folder, so that `truncation=True`
    and `padding="max_length"` mean that length. The class becomes one that every transformers and transformers.js know:
    a tokenizer that is its tokenizer.json is called `TokenizersBackend` by transformers 5, which 4 does not know;
    `PreTrainedTokenizerFast` is the same class for both. Any other class stays, as does a folder without the file.

    Raises:
        ValueError: one of the files is no JSON object.
    """
    folder = Path(folder)
    model = read_json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    context = model.get("max_position_embeddings", model.get("n_positions"))  # GPT-2's name for it
    for place in (folder, folder / SLOW):
        if (place / CONFIG).is_file():
            is_backend = read_json_object(place / CONFIG).get("tokenizer_class") == BACKEND_CLASS
            known = {"tokenizer_class": KNOWN_CLASS} if is_backend else {}
            _edit_config(place, known if context is None else known | {"model_max_length": context})


def merge_listing(tokenizer: ScratchGPTTokenizer) -> str:
    """The merges for reading, one a line: `[th][e] -> [the] 261`. What cannot be printed is escaped."""
    lines = []
    for index, (first, second) in enumerate(tokenizer.merges, start=BYTES):
        lines.append(f"[{_readable(first)}][{_readable(second)}] -> [{_readable(first + second)}] {index}\n")
    return "".join(lines)


def _read_counts(path: Path, merges: int) -> list[int]:
    try:
        counts = read_json(path)
        got = f"{len(counts)} entries" if isinstance(counts, list) else type(counts).__name__
    except ValueError:
        counts, got = None, "a damaged file"
    if not isinstance(counts, list) or len(counts) != merges or not all(isinstance(count, int) for count in counts):
        raise ValueError(
            f"{path}: expected a JSON list of {merges} counts, one for each merge, got {got}; delete the file"
        )
    return counts


def _readable(token: bytes) -> str:
    """The token's text; backslashes, what cannot be printed and bytes of incomplete characters are escaped."""
    text = token.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _write(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    if is_from_scratch(tokenizer):
        assert isinstance(tokenizer, ScratchGPTTokenizer) or hasattr(tokenizer, "merges")
        build_fast(tokenizer).save_pretrained(folder, **IN_CONFIG)  # pyright: ignore[reportArgumentType]
        _edit_config(folder, drop=TRACES_OF_LOADING)
        slow = folder / SLOW
        tokenizer.save_pretrained(slow, **IN_CONFIG)
        name = ScratchGPTTokenizer.__name__
        auto_map = {"AutoTokenizer": [f"{SOURCE.stem}.{name}", None]}
        _edit_config(slow, {"tokenizer_class": name, "auto_map": auto_map}, drop=TRACES_OF_LOADING)
        for place in (folder, slow):
            shutil.copyfile(SOURCE, place / SOURCE.name)
        (slow / LISTING).write_text(merge_listing(tokenizer), encoding="utf-8")  # pyright: ignore[reportArgumentType]
        if counts := merge_counts(tokenizer):
            (slow / COUNTS_FILE).write_text(json.dumps(counts, indent=0) + "\n", encoding="utf-8")
    else:
        tokenizer.save_pretrained(folder, **IN_CONFIG)
        _edit_config(folder, drop=("auto_map", *TRACES_OF_LOADING) if tokenizer.is_fast else TRACES_OF_LOADING)
        if "auto_map" in read_json_object(folder / CONFIG):
            raise ValueError(
                f"expected a tokenizer that loads without remote code, got {type(tokenizer).__name__}: "
                "convert it to a fast tokenizer (tokenizer.json) first"
            )
        if hasattr(tokenizer, "sentencepiece_model"):
            write_sentencepiece(cast(PreTrainedTokenizerFast, tokenizer), folder)
    complete_config(folder)


def _edit_config(folder: Path, changes: dict[str, Any] | None = None, *, drop: tuple[str, ...] = ()) -> None:
    path = folder / CONFIG
    before = read_json_object(path)
    config = {key: value for key, value in before.items() if key not in drop} | (changes or {})
    if config != before:
        with atomic_file(path) as file:
            json.dump(config, file, ensure_ascii=False, indent=2, sort_keys=True)
            file.write("\n")
