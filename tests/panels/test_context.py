"""The page's model is changed while the page runs: who gets which model, what is freed, and what is refused."""

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from panels.components.model_switch import ModelSwitch
from panels.context import AppContext
from panels.generate import generate, generate_queued
from panels.model_cache import OWN, ModelCache
from panels.models import ModelLoader, find_model, load_model
from panels.sampling import settings_from
from panels.tabs.write import controls
from panels.tabs.write.next_token import look
from tests.panels.tiny_model import save_checkpoint, save_masked_checkpoint, save_run

SETTINGS: dict[str, Any] = {"seed": 3, "max_new_tokens": 12}


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    """The page of a bundle, beside a run, a model for blanks, and a folder whose weights are cut off."""
    save_checkpoint(tmp_path / "bundle", layers=1)
    save_run(tmp_path / "runs" / "mine")
    save_masked_checkpoint(tmp_path / "bundles" / "blanks")
    broken = shutil.copytree(tmp_path / "bundle", tmp_path / "bundles" / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    loader = ModelLoader(find_model(tmp_path / "bundle")).start()
    loader.wait()
    return AppContext(loader=loader, home=tmp_path, is_public=False)


def text_of(folder: Path) -> str:
    return list(generate(load_model(folder), "The lamp", settings_from(**SETTINGS)))[-1].text


def written(context: AppContext) -> str:
    return list(generate_queued(context, "The lamp", **SETTINGS))[-1].text


def test_new_requests_use_the_new_model_and_a_text_ends_with_the_one_it_began_with(context: AppContext) -> None:
    home, first = context.home, context.version
    running = generate_queued(context, "The lamp", **SETTINGS)
    next(running)
    context.switch(find_model(home / "runs" / "mine"))
    expected = text_of(home / "runs" / "mine")
    assert expected != text_of(home / "bundle")
    assert written(context) == expected
    assert list(running)[-1].text == text_of(home / "bundle")
    assert (context.version, context.source.name, context.run) == (first + 1, "mine", home / "runs" / "mine")
    assert ModelCache(context).get(OWN) is context.loader.wait()
    context.switch(find_model(home / "bundle"))
    assert (context.version, context.run) == (first + 2, None)


def test_the_old_model_is_freed_when_its_last_text_has_ended(context: AppContext) -> None:
    old = weakref.ref(context.loader.wait().model)
    running = generate_queued(context, "The lamp", **SETTINGS)
    next(running)
    context.switch(find_model(context.home / "runs" / "mine"))
    assert old() is not None
    assert list(running)[-1].ending == "length"
    gc.collect()
    assert old() is None


def test_a_request_that_waits_in_the_queue_gets_the_new_model(context: AppContext) -> None:
    context.writing.workers = 1
    first = generate_queued(context, "The lamp", **SETTINGS)
    next(first)
    second = generate_queued(context, "The lamp", **SETTINGS)
    assert next(second).ahead == 1
    context.switch(find_model(context.home / "runs" / "mine"))
    assert list(first)[-1].text == text_of(context.home / "bundle")
    assert list(second)[-1].text == text_of(context.home / "runs" / "mine")


def test_the_run_of_a_bundle_is_found_by_its_weights(context: AppContext) -> None:
    run = context.home / "runs" / "mine"
    bundle = shutil.copytree(run / "checkpoints" / "step-000020", context.home / "bundles" / "mine")
    context.switch(find_model(bundle))
    assert context.run == run


def test_a_model_that_cannot_be_loaded_leaves_all_as_it_was(context: AppContext) -> None:
    before = context.loader, context.version
    with pytest.raises(ValueError, match=r"is incomplete: its weights lack .*\. The page keeps its model, bundle\.$"):
        context.switch(find_model(context.home / "bundles" / "broken"))
    assert (context.loader, context.version) == before
    assert written(context) == text_of(context.home / "bundle")


def test_a_public_page_keeps_its_model(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    source, version = find_model(context.home / "runs" / "mine"), context.version
    context.is_public = True
    with pytest.raises(ValueError, match="keeps its model, which all its visitors share"):
        context.switch(source)
    context.is_public = False
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    with pytest.raises(ValueError, match="keeps its model"):
        context.switch(source)
    assert context.version == version


def test_the_field_offers_every_model_and_says_what_became_of_a_choice(context: AppContext) -> None:
    switch, first = ModelSwitch(context), context.version
    assert [value for _, value in switch.choices()] == [OWN, "runs/mine", "bundle", "bundles/blanks", "bundles/broken"]
    (busy, waiting, *_), (said, field, version, told) = switch.switch("bundles/blanks")
    assert "Loading Bundle bundles/blanks" in busy
    assert "uses blanks from now on" in said
    assert (waiting["interactive"], field["interactive"]) == (False, True)  # one choice at a time
    assert (field["choices"][0], field["value"], version) == (("blanks", OWN), OWN, first + 1)
    assert told == version
    shutil.rmtree(context.home / "runs" / "mine")
    for choice, reason in (
        ("bundles/broken", "The page keeps its model, blanks"),
        ("runs/mine", "there is no folder runs/mine"),
    ):
        (_, *_), (said, field, version, _) = switch.switch(choice)
        assert "Not this model" in said
        assert reason in said
        assert str(context.home) not in said
        assert field["value"] == OWN
        assert field["interactive"]
    assert context.version == first + 1
    assert list(switch.switch(OWN)) == [[gr.skip()] * 4]  # what was said of a choice stays
    for nothing in ("", "  ", None):  # the field was emptied
        ((said, field, *same),) = switch.switch(nothing)
        assert ([said, *same], field["value"]) == ([gr.skip()] * 3, OWN)


def test_a_look_with_the_model_before_is_not_shown_as_one_of_the_new_model(
    context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_and_switch(loaded: Any, text: str) -> Any:
        context.switch(find_model(context.home / "runs" / "mine"))
        return look(loaded, text)

    with monkeypatch.context() as patch:
        patch.setattr(controls, "look", look_and_switch)
        assert 'data-next="null"' in controls.look_ahead(context, "The lamp")
    assert 'data-next="null"' not in controls.look_ahead(context, "The lamp")
