"""What the About tab says: every number against the model, every path against the disk."""

import base64
import dataclasses
import json
import shutil

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.families import MODERN
from modeling.sizing import count_parameters, flops_per_token
from panels.components.from_pretrained import whereabouts
from panels.context import AppContext
from panels.formats import file_size, short_number
from panels.models import ModelLoader, ModelSource, find_model, load_model
from panels.tabs.about import tab as about
from panels.tabs.about.facts import api_code, limits, load_code, model_facts, parts_of, picture, training_facts
from storage.run_folder import RunFolder
from tests.panels.tiny_model import PROMPTS, save_run

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize("modern", [False, True])
def test_parts_add_up_to_the_parameters(modern):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    config = ScratchGPTConfig(vocab_size=300, **sizes, **(MODERN if modern else {}))
    parts = parts_of(ScratchGPTForCausalLM(config))
    assert sum(parts.values()) == count_parameters(config)
    assert "other" not in parts
    assert next(count for name, count in parts.items() if name.startswith("token embeddings")) == 300 * 32
    assert ("output layer" in parts) is not modern
    assert parts.get("positions") == (None if modern else 16 * 32)
    assert parts["attention"] >= 2 * 4 * 32 * 32


def test_parts_of_gpt2_count_no_buffer_and_no_tied_matrix_twice():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=16, n_embd=8, n_layer=2, n_head=2))
    parts = parts_of(model)
    assert sum(parts.values()) == model.num_parameters()
    tied = parts.pop("token embeddings, which are the output layer too")
    assert (tied, parts["positions"], parts["normalisation"]) == (800, 128, 5 * 16)
    assert set(parts) == {"positions", "normalisation", "attention", "feed-forward"}


def test_model_facts_and_limits(loaded, masked):
    assert "does not answer questions" in limits(loaded)[0]
    assert "at most 48 tokens" in limits(loaded)[2]
    assert "fills blanks" in limits(masked)[0]
    chatting = dataclasses.replace(loaded, source=dataclasses.replace(loaded.source, chat=True))
    assert "tuned to answer" in limits(chatting)[0]
    facts = dict(model_facts(loaded))
    assert facts["parameters"] == f"{count_parameters(loaded.model.config):,}"
    assert facts["context"] == "48 tokens"
    assert facts["shape"] == "2 layers, hidden size 32, 2 attention heads of size 16, feed-forward size 128"
    cache = 2 * 2 * 2 * 16 * 4
    weights = file_size(4 * count_parameters(loaded.model.config))
    assert facts["memory"] == f"{weights} of weights (float32), and {cache} bytes of key-value cache per token"
    assert f"{short_number(round(flops_per_token(loaded.model.config, 48)))} in training" in facts["arithmetic"]


def test_training_facts_come_from_the_run(tmp_path):
    run = save_run(tmp_path / "one")
    state = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(state | {"seconds": 143.2}))
    recipe = json.loads((run / "recipe.json").read_text())
    versions = {"git_commit": "0123456789abcdef", "versions": {"torch": "2.13.0", "transformers": "5.23.0"}}
    recipe["config"]["data"] = {"batch_size": 14}
    (run / "recipe.json").write_text(json.dumps(recipe | versions))
    facts = dict(training_facts(find_model(run), RunFolder(run)))
    assert facts["tokens seen"].startswith("12,000, ")
    assert (facts["recipe"], facts["steps"], facts["time"]) == (
        "stories", "20, with a batch of 14 sequences each", "2 min 23 s"
    )  # fmt: skip
    assert facts["on validation text"].startswith("1.5000 bits per byte, 500\u00a0% above the floor of 0.2500")
    assert facts["made with"] == "torch 2.13.0, transformers 5.23.0"
    assert facts["code"] == "git commit 0123456789ab"
    assert training_facts(ModelSource(given="x", name="x"), None) == []
    (run / "recipe.json").write_text("{")
    with pytest.raises(ValueError, match=r"recipe\.json"):
        training_facts(find_model(run / "checkpoints" / "step-000020"), RunFolder(run))


def run_with_two_checkpoints(folder):
    """A run whose best checkpoint, of step 20, is not its latest, of step 30, at which run.json was written."""
    run = save_run(folder)
    shutil.copytree(run / "checkpoints" / "step-000020", run / "checkpoints" / "step-000030")
    state = json.loads((run / "run.json").read_text())
    latest = {"step": 30, "seconds": 90.0, "tokens_seen": 18_000, "latest_checkpoint": "checkpoints/step-000030"}
    base = {"base_model": {"name": "stories, step 900", "trained_on": "5,000 short stories"}}
    (run / "run.json").write_text(json.dumps(state | latest | base))
    lines = [{"step": step, "tokens_seen": 600 * step, "seconds": 3.0 * step, "train_loss": 2.0} for step in (20, 30)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_facts_are_those_of_one_step(tmp_path):
    run = run_with_two_checkpoints(tmp_path / "one")
    for given, step, seen, time in (
        (run, "20", "12,000", "1 min"),
        (run / "checkpoints" / "step-000020", "20", "12,000", "1 min"),
        (run / "checkpoints" / "step-000030", "30", "18,000", "1 min 30 s"),
    ):
        facts = dict(training_facts(find_model(given), RunFolder(run)))
        assert (facts["steps"], facts["tokens seen"].split(", ")[0], facts["time"]) == (step, seen, time)
    bundle = shutil.copytree(run / "checkpoints" / "step-000020", tmp_path / "bundle")  # found by its weights
    assert dict(training_facts(find_model(bundle), RunFolder(run)))["steps"] == "20"


def test_a_checkpoint_is_named_with_its_step(tmp_path):
    run = run_with_two_checkpoints(tmp_path / "one")
    assert find_model(run).name == "one"
    assert find_model(run / "checkpoints" / "step-000020").name == "one, step 20"
    assert find_model(run / "checkpoints" / "step-000030").name == "one, step 30"


def test_what_the_base_model_had_read_is_told(tmp_path):
    plain, tuned = save_run(tmp_path / "plain"), run_with_two_checkpoints(tmp_path / "tuned")
    assert "It has read 500 short English stories" in limits(load_model(plain))[1]
    assert limits(load_model(plain))[1].count("base model") == 0
    assert limits(load_model(tuned))[1].startswith(
        "It has read 500 short English stories made by ScratchGPT's own generator, before that what its base model "
        "stories, step 900 had read (5,000 short stories), and nothing else. "
    )


def test_models_are_named_by_the_hubs_id_or_from_home(tmp_path, monkeypatch):
    for given, place in (("someone/model", ("someone/model", None)), ("gpt2@0123abc", ("gpt2", "0123abc"))):
        source = ModelSource(given=given, name="x", folder=tmp_path / "snapshots" / "0123")
        assert whereabouts(source, tmp_path) == place
    run = save_run(tmp_path / "runs" / "one")
    source = find_model(run)
    assert whereabouts(source, tmp_path) == ("runs/one/checkpoints/step-000020", None)
    assert whereabouts(source, tmp_path / "elsewhere") == (str(run / "checkpoints" / "step-000020"), None)
    assert whereabouts(source, tmp_path / "elsewhere", is_public=True) == ("step-000020", None)
    monkeypatch.chdir(tmp_path)
    assert whereabouts(find_model("runs/one"), tmp_path) == ("runs/one/checkpoints/step-000020", None)


def test_code_asks_for_trust_only_where_the_folder_brings_code(loaded, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    source = dataclasses.replace(loaded.source, given=str(folder), folder=folder)
    there = dataclasses.replace(loaded, source=source)
    assert "trust_remote_code" not in load_code(there, tmp_path)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "m.M"}}))
    code = load_code(there, tmp_path)
    assert code.count("trust_remote_code=True") == 2
    assert 'AutoModelForCausalLM.from_pretrained("model", trust_remote_code=True)' in code
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object"):
        load_code(there, tmp_path)


def test_code_holds_any_prompt_on_one_line(loaded, tmp_path):
    source = dataclasses.replace(loaded.source, prompts=('```\n"""\\ \u2028\ud800',))
    code = load_code(dataclasses.replace(loaded, source=source), tmp_path)
    compile(code, "code", "exec")
    compile(api_code(source, "http://127.0.0.1:1"), "code", "exec")
    assert len(code.splitlines()) == 7
    assert not any(line.startswith("```") for line in code.splitlines())


def test_the_code_of_a_masked_model_runs(masked, monkeypatch, capsys):
    folder = masked.source.folder
    assert folder is not None
    monkeypatch.chdir(folder.parent)
    exec(load_code(masked, folder.parent), {})
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_pictures(tmp_path):
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    for content, shown in ((PNG, url), (PNG + bytes(300_000), None), (b"<svg>", None)):
        (tmp_path / "loss.png").write_bytes(content)
        assert picture(tmp_path / "loss.png") == shown
    assert picture(tmp_path / "vanished.png") is None


def test_a_vanished_folder_and_a_damaged_run_are_named_and_the_rest_stays(tmp_path):
    run = save_run(tmp_path / "runs" / "one")
    loader = ModelLoader(find_model(run)).start()
    loader.wait()
    context = AppContext(loader=loader, home=tmp_path, is_public=False)
    facts, code, interface, card = about.arrived(context)
    assert "the floor" in facts
    assert "runs/one/checkpoints/step-000020" in code
    assert PROMPTS[0] in interface
    assert "has none" in card
    (run / "run.json").write_text("{")
    facts, *_ = about.arrived(context)
    assert "cannot be read" in facts
    assert "What it cannot do" in facts
    (run / "checkpoints").rename(tmp_path / "missing")
    facts, code, *_ = about.arrived(context)
    assert "The model&#39;s folder is missing" in facts
    assert "What it is" in facts
