import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from hub_export.card import fence_for, render_card, set_repository
from modeling.loading import read_weights
from storage.model_card import FACTS, read_card
from storage.records import write_jsonl
from storage.run_folder import RunFolder


def render(bundle: Path, run: Path, *, checkpoint: str = "best", repo: str | None = None, **options: str) -> str:
    folder = RunFolder.open(run)
    return render_card(bundle, folder, folder.checkpoint(checkpoint), repo=repo, **options)


def code_blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"^(```+){language}\n(.*?)\n\1$", card, flags=re.MULTILINE | re.DOTALL)


def test_front_matter_says_what_the_hub_cannot_infer(pristine_bundle: Path) -> None:
    data: Any = ModelCard.load(pristine_bundle / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert (data.license, data.language) == ("mit", "en")
    assert data.tags == ["scratchgpt", "from-scratch", "custom_code"]
    assert data.model_name == "scratchgpt-stories"
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "loss": 1.25,
        "perplexity": 3.4903,
        "bits_per_byte": 0.55,
    }


def test_the_facts_travel_as_data(made: Path, pristine_run: Path) -> None:
    data, _ = read_card(made)
    assert data[FACTS] == {
        "repository": "your-name/scratchgpt-stories",
        "trained_on": "30,000 short English stories made by ScratchGPT's own generator",
        "recipe": "stories",
        "steps": 10,
        "tokens_seen": 20480,
        "floor_bits_per_byte": 0.5,
    }
    set_repository(made, "alice/moons")
    text = (made / "README.md").read_text(encoding="utf-8")
    assert "your-name" not in text
    assert "Put the id of the repository" not in text
    assert text.count("alice/moons") == 5
    set_repository(made, "bob/moons")
    assert (made / "README.md").read_text(encoding="utf-8") == text


def test_a_card_of_version_0_1_gets_its_repository(made: Path) -> None:
    path = made / "README.md"
    path.write_text(re.sub(r"(?m)^scratchgpt:\n( .*\n)+", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    assert FACTS not in read_card(made)[0]
    set_repository(made, "alice/moons")
    assert "your-name" not in path.read_text(encoding="utf-8")


def test_license_language_and_repository_are_the_users(made: Path, pristine_run: Path) -> None:
    text = render(made, pristine_run, repo="alice/moons", license="cc-by-4.0", language="de")
    data: Any = ModelCard(text).data
    assert (data.license, data.language, data.model_name) == ("cc-by-4.0", "de", "moons")
    assert 'from_pretrained("alice/moons", trust_remote_code=True)' in text
    assert "your-name" not in text


def test_the_page_tells_size_training_and_results(pristine_bundle: Path) -> None:
    text = (pristine_bundle / "README.md").read_text(encoding="utf-8")
    assert f"| parameters | {read_weights(pristine_bundle).parameters:,} |" in text
    assert "| tokens seen | 20,480 |" in text  # those of the exported step, not of the whole run
    assert "| time | 1 h 2 min |" in text
    assert "| 1.2500 | 3.4903 | 0.5500 |" in text
    assert "**0.5000 bits per byte**" in text
    assert "This one is 10.0 % above that floor." in text
    assert "30,000 short English stories" in text
    assert "![Training and validation loss over the steps](loss.png)" in text


@pytest.mark.parametrize("has_metrics", [True, False], ids=["metrics.jsonl", "run.json"])
def test_another_checkpoint_has_its_own_results(made: Path, run: Path, has_metrics: bool) -> None:
    if not has_metrics:
        (run / "metrics.jsonl").unlink()
    text = render(made, run, checkpoint="latest")
    assert "| 1.5000 | 4.4817 | 0.6600 |" in text
    assert "| tokens seen | 40,960 |" in text
    assert "| time | 2 h |" in text


def test_what_was_not_measured_is_not_claimed(made: Path, run: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        (run / name).unlink()
    for name in ("loss.png", "prompts.json"):
        (made / name).unlink()
    text = render(made, run)
    assert ModelCard(text).data.to_dict().keys() == {
        "language", "license", "library_name", "pipeline_tag", "tags", FACTS,
    }  # fmt: skip
    for absent in ("## Results", "## Samples", "loss.png", "tokens seen", "above that floor", "| time"):
        assert absent not in text


def test_samples_are_those_of_the_step_and_cannot_break_the_page(pristine_bundle: Path) -> None:
    text = (pristine_bundle / "README.md").read_text(encoding="utf-8")
    assert [sample for _, sample in code_blocks(text, "text")] == [
        "The moon rose.\n```python\nprint(1)\n````\n# not a heading",
        "The sailor\ufffd[31m said",
        "Once",
    ]
    assert "\n`````text\nThe moon rose." in text
    assert " end" not in text.split("## Samples")[1].split("## Limits")[0]


def test_a_long_sample_is_cut_at_a_word(made: Path, run: Path) -> None:
    write_jsonl(run / "samples.jsonl", [{"step": 10, "prompt": "A", "text": " word" * 500, "seed": 0}])
    ((_, sample),) = code_blocks(render(made, run), "text")
    assert sample.startswith("A word word")
    assert sample.endswith(" word …")
    assert len(sample) <= 602


def test_the_examples_are_python(pristine_bundle: Path) -> None:
    page = (pristine_bundle / "README.md").read_text(encoding="utf-8").split("## Samples")[0]
    blocks = code_blocks(page, "python")
    assert len(blocks) == 3  # two for the model, one for the slow tokenizer
    for _, code in blocks:
        ast.parse(code)
    assert 'tokenizer("The robot", return_tensors="pt")' in blocks[0][1]
    assert '"your-name/scratchgpt-stories"' in blocks[0][1]
    assert 'An empty prompt (`""`) begins a text: `generate` then starts with `<|endoftext|>`, which precedes' in page
    assert "The padding token is the token that ends a text, `<|endoftext|>`. `DataCollatorForLanguageModeling" in page


@pytest.mark.parametrize("prompt", ['a "quote" \\ and\nmore', "été 東京", "```", ""])
def test_any_prompt_makes_a_valid_example(made: Path, pristine_run: Path, prompt: str) -> None:
    (made / "prompts.json").write_text(json.dumps([prompt]))
    tree = ast.parse(code_blocks(render(made, pristine_run), "python")[0][1])
    literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert (prompt if prompt.strip("`") else "Once") in literals


def test_a_data_set_of_the_hub_is_linked(made: Path, run: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["config"]["corpus"] = {"source": "hub", "dataset": "Salesforce/wikitext"}
    (run / "recipe.json").write_text(json.dumps(recipe))
    text = render(made, run)
    data: Any = ModelCard(text).data
    assert data.datasets == ["Salesforce/wikitext"]
    assert {result.dataset_type for result in data.eval_results} == {"Salesforce/wikitext"}
    assert "trained from scratch on the data set `Salesforce/wikitext` of the Hugging Face Hub. It is" in text


@given(st.text(alphabet="`~ \nab"))
def test_nothing_in_a_text_closes_its_fence(text: str) -> None:
    fence = fence_for(text)
    assert len(fence) >= 3
    assert fence not in text
