"""The exact set: what requirements*.txt ask for, what the locks say, and what is in the documentation."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HASH = r"--hash=sha256:[0-9a-f]{64}"
RESOLVED = f"""\
accelerate==1.15.0 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via -r requirements.txt
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:{"c" * 64}
    # via pytest, tqdm
nvidia-cublas==13.1 ; sys_platform == 'linux' \\
    --hash=sha256:{"d" * 64}
    # via torch
pytest==9.2.0 \\
    --hash=sha256:{"e" * 64}
    # via -r requirements-dev.txt
torch==2.13.0 \\
    --hash=sha256:{"f" * 64}
    # via accelerate, -r requirements.txt
tqdm==4.70.1 \\
    --hash=sha256:{"0" * 64}
    # via accelerate
"""


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    """The program of `make lock`."""
    spec = importlib.util.spec_from_file_location("lock", ROOT / ".ci" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["lock"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def direct(file: str) -> list[Requirement]:
    """What a requirements file names."""
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def locked(file: str) -> dict[str, list[str]]:
    """The lines of each package in a lock file; of one version, whatever the platform."""
    text = (ROOT / file).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        found[canonicalize_name(block.split("==")[0])] = block.splitlines()
    return found


def version_of(lines: list[str]) -> str:
    return lines[0].split("==")[1].split()[0]


RANGES = ("requirements.txt", "requirements-readers.txt", "requirements-sweep.txt")
RANGES_DEV = ("requirements-trackers.txt", "requirements-dev.txt")
RUN, DEV, TORCH = locked("requirements.lock"), locked("requirements-dev.lock"), locked("requirements-torch.lock")


@pytest.mark.parametrize(
    "requirement", [one for file in RANGES for one in direct(file)], ids=lambda requirement: requirement.name
)
def test_the_upper_end_of_a_range_is_the_version_that_was_run(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    exact = version_of((TORCH if name == "torch" else RUN)[name])
    ends = {one.operator: one.version for one in requirement.specifier}
    assert exact in requirement.specifier
    assert ends == {"==": exact} if name == "torch" else {*ends} == {">=", "<="}
    assert ends.get("<=", exact) == exact, "make lock sets it"


def test_all_that_is_asked_for_is_locked_once() -> None:
    assert {canonicalize_name(one.name) for file in RANGES for one in direct(file)} <= {*RUN, "torch"}
    for one in (one for file in RANGES_DEV for one in direct(file)):
        assert version_of((RUN | DEV)[canonicalize_name(one.name)]) in one.specifier
    assert not RUN.keys() & DEV.keys()
    assert not TORCH.keys() & {*RUN, *DEV}


def test_every_package_has_its_hashes_except_those_whose_builds_differ() -> None:
    for name, lines in (RUN | DEV).items():
        hashes = [line for line in lines[1:] if not line.strip().startswith("#")]
        assert hashes, name
        assert all(re.fullmatch(rf"    {HASH}( \\)?", line) for line in hashes), name
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)? \\", lines[0]), lines[0]
        assert not re.fullmatch(r"torch|triton|(nvidia|cuda)-.+", name)
    assert {"torch", "triton", "nvidia-cublas"} <= TORCH.keys()
    assert not any("--hash" in line for lines in TORCH.values() for line in lines)
    assert {"sympy", "networkx", "setuptools", "typing-extensions"} <= RUN.keys(), "torch needs them on every machine"


def test_each_dependency_has_its_reason() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    named = {canonicalize_name(name) for name in re.findall(r"^\| `([\w-]+)` \| \S", text, flags=re.MULTILINE)}
    assert named == {canonicalize_name(r.name) for file in (*RANGES, *RANGES_DEV) for r in direct(file)}


def test_the_versions_of_the_project_and_of_transformers_stand_in_one_way() -> None:
    from modeling import configuration_scratchgpt as remote

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == remote.CODE_VERSION
    assert version_of(RUN["transformers"]) == remote.NEWEST_TRANSFORMERS


def test_a_lock_is_split_by_who_needs_what(lock: ModuleType) -> None:
    files = {file: [p.name for p in found] for file, found in lock.split_packages(lock.parse_lock(RESOLVED)).items()}
    assert files == {
        "requirements.lock": ["accelerate", "colorama", "tqdm"],
        "requirements-dev.lock": ["pytest"],
        "requirements-torch.lock": ["nvidia-cublas", "torch"],
    }
    written = {file: lock.render(file, found) for file, found in lock.split_packages(lock.parse_lock(RESOLVED)).items()}
    assert written["requirements.lock"].splitlines()[1:5] == RESOLVED.splitlines()[:4]
    assert written["requirements-torch.lock"].splitlines()[1] == "nvidia-cublas==13.1 ; sys_platform == 'linux'"
    again = [package for text in written.values() for package in lock.parse_lock(text)]
    assert {(p.name, p.version, p.text) for p in again} == {
        (p.name, p.version, p.text) for p in lock.parse_lock(RESOLVED)
    }


def test_upper_ends_are_lifted_for_an_upgrade_and_set_to_what_is_locked(lock: ModuleType) -> None:
    ranges = "# why\ntorch==2.13.0\naccelerate>=1.10,<=1.15.0\nhuggingface_hub>=1.31,!=2.0,<=2.4.0  # a reason\ntqdm\n"
    assert "accelerate>=1.10\n" in lock.without_upper_ends(ranges, {"accelerate"})
    assert "<=2.4.0" in lock.without_upper_ends(ranges, {"accelerate"})
    assert "<=" not in lock.without_upper_ends(ranges, None)
    versions = {"torch": "2.14.0", "accelerate": "1.16.0", "huggingface-hub": "2.5.0", "tqdm": "4.70.1"}
    assert lock.with_upper_ends(lock.without_upper_ends(ranges, None), versions).splitlines() == [
        "# why",
        "torch==2.13.0",
        "accelerate>=1.10,<=1.16.0",
        "huggingface_hub>=1.31,!=2.0,<=2.5.0  # a reason",
        "tqdm<=4.70.1",
    ]


def test_make_lock_writes_what_changed_and_says_so(
    lock: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\naccelerate>=1.10\n")
    (tmp_path / "requirements-dev.txt").write_text("pytest>=9\n")
    for name in ("requirements-readers.txt", "requirements-sweep.txt", "requirements-trackers.txt"):
        (tmp_path / name).write_text("")
    asked: list[list[str]] = []

    def resolve(texts: dict[str, str], before: str, upgrade: list[str]) -> str:
        asked.append([texts["requirements.txt"], *upgrade])
        return RESOLVED

    monkeypatch.setattr(lock, "resolve", resolve)  # the one part that needs the network
    lock.main([], tmp_path)
    said = capsys.readouterr().out
    assert "  tqdm: not there -> 4.70.1\n" in said
    assert (
        "written: requirements.lock, requirements-dev.lock, requirements-torch.lock, requirements.txt (3 packages"
        in said
    )
    assert (tmp_path / "requirements.txt").read_text() == "torch==2.13.0\naccelerate>=1.10,<=1.15.0\n"
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    lock.main(["accelerate"], tmp_path)
    assert "nothing changed (3 packages to run, 1 more to test, 2 of torch)" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    assert asked == [
        ["torch==2.13.0\naccelerate>=1.10\n"],
        ["torch==2.13.0\naccelerate>=1.10\n", "accelerate"],  # its upper end is lifted again
    ]
    with pytest.raises(SystemExit, match=r"UPGRADE: expected packages that are locked, or all; got gradoi"):
        lock.main(["gradoi"], tmp_path)


@pytest.mark.slow
def test_without_a_network_nothing_is_written(tmp_path: Path) -> None:
    for file in (*RANGES, *RANGES_DEV):
        (tmp_path / file).write_text("tqdm\n")
    program = f"import runpy, pathlib; runpy.run_path({str(ROOT / '.ci/lock.py')!r})['main']([], pathlib.Path('.'))"
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=offline,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"error: uv==\S+ could not be fetched; is there a network\? Nothing was written\.", done.stderr)
    assert {path.name for path in tmp_path.iterdir()} == {*RANGES, *RANGES_DEV}


@pytest.mark.slow
def test_make_lock_changes_nothing_where_nothing_changed(lock: ModuleType, tmp_path: Path) -> None:
    names = [path.name for path in ROOT.glob("requirements*")]
    for name in names:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    lock.main([], tmp_path)  # needs the network
    assert {name: (tmp_path / name).read_bytes() for name in names} == {
        name: (ROOT / name).read_bytes() for name in names
    }
