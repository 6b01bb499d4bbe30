"""Publishing a finished run, by the export's own command: training and export meet only in the run folder."""

import os
import subprocess
import sys
from pathlib import Path

from storage.run_folder import RunFolder

ROOT = Path(__file__).parents[1]


def check_account(repo: str) -> None:
    """Ask the Hub, before hours go into training, whether a run may be published under this name.

    Raises:
        ValueError: it may not; the export's command has said why.
    """
    if _run("account", "--repo", repo):
        raise ValueError(
            f"--push {repo}: cannot be published, as the line above says. Fix that, or train without --push and "
            "publish later with `python -m hub_export push RUN --repo NAME`"
        )


def publish(run_dir: Path, repo: str) -> None:
    """Publish the best checkpoint of a run, unless the run was stopped before its end.

    Raises:
        ValueError: it was not published; the export's command has said what is on the Hub now.
    """
    status = RunFolder(run_dir).state.get("status")
    if status != "finished":
        print(f"{run_dir}: not published, since the run is not finished ({status}); continue it with --resume")
        return
    if _run("push", str(run_dir.resolve()), "--repo", repo):
        raise ValueError(
            f"{run_dir}: the run is finished and complete, but was not published. When that is fixed: "
            f"`python -m hub_export push {run_dir} --repo {repo}`"
        )


def is_first_process() -> bool:
    """Whether this is the process that publishes, where `accelerate launch` has started several."""
    return os.environ.get("RANK", "0") == "0"


def _run(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "hub_export", *words], cwd=ROOT, check=False).returncode
