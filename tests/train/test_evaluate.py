"""Loss, perplexity, bits per byte of any text."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling import ScratchGPTConfig, ScratchGPTForMaskedLM
from modeling.inspection import text_windows
from modeling.loading import load_causal_lm
from tokenization import ScratchGPTTokenizer, load_tokenizer, save_tokenizer, train_bpe
from train.evaluate import main
from train.text_loss import evaluate_masked_text, evaluate_text, middle_windows

TEXT = "One morning a fox went to the market. It was closed."
CONTEXT = 12


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random masked model of 12 tokens of context, with its tokenizer."""
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 280))
    tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3,
        max_position_embeddings=CONTEXT, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "masked"
    ScratchGPTForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def slow_tokenizer(folder: Path) -> Any:
    """Typed as what it is: the from-scratch class, whose `encode_ordinary` the base class does not have."""
    return load_tokenizer(folder)


@given(st.integers(2, 200), st.integers(2, 40))
def test_every_token_but_the_first_is_scored_once(length: int, context: int) -> None:
    ids = list(range(length))
    scored = []
    for window, count in text_windows(ids, context):
        assert len(window) <= context
        assert count < len(window)
        assert window == list(range(window[0], window[0] + len(window)))
        scored += window[-count:]
    assert scored == ids[1:]


def test_the_loss_of_a_short_text_is_the_models_own(finished_run: Path) -> None:
    folder = finished_run / "checkpoints/step-000012"
    model, tokenizer = load_causal_lm(folder), slow_tokenizer(folder)
    text = "a b"
    ids = [tokenizer.bos_token_id, *tokenizer.encode_ordinary(text)]
    input_1L = torch.tensor([ids])
    expected = model(input_1L, labels=input_1L).loss.item()
    result = evaluate_text(model, tokenizer, [text])
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert result["tokens"] == len(ids) - 1
    assert result["bytes"] == 3
    assert result["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(expected * (len(ids) - 1) / math.log(2) / 3, rel=1e-5)


@given(st.integers(0, 200), st.integers(1, 40))
def test_every_token_stands_once_near_the_middle(length: int, context: int) -> None:
    scored = []
    for start, end, tokens in middle_windows(length, context):
        assert 0 <= start <= tokens.start < tokens.stop <= end <= length
        assert end - start == min(context, length)
        for token in tokens:
            assert min(token - start, end - 1 - token) >= min(context // 4, token, length - 1 - token)
        scored += tokens
    assert scored == list(range(length))


@torch.no_grad()
def pseudo_losses(model, ids: list[int], mask: int) -> list[float]:
    """One forward pass a token, as the definition has it; the first and last of `ids` are not scored."""
    losses = []
    for position in range(1, len(ids) - 1):
        hidden = [*ids[:position], mask, *ids[position + 1 :]]
        losses.append(-model(torch.tensor([hidden])).logits[0, position].log_softmax(-1)[ids[position]].item())
    return losses


def test_the_pseudo_perplexity_is_that_of_its_definition(masked_folder: Path) -> None:
    model, tokenizer = ScratchGPTForMaskedLM.from_pretrained(masked_folder).eval(), slow_tokenizer(masked_folder)
    texts = ["the market", "a fox é"]
    losses = []
    for text in texts:
        ids = [tokenizer.bos_token_id, *tokenizer.encode_ordinary(text), tokenizer.bos_token_id]
        assert len(ids) <= CONTEXT
        losses += pseudo_losses(model, ids, tokenizer.mask_token_id)
    result = evaluate_masked_text(model, tokenizer, texts)
    assert set(result) == {"loss", "pseudo_perplexity", "tokens", "bytes"}
    assert result["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert result["pseudo_perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert (result["tokens"], result["bytes"]) == (len(losses), len("".join(texts).encode()))


def test_a_long_text_is_scored_once_and_whole(masked_folder: Path) -> None:
    """Against the definition in each token's own window."""
    model, tokenizer = ScratchGPTForMaskedLM.from_pretrained(masked_folder).eval(), slow_tokenizer(masked_folder)
    end = tokenizer.bos_token_id
    ids = [end, *tokenizer.encode_ordinary(TEXT), end]
    losses = {}
    for start, stop, tokens in middle_windows(len(ids), CONTEXT):
        inner = pseudo_losses(model, ids[start:stop], tokenizer.mask_token_id)
        losses |= {token: inner[token - start - 1] for token in tokens if 0 < token < len(ids) - 1}
    result = evaluate_masked_text(model, tokenizer, [TEXT])
    assert result["tokens"] == len(losses) == len(ids) - 2 > 2 * CONTEXT
    assert result["loss"] == pytest.approx(sum(losses.values()) / len(losses), rel=1e-5)
    one = evaluate_masked_text(model, tokenizer, [TEXT, "", TEXT], limit=1)
    assert one["loss"] == pytest.approx(losses[1], rel=1e-5)  # of one token the first
    some = evaluate_masked_text(model, tokenizer, [TEXT], limit=7)
    assert some["tokens"] == 7
    assert some["bytes"] == len(TEXT)


def test_masked_models_of_other_kinds() -> None:
    """A stock BERT: its own tokenizer adds [CLS] and [SEP], which are not scored."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lamp", "burned", "low"]
    tokenizer: Any = BertTokenizer({word: index for index, word in enumerate(words)})
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **sizes)).eval()
    result = evaluate_masked_text(model, tokenizer, ["the lamp burned xyz low"])
    losses = pseudo_losses(model, tokenizer("the lamp burned xyz low")["input_ids"], tokenizer.mask_token_id)
    del losses[3]  # the unknown word
    assert result["tokens"] == 4
    assert result["loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("texts", "limit", "message"),
    [([""], None, "expected a text of at least one token, got an empty one"), ([TEXT], 0, "--tokens: expected at")],
)
def test_wrong_requests(masked_folder: Path, texts: list[str], limit: int | None, message: str) -> None:
    model, tokenizer = ScratchGPTForMaskedLM.from_pretrained(masked_folder), load_tokenizer(masked_folder)
    with pytest.raises(ValueError, match=message):
        evaluate_masked_text(model, tokenizer, texts, limit=limit)


def test_a_tokenizer_without_a_mask_token(masked_folder: Path) -> None:
    model, tokenizer = ScratchGPTForMaskedLM.from_pretrained(masked_folder), ScratchGPTTokenizer.from_merges([])
    with pytest.raises(ValueError, match="expected the tokenizer of a masked language model, got one without"):
        evaluate_masked_text(model, tokenizer, [TEXT])


def test_the_command_knows_a_masked_model(
    masked_folder: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    main([str(masked_folder), "--text", str(tmp_path / "text.txt"), "--tokens", "5"])
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"loss", "pseudo_perplexity", "tokens", "bytes"}
    assert result["tokens"] == 5
    with pytest.raises(SystemExit, match=r"error: --tokens: expected it with a masked model, got .*; leave --tok"):
        main([str(finished_run), "--text", str(tmp_path / "text.txt"), "--tokens", "5"])


def test_the_command_prints_json(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 20)
    main([str(finished_run), "--text", str(tmp_path / "text.txt")])
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert result["bytes"] == len(TEXT) * 20


def test_the_command_reads_a_column_and_an_encoding(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,Паром ушёл в полдень\n", encoding="cp866")
    arguments = [str(finished_run), "--text", str(tmp_path / "a.csv"), "--encoding", "cp866"]
    with pytest.raises(SystemExit, match=r"got 'id', 'body'; say which of them holds it \(--text-field\)$"):
        main(arguments)
    main([*arguments, "--text-field", "body"])
    assert json.loads(capsys.readouterr().out)["bytes"] == len("Паром ушёл в полдень".encode())


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        ("no/such/folder", "text.txt", "there is no folder no/such/folder"),
        (".", "text.txt", "holds no model: no config.json"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([model, "--text", text])


def test_help_needs_no_torch() -> None:
    program = "import sys; from train.evaluate import main; sys.modules['torch'] = None; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--tokens" in done.stdout
