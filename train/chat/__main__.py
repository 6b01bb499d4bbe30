"""`python -m train.chat MODEL [--questions FILE…]`: the share of questions that a model answers right, as JSON.

Without `--questions`: questions about stories of our generator, of a seed that no recipe trains on. A file has chats as
`python -m train chat --corpus` takes them, and the last answer of each is the one that is asked for. The model takes
the likeliest token each time; right is an answer that equals the known one, apart from case and white space at its
ends.
Keys: questions, right, share, cut (chats whose beginning was too far back for the model to see), by_kind.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

from modeling import quick_imports, wait_passively

HELDOUT_SEED = 2
"""Of the story generator: `stories` trains on stories of seed 0, `chat` on those of seed 1."""


def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m train.chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a bundle, a checkpoint, a run folder or a Hub id")
    parser.add_argument("--questions", nargs="+", default=[], type=Path, metavar="FILE", help="JSON lines of messages")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="ask at most so many (%(default)s)")
    parser.add_argument("--seed", type=int, default=HELDOUT_SEED, help="of the stories (%(default)s)")
    given = parser.parse_args(arguments)
    wait_passively()
    with quick_imports():  # after the parsing: --help and a wrong flag need no torch
        from corpus.chats import read_chats
        from corpus.stories.questions import generate_chats
        from modeling.loading import fetch, find_folder, load_causal_lm
        from tokenization import load_tokenizer
        from train.chat.answers import measure_answers
    try:
        if given.count < 1:
            raise ValueError(f"--count: expected at least 1, got {given.count}")
        folder = find_folder(given.model) or fetch(given.model)
        tokenizer = load_tokenizer(folder)
        if not tokenizer.chat_template:
            raise ValueError(
                f"{given.model}: expected a model that answers, whose tokenizer has a chat template, got one without; "
                f"`python -m train chat --from {given.model}` makes one of it"
            )
        model = load_causal_lm(folder)
        if given.questions:
            chats = islice(read_chats(given.questions), given.count)
        else:
            chats = generate_chats(seed=given.seed, count=given.count)
        result = measure_answers(model, tokenizer, chats, progress=sys.stderr.isatty())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
