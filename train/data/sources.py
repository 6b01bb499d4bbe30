"""Whether the files of a corpus are still those that a run's tokens were made of.

`python -m train.data.sources RUN [--keep-tokens]` checks it without training, as `make demo` does before it opens a
bundle that is there already. The manifest of the tokens has a checksum of each file, under `sources`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corpus.local import describe_changes, fingerprint
from storage.run_folder import RunFolder
from storage.shards import read_manifest

UNKNOWN = "its tokens were made before checksums were kept, so whether the text has changed since cannot be told"


def describe_change(recorded: list[dict[str, Any]], paths: Sequence[str | Path]) -> str:
    """What happened to the files of a corpus since their fingerprint was `recorded`; "" where nothing did."""
    try:
        return describe_changes(recorded, fingerprint(paths, recorded))
    except ValueError as error:  # a path that is there no more, or cannot be read
        return str(error)


def check_sources(run: RunFolder, manifest: dict[str, Any], *, keep: bool, log: Callable[[str], None]) -> None:
    """Refuse tokens of a local corpus that has changed since, unless they are to be kept; then log the change.

    Args:
        manifest: of the run's tokens.
        keep: go on with the old text.

    Raises:
        ValueError: it has changed; the message says which files, and what the choices are.
    """
    corpus = manifest["made_from"]["corpus"]
    if corpus["source"] != "local":
        return
    if "sources" not in manifest:
        log(f"{run.path}: {UNKNOWN}")
    elif change := describe_change(manifest["sources"], corpus["paths"]):
        if not keep:
            raise ValueError(changed_message(run, change))
        log(f"{run.path}: the text has changed ({change}); keeping the tokens of the old text")


def changed_message(run: RunFolder, change: str, *, can_keep: bool = True) -> str:
    """What to do about a corpus that has changed; tokens that are not complete cannot be kept."""
    keep = "Keep the old text, which is in the tokens: --keep-tokens (make demo: KEEP_TOKENS=1). " if can_keep else ""
    return (
        f"{run.path}: expected the text that the tokens of this run are of, but it has changed since: {change}. {keep}"
        "Train anew on the text as it is now: another --run-dir (make demo: RUN=runs/NEW BUNDLE=bundles/NEW), or "
        f"delete {run.path} first (and the bundle that make demo made of it)"
    )


def main() -> None:
    """The command line; exit status 1 where the corpus has changed and is not to be kept."""
    path, *flags = sys.argv[1:]
    run = RunFolder(Path(path))
    try:
        manifest = read_manifest(run.tokens)
        if manifest is None:
            print(f"{run.path}: has no tokens (any more), so whether the text has changed since cannot be told")
        else:
            check_sources(run, manifest, keep="--keep-tokens" in flags, log=print)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
