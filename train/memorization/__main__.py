"""How much a model writes word for word as it stands in its training text; `python -m train.memorization MODEL`.

The model writes texts from nothing, at temperature 1, with the seeds 0, 1, 2 …; a window of so many tokens of them
counts as memorised when it stands in the training tokens of the run (Lee et al., arXiv:2107.06499, section 6.2, measure
such a share). Prints JSON: texts, tokens, windows, memorised, share (memorised / windows).
"""

import argparse
import json
import sys
from pathlib import Path

from modeling import quick_imports, wait_passively
from train.evaluate import RECORD_HELP, run_of
from train.memorization.share import WINDOW, find_tokens, measure

SAMPLES = 10
"""Texts that `--record` keeps, those of the first seeds."""


def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m train.memorization", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run folder, a checkpoint, a bundle or a Hub id")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run with its tokens (default: where it lies)")
    parser.add_argument("--texts", type=int, default=100, metavar="N", help="texts to write (default: %(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=300, metavar="N", help="of a text, at most (default: %(default)s)"
    )
    parser.add_argument("--window", type=int, default=WINDOW, metavar="N", help="tokens of a window (%(default)s)")
    parser.add_argument("--record", action="store_true", help=f"{RECORD_HELP}, with the first {SAMPLES} texts")
    given = parser.parse_args(arguments)
    for name in ("texts", "tokens", "window"):
        if getattr(given, name) < 1:
            parser.error(f"--{name}: expected 1 or more, got {getattr(given, name)}")
    wait_passively()
    with quick_imports():  # after the parsing: --help and a wrong flag need no torch
        from tqdm import tqdm

        from modeling.generation import SamplingSettings, stream
        from modeling.loading import fetch, find_folder, is_masked_lm, load_model
        from tokenization import load_tokenizer
    try:
        folder = find_folder(given.model) or fetch(given.model)
        if is_masked_lm(folder):
            raise ValueError(f"{given.model}: expected a model that writes, got a masked one, which fills blanks")
        split = find_tokens(folder, given.run)
        model, end = load_model(folder), load_tokenizer(folder).eos_token_id
        assert isinstance(end, int)

        def write(seed: int) -> list[int]:
            settings = SamplingSettings(max_new_tokens=given.tokens, seed=seed)
            return [step.token_id for step in stream(model, [end], settings, stop_token_ids=(end,))]

        seeds = tqdm(range(given.texts), desc="writing", unit="text", disable=None)
        run = run_of(folder) if given.record else None
        texts = [write(seed) for seed in seeds]
        result = measure(texts, split, given.window)
        if run is not None:
            tokenizer = load_tokenizer(folder)
            samples = [
                {"seed": seed, "text": tokenizer.decode(ids, skip_special_tokens=True)}
                for seed, ids in enumerate(texts[:SAMPLES])
            ]
            measured = {"memorization": result | {"window": given.window}, "seeded_samples": samples}
            run.record_evaluation(folder.name, measured)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
