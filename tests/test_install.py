"""What is shown while pip installs, and that nothing of its errors is lost."""

import hashlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / ".ci" / "install.py"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    """The program."""
    spec = importlib.util.spec_from_file_location("install", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def before_time(line: str) -> str:
    """A line up to the time, which is minutes and seconds."""
    assert re.fullmatch(r".+, \d+:\d\d", line)
    return line.rpartition(", ")[0]


def test_packages_megabytes_and_time(install: ModuleType, tmp_path: Path) -> None:
    lock, wheel = tmp_path / "a.lock", tmp_path / "tqdm-4.70.1-py3-none-any.whl"
    lock.write_text(
        "# why\nnumpy==2.4.6 \\\n    --hash=sha256:00\ncolorama==0.4.6 ; sys_platform == 'win32' \\\ntqdm==4.70.1\n"
    )
    wheel.write_bytes(bytes(2_000_000))
    site = tmp_path / "site"
    (site / "old-1.dist-info").mkdir(parents=True)
    total = install.locked(["pip", "install", "-r", str(lock)])
    assert total == 3
    progress = install.Progress(total, site)
    progress._since += 60  # what is there was there before
    assert before_time(progress.line()) == "looking for packages, 0 MB"
    for line in (
        "Ignoring colorama: markers 'sys_platform == \"win32\"' don't match your environment",
        "Collecting numpy==2.4.6 (from -r a.lock (line 2))",
        "  Downloading numpy-2.4.6-cp311.whl.metadata (62 kB)",
        "  Downloading https://example.org/numpy-2.4.6-cp311-manylinux.whl (16.5 MB)",
    ):
        progress.read(line + "\n")
    assert before_time(progress.line()) == "fetching: 1 of 2 packages (now numpy, 16.5 MB), 16 MB"
    progress.read(f"Processing {wheel} (from -r a.lock (line 5))\n")
    assert before_time(progress.line()) == "fetching: 2 of 2 packages (now tqdm, 2.0 MB), 18 MB"
    progress.read("Installing collected packages: tqdm, numpy\n")
    assert before_time(progress.line()) == "installing: 0 of 2 packages, 18 MB"
    progress._since -= 60
    (site / "tqdm-4.70.1.dist-info").mkdir()
    (site / "old-1.dist-info").rmdir()
    assert before_time(progress.line()) == "installing: 1 of 2 packages, 18 MB"
    assert before_time(progress.summary()) == "installed: 1 package, 18 MB"


def test_pips_errors_are_seen_and_its_exit_status_is_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "nowhere==1"]
    done = subprocess.run([sys.executable, PROGRAM, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No matching distribution found for nowhere==1" in done.stderr
    assert str(tmp_path) in done.stdout  # what it said before
    assert "installed" not in done.stdout


def test_it_needs_nothing_that_is_to_be_installed() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected a command of pip")


def test_every_lock_with_hashes_is_installed_by_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installing = [line for line in makefile.splitlines() if re.search(r"\s-r \S+\.lock\b", line)]
    assert [re.findall(r"-r (\S+)", line) for line in installing] == [["requirements.lock"], ["requirements-dev.lock"]]
    assert all("--no-deps --require-hashes " in line for line in installing)


@pytest.mark.parametrize("is_right", [True, False])
def test_pip_refuses_a_file_of_another_hash(tmp_path: Path, is_right: bool) -> None:
    wheel = tmp_path / "tiny_package-1.0-py3-none-any.whl"
    info = "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    checksum = hashlib.sha256(wheel.read_bytes()).hexdigest() if is_right else "0" * 64
    (tmp_path / "a.lock").write_text(f"tiny-package==1.0 \\\n    --hash=sha256:{checksum}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-index", "--find-links", str(tmp_path), "--no-deps"]
    command += ["--require-hashes", "-r", str(tmp_path / "a.lock"), "-d", str(tmp_path / "got")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == is_right, done.stderr
    assert ("THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr) != is_right
    assert (tmp_path / "got" / wheel.name).is_file() == is_right
