"""The tutorials' recipes at toy size: what they train on, and what a reader of their READMEs does with the result."""

import pytest

from corpus.stories.generator import generate_stories
from modeling.generation import SamplingSettings, stream
from modeling.loading import load_causal_lm
from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_manifest
from tokenization import load_tokenizer, plain_ids
from train.__main__ import parse
from train.loop import train

ROWS = 40
SIZES = (
    "--steps 2 --run.checkpoint-every 2 --run.sample-tokens 5 --run.output-tokens 0 --run.threads 1 "
    "--data.batch-size 4 --data.evaluation-windows 4 --model.hidden-size 28 --model.intermediate-size 56 "
    "--model.num-hidden-layers 1 --model.max-position-embeddings 32 --tokenizer.vocab-size 400"
)


@pytest.fixture(scope="module", params=["scifi", "openwebtext", "wikitext", "wiki"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the recipe on forty stories, a row each, of a file."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = folder / "rows.txt"
    stories = generate_stories(seed=0, count=ROWS)
    rows.write_text("\n".join(" ".join(story.text.split()) + "\n" for story in stories), encoding="utf-8")
    flags = [*SIZES.split(), "--corpus", str(rows), "--run-dir", str(folder / "run")]
    flags += ["--corpus.books", "any"] if request.param == "scifi" else []
    name, config = parse([request.param, *flags])
    return RunFolder(train(config, recipe=name, quiet=True))


def test_the_separator_is_in_the_text_as_often_as_texts_begin(run: RunFolder) -> None:
    """It precedes every text that the model writes; WikiText's rows are texts, a wiki.txt comes in passages."""
    manifest = read_manifest(run.tokens)
    assert manifest is not None
    splits = [TokenSplit(run.tokens, manifest[name]) for name in ("train", "validation")]
    count = sum(len(split.positions_of(manifest["end_of_text"])) for split in splits)
    recipe = run.recipe["recipe"]
    assert {"scifi": count == 2, "openwebtext": count == 3, "wikitext": count == ROWS + 2, "wiki": 5 < count < 12}[
        recipe
    ]


def test_it_writes_on_from_the_prompt_of_a_readme(run: RunFolder) -> None:
    model, tokenizer = load_causal_lm(run.checkpoint()), load_tokenizer(run.checkpoint())
    start = [tokenizer.eos_token_id, *plain_ids(tokenizer, "My self Har")]
    new = [step.token_id for step in stream(model, start, SamplingSettings(max_new_tokens=12, seed=1))]
    assert len(new) == 12
    assert str(tokenizer.decode(new)).strip()
