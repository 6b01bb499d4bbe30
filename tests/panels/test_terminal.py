import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panels.generate import generate
from panels.models import ModelLoader, find_model
from panels.sampling import settings_from
from panels.terminal import Terminal, visible
from tests.panels.tiny_model import loader_of, save_checkpoint

ROOT = Path(__file__).parents[2]


def talk(loaded, lines: str, **settings) -> str:
    """What the terminal prints when someone types `lines`."""
    sink = io.StringIO()
    Terminal(loader_of(loaded), settings, io.StringIO(lines), sink).run()
    return sink.getvalue()


def text_of(loaded, prompt: str, **settings) -> str:
    return list(generate(loaded, prompt, settings_from(**settings)))[-1].text


def test_each_line_is_a_prompt_until_the_input_ends(loaded):
    output = talk(loaded, "The lamp\n\nShe asked", seed=1, max_new_tokens=8)
    for prompt in ("The lamp", "", "She asked"):
        assert text_of(loaded, prompt, seed=1, max_new_tokens=8) + "\n" in output


def test_quit_leaves(loaded):
    assert "The lamp" not in talk(loaded, "quit\nThe lamp\n", max_new_tokens=2)


def test_settings_change_on_the_way(loaded):
    output = talk(loaded, "/seed 4\n/max-new-tokens 6\n/settings\nThe\n/seed\n/settings", temperature=0.5)
    assert "max_new_tokens 6  temperature 0.5" in output
    assert "seed 4" in output.splitlines()[2]
    assert "seed" not in output.splitlines()[-1]
    assert text_of(loaded, "The", seed=4, max_new_tokens=6, temperature=0.5) in output


def test_a_stop_text_ends_the_writing(loaded):
    whole = text_of(loaded, "The", seed=4, max_new_tokens=20)
    stop = whole[10:12]
    ended = whole[: whole.index(stop, 3)]
    assert "\\" not in stop
    output = talk(loaded, f"/stop {stop}\n/settings\nThe\n/stop\nThe", seed=4, max_new_tokens=20)
    assert f"stop {stop}\n{ended}\n{whole}\n" in output
    assert f"\n{ended}\n" in talk(loaded, "The", seed=4, max_new_tokens=20, stop=stop)


def test_a_masked_model_fills_blanks(masked):
    output = talk(masked, "The ____ burned ____.\n/top 2\nA ____\n\nnone\n/temperature 1\n/top 0\n/help\nquit\n")
    lines = output.splitlines()[2:]
    assert lines[0].startswith("The")
    assert "____" not in lines[0]
    assert [line[:5] for line in lines[1:3]] == ["  1: ", "  2: "]
    assert lines[1].count("%") == 5
    assert lines[4].count("%") == 2
    assert "! expected a text with a blank, ____ or <|mask|>, got one without" in lines
    assert any("There is no command /temperature" in line for line in lines)
    assert "! top: expected a whole number, 1 or more, got 0." in lines
    with pytest.raises(ValueError, match="fills blanks and does not write"):
        text_of(masked, "The lamp")


def test_continue_goes_on(loaded):
    output = talk(loaded, "The\n/continue\n", seed=4, max_new_tokens=5)
    first = text_of(loaded, "The", seed=4, max_new_tokens=5)
    assert text_of(loaded, first, seed=4, max_new_tokens=5) in output


def test_mistakes_are_answered_and_change_nothing(loaded):
    output = talk(loaded, "/temperature hot\n/temperature -1\n/foo\n/settings\n/help\n", max_new_tokens=2)
    assert "! temperature: expected a number, got 'hot'." in output
    assert "! temperature: expected a number, 0 (greedy) or more, got -1.0" in output
    assert "! There is no command /foo." in output
    assert "temperature 0.8" in output
    assert "/continue " in output


def test_two_slashes_begin_a_prompt_with_one(loaded):
    assert "\n/etc" in talk(loaded, "//etc\n", max_new_tokens=1)


def test_wrong_flags_are_refused_before_the_first_prompt(loaded):
    with pytest.raises(ValueError, match="top_p: expected a number from 0 to 1"):
        talk(loaded, "", top_p=3)


def test_a_model_cannot_steer_the_terminal():
    assert visible("a\x1b[2J\r\n\tb\x7f\x9b") == "a␛[2J␍\n\tb␡\ufffd"


def test_the_first_prompt_is_typed_while_the_model_loads(checkpoint):
    sink = io.StringIO()
    loader = ModelLoader(find_model(checkpoint))  # never started: whoever asks it for the model waits for ever
    Terminal(loader, {"top_k": 3}, io.StringIO("/settings\n/seed x\n/help\nquit\n"), sink).run()
    assert sink.getvalue().startswith("tiny · ")
    assert "top_k 3" in sink.getvalue()
    assert "! seed: expected a whole number, got 'x'." in sink.getvalue()
    with pytest.raises(ValueError, match="temperature: expected a number, 0"):
        Terminal(loader, {"temperature": -1}, io.StringIO(), sink)


def test_a_model_that_cannot_be_loaded_ends_the_session_with_the_reason(tmp_path):
    folder = save_checkpoint(tmp_path / "broken")
    source = find_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"broken has no weights: expected model\.safetensors"):
        Terminal(ModelLoader(source).start(), {}, io.StringIO("The lamp\nShe\n"), io.StringIO()).run()


def test_piped_as_a_command_ctrl_c_stops_the_text_and_not_the_session(checkpoint, tmp_path):
    command = [sys.executable, ROOT / "app.py", "--model", checkpoint, "--terminal", "--max-new-tokens", "1000000"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"The lamp\n")
    process.stdin.flush()
    output = b""
    while b"\nThe lamp" not in output:
        output += os.read(process.stdout.fileno(), 1 << 16)
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(b"/max_new_tokens 3\nShe asked\n\xff\nquit\n", timeout=60)
    assert output.decode().startswith(f"Model: {checkpoint}\n")
    assert b"\nShe asked" in rest
    assert "\n\ufffd" in rest.decode()
    assert errors == b""
    assert process.returncode == 0
