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
from huggingface_hub import HfApi
from hub_export.client import Conversation
from hub_export.upload import Target, plan_upload, publish, tag_version
http.time.sleep = lambda seconds: None  # of the module time: neither the client nor we wait between two tries
logging.basicConfig(format="%(message)s", level=logging.ERROR)
for line in sys.stdin:
    task = json.loads(line)
    folder, target = Path(task.pop("folder")), Target(**task)
    hub = Conversation(api=HfApi())
    try:
        commit = publish(hub, plan_upload(hub, folder, target))
        answer = {"commit": commit, "tag": tag_version(hub, target, commit), "tries": hub.tries}
    except ValueError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""

PUBLISHER = """
import json, logging, shutil, sys, time
from pathlib import Path
from types import SimpleNamespace
import huggingface_hub.utils._http as http
from huggingface_hub import constants, hf_hub_download
from hub_export import landing, push as pushing
http.time.sleep = lambda seconds: None  # of the module time: neither the client nor we wait between two tries
logging.basicConfig(format="%(message)s", level=logging.ERROR)
def look(task, checks):  # two requests in the place of the proof that the model can be had
    hf_hub_download(task["repo"], "config.json", revision=task["revision"])
if sys.argv[1] == "look":
    landing._load = look
def land(command, **_):  # here instead of in a process of its own
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    for name in [name for name in sys.modules if name.startswith("transformers_modules.")]:
        del sys.modules[name]
    sys.argv = command[2:]
    return SimpleNamespace(returncode=landing.main(), stderr="")
pushing.subprocess = SimpleNamespace(run=land, DEVNULL=None)
tasks, answers, sys.stdin, sys.stdout = sys.stdin, sys.stdout, open("/dev/null"), sys.stderr
for line in tasks:
    try:
        answer = {"said": pushing.push(**json.loads(line))}
    except ValueError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True, file=answers)
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


class Pusher:
    """One process that uploads as often as it is asked to, and does not wait between two tries."""

    script = WORKER

    def __init__(self, hub: str, home: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", self.script, *arguments]
        self.process = subprocess.Popen(
            command, cwd=home, env=environment(hub, home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def push(self, folder: Path, repo: str, **target: Any) -> dict[str, Any]:
        """Uploads and tags; what came of it: `commit`, `tag` and `tries`, or `error`."""
        return self.ask(folder=str(folder), repo=repo, **target)

    def ask(self, **task: Any) -> dict[str, Any]:
        """What the process answers to a task."""
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


class Publisher(Pusher):
    """One process that runs the whole of `push` as often as it is asked to: `said`, or `error`.

    With the argument `load` the model is loaded from the Hub after the upload; with `look` its config is fetched only.
    """

    script = PUBLISHER
