"""The texts of a request to `/v1` without HTTP: whose model writes, what ends, and what one answer may hold."""

from pathlib import Path
from typing import Any

import pytest

from panels.context import AppContext
from panels.generate import generate
from panels.models import LoadedModel, find_model
from panels.openai_api import choices
from panels.openai_api.choices import ECHO_LIMIT, Piece, make_pieces
from panels.openai_api.requests import FieldError, read_completion
from panels.request_queue import QueueFullError, RequestQueue
from panels.sampling import settings_from
from tests.panels.tiny_model import loader_of, save_checkpoint

LONG = "The lamp burned low. " * 200


def pieces_of(context: AppContext, should_stop: Any = lambda: False, **fields: Any) -> Any:
    return make_pieces(context, context.loader, read_completion(fields), should_stop)


def text_of(pieces: Any) -> str:
    return "".join(piece.text for piece in pieces)


def count_passes(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each pass of the model that scores a text."""
    from modeling import inspection

    passes: list[int] = []
    scored = inspection._scored

    def counted(*arguments: Any) -> Any:
        passes.append(1)
        return scored(*arguments)

    monkeypatch.setattr(inspection, "_scored", counted)
    return passes


@pytest.mark.parametrize("echo", [False, True])
def test_a_switch_while_a_text_waits_leaves_it_to_the_model_that_was_asked(
    loaded: LoadedModel, tmp_path: Path, echo: bool
) -> None:
    context = AppContext(loader=loader_of(loaded), writing=RequestQueue(workers=1, limit=2), home=tmp_path)
    asked = {"prompt": "The", "max_tokens": 8, "seed": 1, "temperature": 1, "n": 2, "echo": echo, "logprobs": 1}
    alone = [piece.tokens for piece in pieces_of(context, **asked)]
    with context.writing.join():
        pieces = pieces_of(context, **asked)
        found = [next(pieces)]
        while not found[-1].ahead:
            found.append(next(pieces))
        context.switch(find_model(save_checkpoint(tmp_path / "other", layers=1)))
    assert context.loader.wait() is not loaded
    found += pieces
    tokens = [token for piece in found for token in piece.tokens]
    assert tokens == [token for each in alone for token in each]
    settings = settings_from(seed=1, max_new_tokens=8, temperature=1, top_p=1)
    expected = list(generate(loaded, "The", settings))[-1].text
    assert text_of(piece for piece in found if piece.index == 0) == (expected if echo else expected[len("The") :])


def test_a_prompt_whose_client_hung_up_is_read_no_further(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(loaded, monkeypatch)
    context, asked = (
        AppContext(loader=loader_of(loaded)),
        {"prompt": LONG, "echo": True, "logprobs": 1, "max_tokens": 0},
    )
    tokens = [token for piece in pieces_of(context, **asked) for token in piece.tokens]
    complete = len(passes)
    assert complete > 20
    assert "".join(token.text for token in tokens) == LONG
    passes.clear()
    assert text_of(pieces_of(context, should_stop=lambda: len(passes) >= 3, **asked)) == ""
    assert len(passes) == 3
    assert len(context.queue) == 0


def test_a_prompt_has_two_minutes(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(loaded, monkeypatch)
    monkeypatch.setattr(choices, "TIME_LIMIT", 0.0)
    with pytest.raises(FieldError, match="prompt: expected one whose log probabilities take at most 0 seconds"):
        list(pieces_of(AppContext(loader=loader_of(loaded)), prompt=LONG, echo=True, logprobs=1, max_tokens=0))
    assert len(passes) == 1


def test_log_probabilities_of_prompts_are_limited(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(loaded, monkeypatch)
    context, ids = AppContext(loader=loader_of(loaded)), [1] * (ECHO_LIMIT // 101 // 2)
    with pytest.raises(
        FieldError, match=r"logprobs: expected at most 500,000 log probabilities with echo .*, got 999,900"
    ):
        list(pieces_of(context, prompt=[ids, ids], n=2, echo=True, logprobs=100, max_tokens=1))
    assert not passes
    asked = {"prompt": [ids], "logprobs": 100, "max_tokens": 1}
    assert isinstance(next(pieces_of(context, **asked)), Piece)  # without echo none is held
    assert not passes


def test_a_queue_that_is_full_after_a_text_does_not_say_that_nothing_was_done(loaded: LoadedModel) -> None:
    context = AppContext(loader=loader_of(loaded), writing=RequestQueue(workers=1, limit=2))
    pieces = pieces_of(context, prompt="The", n=3, max_tokens=2)
    while next(pieces).ending is None:
        pass
    context.writing.limit = 0
    with pytest.raises(QueueFullError, match=r"queue is full: 1 of 3 texts were made\. Send the request again"):
        next(pieces)
