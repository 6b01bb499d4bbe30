"""The project's own commands in an environment where one library has another version: does all still work?

Each stage is a command that a user gives, in a process of the environment. The Hub is the tests' own, over HTTP.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.compat.environments import Environment, variables_for
from tests.compat.versions import ROOT
from tests.hub_double import WRITE_TOKEN, Hub
from tests.processes import running_page

REPO, DATASET = "alice/compat", "alice/rows"
PROMPT = "About Albert"
SECONDS = 300.0
SAVE_AND_LOAD = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from tokenization import ScratchGPTTokenizer, encode_corpus, save_tokenizer
bundle, saved = sys.argv[1:]
text = "A tale of Ada, the 42 millers;\\n and it's done."
slow = ScratchGPTTokenizer.from_pretrained(Path(bundle) / "slow")
fast = AutoTokenizer.from_pretrained(bundle, trust_remote_code=False)
save_tokenizer(slow, saved)
again = AutoTokenizer.from_pretrained(saved, trust_remote_code=False)
ids = slow(text)["input_ids"]
assert fast(text)["input_ids"] == again(text)["input_ids"] == ids, (fast(text), again(text), ids)
assert fast.decode(ids) == slow.decode(ids) == text, fast.decode(ids)
assert [part.tolist() for part in encode_corpus(slow, [text])][0][: len(ids)] == ids
"""
ASK = """
import sys
from gradio_client import Client
address, prompt = sys.argv[1:]
client = Client(address, verbose=False)
said = client.predict(prompt, max_new_tokens=20, temperature=0.8, seed=5, api_name="/generate")
again = client.predict(prompt, max_new_tokens=20, temperature=0.8, seed=5, api_name="/generate")
assert said == again and said.startswith(prompt) and len(said) > len(prompt), (said, again)
"""


class Project:
    """The commands, in one environment and one folder; `stages` are run in order, and each needs those before it."""

    def __init__(self, environment: Environment, scratch: Path) -> None:
        self.environment, self.scratch = environment, scratch
        self.run_folder, self.bundle = scratch / "run", scratch / "bundle"
        self.stages: dict[str, Callable[[], None]] = {
            "train": self.train,
            "bundle": self.export,
            "tokenizer": self.tokenizer,
            "push": self.push,
            "data set": self.data_set,
            "page": self.page,
        }

    def run_all(self) -> list[dict[str, Any]]:
        """An outcome for each stage, in the form of the checks of a version."""
        outcomes = []
        for name, stage in self.stages.items():
            outcome: dict[str, Any] = {"bundle": "project", "check": name, "group": name, "passed": True}
            try:
                stage()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                outcome |= {"passed": False, "error": f"{error}"[-600:]}
            outcomes.append(outcome)
        return outcomes

    def train(self) -> None:
        """A few steps of the debug recipe."""
        self.python("-m", "train", "debug", "--steps", "5", "--run-dir", self.run_folder)
        assert json.loads((self.run_folder / "run.json").read_text("utf-8"))["status"] == "finished"

    def export(self) -> None:
        """The bundle, with its check."""
        self.python("-m", "hub_export", "bundle", self.run_folder, "--out", self.bundle)

    def tokenizer(self) -> None:
        """Texts to ids and back, by both tokenizers, saved and loaded."""
        self.python("-c", SAVE_AND_LOAD, self.bundle, self.scratch / "tokenizer")

    def push(self) -> None:
        """The bundle goes to a Hub, and is loaded from there."""
        with Hub().serve() as hub:
            online = self.online(hub.url) | {"HF_TOKEN": WRITE_TOKEN}
            self.python("-m", "hub_export", "push", self.bundle, "--repo", REPO, online=online)
            files = hub.repositories[REPO].files
            assert {"config.json", "model.safetensors", "README.md"} <= set(files), sorted(files)
            assert list(hub.repositories[REPO].tags) == ["v1"], hub.repositories[REPO].tags

    def data_set(self) -> None:
        """A run on a data set of a Hub; and the message where there is no such data set, or no Hub."""
        rows = [f"Row {number} tells of a {animal}." for animal in ("fox", "hen", "cat") for number in range(200)]
        content = b"".join(json.dumps({"text": row}).encode() + b"\n" for row in rows)
        command = ("-m", "train", "debug", "--steps", "2", "--corpus.source", "hub", "--corpus.dataset")
        with Hub().serve() as hub:
            hub.create(f"datasets/{DATASET}", {"train.jsonl": content})
            online = self.online(hub.url)
            self.python(*command, DATASET, "--run-dir", self.scratch / "hub-run", online=online)
            said = self.python(*command, "alice/nothing", "--run-dir", self.scratch / "none", fails=True, online=online)
            assert "expected a data set of the Hub or a folder" in said, said[-400:]
        said = self.python(*command, DATASET, "--run-dir", self.scratch / "dead", fails=True, online=online)
        assert "the Hub cannot be reached" in said, said[-400:]

    def page(self) -> None:
        """The page starts, and answers `/generate`."""
        page = (self.environment.python, ROOT / "app.py", "--model", self.bundle)
        places = {"folder": self.scratch, "log": self.scratch / "page.txt"}
        with running_page(*page, environment=variables_for(self.scratch), seconds=SECONDS, **places) as address:
            self.python("-c", ASK, address, PROMPT)

    def python(self, *arguments: object, fails: bool = False, online: dict[str, str] | None = None) -> str:
        """Run the environment's Python so that it finds this project; returns what it wrote.

        Raises:
            AssertionError: it failed, or with `fails` it did not.
            subprocess.TimeoutExpired: it took too long.
        """
        variables = {"PYTHONPATH": str(ROOT)} | (online or {})
        done = self.environment.run(*arguments, scratch=self.scratch, timeout=SECONDS, **variables)
        said = done.stderr + done.stdout
        assert bool(done.returncode) == fails, f"status {done.returncode}: {said.strip()[-500:]}"
        return said

    @staticmethod
    def online(url: str) -> dict[str, str]:
        """Variables that lead to the Hub at `url`."""
        return {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1,localhost"}
