"""Texts of several people share the passes of the page's model, and each is what it is alone."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from benchmarks.page import ask, request
from tests.panels.tiny_model import save_checkpoint
from tests.serving import serving, wait_until

PEOPLE = 8


def test_requests_share_passes_and_each_text_is_that_of_its_seed_alone(tmp_path: Path) -> None:
    """How many shared one is what the page says at its end."""
    model = save_checkpoint(tmp_path / "model", layers=16)  # which takes a moment for a text, and never ends one
    said: list[str] = []
    with serving(model, cwd=tmp_path, said=said) as (address, process):

        def text_of(values: dict[str, Any]) -> str:
            answer = ask(address, values)
            assert not answer["error"], answer
            return answer["text"]

        requests = [request(seed, new_tokens=200) for seed in range(PEOPLE)]
        alone = [text_of(values) for values in requests]
        with ThreadPoolExecutor(PEOPLE) as pool:
            assert list(pool.map(text_of, requests)) == alone
        process.send_signal(signal.SIGINT)
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert len({*alone}) == PEOPLE
    (most,) = re.findall(r"Passes of the model: .* of up to (\d+) texts at once", "\n".join(said))
    assert int(most) > 1
