"""A check run in a process of its own, which knows nothing of this project, of the user's caches or account."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# What would lead the fresh process back to this project, to the user's caches or to the user's account.
_FOREIGN_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHON", "PYTORCH_", "TORCH")


# An installed project would hide what a folder fails to bring along; None in sys.modules makes an import fail.
_OWN_PACKAGES = ("storage", "corpus", "modeling", "tokenization", "train", "hub_export", "panels")
_START = f"""\
import runpy, sys
sys.modules.update(dict.fromkeys({_OWN_PACKAGES}))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_fresh(script: Path, scratch: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Runs `script` with the path of a task file as its argument, and returns the report it wrote.

    The process has an empty HF_HOME, no network for Hugging Face's libraries, another working directory, no token, and
    cannot import this project, installed or not.

    Args:
        script: a Python file that imports nothing of ours, reads the task, and writes `report.json` beside it.
        scratch: an empty folder; the task goes there, and it is the working directory.
        task: what the script reads as JSON.

    Raises:
        ValueError: the process ended without a report; the message has the end of what it printed.
    """
    path = scratch / "task.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)}
    environment |= {
        "HF_HOME": str(scratch / "hf_home"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-P", "-c", _START, str(script), str(path)]
    done = subprocess.run(
        command, cwd=scratch, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    report = scratch / "report.json"
    if not report.is_file():
        raise ValueError(
            f"expected the checking process to report, but it ended with status {done.returncode}: "
            f"{done.stderr.strip()[-500:] or 'no message'}. Is there enough memory to load the model twice more?"
        )
    return json.loads(report.read_text(encoding="utf-8"))
