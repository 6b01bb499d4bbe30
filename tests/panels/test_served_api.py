"""A real page and real clients: the endpoint for chats, and the page beside many requests of other programs."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from panels.context import AppContext
from panels.models import load_model
from panels.tabs.chat.conversation import answer
from tests.panels.test_chat import save_chat_checkpoint
from tests.panels.tiny_model import loader_of
from tests.serving import ROOT, serving, wait_until

PROGRAM = re.compile(r"^```python\n(from gradio_client .*?)^```$", re.DOTALL | re.MULTILINE)
MANY = 45
"""More than anyio's threads, fewer than the request queue takes."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that chats, tiny but deep: its long texts take minutes."""
    return save_chat_checkpoint(tmp_path_factory.mktemp("models") / "chat", layers=128)


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    """Of its page."""
    with serving(model, cwd=model.parent) as (address, _):
        yield address


def test_the_program_of_the_documentation_chats(address: str, model: Path, capsys: pytest.CaptureFixture) -> None:
    found = PROGRAM.search((ROOT / "docs" / "chat.md").read_text(encoding="utf-8"))
    assert found is not None
    program = (
        found[1].replace("http://127.0.0.1:7860", address).replace("temperature=0", "max_new_tokens=8, temperature=0")
    )
    assert program.count(address) == program.count("max_new_tokens=8") == 1
    exec(program, {})
    context = AppContext(loader=loader_of(load_model(model)))
    *_, expected = answer(
        context, [{"role": "user", "content": "Who is Rosa?"}], seed=1, temperature=0, max_new_tokens=8
    )
    assert capsys.readouterr().out.splitlines()[-1] == expected.text.strip().splitlines()[-1]


def test_the_page_answers_beside_many_requests_of_programs(address: str) -> None:
    sent, ended = [], []

    def ask(client: httpx.Client) -> None:
        sent.append(1)
        with contextlib.suppress(httpx.HTTPError):  # it is closed under it
            client.post("/v1/completions", json={"prompt": "The", "max_tokens": 1_000_000})
        ended.append(1)

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=address, timeout=90)) for _ in range(MANY)]
        threads = [threading.Thread(target=ask, args=[client], daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(sent) == MANY)
        with httpx.stream(
            "POST", f"{address}/v1/completions", json={"prompt": "x", "stream": True}, timeout=60
        ) as last:
            assert next(last.iter_lines()).startswith(": waiting")  # the others have come before it
        for place in ("/", "/config", "/gradio_api/app_id"):
            assert httpx.get(f"{address}{place}", timeout=60).status_code == 200
        assert not ended


def test_what_was_uploaded_is_removed_when_the_page_ends(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    with serving(model, cwd=model.parent) as (address, process):
        answer = httpx.post(f"{address}/gradio_api/upload", files={"files": ("secret.txt", b"My novel.")}, timeout=60)
        assert answer.status_code == 200
        assert [path.read_bytes() for path in (tmp_path / "uploads").rglob("*.txt")] == [b"My novel."]
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert not list((tmp_path / "uploads").rglob("*.txt"))
