"""Python processes of their own, with an empty HF_HOME, against the Hub double."""

import os
import subprocess
from pathlib import Path

from tests.hub_double import WRITE_TOKEN
from tests.processes import CLEAN, Python

ROOT = Path(__file__).parents[2]


def environment(hub: str, home: Path, *, token: str | None = WRITE_TOKEN, ours: bool = True) -> dict[str, str]:
    """Nothing of the Hub but the double at `hub` and an empty HF_HOME; only with `ours` is this project importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    kept |= {"HF_ENDPOINT": hub, "HF_HOME": str(home / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1,localhost"}
    kept |= {"HF_TOKEN": token} if token else {}
    return kept | {"PYTHONPATH": str(ROOT) if ours else CLEAN}


def run_python(
    *arguments: str | Path, hub: str, home: Path, token: str | None = WRITE_TOKEN, ours: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs Python elsewhere, against the Hub at `hub`; only with `ours` can it import this project."""
    return Python(home, environment(hub, home, token=token, ours=ours)).run(*map(str, arguments))
