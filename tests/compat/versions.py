"""What `make compat` runs: the versions of transformers, and the ends of the ranges of the other libraries."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[2]

MATRIX = (
    *("4.57.6", "5.0.0", "5.1.0", "5.2.0", "5.3.0", "5.4.0", "5.5.4", "5.8.1", "5.10.4", "5.12.1", "5.14.1", "5.16.1"),
    *("5.18.0", "5.20.2", "5.21.1", "5.22.2", "5.23.0", "5.24.0"),
)
"""Released versions of transformers, oldest first. The ends are those that configuration_scratchgpt.py names."""
TOO_OLD = "4.56.2"
"""A version below the lowest supported one: loading ends with one sentence."""
LIBRARIES = ("transformers", "tokenizers", "huggingface_hub", "gradio", "accelerate", "datasets", "safetensors")
"""Other libraries whose range in requirements.txt is run at both ends, one at a time."""


def read_version(text: str) -> str:
    """A version as pip writes it.

    Raises:
        ValueError: `text` is no version number.
    """
    try:
        return str(Version(text))
    except InvalidVersion:
        raise ValueError(
            f"expected a version of transformers such as {MATRIX[-1]} or 5.25.0rc1, got {text!r}"
        ) from None


def requirement(library: str, requirements: Path = ROOT / "requirements.txt") -> Requirement:
    """The line of requirements.txt on a library.

    Raises:
        ValueError: there is none.
    """
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if re.match(rf"{library}\b(?!-)", line, flags=re.IGNORECASE):
            return Requirement(line.split("#")[0].split(";")[0].strip())
    raise ValueError(f"expected a line on {library} in {requirements.name}, found none")


def ends(library: str, requirements: Path = ROOT / "requirements.txt") -> tuple[str, str]:
    """The two ends of a library's range as specifiers for pip; without an upper version, the newest that pip finds.

    Raises:
        ValueError: the range has no lower end.
    """
    wanted = requirement(library, requirements).specifier
    lower = next((f"=={one.version}" for one in wanted if one.operator in (">=", "==")), None)
    if lower is None:
        raise ValueError(f"expected a lower end for {library} in {requirements.name}, such as {library}>=1.0")
    return lower, next((f"=={one.version}" for one in wanted if one.operator in ("<=", "==")), str(wanted))
