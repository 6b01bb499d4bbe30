"""The vocabularies of the tutorial systems beside our own: characters, WordPiece, SentencePiece and GPT-2's.

Each becomes a tokenizer of the Rust backend (`tokenizer.json`), which `AutoTokenizer` loads without remote code. What a
round trip through each of them keeps:

bpe, gpt2       every text.
characters      every text of known characters; another character becomes `[UNK]`.
wordpiece       words and punctuation. Accents, control characters and how much whitespace there was are lost; a word
                with a character that the training text had not, or of more than 512 characters, is `[UNK]`.
sentencepiece   every text, except that U+2581, which it writes for a space, comes back as one.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from storage.records import read_json_object
from storage.text import first_line, replace_surrogates
from tokenization.bpe import check_found, collector_off, merge_words, read_texts, train_bpe, warn_of_fewer
from tokenization.kinds import GPT2 as GPT2
from tokenization.kinds import KINDS as KINDS
from tokenization.kinds import Kind as Kind
from tokenization.merge_trace import COUNTS, merge_counts
from tokenization.sentencepieces import train_sentencepiece, wrap
from tokenization.spans import is_from_scratch
from tokenization.tokenization_scratchgpt import END_OF_TEXT, MASK, ScratchGPTTokenizer, byte_alphabet

logger = logging.getLogger(__name__)
GPT2_FILES = ("vocab.json", "encoder.json", "tokenizer.json")
UNKNOWN = "[UNK]"
END_OF_SEQUENCE = "<|EOS|>"
CONTINUES = "##"
LONGEST_WORD = 512
"""Characters of a word that WordPiece cuts into pieces; the time for a longer one grows with the square."""
# Cutting here is exact: the pre-tokenizer cuts at all whitespace, and no rule of the normalizer looks across it.
BORDERS = re.compile("[ \n]+")


def train_vocabulary(
    kind: str, texts: Iterable[str], vocab_size: int, *, progress: bool = False
) -> PreTrainedTokenizerBase:
    """A tokenizer of one of the kinds `KINDS`, learned from texts.

    Args:
        kind: `bpe` is our own byte-level BPE; `gpt2` takes GPT-2's vocabulary from the Hub, and no text is read.
        texts: the documents; an iterator is read once and not kept.
        vocab_size: tokens, special ones included. `characters` and `gpt2` have the size they have.
        progress: whether to show progress bars.

    Raises:
        ValueError: an unknown kind, a size that the kind or the texts do not allow, texts without a character, or a
            vocabulary that cannot be fetched.
    """
    match kind:
        case "bpe":
            return train_own(texts, vocab_size, progress=progress)
        case "characters":
            return train_characters(texts, progress=progress)
        case "wordpiece":
            return train_wordpiece(texts, vocab_size, progress=progress)
        case "sentencepiece":
            return train_sentencepiece(texts, vocab_size, progress=progress)
        case "gpt2":
            return load_gpt2()
    raise ValueError(f"expected a kind of vocabulary of {', '.join(KINDS)}, got {kind!r}")


def train_own(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (END_OF_TEXT,),
    progress: bool = False,
) -> ScratchGPTTokenizer:
    """Our own byte-level BPE, learned by `train_bpe`, which remembers how often each pair occurred when it was
    merged (`tokenization.merge_trace.merge_counts`)."""
    counts: list[int] = []
    merges = train_bpe(
        texts,
        vocab_size,
        special_tokens=special_tokens,
        progress=progress,
        on_merge=lambda _id, _first, _second, count: counts.append(count),
    )
    tokenizer = ScratchGPTTokenizer.from_merges(merges, special_tokens=special_tokens)
    vars(tokenizer)[COUNTS] = counts
    return tokenizer


def train_characters(texts: Iterable[str], *, progress: bool = False) -> PreTrainedTokenizerFast:
    """One token for each distinct character, in the order of their code points, then `[UNK]` and `<|endoftext|>`.

    Whitespace is kept, and decoding puts nothing between the characters.
    Raises ValueError for texts without a character.
    """
    characters: set[str] = set()
    for text in read_texts(texts, "collecting characters", progress):
        characters.update(replace_surrogates(text))
    check_found(characters, "none or only empty ones")
    vocab = {token: index for index, token in enumerate([*sorted(characters), UNKNOWN, END_OF_TEXT])}
    rust = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNKNOWN))
    rust.decoder = decoders.Fuse()
    return wrap(rust, [UNKNOWN, END_OF_TEXT], end=END_OF_TEXT, unknown=UNKNOWN)


def train_wordpiece(texts: Iterable[str], vocab_size: int, *, progress: bool = False) -> PreTrainedTokenizerFast:
    """A WordPiece vocabulary: `[UNK]`, `<|EOS|>`, characters, those inside words once more with `##`, longer pieces.

    Control characters are removed, whitespace becomes a space, accents go; words and runs of punctuation are cut
    apart; a word is written with the longest pieces from its left. A call of the tokenizer puts `<|EOS|>` at both ends.

    The pieces are learned as in `tokenizers.trainers.WordPieceTrainer` (byte-pair merges of the most frequent pair, as
    long as there is one), but by our trainer: the ids of that one depend on the order of a hash map, and two runs on
    the same text give different vocabularies. Ties go to the pair whose ids are smaller.

    Args:
        vocab_size: all tokens together. Fewer when no pair is left, which is logged as a warning.

    Raises:
        ValueError: no word in the texts, or a size too small for their characters.
    """
    rust = Tokenizer(models.WordPiece(vocab={}, unk_token=UNKNOWN))
    rust.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[\p{Other}&&[^\n\t\r]]"), ""),
            normalizers.Replace(Regex(r"\s"), " "),
            normalizers.NFD(),
            normalizers.StripAccents(),
        ]
    )
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    counts = _count_words(rust, texts, progress)
    check_found(counts, "none with a word")
    if long := sum(len(word) > LONGEST_WORD for word in counts):
        logger.warning("%d words of more than %d characters become [UNK]", long, LONGEST_WORD)
    firsts = sorted({character for word in counts for character in word})
    others = sorted({character for word in counts for character in word[1:]})
    tokens = [UNKNOWN, END_OF_SEQUENCE, *firsts, *(CONTINUES + character for character in others)]
    if len(tokens) > vocab_size:
        raise ValueError(
            f"expected vocab_size of at least {len(tokens)} ([UNK], {END_OF_SEQUENCE} and the characters of the texts, "
            f"those inside words once more), got {vocab_size}"
        )
    first_ids = {character: chr(index) for index, character in enumerate(firsts, start=2)}
    other_ids = {character: chr(index) for index, character in enumerate(others, start=2 + len(firsts))}
    words = [first_ids[word[0]] + "".join(map(other_ids.__getitem__, word[1:])) for word in counts]
    with collector_off():
        merges = merge_words(words, list(counts.values()), len(tokens), vocab_size - len(tokens), progress=progress)
        for first, second, _ in merges:
            tokens.append(tokens[first] + tokens[second].removeprefix(CONTINUES))
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    warn_of_fewer(len(vocab), vocab_size)
    rust.model = models.WordPiece(
        vocab=vocab, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUES, max_input_chars_per_word=LONGEST_WORD
    )
    rust.decoder = decoders.WordPiece(prefix=CONTINUES)
    rust.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_SEQUENCE} $A {END_OF_SEQUENCE}", special_tokens=[(END_OF_SEQUENCE, vocab[END_OF_SEQUENCE])]
    )
    return wrap(rust, [UNKNOWN, END_OF_SEQUENCE], end=END_OF_SEQUENCE, unknown=UNKNOWN)


def _count_words(rust: Tokenizer, texts: Iterable[str], progress: bool) -> Counter[str]:
    """How often each word occurs, as the normalizer and the pre-tokenizer make them."""
    pieces: Counter[str] = Counter()
    for text in read_texts(texts, "counting words", progress):
        pieces.update(BORDERS.split(replace_surrogates(text)))
    counts: Counter[str] = Counter()
    for piece, count in pieces.items():
        for word, _ in rust.pre_tokenizer.pre_tokenize_str(rust.normalizer.normalize_str(piece)):
            counts[word] += count
    return counts


def load_gpt2(path_or_id: str | Path = GPT2) -> PreTrainedTokenizerFast:
    """GPT-2's own vocabulary, 50,257 tokens, from a local folder or from the Hub.

    Args:
        path_or_id: a folder with `tokenizer.json`, or with `vocab.json` and `merges.txt` (OpenAI's names
            `encoder.json` and `vocab.bpe` do too), or else a repository of the Hub with a `tokenizer.json`.

    Raises:
        ValueError: there are no such files, they cannot be fetched, or they hold another kind of vocabulary.
    """
    folder = Path(path_or_id)
    for vocab_name, merges_name in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        vocab_file, merges_file = folder / vocab_name, folder / merges_name
        if vocab_file.exists() and merges_file.exists():
            lines = merges_file.read_text(encoding="utf-8").split("\n")
            merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
            return _gpt2(read_json_object(vocab_file), merges, merges_file)
    path = folder / "tokenizer.json" if folder.is_dir() else _fetch(str(path_or_id))
    if not path.exists():
        raise ValueError(
            f"{folder}: expected GPT-2's vocab.json and merges.txt, or its tokenizer.json, got neither: check the path"
        )
    try:
        model = read_json_object(path)["model"]
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return _gpt2(model["vocab"], merges, path)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a tokenizer.json with a BPE vocabulary, got {error!r}") from error


def add_mask_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with `<|mask|>` as its mask token, the last id; as it is if it has a mask token.

    The from-scratch class is built again; another tokenizer is changed in place and returned.
    """
    if tokenizer.mask_token is not None:
        return tokenizer
    if is_from_scratch(tokenizer):
        ours: Any = tokenizer
        masked = ScratchGPTTokenizer.from_merges(ours.merges, (*ours.special_tokens, MASK), pattern=ours.pattern)
        if counts := merge_counts(tokenizer):
            vars(masked)[COUNTS] = counts
        return masked
    tokenizer.add_special_tokens({"mask_token": MASK})
    return tokenizer


def _fetch(repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "tokenizer.json"))
    except (OSError, ValueError) as error:  # what the Hub's client raises: no network, no such repository, no login
        raise ValueError(
            f"{repository}: expected a folder with GPT-2's vocab.json and merges.txt, or a repository of the Hub that "
            f"can be reached, got: {first_line(error)}; check the name and the network, or give a folder"
        ) from error


def _gpt2(vocab: dict[str, int], merges: list[list[str]], source: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a vocabulary in GPT-2's form: bytes in its printable alphabet, merges, `<|endoftext|>`."""
    if missing := [token for token in [*byte_alphabet(), END_OF_TEXT] if token not in vocab]:
        raise ValueError(
            f"{source}: expected GPT-2's vocabulary, with a token for each byte and {END_OF_TEXT}, got none for "
            f"{missing[0]!r}: check where the file comes from"
        )
    bad = next((pair for pair in merges if len(pair) != 2 or not {*pair, "".join(pair)} <= vocab.keys()), None)
    if bad is not None:
        raise ValueError(f"{source}: expected merges of two tokens of the vocabulary, got {' '.join(bad)!r}")
    rust = Tokenizer(models.BPE(vocab=vocab, merges=[(first, second) for first, second in merges]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    return wrap(rust, [END_OF_TEXT], end=END_OF_TEXT)
