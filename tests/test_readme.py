"""Every command of the README runs, as it stands there, in a copy of the project; flags make it small.

`make` and the page run as anybody starts them. What computes with torch in between runs in processes forked from one
that has imported torch and transformers, and nothing of this project: that saves five seconds for each.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_double import WRITE_TOKEN, Hub
from tests.processes import Python
from tests.serving import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BOOK = "One day the fox went to the mill. It was closed. So he sat by the river and sang to the moon.\n\n" * 60

SMALL = (
    "--steps 4 --tokenizer.vocab-size 300 --model.hidden-size 16 --model.intermediate-size 32 --model.head-dim 4 "
    "--model.num-hidden-layers 1 --model.max-position-embeddings 64 --data.batch-size 2 --run.sample-tokens 4"
)
SLOW = {"make demo CORPUS=books/"}  # as `make demo`, with the options of `python -m train modern` below
DEMO = "RECIPE=debug PORT={port} -o .venv/ready"
ADDED = {
    "make demo": DEMO,
    "make test": "-n",
    "make demo CORPUS=books/": DEMO,
    "python -m train --list": "",
    "python -m train modern --corpus books/ --minutes 20": SMALL.replace("--steps 4", "--plan"),
    "python -m train modern --corpus books/ --plan": SMALL,
    "python -m train modern --corpus books/ --run-dir runs/mine": SMALL,
    "python -m train modern --corpus books/ --run-dir runs/mine --resume": SMALL.replace("--steps 4", "--steps 6"),
    "python -m train.evaluate runs/mine --text unseen.txt": "",
    "python app.py --model runs/mine": "--port {port}",
    "python app.py --model runs/mine --terminal": "--max-new-tokens 5",
    "python -m hub_export bundle runs/mine --out bundles/mine": "",
    "python -m hub_export verify bundles/mine": "",
    "python -m hub_export push runs/mine --repo your-name/my-gpt": "",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files, its virtual environment, and a folder of books."""
    folder = tmp_path_factory.mktemp("project")
    for path in ROOT.iterdir():
        if path.name not in {".git", ".venv", "runs", "bundle", "bundles"}:
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "books").mkdir()
    (folder / "books" / "fox.txt").write_text(BOOK)
    (folder / "unseen.txt").write_text(BOOK)
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub(user="your-name").serve() as served:
        yield served


@pytest.fixture(scope="module")
def environment(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTEST", "MAKE"))}
    return kept | {
        "PATH": path,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path_factory.mktemp("hf_home")),
        "HF_TOKEN": WRITE_TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="module")
def python(project: Path, environment: dict[str, str]) -> Python:
    return Python(project, environment)


def wait_for_page(process: subprocess.Popen[str], port: int, log: Path) -> str:
    """The page, once the command has said where it is."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if f"http://127.0.0.1:{port}" in log.read_text():
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return answer.read().decode()
        time.sleep(0.2)
    raise AssertionError(f"no page after 150 s: {log.read_text()}")


def test_every_command_is_in_the_table() -> None:
    assert list(ADDED) == COMMANDS


def serve(words: list[str], port: int, project: Path, environment: dict[str, str], log: Path) -> str:
    """Start a command that shows a page, see the page, end the command by Ctrl-C; what it said."""
    with log.open("w") as said:
        process = subprocess.Popen(
            words, cwd=project, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        page = wait_for_page(process, port, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)
    assert "gradio" in page
    return log.read_text()


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=pytest.mark.slow) if command in SLOW else command for command in COMMANDS],
)
def test_command(
    command: str, project: Path, environment: dict[str, str], hub: Hub, python: Python, tmp_path: Path
) -> None:
    port = free_port()
    words = [*shlex.split(command), *shlex.split(ADDED[command].format(port=port))]
    if "demo" in command or command == "python app.py --model runs/mine":
        output = serve(words, port, project, environment, tmp_path / "log")
    else:
        if words[0] == "python":
            done = python.run(*words[1:], typed="Once\n" if "--terminal" in command else "")
        else:
            done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
    assert "Traceback" not in output
    if "push" in command:
        assert "model.safetensors" in hub.repositories["your-name/my-gpt"].files


OF_THE_PAGE = """
from panels.generate import generate
from panels.models import load_model
from panels.sampling import settings_from
loaded = load_model("bundles/mine")
settings = settings_from(temperature=0, max_new_tokens=40)
print([*generate(loaded, "One morning", settings)][-1].text)
print(loaded.prefix_ids)
"""


def test_the_published_model_writes_as_the_readme_says(environment: dict[str, str], hub: Hub, python: Python) -> None:
    """After the push above, from an empty folder: the text that the page writes at temperature 0."""
    if "your-name/my-gpt" not in hub.repositories:
        pytest.skip("needs the push, which runs with the whole file")
    (snippet,) = blocks("python")
    done = python.run("-c", f"{snippet}print((prompt['input_ids'][0, 0].item(),))", folder=Path(environment["HF_HOME"]))
    assert done.returncode == 0, done.stderr
    assert "\nOne morning" in f"\n{done.stdout}"
    assert done.stdout == python.run("-c", OF_THE_PAGE).stdout


def test_the_pictures_are_there() -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        start = {".png": b"\x89PNG", ".jpg": b"\xff\xd8\xff"}[Path(name).suffix]
        assert (ROOT / name).read_bytes().startswith(start), name


def test_links_lead_somewhere() -> None:
    for name in re.findall(r"(?<!!)\[[^]]*\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
