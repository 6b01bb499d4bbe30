"""The models to choose from: which are offered, which are kept in memory, and what is said of those that fail."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest

from panels.context import AppContext
from panels.model_cache import OWN, ModelCache
from panels.models import ModelLoader, find_model
from tests.panels.tiny_model import save_checkpoint, save_masked_checkpoint, save_run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `one` of two checkpoints, another run, a bundle for blanks, one that writes, and a broken
    one."""
    home = tmp_path_factory.mktemp("home")
    run = save_run(home / "runs" / "one")
    shutil.copytree(run / "checkpoints" / "step-000020", run / "checkpoints" / "step-000010")
    lines = [
        {"step": 10, "tokens_seen": 6_000, "validation_loss": 3.0, "bits_per_byte": 2.5},
        {"step": 20, "tokens_seen": 12_000},
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"ste')
    save_run(home / "runs" / "two")
    save_masked_checkpoint(home / "bundles" / "blanks")
    save_checkpoint(home / "bundle")
    (home / "bundles" / "broken").mkdir()
    (home / "bundles" / "broken" / "config.json").write_text("{")
    return home


@pytest.fixture
def context(models: Path, tmp_path: Path) -> AppContext:
    """The page of the run `one` in a copy of these models."""
    home = shutil.copytree(models, tmp_path / "home")
    loader = ModelLoader(find_model(home / "runs" / "one")).start()
    loader.wait()
    return AppContext(loader=loader, home=home, is_public=False)


CHECKPOINT = "runs/one/checkpoints/step-000010"


def test_what_is_offered(context):
    cache = ModelCache(context)
    assert cache.choices() == [
        ("This page's model: one", OWN),
        ("Step 10 of one", CHECKPOINT),
        ("Step 20 of one", "runs/one/checkpoints/step-000020"),
        ("Run one, its best checkpoint", "runs/one"),
        ("Run two, its best checkpoint", "runs/two"),
        ("Bundle bundle", "bundle"),
    ]
    assert context.run == context.home.resolve() / "runs" / "one"
    assert (cache.name(OWN), cache.name(CHECKPOINT), cache.name("some/model")) == (
        "one",
        "Step 10 of one",
        "some/model",
    )


def test_a_checkpoint_has_the_figures_of_its_own_step(context):
    source = ModelCache(context).find(CHECKPOINT)
    assert (source.tokens_seen, source.bits_per_byte, source.perplexity) == (6_000, 2.5, None)
    assert ModelCache(context).find("runs/one").bits_per_byte == 1.5  # step 20, which run.json knows


def test_the_pages_model_is_not_loaded_twice(context):
    cache = ModelCache(context)
    own = context.loader.wait()
    assert cache.get(OWN) is cache.get("runs/one") is cache.get("runs/one/checkpoints/step-000020") is own
    assert cache.loaded == []


def test_two_are_kept_and_the_one_used_longest_ago_is_freed(context):
    cache = ModelCache(context)
    first = weakref.ref(cache.get(CHECKPOINT).model)
    second = cache.get("runs/two")
    assert cache.get(CHECKPOINT).model is first()
    assert cache.get("runs/two") is second
    cache.get("bundle")
    gc.collect()
    assert first() is None
    assert [loaded.source.name for loaded in cache.loaded] == ["two", "bundle"]


def test_a_model_that_was_written_anew_is_loaded_anew(context):
    cache = ModelCache(context)
    before = cache.get("bundle")
    shutil.copy(context.home / "bundle" / "model.safetensors", context.home / "copy")
    (context.home / "copy").replace(context.home / "bundle" / "model.safetensors")
    assert cache.get("bundle") is not before


def test_a_vanished_model_and_one_that_is_being_written_are_told_without_paths_of_the_machine(context):
    cache = ModelCache(context)
    weights = context.home / CHECKPOINT / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=f"^{CHECKPOINT}/model.safetensors is damaged: .* try again, or choose"):
        cache.get(CHECKPOINT)
    weights.write_bytes(whole)
    assert cache.get(CHECKPOINT).context_length
    shutil.rmtree(context.home / CHECKPOINT)
    with pytest.raises(ValueError, match=f"^there is no folder {CHECKPOINT}: .* may be writing or removing it"):
        cache.get(CHECKPOINT)
    assert CHECKPOINT not in {value for _, value in cache.choices()}


@pytest.mark.parametrize("choice", ["", None, "  "])
def test_no_choice(context, choice):
    with pytest.raises(ValueError, match="No model is chosen"):
        ModelCache(context).find(choice)


def test_a_model_for_blanks_is_refused(context):
    with pytest.raises(ValueError, match="bundles/blanks fills blanks and does not write"):
        ModelCache(context).find("bundles/blanks")


def test_strangers_get_only_what_is_offered(context):
    context.is_public = True
    cache = ModelCache(context)
    assert not cache.takes_any
    assert cache.find("bundle").folder == context.home / "bundle"
    for choice in (str(context.home / "bundle"), "someone/model", "../secret", "runs/one/checkpoints"):
        with pytest.raises(ValueError, match="not on offer here"):
            cache.find(choice)


def test_on_zerogpu_there_is_only_the_pages_model(context, monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert ModelCache(context).choices() == [("This page's model: one", OWN)]
