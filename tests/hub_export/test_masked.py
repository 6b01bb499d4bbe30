"""Bundles of masked models and of every kind of tokenizer: exported, described, loaded in a clean environment."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hub_export import bundle
from hub_export.card import Vocabulary
from tests.hub_export.test_card import code_blocks
from tests.hub_export.tokenizer_kinds import make_run, make_tokenizer
from tests.processes import Python
from tokenization import save_tokenizer
from tokenization.trainers import add_mask_token

CLEAN = """
import json, sys
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline
folder, text = sys.argv[1:]
fill = pipeline("fill-mask", model=folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(text, return_tensors="pt")
at = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
best = model(**inputs).logits[0, at].softmax(-1).topk(5)
print(json.dumps([[guess["token"], guess["score"]] for guess in fill(text)]))
print(json.dumps([best.indices.tolist(), best.values.tolist()]))
"""


@pytest.fixture(scope="module")
def masked_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checked bundle of a masked model with our own tokenizer."""
    folder = tmp_path_factory.mktemp("masked")
    return bundle(make_run(folder / "run", "bpe", masked=True), folder / "tiny")


def test_its_card_names_its_numbers(masked_bundle: Path) -> None:
    card: Any = ModelCard.load(masked_bundle / "README.md")
    assert (card.data.pipeline_tag, card.data.mask_token) == ("fill-mask", "<|mask|>")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "loss": 1.25,
        "masked_perplexity": 3.4903,
        "pseudo_perplexity": 2.5,
    }
    assert {result.task_type for result in card.data.eval_results} == {"fill-mask"}
    for right in (
        "| 1.2500 | 3.4903 | 2.5000 |",
        "with 20% of the tokens hidden at once",
        "A masked language model of",
    ):
        assert right in card.text
    for wrong in ("bits per byte", "continues a text", "text-generation", "generate("):
        assert wrong not in card.text
    assert [sample for _, sample in code_blocks(card.text, "text")] == ["The <|mask|> rose\n→ The moon rose"]


def test_a_clean_environment_fills_blanks_with_it(masked_bundle: Path, clean_python: Python) -> None:
    """The card's own example, in a process that does not import this project."""
    card = (masked_bundle / "README.md").read_text(encoding="utf-8")
    blocks = [code for _, code in code_blocks(card, "python")]
    for code in blocks:
        ast.parse(code)
    (text,) = {ast.literal_eval(match) for match in re.findall(r'(?:fill|tokenizer)\(("[^"]*")', "\n".join(blocks))}
    assert text == "The robot<|mask|> three moons"
    script = masked_bundle.parent / "clean.py"
    script.write_text(CLEAN)
    done = clean_python.run(str(script), str(masked_bundle), text)
    assert done.returncode == 0, done.stderr
    guesses, (tokens, values) = map(json.loads, done.stdout.splitlines()[-2:])
    assert [token for token, _ in guesses] == tokens
    assert [score for _, score in guesses] == pytest.approx(values, rel=1e-4)


def test_a_masked_model_whose_tokenizer_has_no_mask_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "bpe", masked=True)
    folder = run / "checkpoints" / "step-000010"
    save_tokenizer(make_tokenizer("bpe", run), folder)
    with pytest.raises(ValueError, match="expected a tokenizer with a mask token, which a ScratchGPTForMaskedLM needs"):
        bundle(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "masked"),
    [
        ("wordpiece", False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("characters", True), ("sentencepiece", True), ("gpt2", False))
        ),
    ],
)
def test_every_tokenizer_passes_the_check(tmp_path: Path, kind: str, masked: bool) -> None:
    made = bundle(make_run(tmp_path / "run", kind, masked=masked), tmp_path / "out")
    names = {path.name for path in made.iterdir()}
    assert not {"slow", "tokenization_scratchgpt.py"} & names
    assert ({"tokenizer.model", "tokenizer.vocab"} <= names) == (kind == "sentencepiece")
    card = (made / "README.md").read_text(encoding="utf-8")
    assert ("add_special_tokens=False" in card) == (kind == "wordpiece")


@pytest.mark.parametrize(
    ("kind", "blanked", "surrounds"),
    [
        ("bpe", "The robot<|mask|> three moons", False),
        ("gpt2", "The robot<|mask|> three moons", False),
        ("sentencepiece", "The robot<|mask|> three moons", False),
        ("wordpiece", "The robot <|mask|> three moons", True),
        ("characters", "The robot s<|mask|>w three moons", False),
    ],
)
def test_the_example_fits_the_tokenizer(tmp_path: Path, kind: str, blanked: str, surrounds: bool) -> None:
    save_tokenizer(add_mask_token(make_tokenizer(kind, tmp_path)), tmp_path / "tokenizer")
    vocabulary = Vocabulary.read(tmp_path / "tokenizer")
    assert vocabulary.with_blank("The robot saw three moons") == blanked
    assert vocabulary.surrounds == surrounds
