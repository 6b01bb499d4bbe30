"""The models to choose from: which are offered, which are kept in memory, and what is said of those that fail."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest

from panels.context import AppContext
from panels.model_cache import OWN, Shelf
from panels.models import ModelLoader, find_model
from tests.panels.tiny_model import save_checkpoint, save_masked_checkpoint, save_run


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    """A page of the run `one` with two checkpoints; beside it another run, a run for blanks, a bundle and a broken
    one."""
    run = save_run(tmp_path / "runs" / "one")
    shutil.copytree(run / "checkpoints" / "step-000020", run / "checkpoints" / "step-000010")
    lines = [{"step": 10, "tokens_seen": 6_000, "bits_per_byte": 2.5}, {"step": 20, "tokens_seen": 12_000}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"ste')
    save_run(tmp_path / "runs" / "two")
    save_masked_checkpoint(tmp_path / "bundles" / "blanks")
    save_checkpoint(tmp_path / "bundle")
    (tmp_path / "bundles" / "broken").mkdir()
    (tmp_path / "bundles" / "broken" / "config.json").write_text("{")
    loader = ModelLoader(find_model(run)).start()
    loader.wait()
    return AppContext(loader=loader, home=tmp_path, is_public=False)


CHECKPOINT = "runs/one/checkpoints/step-000010"


def test_what_is_offered(context):
    shelf = Shelf(context)
    assert shelf.choices() == [
        ("This page's model: one", OWN),
        ("Step 10 of one", CHECKPOINT),
        ("Step 20 of one", "runs/one/checkpoints/step-000020"),
        ("Run one, its best checkpoint", "runs/one"),
        ("Run two, its best checkpoint", "runs/two"),
        ("Bundle bundle", "bundle"),
    ]
    assert context.run == context.home.resolve() / "runs" / "one"
    assert (shelf.name(OWN), shelf.name(CHECKPOINT), shelf.name("some/model")) == (
        "one",
        "Step 10 of one",
        "some/model",
    )


def test_a_checkpoint_has_the_figures_of_its_own_step(context):
    source = Shelf(context).find(CHECKPOINT)
    assert (source.tokens_seen, source.bits_per_byte, source.perplexity) == (6_000, 2.5, None)
    assert Shelf(context).find("runs/one").bits_per_byte is None  # step 20, which was not measured


def test_the_pages_model_is_not_loaded_twice(context):
    shelf = Shelf(context)
    own = context.loader.wait()
    assert shelf.take(OWN) is shelf.take("runs/one") is shelf.take("runs/one/checkpoints/step-000020") is own
    assert shelf.kept == []


def test_two_are_kept_and_the_one_used_longest_ago_is_freed(context):
    shelf = Shelf(context)
    first = weakref.ref(shelf.take(CHECKPOINT).model)
    second = shelf.take("runs/two")
    assert shelf.take(CHECKPOINT).model is first()
    assert shelf.take("runs/two") is second
    shelf.take("bundle")
    gc.collect()
    assert first() is None
    assert [loaded.source.name for loaded in shelf.kept] == ["two", "bundle"]


def test_a_model_that_was_written_anew_is_loaded_anew(context):
    shelf = Shelf(context)
    before = shelf.take("bundle")
    shutil.copy(context.home / "bundle" / "model.safetensors", context.home / "copy")
    (context.home / "copy").replace(context.home / "bundle" / "model.safetensors")
    assert shelf.take("bundle") is not before


def test_a_vanished_model_and_one_that_is_being_written_are_told_without_paths_of_the_machine(context):
    shelf = Shelf(context)
    weights = context.home / CHECKPOINT / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=f"^{CHECKPOINT}/model.safetensors is damaged: .* try again, or choose"):
        shelf.take(CHECKPOINT)
    weights.write_bytes(whole)
    assert shelf.take(CHECKPOINT).context_length
    shutil.rmtree(context.home / CHECKPOINT)
    with pytest.raises(ValueError, match=f"^there is no folder {CHECKPOINT}: .* may be writing or removing it"):
        shelf.take(CHECKPOINT)
    assert CHECKPOINT not in dict(map(reversed, shelf.choices()))


@pytest.mark.parametrize("choice", ["", None, "  "])
def test_no_choice(context, choice):
    with pytest.raises(ValueError, match="No model is chosen"):
        Shelf(context).find(choice)


def test_a_model_for_blanks_is_refused(context):
    with pytest.raises(ValueError, match="bundles/blanks fills blanks and does not write"):
        Shelf(context).find("bundles/blanks")


def test_strangers_get_only_what_is_offered(context):
    context.is_public = True
    shelf = Shelf(context)
    assert not shelf.takes_any
    assert shelf.find("bundle").folder == context.home / "bundle"
    for choice in (str(context.home / "bundle"), "someone/model", "../secret", "runs/one/checkpoints"):
        with pytest.raises(ValueError, match="not on offer here"):
            shelf.find(choice)


def test_on_zerogpu_there_is_only_the_pages_model(context, monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert Shelf(context).choices() == [("This page's model: one", OWN)]
