"""What is taken along runs as it stands; the curl command is run in tests/page/test_controls.py, against a page."""

import json
import re
from pathlib import Path

import pytest

from panels.generate import generate
from panels.sampling import settings_from
from panels.tabs.about.facts import load_code
from panels.tabs.write.code_export import curl_command, python_code
from tests.panels.tiny_model import CONTEXT, PROMPTS

PROMPT = 'The "lamp" \\ burned\nlow, 🌊 in <|endoftext|> Zürich'


def text_of(loaded, prompt, settings, stop="") -> str:
    return list(generate(loaded, prompt, settings, stop=stop))[-1].text


def test_python_runs_elsewhere_and_writes_the_pages_text(loaded, checkpoint, clean_python):
    settings = settings_from(temperature=0, repetition_penalty=1.3, max_new_tokens=12)
    plain = text_of(loaded, "The", settings)
    stop = plain[-4:-2]
    assert stop not in plain[3:-4]
    codes = [
        python_code(loaded, PROMPT, settings_from(temperature=0, max_new_tokens=5), home=checkpoint.parent),
        python_code(loaded, "The", settings, home=checkpoint.parent, stop=stop),
        python_code(loaded, "", settings, home=checkpoint.parent),
    ]
    assert all('AutoTokenizer.from_pretrained("tiny", trust_remote_code=True)' in code for code in codes)
    expected = [
        text_of(loaded, PROMPT, settings_from(temperature=0, max_new_tokens=5)),
        text_of(loaded, "The", settings, stop),
        text_of(loaded, "", settings),
    ]
    drawing = [
        {"temperature": 0.7, "top_k": 7, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "repetition_penalty": 1.2},
        {"temperature": 0.8, "top_p": 0.95},
        {"temperature": 1.4, "top_p": 1, "min_p": 0.05},
        {"temperature": 1, "top_p": 1},
        {"temperature": 1.2, "top_p": 1, "typical_p": 0.5, "seed": 2**40},
        {"temperature": 1, "top_p": 1, "top_k": 100_000},
        {"temperature": 1e-3, "top_p": 1},
    ]
    for values in drawing:
        drawn = settings_from(**{"seed": 7, "max_new_tokens": 24} | values)
        codes.append(python_code(loaded, "The lamp", drawn, home=checkpoint.parent))
        expected.append(text_of(loaded, "The lamp", drawn))
    assert len(set(expected[3:])) > 4
    codes.append(load_code(loaded, checkpoint.parent))  # that of the About tab
    expected.append(text_of(loaded, PROMPTS[0], settings_from(temperature=0, max_new_tokens=CONTEXT // 2)))
    long = settings_from(temperature=0.7, seed=7)
    codes.append(python_code(loaded, "The lamp " * 40, long, home=checkpoint.parent))
    codes.append('print(f"{len(ids)} and {output.shape[1] - len(ids)}")')
    done = clean_python.run("-c", "\nprint('====')\n".join(codes), folder=checkpoint.parent)
    assert done.returncode == 0, done.stderr
    *printed, _, lengths = done.stdout.removesuffix("\n").split("\n====\n")
    assert printed == expected
    assert lengths == f"{CONTEXT // 2} and {CONTEXT // 2}"


def test_without_a_seed_transformers_draws_and_stays_within_the_context(loaded, checkpoint):
    settings = settings_from(temperature=0.7, top_k=7, top_p=0.9, min_p=0.01, typical_p=0.95)
    code = python_code(loaded, "The lamp " * 40, settings, home=Path("/"))
    assert f'from_pretrained("{checkpoint.as_posix().lstrip("/")}"' in code
    assert "PageSampler" not in code
    for argument in ("do_sample=True", "temperature=0.7", "top_k=7", "top_p=0.9", "min_p=0.01", "typical_p=0.95"):
        assert f"    {argument},\n" in code
    kept, new_tokens = (int(re.findall(pattern, code)[0]) for pattern in (r"ids\[-(\d+):\]", r"max_new_tokens=(\d+)"))
    assert kept + new_tokens == CONTEXT
    assert "The model sees 48 tokens at once." in code


@pytest.mark.parametrize(("prompt_length", "asked"), [(3, 20), (3, 45), (3, 46), (40, 30), (47, 1), (60, 500)])
def test_what_python_asks_for_fits(loaded, prompt_length, asked):
    text = "?" * (prompt_length - 1)
    code = python_code(loaded, text, settings_from(max_new_tokens=asked), home=Path("/"))
    kept = int((re.findall(r"ids\[-(\d+):\]", code) or [prompt_length])[0])
    new_tokens = int(re.findall(r"max_new_tokens=(\d+)", code)[0])
    assert 1 <= kept <= prompt_length
    assert 1 <= new_tokens <= asked
    assert kept + new_tokens <= CONTEXT
    if prompt_length + asked <= CONTEXT:
        assert (kept, new_tokens) == (prompt_length, asked)
        assert "at once" not in code
    else:
        assert kept + new_tokens == CONTEXT or new_tokens == asked


def test_curl_sends_the_parameters_in_their_order():
    settings = settings_from(max_new_tokens=5, temperature=0.5, seed=7)
    command = curl_command("http://127.0.0.1:7860/", "It's $HOME\nJSON\n`x` \ud800", settings, stop="\n")
    sent = json.loads(command.splitlines()[1])["data"]
    assert sent == ["It's $HOME\nJSON\n`x` \ud800", 5, 0.5, 0, 0.95, 0.0, 1.0, 7, 1.0, "\n"]
    assert command.isascii()
    assert command.count("http://127.0.0.1:7860/gradio_api/call/generate") == 2


@pytest.mark.parametrize("address", ["", "file:///etc", "http://a b", "http://host/$(reboot)", "http://host';x"])
def test_an_address_cannot_become_a_command(address):
    with pytest.raises(ValueError, match="address: expected http://HOST:PORT, got"):
        curl_command(address, "The", settings_from())
