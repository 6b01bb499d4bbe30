"""Loss, perplexity and bits per byte; `python -m train.evaluate MODEL --text FILE…` prints them as JSON.

Causal models: the loss of a text is that of its tokens after a beginning-of-text token, in windows of the model's
context with half of it as overlap. Bits per byte do not depend on the tokenizer: total loss in bits over the bytes of
the text. Keys: loss, perplexity, bits_per_byte, tokens, bytes.

Masked models: each token is hidden in turn, alone, and predicted from those on both sides of it (pseudo-perplexity:
Salazar et al., arXiv:1910.14659, section 2.3), in windows of the model's context around it. Keys: loss
(nats per hidden token), pseudo_perplexity (exp of it), tokens (hidden), bytes. No perplexity and no bits per byte: such
probabilities do not multiply to the probability of the text, so nothing here compares with a causal model. Special
tokens, unknown words among them, are not scored. It takes a forward pass a token: `--tokens N` takes N of them.
"""

import argparse
import json
import sys
from pathlib import Path

from modeling import quick_imports, wait_passively
from storage.run_folder import RunFolder

RECORD_HELP = "write it into the run folder too, from which the card of a bundle takes it"


def run_of(folder: Path) -> RunFolder:
    """The run that a checkpoint lies in, for `--record`.

    Raises:
        ValueError: it is no checkpoint of a run.
    """
    run = RunFolder.containing(folder)
    if run is None:
        raise ValueError(f"--record: expected a run or one of its checkpoints, which keeps the result, got {folder}")
    return run


def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a bundle, a checkpoint, a run folder or a Hub id")
    parser.add_argument("--text", nargs="+", required=True, type=Path, help="files, folders or patterns of texts")
    parser.add_argument("--text-field", default="text", metavar="NAME", help="of records and tables (%(default)s)")
    parser.add_argument("--encoding", metavar="NAME", help="of texts that are not UTF-8 (default: recognised)")
    parser.add_argument("--tokens", type=int, help="with a masked model: hide so many tokens (default: every one)")
    parser.add_argument("--record", action="store_true", help=f"{RECORD_HELP}, under the name of the first text")
    given = parser.parse_args(arguments)
    wait_passively()
    with quick_imports():  # after the parsing: --help and a wrong flag need no torch
        from corpus.local import read_local
        from modeling.loading import fetch, find_folder, is_masked_lm, load_model
        from tokenization import load_tokenizer
        from train.text_loss import evaluate_masked_text, evaluate_text
    try:
        folder = find_folder(given.model) or fetch(given.model)
        masked = is_masked_lm(folder)
        if given.tokens is not None and not masked:
            raise ValueError(
                f"--tokens: expected it with a masked model, got {given.model}, a causal one, whose loss is that of "
                "every token; leave --tokens out"
            )
        run = run_of(folder) if given.record else None
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        documents = read_local(
            given.text,
            text_field=given.text_field,
            encoding=given.encoding,
        )
        texts = (document.text for document in documents)
        if masked:
            result = evaluate_masked_text(model, tokenizer, texts, limit=given.tokens, progress=sys.stderr.isatty())
        else:
            result = evaluate_text(model, tokenizer, texts)
        if run is not None:
            run.record_evaluation(folder.name, {"texts": {given.text[0].name: result}})
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
