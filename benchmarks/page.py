"""Many people at once on one page: is everyone served, and does everyone get the text of their own seed and settings?

A page in a process of its own, with an untrained model of the modern recipe's shape; clients of its API that start
together, each with a prompt, a seed and settings of its own. What each of them gets must be what it gets alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import torch
from gradio_client import Client
from playwright.sync_api import sync_playwright

from benchmarks._report import Goal
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe

CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).parents[1]
PARAMETERS = ("prompt", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
"""Of the endpoint, in its order."""
GOALS = (
    Goal(("ratio",), at_least=4.0),
    Goal(("to_first_words", "median"), at_most=0.5),
    Goal(("to_first_words", "last"), at_most=1.0),
)
TEXT = "The lamp burned low, and the captain drew a line on the map from the harbour to the stars. "


def run(*, clients: int = 20, new_tokens: int = 100, port: int = 7899) -> dict:
    """Let the clients write at the same time, then one after the other.

    Args:
        clients: how many at once.
        new_tokens: tokens that each of them asks for.
        port: a port that nobody listens on.

    Returns:
        `served`, `refused` (the queue was full), `mixed_up` (a text that is not the client's own), seconds from
        the common start `to_first_words` and `to_the_end` (median and last), `seconds_alone` (median), and `ratio`:
        tokens a second of all together to those of one alone; `first_paint`, seconds from the request of the page to
        its first content in a new browser.
    """
    with tempfile.TemporaryDirectory() as place, page_of(make_model(Path(place)), port) as address:
        requests = [request(index, new_tokens) for index in range(clients)]
        barrier = Barrier(clients)
        with ThreadPoolExecutor(clients) as pool:
            together = list(pool.map(partial(ask, address), requests, [barrier] * clients))
        alone = [ask(address, each) for each in requests]
        paints = [first_paint(address) for _ in range(3)]
    served = [index for index in range(clients) if together[index]["text"] is not None]
    last = max(together[index]["end"] for index in served)
    seconds_alone = statistics.median(answer["end"] for answer in alone)
    return {
        "clients": clients,
        "served": len(served),
        "refused": sum("queue is full" in answer["error"] for answer in together),
        "mixed_up": sum(together[index]["text"] != alone[index]["text"] for index in served),
        "to_first_words": spread([together[index]["first"] for index in served]),
        "to_the_end": spread([together[index]["end"] for index in served]),
        "seconds_alone": round(seconds_alone, 2),
        "first_paint": spread(paints),
        "ratio": round(len(served) * seconds_alone / last, 2),
    }


def request(index: int, new_tokens: int) -> dict[str, Any]:
    """What the client with this number asks for."""
    return {
        "prompt": TEXT[: 10 + 3 * index],
        "max_new_tokens": new_tokens,
        "temperature": 0.7 + 0.05 * (index % 8),
        "top_k": 10 * (index % 5),
        "top_p": 1.0 - 0.01 * (index % 3),
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": index,
    }


def ask(address: str, values: dict[str, Any], barrier: Barrier | None = None) -> dict[str, Any]:
    """The text that a client gets, or the error; seconds to the first words beyond the prompt, and to the end. By plain
    HTTP, as `curl` asks: Gradio's client takes more of the machine than the page does."""
    place, text, first = f"{address}/gradio_api/call/generate", None, None
    with httpx.Client(timeout=120) as client:
        if barrier is not None:
            barrier.wait()
        begun = time.perf_counter()
        event = client.post(place, json={"data": [values[name] for name in PARAMETERS]}).json()["event_id"]
        with client.stream("GET", f"{place}/{event}") as answer:
            kind = ""
            for line in answer.iter_lines():
                kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
                if kind == "error" and line.startswith("data: "):
                    return {"text": None, "first": None, "end": None, "error": line}
                if kind in ("generating", "complete") and line.startswith("data: "):
                    text = json.loads(line.removeprefix("data: "))[0]
                    if first is None and text != values["prompt"]:
                        first = time.perf_counter() - begun
    return {"text": text, "first": first, "end": time.perf_counter() - begun, "error": ""}


def first_paint(address: str) -> float:
    """Seconds until a new browser shows the page's first content."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("Your text").wait_for()
        milliseconds = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        browser.close()
    return milliseconds / 1000


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and maximum."""
    return {"median": round(statistics.median(seconds), 2), "last": round(max(seconds), 2)}


def make_model(place: Path) -> Path:
    """An untrained model that never ends a text by itself, with its tokenizer."""
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 320))
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        lm_head_bias=True,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = ScratchGPTForCausalLM(config)
    with torch.no_grad():
        model.get_parameter("lm_head.bias")[len(tokenizer) - 1] = -100
    model.save_pretrained(place)
    save_tokenizer(tokenizer, place)
    return place


@contextmanager
def page_of(model: Path, port: int) -> Iterator[str]:
    """The address of a page with that model, which has loaded it."""
    with page_process(["--model", str(model), "--port", str(port)], cwd=model):
        address = f"http://127.0.0.1:{port}"
        client = Client(address, verbose=False)
        client.predict("The", max_new_tokens=1, api_name="/generate")
        client.close()
        yield address


@contextmanager
def page_process(words: list[str], *, cwd: Path) -> Iterator[None]:
    """`python app.py WORDS` in a folder, from the moment at which its page can be reached."""
    command = [sys.executable, str(ROOT / "app.py"), *words]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        output = ""
        while "The page is on" not in output:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(output)
            output += line
        yield
    finally:
        process.terminate()
        process.wait(30)
