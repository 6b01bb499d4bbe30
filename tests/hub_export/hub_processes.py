"""Python processes of their own, with an empty HF_HOME, against the Hub double."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.hub_double import WRITE_TOKEN
from tests.processes import CLEAN

ROOT = Path(__file__).parents[2]
WORKER = """
import json, logging, sys, time
from pathlib import Path
import huggingface_hub.utils._http as http
from huggingface_hub import hf_hub_download
from hub_export import push
from hub_export.client import HubClient, Target, plan_upload, publish, tag_version
def upload(folder, **target):
    hub, target = HubClient(), Target(**target)
    commit = publish(hub, plan_upload(hub, Path(folder), target))
    return {"commit": commit, "tag": tag_version(hub, target, commit)}
def fetch_config(hub, repo, commit, folder):  # in the place of the check that loads the whole model
    hub.call("loading", hf_hub_download, repo, "config.json", revision=commit, again=False, force_download=True)
http.time.sleep = lambda seconds: None  # of the module time: neither the client nor we wait between two tries
push.check_published = fetch_config
logging.basicConfig(format="%(message)s", level=logging.ERROR)
commands = {"upload": upload, "push": lambda **task: {"published": push.push(**task)}}
for line in sys.stdin:
    task = json.loads(line)
    try:
        answer = commands[task.pop("command")](**task)
    except ValueError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""


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
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=home,
        env=environment(hub, home, token=token, ours=ours),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class Worker:
    """One process that uploads or pushes as often as it is asked to, and does not wait between two tries."""

    def __init__(self, hub: str, home: Path) -> None:
        command = [sys.executable, "-c", WORKER]
        self.process = subprocess.Popen(
            command, cwd=home, env=environment(hub, home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def upload(self, folder: Path, **target: Any) -> dict[str, Any]:
        """Uploads a folder and tags it: `commit` and `tag`, or `error`."""
        return self._ask(command="upload", folder=str(folder), **{"repo": "alice/moons"} | target)

    def push(self, bundle: Path, **options: Any) -> dict[str, Any]:
        """Runs `push`, which then fetches the config only: `published`, or `error`."""
        return self._ask(command="push", run=str(bundle), repo="moons", **options)

    def _ask(self, **task: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
