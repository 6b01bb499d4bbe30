"""The tokenizer under a coverage-guided fuzzer (atheris, which is libFuzzer for Python).

libFuzzer ends its process, so the campaign runs in one of its own: this module, started by `run_tokenizer`. It mutates
bytes; what reaches a new branch of `tokenization` or of the code of transformers that finds special tokens is kept and
mutated further. What the bytes mean is `decode_case`; what is checked is tests/tokenization/agreement.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TRACED = ("tokenization", "transformers.tokenization_python")
"""Packages whose branches count. The libraries in Rust and C are not compiled for it."""
SIZES = (257, 320, 1024, 8192, 65_536)
LIMIT = 400
"""Bytes of a case."""
PATTERN = " ?[a-z]+|[0-9]{1,2}"
DICTIONARY = (
    *(
        "<|endoftext|>",
        "<|end|>",
        "<|",
        "of text",
        "世界",
        "<|début|>",
        "<|конец|>",
        "'s",
        "'LL",
        "  ",
        "\r\n",
        "\u2003",
    ),
    *("\ud83d", "\ude00", "😀", "\ufffd", "\u0558", "1234", "\0"),
)


def decode_case(data: bytes) -> tuple[int, bool, str | list[int], int]:
    """Which vocabulary, whether a text, the text or the ids, and where a text is cut.

    Bytes that are no UTF-8 become lone surrogates in a text. Ids are single bytes, mostly no UTF-8 either, or two each.
    """
    head, content = data[:2].ljust(2, b"\0"), data[2:]
    vocabulary, mode, cut = head[0] % (len(SIZES) + 2), head[0] // 64, head[1]
    if mode < 2:
        try:
            return vocabulary, True, content.decode("utf-8", "surrogatepass"), cut
        except UnicodeDecodeError:
            return vocabulary, True, content.decode("utf-8", "surrogateescape"), cut
    if mode == 2:
        return vocabulary, False, list(content), cut
    ids = [int.from_bytes(content[at : at + 2], "little") for at in range(0, len(content) - 1, 2)]
    return vocabulary, False, ids, cut


def run_tokenizer(folder: Path, *, minutes: float, seed: int) -> str:
    """The campaign in a process of its own; returns its report. Cases that fail are left in `folder`.

    Raises SystemExit where atheris is missing, and where a case failed.
    """
    try:
        import atheris  # noqa: F401 # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    except ImportError:
        raise SystemExit(
            "error: python -m tests.fuzz tokenizer needs atheris (Linux, CPython 3.11 to 3.13): "
            "pip install -r requirements-fuzz.txt. The same checks with random cases, without it: "
            "python -m pytest tests/tokenization/test_agreement.py"
        ) from None
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    words = "\n".join(
        '"' + "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogatepass")) + '"' for word in DICTIONARY
    )
    (folder / "dictionary").write_text(words + "\n", encoding="ascii")
    command = [sys.executable, "-m", "tests.fuzz.tokenizer", str(corpus), f"-max_total_time={round(minutes * 60)}"]
    command += [f"-seed={seed}", f"-max_len={LIMIT}", f"-dict={folder / 'dictionary'}", "-print_final_stats=1"]
    command += [f"-artifact_prefix={folder}/", "-timeout=120", "-rss_limit_mb=0"]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            if re.match(r"#\d+\s+(INITED|pulse)", line):
                print(line.strip(), flush=True)
    output = "".join(lines)
    if run.returncode:
        raise SystemExit(f"{output[-6000:]}\nerror: a case failed; it lies in {folder}")
    return report(output)


def report(output: str) -> str:
    """Executions and coverage from what libFuzzer said."""
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    progress = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output)
    if executions is None or len(progress) < 2:
        raise SystemExit(f"{output[-3000:]}\nerror: the fuzzer ended without its statistics")
    (first, _, _), (last, features, kept) = progress[0], progress[-1]
    return (
        f"{executions[1]} cases, none failed; branches of {' and '.join(TRACED)}: {first} by the first, {last} by all "
        f"({features} with their counts); {kept} cases kept for what they added"
    )


def main() -> None:
    """Vocabularies of all sizes, then libFuzzer, which does not return."""
    import atheris  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

    with atheris.instrument_imports(include=list(TRACED)):  # pyright: ignore[reportAttributeAccessIssue]
        from tests.tokenization.agreement import Vocabulary, random_merges
        from tests.tokenization.texts import random_texts
        from tokenization import train_bpe

    # The merges of a small vocabulary are the first ones of a large one.
    learnt = train_bpe(random_texts(30_000, seed=1), SIZES[-1], progress=True)
    vocabularies = [Vocabulary(learnt[: max(0, size - 256 - 7)], ("<|endoftext|>",)) for size in SIZES[:1]]
    vocabularies += [Vocabulary(learnt[: size - 256 - 7]) for size in SIZES[1:]]
    vocabularies.append(Vocabulary(random_merges(3000, seed=2)))
    vocabularies.append(Vocabulary(random_merges(500, seed=3), pattern=PATTERN))

    def check(data: bytes) -> None:
        number, is_text, content, cut = decode_case(data)
        vocabulary = vocabularies[number]
        if is_text:
            assert isinstance(content, str)
            vocabulary.check_text(content, cut)
        else:
            assert isinstance(content, list)
            vocabulary.check_ids(content)

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
