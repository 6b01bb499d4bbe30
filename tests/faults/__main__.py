"""`python -m tests.faults [--only PARTS] [--stages …] [--kills N] [--power N] [--calls N] [--flips N] [--seed N] …`.

Injects faults and prints the rows of docs/reliability.md. With all defaults that is hours: the disk is full at every
write in turn.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.faults.injection import begin_with_shim

PARTS = ("kills", "disks", "flips", "power")


def main() -> None:
    """The command line; exit status 1 where a fault was not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs, beside short stages (default: %(default)s)")
    parser.add_argument("--power", type=int, default=50, help="losses of power (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=1000, help="full disks a stage, at most (default: %(default)s)")
    parser.add_argument(
        "--first-call", type=int, default=1, help="of full disks: goes on with a sweep (default: %(default)s)"
    )
    parser.add_argument(
        "--again-every", type=int, default=1, help="after every so many, again with room (default: %(default)s)"
    )
    parser.add_argument("--flips", type=int, default=6, help="flipped bits a kind of file (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    parser.add_argument("--only", default=",".join(PARTS), help="parts (default: %(default)s)")
    parser.add_argument("--stages", nargs="*", default=[], help="stages to kill (default: all)")
    given = parser.parse_args()
    begin_with_shim("tests.faults")

    from tests.faults import stages
    from tests.faults.injection import run
    from tests.faults.workers import ALONE, TOGETHER

    stages.read_sources()
    threading.Thread(target=stages.serve_books, daemon=True).start()
    while not stages.ADDRESS:
        time.sleep(0.01)
    lines = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        inputs, work = Path(folder) / "inputs", Path(folder) / "work"
        chosen = [stage for stage in [*stages.stages(), TOGETHER, ALONE] if stage.name in given.stages]
        if not chosen or any(stage.uses_inputs for stage in chosen):
            made = run(lambda: stages.make_inputs(inputs), work)
            if made.status:
                sys.exit(f"error: the inputs cannot be made: {made.output}")
        for part in given.only.split(","):
            begun = time.monotonic()
            if part == "kills":
                from tests.faults.kills import kill_stages

                lines += kill_stages(inputs, work, kills=given.kills, seed=given.seed, only=given.stages)
            elif part == "disks":
                from tests.faults.disks import fill_disks

                lines += fill_disks(
                    inputs,
                    work,
                    most=given.calls,
                    again_every=given.again_every,
                    only=given.stages,
                    first=given.first_call,
                )
            elif part == "flips":
                from tests.faults.flips import flip_bits

                lines += flip_bits(inputs, work, tries=given.flips, seed=given.seed)
            elif part == "power":
                from tests.faults.power import lose_power

                lines += lose_power(inputs, work, losses=given.power, seed=given.seed)
            else:
                parser.error(f"--only: expected some of {', '.join(PARTS)}, got {part}")
            print(f"({part}: {time.monotonic() - begun:.0f} s)", flush=True)
    print("\n| fault | tried | survived | notes |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
