"""proof.json: what was proved of a bundle, and the checksum of every file that it was proved with.

A bundle is *dirty* when a file differs from the one that was proved: changed, added or missing. Whoever edits one (the
card, say) runs `python -m hub_export verify DIR`, which proves it again and writes the record anew.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from corpus.files import atomic_file

from .run_folder import read_object

RECORD = "proof.json"


def write_record(folder: Path, checks: Iterable[str]) -> None:
    """Writes proof.json into a bundle that has just been proved.

    Args:
        folder: the bundle.
        checks: names of the checks that held.
    """
    with atomic_file(folder / RECORD) as stream:
        json.dump({"made_by": "scratchgpt", "checks": list(checks), "sha256": checksums(folder)}, stream, indent=1)
        stream.write("\n")


def check_record(folder: Path) -> None:
    """Refuses a bundle that was not proved, or not as it is now.

    Raises:
        ValueError: naming what differs and what to do.
    """
    again = f"Prove it as it is now with `python -m hub_export verify {folder}`, or make it anew."
    if not (folder / RECORD).is_file():
        raise ValueError(f"{folder}: expected a proved bundle, but it has no {RECORD}. {again}")
    proved, here = read_object(folder / RECORD).get("sha256") or {}, checksums(folder)
    changed = sorted(name for name in proved.keys() | here.keys() if proved.get(name) != here.get(name))
    if changed:
        raise ValueError(
            f"{folder}: expected the files that were proved, but {', '.join(changed[:5])}"
            f"{f' and {len(changed) - 5} more' if len(changed) > 5 else ''} "
            f"{'is' if len(changed) == 1 else 'are'} not as then. {again}"
        )


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a bundle by its name; proof.json and hidden files (caches) are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != RECORD and not any(part.startswith((".", "__")) for part in Path(name).parts):
            with path.open("rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
