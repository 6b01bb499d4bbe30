"""Random input: `make fuzz`, or python -m tests.fuzz [page | tokenizer] [--seed N].

page: requests to a page of a tiny model ([--requests N] [--local] [--seconds N]). Ends with 1 where a request got a
server error or no answer, where the server wrote a traceback, where its memory grew by more than MEMORY_GROWTH, or
where it answers a normal request otherwise than before.

tokenizer: texts and ids, guided by coverage ([--minutes N] [--folder DIR]; needs requirements-fuzz.txt). Ends with 1
where two ways through a vocabulary differ, and leaves the case in the folder."""

import argparse
import tempfile
from pathlib import Path

from tests.fuzz.campaign import run_campaign, served
from tests.fuzz.tokenizer import run_tokenizer
from tests.panels.tiny_model import save_run

MEMORY_GROWTH = 150_000_000
"""Bytes, from `WARM_UP` requests on."""


def main() -> None:
    """Run the campaign that was asked for, print what was found."""
    parser = argparse.ArgumentParser(description="Random requests to a page, or random texts and ids to the tokenizer.")
    parser.add_argument("campaign", nargs="?", choices=("page", "tokenizer"), default="page", help="(default: page)")
    parser.add_argument("--requests", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same requests (default: 1)")
    parser.add_argument("--seconds", type=float, default=3600, help="the longest time (default: %(default)s)")
    parser.add_argument("--local", action="store_true", help="a page of one's own, not a public one")
    parser.add_argument("--minutes", type=float, default=5, help="of the tokenizer (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="its cases (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.campaign == "tokenizer":
        print(run_tokenizer(arguments.folder, minutes=arguments.minutes, seed=arguments.seed))
    else:
        fuzz_page(arguments)


def fuzz_page(arguments: argparse.Namespace) -> None:
    """Serve a tiny model, send the requests, print what was found."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        save_run(home / "runs" / "mine")
        with served(cwd=home, is_public=not arguments.local) as (address, process, output):
            findings = run_campaign(
                address,
                process,
                output,
                count=arguments.requests,
                seed=arguments.seed,
                is_public=not arguments.local,
                seconds=arguments.seconds,
            )
        print(findings.report())
        if findings.tracebacks:
            print(output.read_text(encoding="utf-8", errors="replace")[-20_000:])
    if not findings.is_clean or findings.memory_after - findings.memory_before > MEMORY_GROWTH:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
