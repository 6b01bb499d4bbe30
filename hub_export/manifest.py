"""proof.json: what was checked of a bundle, with which transformers, and the checksum of every file.

A bundle is *dirty* when a file differs from the one that was checked: changed, added or missing. Whoever edits one (the
card, say) runs `python -m hub_export verify DIR`, which checks it again and writes the record again.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_export.code_version import MARK, read_code
from hub_export.run_folder import read_object
from modeling.loading import CHECK_RECORD
from storage.files import atomic_file

if TYPE_CHECKING:
    from hub_export.verify import Proof

RECORD = CHECK_RECORD


def write_record(folder: Path, proof: "Proof") -> None:
    """Writes proof.json into a bundle that has just been checked.

    Args:
        folder: the bundle.
        proof: what the check found.
    """
    code = read_code(folder)
    record = {
        "made_by": "scratchgpt",
        MARK: code.version if code else None,
        "transformers": proof.transformers,
        "checks": list(proof.checks),
        "sha256": checksums(folder),
    }
    with atomic_file(folder / RECORD) as stream:
        json.dump(record, stream, indent=1)
        stream.write("\n")


def read_record(folder: Path) -> dict[str, Any]:
    """What proof.json holds; nothing where there is none.

    Raises:
        ValueError: it is damaged.
    """
    return read_object(folder / RECORD) if (folder / RECORD).is_file() else {}


def changed_files(folder: Path) -> list[str]:
    """Names of the files that are not as they were when the bundle was checked: changed, added or missing."""
    checked, here = read_record(folder).get("sha256") or {}, checksums(folder)
    return sorted(name for name in checked.keys() | here.keys() if checked.get(name) != here.get(name))


def check_record(folder: Path) -> None:
    """Refuses a bundle that was not checked, or not as it is now.

    Raises:
        ValueError: naming what differs and what to do.
    """
    again = f"Check it as it is now with `python -m hub_export verify {folder}`, or make it anew."
    if not (folder / RECORD).is_file():
        raise ValueError(f"{folder}: expected a checked bundle, but it has no {RECORD}. {again}")
    if changed := changed_files(folder):
        raise ValueError(
            f"{folder}: expected the files that were checked, but {', '.join(changed[:5])}"
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
