"""One run of the checks: an environment, the process in it, and the report, which is kept for the next time."""

import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from packaging.specifiers import SpecifierSet

from modeling.configuration_scratchgpt import LOWEST_TRANSFORMERS
from storage.files import atomic_file
from tests.compat.bundles import SOURCES, bundles_key, digest, make_bundles
from tests.compat.environments import Environment, closure, environment, link_packages, site_packages
from tests.compat.project import Project
from tests.compat.versions import ROOT

HERE = Path(__file__).parent
SECONDS = 900.0
"""The longest that the checks of one version may take."""


class Runner:
    """Runs versions of transformers and of other libraries, with what they share.

    cache: folder for the bundles, the results and what environments share; `work`: where environments are made.
    keep: environments stay; again: results that were kept are not taken.
    """

    def __init__(self, cache: Path, work: Path, *, keep: bool = False, again: bool = False) -> None:
        self.cache, self.work, self.keep, self.again = cache, work.resolve(), keep, again
        self.work.mkdir(parents=True, exist_ok=True)

    @cached_property
    def bundles(self) -> list[Path]:
        """The bundles that are checked, made when they are first asked for."""
        print("making three bundles to check, once for each state of the code …", file=sys.stderr, flush=True)
        return make_bundles(self.cache)

    def version(self, version: str, *, too_old: bool = False) -> dict[str, Any]:
        """The report of the checks with a version of transformers.

        Raises:
            OSError: pip cannot install it, or the bundles cannot be made.
        """
        kept = self.cache / "results" / bundles_key(self.bundles) / f"{version}{'-too-old' * too_old}.json"
        return self._kept(kept) or self._keep(kept, self._run_version(version, too_old))

    def library(self, name: str, specifier: str) -> dict[str, Any]:
        """The report of the project's own commands with another version of a library, the newest of a specifier.

        Where that is the one installed here, nothing is; and one run stands for all such libraries.

        Raises:
            OSError: pip cannot install it.
        """
        installed = importlib.metadata.version(name)
        is_here = specifier.startswith("==") and SpecifierSet(specifier).contains(installed)
        packages = [] if is_here else [f"{name}{specifier}"]
        label = re.sub(r"[^\w.=]", "_", "".join(packages)) or "as-installed"
        kept = self.cache / "results" / project_key() / f"{label}.json"
        report = self._kept(kept) or self._keep(kept, self._run_project(label, packages))
        report["packages"].setdefault(name, installed)
        return report | {"library": name}

    def _run_version(self, version: str, too_old: bool) -> dict[str, Any]:
        shared = self._shared_torch()
        packages = [f"transformers=={version}", "accelerate"]
        with environment(self.work / version, shared, packages, keep=self.keep) as made, self._scratch() as scratch:
            task = {
                "bundles": [*map(str, self.bundles)],
                "scratch": str(scratch / "scratch"),
                "too_old": too_old,
                "lowest": LOWEST_TRANSFORMERS,
            }
            (scratch / "scratch").mkdir()
            (scratch / "task.json").write_text(json.dumps(task), encoding="utf-8")
            started = time.monotonic()
            try:
                done = made.run(
                    "-s", HERE / "inside" / "run.py", scratch / "task.json", scratch=scratch, timeout=SECONDS
                )
                wrong = f"no report, status {done.returncode}: {done.stderr.strip()[-400:]}"
            except subprocess.TimeoutExpired:
                wrong = f"no report after {SECONDS:.0f} s"
            if (scratch / "report.json").exists():
                return json.loads((scratch / "report.json").read_text(encoding="utf-8"))
        outcome = {"bundle": "all", "check": "start", "group": "load", "passed": False, "error": wrong}
        return {"checks": [outcome], "packages": {"transformers": version}, "seconds": time.monotonic() - started}

    def _run_project(self, label: str, packages: list[str]) -> dict[str, Any]:
        started = time.monotonic()
        with (
            environment(self.work / label, site_packages(), packages, keep=self.keep) as made,
            self._scratch() as scratch,
        ):
            checks = Project(made, scratch).run_all()
            own = own_packages(made, scratch)
        return {"checks": checks, "packages": own, "seconds": round(time.monotonic() - started, 1)}

    def _shared_torch(self) -> Path:
        """A folder that offers torch and what it needs, and nothing else of this environment."""
        names = closure(("torch",))
        state = hashlib.sha256(f"{sorted(names)}{site_packages()}{torch.__version__}".encode()).hexdigest()[:8]
        folder = self.work / f"torch-{state}"
        if not folder.exists():
            unfinished = self.work / f"torch-{state}-unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            link_packages(names, unfinished)
            unfinished.rename(folder)
        return folder

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="compat-", dir=self.cache.resolve()) as folder:
            yield Path(folder)

    def _kept(self, path: Path) -> dict[str, Any] | None:
        if self.again or not path.exists():
            return None
        return json.loads(path.read_text(encoding="utf-8")) | {"kept": True}

    def _keep(self, path: Path, report: dict[str, Any]) -> dict[str, Any]:
        with atomic_file(path) as file:
            json.dump(report, file, indent=1)
        return report | {"kept": False}


def own_packages(made: Environment, scratch: Path) -> dict[str, str]:
    """The versions of the packages that pip put into an environment."""
    code = (
        "import importlib.metadata, json, sysconfig\n"
        "own = importlib.metadata.distributions(path=[sysconfig.get_path('purelib')])\n"
        "print(json.dumps({found.metadata['Name']: found.version for found in own}))"
    )
    return json.loads(made.run("-c", code, scratch=scratch, timeout=60).stdout)


def project_key() -> str:
    """A hash over the project's own code and requirements, and how it is run here."""
    files = [path for name in (*SOURCES, "panels") for path in (ROOT / name).rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix != ".pyc"]
    files += [ROOT / "app.py", ROOT / "requirements.txt", HERE / "project.py", HERE / "environments.py"]
    return f"project-{digest(files, ROOT)}-{hashlib.sha256(sys.version.encode()).hexdigest()[:4]}"
