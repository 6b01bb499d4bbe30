import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from panels.formats import model_facts
from panels.models import ModelLoader, default_source, find_model, load_model
from tests.panels.tiny_model import CONTEXT, PROMPTS, save_checkpoint, save_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder."""
    return save_run(tmp_path_factory.mktemp("runs") / "my-run")


@pytest.fixture
def broken(checkpoint, tmp_path) -> Path:
    """A copy of the checkpoint to break."""
    return shutil.copytree(checkpoint, tmp_path / "broken")


def test_a_checkpoint_is_described_without_loading_it(checkpoint):
    source = find_model(checkpoint)
    weights = load_model(source).model.state_dict()
    assert source.folder == checkpoint
    assert source.parameters == sum(weight.numel() for weight in weights.values())
    assert (source.context_length, source.prompts) == (CONTEXT, tuple(PROMPTS))


def test_finding_imports_nothing_heavy(checkpoint):
    code = (
        f"import sys; import panels.terminal; from panels.models import find_model; find_model({str(checkpoint)!r}); "
    )
    code += "print([name for name in ('torch', 'transformers', 'gradio') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_run_gives_its_best_checkpoint_and_its_facts(run):
    source = find_model(run)
    assert source.folder == run / "checkpoints" / "step-000020"
    assert (source.name, source.prompts) == ("my-run", tuple(PROMPTS))
    facts = " · ".join(model_facts(source))
    assert "trained on 500 short English stories made by ScratchGPT's own generator, 12 k tokens seen" in facts
    assert "1.500 bits per byte (no model can get below 0.250)" in facts
    assert load_model(run).source == source


def test_a_checkpoint_inside_a_run_knows_its_run(run):
    source = find_model(run / "checkpoints" / "step-000020")
    assert (source.name, source.bits_per_byte, source.prompts) == ("my-run, step 20", 1.5, tuple(PROMPTS))


def test_a_run_has_the_figures_of_its_best_checkpoint_and_not_of_its_latest_evaluation(tmp_path):
    run = save_run(tmp_path / "my-run")
    state = json.loads((run / "run.json").read_text())
    later = {"step": 30, "tokens_seen": 18_000, "evaluation": {"validation_loss": 3.5, "bits_per_byte": 1.75}}
    (run / "run.json").write_text(json.dumps(state | later))
    lines = [
        {"step": 20, "tokens_seen": 12_000, "validation_loss": 3.0, "bits_per_byte": 1.25},
        {"step": 30, "tokens_seen": 18_000, "validation_loss": 3.5, "bits_per_byte": 1.75},
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for given in (run, run / "checkpoints" / "step-000020"):
        source = find_model(given)
        assert (source.tokens_seen, source.bits_per_byte) == (12_000, 1.25)


def test_a_bundle_tells_what_its_card_says(run, tmp_path):
    from hub_export.card import render_card
    from storage.run_folder import RunFolder

    bundle = save_checkpoint(tmp_path / "bundle")
    card = render_card(bundle, RunFolder.open(run), run / "checkpoints" / "step-000020", repo="someone/storyteller")
    (bundle / "README.md").write_text(card)
    source = find_model(bundle)
    assert source.name == "storyteller"
    assert source.trained_on == "500 short English stories made by ScratchGPT's own generator"
    assert (source.bits_per_byte, source.floor_bits_per_byte, source.perplexity) == (1.5, 0.25, 20.1)


def test_a_card_that_people_wrote_may_hold_anything(broken):
    (broken / "README.md").write_bytes(b"---\nmodel-index: [3\n---\n\n# Mine <b>\xff\n")
    assert find_model(broken).name == "Mine <b>\ufffd"


def test_facts_of_an_edited_card_that_nobody_can_use_are_not_shown(broken):
    from panels.formats import model_facts

    facts = "scratchgpt:\n  trained_on: three books\n  tokens_seen: 120 million\n  floor_bits_per_byte: low"
    floor = "no model can beat **1.2.3 bits per byte**"
    (broken / "README.md").write_text(f"---\n{facts}\n---\n\n# Mine\n\nIt is so: {floor}.\n")
    source = find_model(broken)
    assert (source.trained_on, source.tokens_seen, source.floor_bits_per_byte) == ("three books", None, None)
    assert "trained on three books" in model_facts(source)


def test_a_sentence_that_does_not_end_is_not_searched_for_its_end(broken):
    """Each beginning of it would be searched to the end of the card."""
    for length, trained_on in ((300, "x" * 300), (301, None)):
        (broken / "README.md").write_text(f"# Mine\n\nIt was trained from scratch on {'x' * length}.\n")
        assert find_model(broken).trained_on == trained_on


def test_a_hub_id_is_fetched_when_it_is_loaded(checkpoint, tmp_path, monkeypatch):
    cache = tmp_path / "models--someone--tiny"
    shutil.copytree(checkpoint, cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = find_model("someone/tiny")
    assert (source.name, source.folder) == ("someone/tiny", None)
    loaded = load_model(source)
    assert (loaded.source.name, len(loaded.source.prompts)) == ("someone/tiny", len(PROMPTS))
    with pytest.raises(ValueError, match=r"^someone/nothing is no folder here, and fetching a model of that name"):
        load_model("someone/nothing")


def test_the_default_model(tmp_path):
    with pytest.raises(ValueError, match=r"No model here: .*`make demo` trains one"):
        default_source(tmp_path)
    state = {"status": "finished", "latest_checkpoint": "checkpoints/step-000001"}
    run, preferred_last = tmp_path, ["sweep/trials/trial-001", "unfinished", "old", "new"]
    for place in preferred_last:
        run = tmp_path / "runs" / place
        run.mkdir(parents=True)
        status = "stopped" if place == "unfinished" else "finished"
        (run / "run.json").write_text(json.dumps(state | {"status": status}))
        time = {"old": 1_000, "new": 2_000}.get(place, 9_000)
        os.utime(run / "run.json", (time, time))
        assert default_source(tmp_path) == str(run)
    empty = tmp_path / "runs" / "empty"
    empty.mkdir()
    (empty / "run.json").write_text('{"status": "running", "latest_checkpoint": null}')
    assert default_source(tmp_path) == str(run)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_text("{}")
    os.utime(tmp_path / "bundle" / "config.json", (1, 1))
    assert default_source(tmp_path) == str(tmp_path / "bundle")
    (tmp_path / "model.json").write_text('{"repo": "someone/model", "revision": "abc"}')
    assert default_source(tmp_path) == "someone/model@abc"


@pytest.mark.parametrize("given", ["no/such/folder", "./nothing", "/nowhere", "tests/nothing", "two words"])
def test_a_missing_path(given, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=f"there is no folder {given}: expected a bundle"):
        find_model(given)


def test_a_file_and_an_empty_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match=r"is a file: expected a folder"):
        find_model(tmp_path / "file")
    with pytest.raises(ValueError, match=r"holds no model: no config.json"):
        find_model(tmp_path)


def test_a_run_without_a_checkpoint(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "running", "best_checkpoint": null}')
    with pytest.raises(ValueError, match="expected at least one checkpoint, but this run has none yet"):
        find_model(tmp_path)
    (tmp_path / "run.json").write_text('{"best_checkpoint": "checkpoints/step-000001"}')
    (tmp_path / "checkpoints" / "step-000002").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000002" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a checkpoint called step-000001, but this run has step-000002"):
        find_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", None, "has no weights: expected model.safetensors, but the file is missing"),
        ("model.safetensors", b"", "damaged: it is no safetensors file"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "damaged: it is no safetensors file"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]", "damaged: it is no safetensors file"),
        ("config.json", b"{", "config.json: expected JSON, but it cannot be read"),
        ("config.json", b"[]", "expected a JSON object, got a list"),
    ],
)
def test_a_file_that_is_damaged(broken, name, content, message):
    (broken / name).unlink() if content is None else (broken / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_model(broken)


def test_weights_that_are_cut_off(broken):
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=f"damaged: expected {len(whole)} bytes, got {len(whole) - 10}"):
        find_model(broken)


def test_weights_of_another_shape(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="is incomplete: its weights lack"):
        load_model(broken)


def test_a_tokenizer_of_another_model(broken, checkpoint):
    from safetensors.torch import load_file, save_file

    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(
        json.dumps(config | {"vocab_size": 300, "bos_token_id": 299, "eos_token_id": 299})
    )
    tensors = load_file(broken / "model.safetensors")
    rows = config["vocab_size"]
    save_file(
        {name: tensor[:300].clone() if tensor.shape[0] == rows else tensor for name, tensor in tensors.items()},
        broken / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=f"knows {rows} tokens, its model 300. They belong to different models"):
        load_model(broken)


def test_no_tokenizer(broken):
    shutil.rmtree(broken / "slow")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).unlink()
    with pytest.raises(ValueError, match=r"Cannot load the tokenizer in .*broken"):
        load_model(broken)


def test_any_causal_model_of_transformers(tmp_path, capsys):
    """One whose config calls its context `n_positions`: the writing, the page and `train.evaluate` agree."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from modeling.inspection import surprisals
    from panels.generate import generate
    from panels.sampling import settings_from
    from panels.tabs.inside.analysis import surprisal
    from tokenization import plain_ids
    from train.evaluate import main

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path)
    config = GPT2Config(vocab_size=256, n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.prefix_ids, loaded.context_length, loaded.stop_token_ids) == ((), 16, (0,))
    draft = list(generate(loaded, "Once", settings_from(seed=1, max_new_tokens=30)))[-1]
    assert draft.text.startswith("Once")
    file, text = tmp_path / "text.txt", "Once upon a time, " * 5
    file.write_text(text)
    main([str(tmp_path), "--text", str(file)])
    told = json.loads(capsys.readouterr().out)
    found = surprisals(loaded.model, [*loaded.start_ids, *plain_ids(loaded.tokenizer, text)])
    assert told["tokens"] == told["bytes"] == len(surprisal(loaded, text).tokens) == 90
    assert told["bits_per_byte"] == pytest.approx(sum(each.bits or 0.0 for each in found) / 90, rel=1e-4)


def test_loading_in_the_background(checkpoint):
    loader = ModelLoader(find_model(checkpoint))
    assert not loader.ready
    with pytest.raises(TimeoutError):
        loader.wait(0.01)
    loaded = loader.start().wait(60)
    assert loader.ready
    assert not loaded.model.training
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_a_failure_in_the_background_reaches_who_waits(broken):
    loader = ModelLoader(find_model(broken))
    (broken / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"broken has no weights: expected model\.safetensors"):
        loader.start().wait(60)
    assert not loader.ready
    assert loader.source.folder == broken


def record_options(loaded, *arguments, **options):
    """What a function of the model is called with."""
    return arguments, list(options)


def test_on_zerogpu_should_stop_does_not_travel(checkpoint, monkeypatch):
    loader = ModelLoader(find_model(checkpoint)).start()
    assert loader.call(record_options, 1, should_stop=bool) == ((1,), ["should_stop"])
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert loader.call(record_options, 1, should_stop=bool) == ((1,), [])
