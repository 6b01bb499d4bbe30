"""What is said of a text of one's own: never that it is the recipe's."""

import shutil
from pathlib import Path

import pytest

from storage.run_folder import RunFolder
from train.__main__ import main

SMALL = (
    "--steps 1 --model.hidden-size 16 --model.intermediate-size 32 --model.num-hidden-layers 1 --model.head-dim 8 "
    "--model.num-attention-heads 2 --model.max-position-embeddings 32 --tokenizer.vocab-size 300 --data.batch-size 2 "
    "--data.evaluation-windows 2 --run.threads 1 --run.sample-tokens 2 --run.output-tokens 0"
)
NOTES = "It rained again, and the ferry was late.\n" * 60
BOOK = (
    "The Project Gutenberg EBook of The Time Machine\n\nTitle: The Time Machine\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK THE TIME MACHINE ***\n\n"
    + "The Time Traveller was expounding.\n\n" * 90
    + "*** END OF THE PROJECT GUTENBERG EBOOK THE TIME MACHINE ***\n"
)


@pytest.mark.parametrize(
    ("flags", "files", "said"),
    [
        ("modern", {"notes.txt": NOTES, "chapter_35.txt": NOTES + "And so on.\n"}, "its maker's own text files"),
        ("modern --corpus.books scifi", {"35.txt": BOOK}, "books of early science fiction from Project Gutenberg"),
        ("scifi", {"35.txt": BOOK}, "books of early science fiction from Project Gutenberg"),
        ("scifi", {"35.txt": BOOK, "notes.txt": NOTES}, "its maker's own text files"),
    ],
)
def test_a_run_knows_whether_its_text_is_books(flags: str, files: dict[str, str], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    run = RunFolder(tmp_path / "run")
    main([*flags.split(), "--corpus", str(folder), "--run-dir", str(run.path), *SMALL.split()])
    assert run.trained_on == said
    shutil.rmtree(folder)
    assert run.trained_on == said
