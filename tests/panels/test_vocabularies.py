"""Writing and filling with every kind of tokenizer, as the page, the API and the terminal do it."""

import dataclasses
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.generation import stream
from panels.generate import encode_prompt, generate
from panels.models import LoadedModel, load_model
from panels.sampling import settings_from
from panels.tabs.fill.filling import fill
from panels.tabs.write.token_rows import TokenRows
from panels.terminal import Terminal
from tests.panels.tiny_model import TEXT, loader_of
from tokenization import save_tokenizer
from tokenization.spans import SINGLE_BYTE
from tokenization.tokenization_scratchgpt import byte_alphabet
from tokenization.trainers import KINDS, add_mask_token, load_gpt2, train_vocabulary

SIZES = {"bpe": 320, "wordpiece": 100, "sentencepiece": 330, "characters": 0}


def make_tokenizer(kind: str, scratch: Path) -> Any:
    """A tiny one; GPT-2's from a local folder with few merges."""
    if kind != "gpt2":
        return train_vocabulary(kind, [TEXT], SIZES[kind])
    tokens = [*byte_alphabet(), "Ġt", "he", "<|endoftext|>"]
    (scratch / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (scratch / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\n")
    return load_gpt2(scratch)


def make(kind: str, folder: Path, *, masked: bool) -> LoadedModel:
    """A random model of that kind, saved and loaded."""
    folder.mkdir()
    tokenizer = make_tokenizer(kind, folder)
    tokenizer = add_mask_token(tokenizer) if masked else tokenizer
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=48, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    model = (ScratchGPTForMaskedLM if masked else ScratchGPTForCausalLM)(config)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.all_special_ids] = -100.0
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return load_model(folder)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of tokenizer."""
    return request.param


@pytest.fixture(scope="module")
def writer(kind: str, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A causal model."""
    return make(kind, tmp_path_factory.mktemp("models") / kind, masked=False)


@pytest.fixture(scope="module")
def filler(kind: str, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A masked model."""
    return make(kind, tmp_path_factory.mktemp("models") / kind, masked=True)


@pytest.mark.parametrize("prompt", ["The lamp", "The café x👩", "東", "The ship was quiet,", ""])
def test_the_prompt_stands_once_and_what_follows_is_joined_to_it(writer: LoadedModel, prompt: str) -> None:
    options = settings_from(seed=3, max_new_tokens=30, temperature=1.5)
    drafts = list(generate(writer, prompt, options, interval=0.0))
    assert all(later.text.startswith(earlier.text) for earlier, later in pairwise(drafts))
    prompt_ids = encode_prompt(writer, prompt)
    new = [step.token_id for step in stream(writer.model, prompt_ids, options)]
    last = prompt_ids[len(writer.prefix_ids) :][-1:]
    if last and SINGLE_BYTE.fullmatch(writer.tokenizer.convert_ids_to_tokens(last[0])):
        last = []  # its character is whole, and the bytes that follow make others
    both = writer.tokenizer.decode([*last, *new])
    assert drafts[-1].text == prompt + both[len(writer.tokenizer.decode(last)) :]


@pytest.mark.parametrize("prompt", ["The lamp", "東", ""])
def test_the_rows_of_the_tokens_are_the_text_and_alternatives_are_joined_to_it(
    writer: LoadedModel, prompt: str
) -> None:
    options = settings_from(seed=3, max_new_tokens=30, temperature=1.5)
    drafts = list(generate(writer, prompt, options, alternatives=10, interval=0.0))
    tokens = [token for draft in drafts for token in draft.tokens]
    rows = TokenRows(writer, prompt)
    added = rows.add(tokens)
    assert prompt + "".join(row[0] for row in added["tokens"]) + drafts[-1].rest == drafts[-1].text
    ids = [token.token_id for token in tokens]
    free = 0
    for index, (*_, is_inside, flat) in enumerate(added["tokens"]):
        before = ids[:index]
        for token_id, _, text, why in (added["pieces"][number] for number in flat[::3]):
            if before and not why and not is_inside:
                with_it = writer.tokenizer.decode([*before, token_id])
                assert with_it == writer.tokenizer.decode(before) + text
                free += 1
    assert free > 5


def test_words_are_kept_apart_where_the_vocabulary_has_no_spaces(tmp_path: Path) -> None:
    """WordPiece: a token that begins a word is written with a space before it, also right after the prompt."""
    loaded = make("wordpiece", tmp_path / "model", masked=False)
    (lamp,) = loaded.tokenizer("lamp", add_special_tokens=False)["input_ids"][:1]
    with torch.no_grad():
        loaded.model.lm_head.bias[lamp] = 100.0
    (draft,) = list(generate(loaded, "The", settings_from(max_new_tokens=1)))[-1:]
    assert draft.text == "The " + loaded.tokenizer.decode([lamp])


def test_the_terminal_writes_with_it(writer: LoadedModel) -> None:
    """The last prompt is that of the wiki.txt tutorial's README."""
    sink, prompts = io.StringIO(), ("The lamp", "The sea", "My self Har")
    Terminal(loader_of(writer), {"seed": 1, "max_new_tokens": 6}, io.StringIO("\n".join(prompts)), sink).run()
    for prompt in prompts:
        text = list(generate(writer, prompt, settings_from(seed=1, max_new_tokens=6)))[-1].text
        assert text.startswith(prompt)
        assert len(text) > len(prompt)
        assert text + "\n" in sink.getvalue()


@pytest.mark.parametrize("text", ["The ____ burned", "____", "on the m____", "x👩 ____ 東 ____."])
def test_blanks_are_filled_with_it(filler: LoadedModel, text: str) -> None:
    blanks = fill(filler, text, 5)
    assert len(blanks) == text.count("____")
    special = set(filler.tokenizer.all_special_ids)
    for blank in blanks:
        assert text[blank.start : blank.end].strip() == "____"
        assert len(blank.candidates) == 5
        assert not special & {candidate.token_id for candidate in blank.candidates}
    sink = io.StringIO()
    Terminal(loader_of(filler), {}, io.StringIO(text + "\n"), sink).run()
    assert "____" not in sink.getvalue()


def test_a_foreign_masked_model_fills_blanks_too(filler: LoadedModel) -> None:
    """What stands around a text is the tokenizer's own business there."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lamp", "burned", "low", "##s"]
    tokenizer = BertTokenizer({word: index for index, word in enumerate(words)})
    sizes: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = BertForMaskedLM(BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)).eval()
    with torch.no_grad():
        model.cls.predictions.bias[9] = 100.0
    other = dataclasses.replace(filler, model=model, tokenizer=tokenizer)
    (blank,) = fill(other, "the lamp ____ low", 2)
    assert blank.candidates[0].text == "s"  # goes to the word before it
    assert blank.candidates[1].text.startswith(" ")
