"""What the locked packages bring: their licences (docs/licenses.md), known vulnerabilities, a bill of materials.

    make supply              all three; the last two need the network
    make supply ONLY=licenses

Licences are read from the metadata of the installed packages; nothing is guessed from a text. In a temporary
environment pip-audit asks PyPI for known vulnerabilities of every package of the locks, and cyclonedx-bom writes the
locks as an SBOM (CycloneDX, JSON) to sbom.cdx.json, which is not committed: it follows from them.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lock import LOCK, LOCK_DEV, LOCK_TORCH, ROOT, Locked, parse_lock

TOOLS = ("pip-audit>=2.9", "cyclonedx-bom>=5")
PAGE, SBOM = "docs/licenses.md", "sbom.cdx.json"
LOCKS = {
    LOCK: "What running needs",
    LOCK_DEV: "What only tests and checks need",
    LOCK_TORCH: "torch, and what its build for CUDA needs",
}
PERMISSIVE = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Identifiers of SPDX that ask for no more than that their text comes along."""
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",  # or the one with two clauses: a classifier does not tell
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
TEXTS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "ISC license": "ISC",
    "ISC License": "ISC",
    "MIT License": "MIT",
}
"""What authors write into the field License, where it is no identifier of SPDX."""
STATED = {
    "appnope": ("BSD-2-Clause", "metadata of its wheel"),
    "audioop-lts": ("PSF-2.0", "its page; not read here"),
    "cffi": ("MIT-0", "metadata of its wheel"),
    "colorama": ("BSD-3-Clause", "metadata of its wheel"),
    "cuda-bindings": ("Apache-2.0", "metadata of its wheel"),
    "cuda-pathfinder": ("Apache-2.0", "metadata of its wheel"),
    "pycparser": ("BSD-3-Clause", "metadata of its wheel"),
    "triton": ("MIT", "its page; not read here"),
}
"""Of packages that only other platforms install: SPDX's identifier, and where it was read."""
NVIDIA, UNKNOWN = "LicenseRef-NVIDIA-Proprietary", "not read"
WHY = {
    "MPL-2.0": "changes to its own files have to be published; it may be used and passed on beside any code",
    NVIDIA: "NVIDIA's own terms; only where pip installs torch's build for CUDA, and never a part of what is published",
    UNKNOWN: "the package is of another platform, and was on no index that could be reached",
}


HEAD = """\
# Licences of what is locked

`make supply` writes this page from the metadata of the installed packages; a test compares it with the locks. None of
these packages is a part of what is published: a bundle holds our own code, which is MIT.

How it is decided: the field `License-Expression` counts; else `License`, where it is an identifier of SPDX or one of a
few usual spellings (`.ci/supply.py`); else the classifiers. Of a package that only other platforms install the last
column says where its licence is from. Permissive is what asks for no more than that its text comes along; of an OR one
part has to be that, of an AND all: {names}.
"""


@dataclass(frozen=True, slots=True)
class Licensed:
    """A locked package and its licence."""

    name: str
    version: str
    license: str  # an expression of SPDX
    source: str  # where it was read

    @property
    def is_permissive(self) -> bool:
        """Whether the licence asks for no more than that its text comes along: all parts of an AND, one of an OR."""
        alternatives = [part.strip(" ()") for part in self.license.split(" OR ")] if " AND " not in self.license else []
        if alternatives:
            return any(part in PERMISSIVE for part in alternatives)
        return all(
            any(choice.strip(" ()") in PERMISSIVE for choice in part.split(" OR "))
            for part in self.license.split(" AND ")
        )


def licensed(package: Locked) -> Licensed:
    """The licence of a package: from its installed metadata, else from `STATED`, else unknown."""
    try:
        found = importlib.metadata.metadata(package.name)
    except importlib.metadata.PackageNotFoundError:
        other = NVIDIA if re.match(r"nvidia-|cuda-toolkit", package.name) else UNKNOWN
        expression, source = STATED.get(package.name, (other, "assumed; not installed here"))
        return Licensed(package.name, package.version, expression, source)
    return Licensed(package.name, package.version, *_read(found))


def _read(metadata: importlib.metadata.PackageMetadata) -> tuple[str, str]:
    """An expression of SPDX, and the field that says it."""
    if expression := metadata.get("License-Expression"):
        return expression, "License-Expression"
    text = (metadata.get("License") or "").strip().partition("\n")[0]
    known = TEXTS.get(text, text)
    if all(part.strip(" ()") in PERMISSIVE | {"MPL-2.0"} for part in re.split(" AND | OR ", known)):
        return known, "License"
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if each[:7] == "License"]
    if classifiers and all(each in CLASSIFIERS for each in classifiers):
        return " AND ".join(dict.fromkeys(CLASSIFIERS[each] for each in classifiers)), "classifier"
    return UNKNOWN, text or "no field"


def all_licensed() -> dict[str, list[Licensed]]:
    """The packages of each lock, in its order."""
    return {file: [licensed(each) for each in parse_lock((ROOT / file).read_text(encoding="utf-8"))] for file in LOCKS}


def render(packages: dict[str, list[Licensed]]) -> str:
    """The page."""
    return "\n".join(_lines(packages)) + "\n"


def _lines(packages: dict[str, list[Licensed]]) -> Iterator[str]:
    yield HEAD.format(names=", ".join(sorted(PERMISSIVE)))
    yield "## What stands out\n"
    yield "| package | licence | what it means |"
    yield "|---|---|---|"
    for package in (each for found in packages.values() for each in found if not each.is_permissive):
        reasons = [why for part, why in WHY.items() if part in package.license]
        yield f"| `{package.name}` | {package.license} | {'; '.join(reasons) or 'read its text before use'} |"
    for file, title in LOCKS.items():
        yield f"\n## {title} (`{file}`)\n"
        yield "| package | version | licence | read from |"
        yield "|---|---|---|---|"
        for each in packages[file]:
            mark = "" if each.is_permissive else "**"
            yield f"| `{each.name}` | {each.version} | {mark}{each.license}{mark} | {each.source} |"


def audit() -> int:
    """Ask for known vulnerabilities, and write the SBOM; the exit status."""
    with tempfile.TemporaryDirectory(prefix="scratchgpt-audit-") as name:
        folder = Path(name)
        python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS]
        if subprocess.run(pip, check=False).returncode:
            print(f"error: {' and '.join(TOOLS)} could not be fetched; is there a network? No audit, no {SBOM}")
            return 1
        locks = [(ROOT / file).read_text(encoding="utf-8") for file in LOCKS]
        (folder / "all.txt").write_text("".join(locks), encoding="utf-8")
        to_sbom = [str(python), "-m", "cyclonedx_py", "requirements", "--of", "JSON", "-o", str(ROOT / SBOM)]
        if subprocess.run([*to_sbom, str(folder / "all.txt")], check=False).returncode:
            print(f"error: {SBOM} was not written (cyclonedx-bom says why, above)")
            return 1
        print(f"written: {SBOM}")
        # Without hashes, which torch has none of and pip-audit wants of all or none, and for every platform.
        packages = [f"{each.name}=={each.version}\n" for text in locks for each in parse_lock(text)]
        (folder / "names.txt").write_text("".join(packages), encoding="utf-8")
        asked = [
            str(python),
            "-m",
            "pip_audit",
            "--no-deps",
            "--disable-pip",
            "--progress-spinner",
            "off",
            "-f",
            "json",
        ]
        words = [*asked, "-r", str(folder / "names.txt"), "-o", str(folder / "audit.json")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if not (folder / "audit.json").is_file():
            print(f"error: pip-audit ended with status {done.returncode}: {done.stderr.strip()[-1000:]}")
            return 1
        return judge(json.loads((folder / "audit.json").read_text(encoding="utf-8"))["dependencies"])


def judge(dependencies: list[dict[str, Any]]) -> int:
    """Report what pip-audit found; the exit status: 0 only where every package was looked up, and nothing is known.

    pip-audit itself reports "No known vulnerabilities found", with status 0, where it could look up none of them.
    """
    skipped = [each for each in dependencies if "skip_reason" in each]
    found = [(each, hole) for each in dependencies for hole in each.get("vulns", [])]
    for each, hole in found:
        fixed = ", ".join(hole["fix_versions"]) or "no version"
        print(f"{each['name']} {each['version']}: {hole['id']}, fixed in {fixed}")
    looked = len(dependencies) - len(skipped)
    print(f"pip-audit looked up {looked} of {len(dependencies)} packages; known vulnerabilities: {len(found)}")
    if skipped:
        print(f"error: {len(skipped)} packages were not looked up, the first: {skipped[0]['skip_reason']}")
    return 1 if skipped or found or not dependencies else 0


def main(only: list[str]) -> int:
    """The command line; the exit status.

    Raises:
        SystemExit: an unknown part.
    """
    if unknown := [part for part in only if part not in ("licenses", "audit")]:
        raise SystemExit(f"ONLY: expected licenses or audit, got {unknown[0]}")
    if not only or "licenses" in only:
        packages = all_licensed()
        (ROOT / PAGE).write_text(render(packages), encoding="utf-8", newline="\n")
        odd = [each.name for found in packages.values() for each in found if not each.is_permissive]
        count = sum(map(len, packages.values()))
        print(f"written: {PAGE} ({count} packages, {len(odd)} of them not permissive: {', '.join(odd)})")
    return audit() if not only or "audit" in only else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
