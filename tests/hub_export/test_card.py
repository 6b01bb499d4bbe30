import ast
import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from hub_export.card import fence_for, render_card, set_repository
from hub_export.code_version import put_code
from modeling.stored.weights import read_weights
from panels.generate import generate
from panels.models import load_model
from panels.sampling import settings_from
from storage.model_card import FACTS, read_card
from storage.records import write_jsonl
from storage.run_folder import RunFolder
from tests.hub_export.tokenizer_kinds import KINDS, make_run
from tests.processes import Python


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
    set_repository(made, "alice/moons")
    assert (made / "README.md").read_text(encoding="utf-8") == text


def test_a_card_that_was_made_for_another_repository_gets_the_new_one(made: Path, run: Path) -> None:
    base = {"name": "alice/moons", "repository": "alice/moons"}
    RunFolder(run).write_state(RunFolder(run).state | {"base_model": base})
    path = made / "README.md"
    by_hand = "Compare [moons](https://huggingface.co/alice/moons) and alice/moons-2.\n"
    text = render(made, run, repo="alice/moons") + by_hand
    assert (
        "- It has read its corpus, before that what its base model `alice/moons` had read, and nothing else: " in text
    )
    path.write_text(text, encoding="utf-8")
    set_repository(made, "bob/final")
    changed = path.read_text(encoding="utf-8")
    assert changed == text.replace('"alice/moons"', '"bob/final"').replace("tory: alice/moons", "tory: bob/final")
    assert changed.count('from_pretrained("bob/final"') == 3
    assert read_card(made)[0][FACTS]["repository"] == "bob/final"
    assert read_card(made)[0]["base_model"] == "alice/moons"
    assert changed.endswith(by_hand)


def test_a_run_that_was_cut_short_says_so(made: Path, pristine_run: Path, tmp_path: Path) -> None:
    """With the command that goes on, in which no path of the machine is named."""
    run = tmp_path / "my moons"
    shutil.copytree(pristine_run, run)
    reason = "the time limit of 10 min 32 s ended the run after 10 of 40 planned steps (25% of its tokens)"
    command = ["python", "-m", "train", f"{run}/recipe.json", "--run-dir", str(run), "--resume"]
    state = RunFolder(run).state | {"cut_short": reason, "resume_command": shlex.join(command)}
    RunFolder(run).write_state(state)
    card = render(made, run)
    assert f"**Not trained to its end**: {reason}.\n" in card
    assert ("```", "python -m train 'runs/my moons/recipe.json' --run-dir 'runs/my moons' --resume") in code_blocks(
        card, "sh"
    )
    assert str(tmp_path) not in card
    (made / "README.md").write_text(card)
    assert read_card(made)[0][FACTS]["cut_short"] == reason
    RunFolder(run).write_state(state | {"resume_command": "python -m train runs/x/recipe.json --run-dir runs/x"})
    assert "\npython -m train runs/x/recipe.json --run-dir runs/x\n" in render(made, run)
    assert "Not trained to its end" not in render(made, pristine_run)


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
    assert 'tokenizer("<|endoftext|>" + "The robot", return_tensors="pt")' in blocks[0][1]
    assert '"your-name/scratchgpt-stories"' in blocks[0][1]
    assert 'An empty prompt (`""`) needs none: `generate` begins with it.' in page
    assert "`<|endoftext|>` precedes every text of the training" in page
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
    RunFolder(run).write_recipe(recipe)
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


def test_its_programs_write_what_the_page_writes(tmp_path: Path, clean_python: Python) -> None:
    """Those of the card of each kind of tokenizer, as they stand, with the model's folder for the repository.

    The second program draws: it is compared where it does not."""
    programs, expected = [], []
    for kind in KINDS:
        run = RunFolder(make_run(tmp_path / kind, kind, masked=False))
        run.write_prompts(["The sailor said"])
        folder = run.checkpoint("best")
        shutil.copyfile(run.path / "prompts.json", folder / "prompts.json")
        put_code(folder)
        card = render_card(folder, run, folder, repo="alice/moons")
        first, second, *_ = (program.replace("alice/moons", str(folder)) for _, program in code_blocks(card, "python"))
        programs += [first, second, second.replace('"do_sample": True', '"do_sample": False')]
        loaded = load_model(folder)
        settings = settings_from(temperature=0, max_new_tokens=24)
        text = list(generate(loaded, "The sailor said", settings))[-1].text
        # The pipeline decodes what is new by itself, and so leaves out a space that a decoder puts between two tokens.
        one_call = text.replace(" ", "", 3).replace("Thesailorsaid", "The sailor said") if kind == "wordpiece" else text
        expected += [text, "The sailor said", one_call]
        without = dataclasses.replace(loaded, prefix_ids=())
        assert list(generate(without, "The sailor said", settings))[-1].text != text  # the first token counts
    done = clean_python.run("-c", "\nprint('====')\n".join(programs))
    assert done.returncode == 0, done.stderr
    printed = done.stdout.removesuffix("\n").split("\n====\n")
    for text, wanted, program in zip(printed, expected, programs, strict=True):
        assert text == wanted or ("True" in program and text.startswith(wanted)), program


def test_what_was_measured_afterwards_is_on_the_card(made: Path, run: Path) -> None:
    folder = RunFolder(run)
    for absent in ("never saw", "Memorization", "While it learned", "Seed 0"):
        assert absent not in render(made, run)
    result = {"loss": 2.0, "perplexity": 7.4, "bits_per_byte": 1.23456, "tokens": 9, "bytes": 12345}
    folder.record_evaluation("step-000010", {"texts": {"a|book_*.txt": result}})
    counts = {"texts": 200, "tokens": 60000, "windows": 58200, "memorised": 8, "share": 8 / 58200, "window": 50}
    samples = [{"seed": seed, "text": f"``` text {seed}"} for seed in range(10)]
    folder.record_evaluation("step-000010", {"memorization": counts, "seeded_samples": samples})
    first = [{"step": step, "prompt": "The", "text": f" {step} | <b>\nx", "seed": 0} for step in (1, 3, 10)]
    write_jsonl(run / "samples.jsonl", [*first, *folder.samples()])
    text = render(made, run)
    assert "| a\\|book\\_\\*.txt | 12,345 | 1.2346 |" in text
    assert "of 58,200 windows of 50 tokens in 200 texts that it wrote from nothing, 8 stand word for\nword" in text
    assert "(0.014%)" in text
    seeds = text.split("## Samples")[1].split("## While it learned")[0]
    assert "with the seeds 0 to 9, not selected" in seeds
    assert re.findall(r"Seed (\d):\n\n````text\n``` text (\d)\n````\n", seeds) == [(str(n), str(n)) for n in range(10)]
    assert "| 1 | 1 \\| \\<b\\> x |" in text
    assert "| 10 |" not in text.split("## While it learned")[1]  # that is the checkpoint itself
    assert text.count("## Samples") == 1
    folder.rewind(5)  # the checkpoint is trained again
    assert folder.evaluations("step-000010") == {}
