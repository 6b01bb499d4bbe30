"""Renews requirements*.lock: the exact version of every package that `make demo`, `make test` and CI install.

    make lock                              follows requirements*.txt; a version that is locked stays if it may
    make lock UPGRADE="gradio datasets"    also takes the newest of these, whatever their upper ends say
    make lock UPGRADE=all                  takes the newest of everything

uv resolves for every platform and for every Python from 3.11 on. torch and CUDA's libraries go into a file of their
own, without hashes, since torch's builds differ. The upper ends in requirements.txt become the locked versions. This
needs only the standard library, and uv comes into a temporary environment: a lock that installs nowhere can be fixed.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = "uv==0.13.9"
RANGES = ("requirements.txt", "requirements-readers.txt", "requirements-sweep.txt")  # what `make demo` installs
RANGES_DEV = ("requirements-trackers.txt", "requirements-dev.txt")
LOCK, LOCK_DEV, LOCK_TORCH = "requirements.lock", "requirements-dev.lock", "requirements-torch.lock"
OWN_BUILDS = r"torch|triton|(nvidia|cuda)-.+"  # one version, several builds: no hash is right on every machine
HEADERS = {
    LOCK: "What running needs, exactly, with hashes. `make lock` writes this file; docs/dependencies.md explains it.",
    LOCK_DEV: "What tests and checks need beside requirements.lock. `make lock` writes this file.",
    LOCK_TORCH: "torch, and what its build for CUDA needs: limits for pip, no hashes. `make lock` writes this file.",
}


@dataclass(frozen=True, slots=True)
class Locked:
    """A package in a lock."""

    name: str  # normalised
    version: str
    text: str  # the requirement line, without hashes
    hashes: tuple[str, ...]
    parents: tuple[str, ...]  # who asks for it: packages, or `-r FILE`


def parse_lock(text: str) -> list[Locked]:
    """The packages in a lock file, in the file's order."""
    found = []
    for block in re.split(r"^(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE):
        if match := re.match(r"([\w.-]+)==([^\s;]+)[^\\\n#]*", block):
            parents = re.search(r"# via (.*)", block)
            found.append(
                Locked(
                    name=normalised(match[1]),
                    version=match[2],
                    text=match[0].strip(),
                    hashes=tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)),
                    parents=tuple(parents[1].split(", ")) if parents else (),
                )
            )
    return found


def normalised(name: str) -> str:
    """A package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def split_packages(packages: list[Locked]) -> dict[str, list[Locked]]:
    """Which lock each package belongs to: what running needs, what only tests and checks need, torch's own builds."""
    running = {f"-r {file}" for file in RANGES}
    while more := {p.name for p in packages if running & set(p.parents)} - running:
        running |= more
    files: dict[str, list[Locked]] = {LOCK: [], LOCK_DEV: [], LOCK_TORCH: []}
    for package in packages:
        own_build = re.fullmatch(OWN_BUILDS, package.name)
        files[LOCK_TORCH if own_build else LOCK if package.name in running else LOCK_DEV].append(package)
    return files


def render(file: str, packages: list[Locked]) -> str:
    """The text of a lock file."""
    lines = [f"# {HEADERS[file]}"]
    for package in packages:
        hashes = () if file == LOCK_TORCH else package.hashes
        lines.append(" \\\n    ".join([package.text, *(f"--hash={one}" for one in hashes)]))
        lines.append(f"    # via {', '.join(package.parents)}")
    return "\n".join([*lines, ""])


def without_upper_ends(ranges: str, names: set[str] | None) -> str:
    """A requirements file in which the named packages (None: all) may be of any newer version."""

    def lifted(match: re.Match[str]) -> str:
        return re.sub(r",?<=[^,\s;#]+", "", match[0]) if names is None or normalised(match[1]) in names else match[0]

    return re.sub(r"^([A-Za-z0-9][\w.-]*).*", lifted, ranges, flags=re.MULTILINE)


def with_upper_ends(ranges: str, versions: dict[str, str]) -> str:
    """A requirements file whose upper ends are the locked versions; an exact version stays."""

    def capped(match: re.Match[str]) -> str:
        if "==" in match[2] or normalised(match[1]) not in versions:
            return match[0]
        kept = [part for part in match[2].split(",") if part and not part.startswith("<=")]
        return match[1] + ",".join([*kept, f"<={versions[normalised(match[1])]}"])

    return re.sub(r"^([A-Za-z0-9][\w.-]*)([^\s;#]*)", capped, ranges, flags=re.MULTILINE)


def resolve(texts: dict[str, str], before: str, upgrade: list[str]) -> str:
    """One lock of everything that requirements files name, by uv.

    Args:
        texts: the requirements files by name.
        before: locks whose versions are kept where possible.
        upgrade: packages to take the newest of; `all` for everything.

    Raises:
        SystemExit: uv cannot be fetched, or finds no set that fits; nothing has been written.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "all.lock").write_text(before, encoding="utf-8")
        python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        _run([sys.executable, "-m", "venv", "venv"], folder, "No virtual environment could be made.")
        fetch = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV]
        _run(fetch, folder, f"{UV} could not be fetched; is there a network?")
        command = [python, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--no-header"]
        command += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
        command += ["--generate-hashes", "--annotation-style", "line", "--output-file", "all.lock", *texts]
        command += ["--upgrade"] if upgrade == ["all"] else [f"--upgrade-package={name}" for name in upgrade]
        _run(command, folder, "No set of versions fits (uv's reason is above); change the ranges.")
        return (folder / "all.lock").read_text(encoding="utf-8")


def changes(before: list[Locked], after: list[Locked]) -> list[str]:
    """A line for each difference between two sets."""
    old, new = ({p.name: p.version for p in packages} for packages in (before, after))
    return [
        f"  {name}: {old.get(name, 'not there')} -> {new.get(name, 'gone')}"
        for name in sorted(old | new)
        if old.get(name) != new.get(name)
    ]


def main(upgrade: list[str], root: Path = ROOT) -> None:
    """Renew the locks; `upgrade` names packages to take the newest of, or is `["all"]`."""
    before = "".join(_read(root / file) for file in HEADERS)
    known = {package.name for package in parse_lock(before)}
    upgrade = ["all"] if "all" in upgrade else [normalised(name) for name in upgrade]
    if unknown := set(upgrade) - known - {"all"}:
        raise SystemExit(f"error: UPGRADE: expected packages that are locked, or all; got {', '.join(sorted(unknown))}")
    ranges = {file: (root / file).read_text(encoding="utf-8") for file in (*RANGES, *RANGES_DEV)}
    names = None if upgrade == ["all"] else set(upgrade)
    lifted = {file: without_upper_ends(ranges[file], names) for file in RANGES}
    print(f"resolving {', '.join(ranges)} for every platform and Python from 3.11 on, with {UV}", flush=True)
    packages = parse_lock(resolve(ranges | lifted, before, upgrade))
    files = split_packages(packages)
    versions = {package.name: package.version for package in packages}
    texts = {file: render(file, content) for file, content in files.items()}
    texts |= {file: with_upper_ends(ranges[file], versions) for file in RANGES}
    changed = {file: text for file, text in texts.items() if _read(root / file) != text}
    for file, text in changed.items():
        (root / f"{file}.new").write_text(text, encoding="utf-8", newline="\n")
    for file in changed:  # each in one step
        (root / f"{file}.new").replace(root / file)
    if changed:
        print(*changes(parse_lock(before), packages), sep="\n")
    run, dev, torch = (len(files[file]) for file in (LOCK, LOCK_DEV, LOCK_TORCH))
    counts = f"{run} packages to run, {dev} more to test, {torch} of torch"
    if changed:
        print(f"written: {', '.join(changed)} ({counts}). Now: make test checks compat; then commit them together.")
    else:
        print(f"nothing changed ({counts})")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _run(command: list, folder: Path, failure: str) -> None:
    if subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"error: {failure} Nothing was written.")


if __name__ == "__main__":
    main(sys.argv[1:])
