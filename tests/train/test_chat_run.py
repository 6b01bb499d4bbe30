"""Instruction tuning: the loss on answers only, windows of chats, resume, what is saved, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus.stories.questions import generate_chats
from hub_export.card import render_card
from storage.run_folder import RunFolder
from storage.shards import MARK_FIRST, TokenSplit
from tests.train.conftest import with_fields
from tests.train.test_loop import assert_same_run, resume_to_the_end
from tokenization import load_tokenizer
from tokenization.chat_template import CHAT_TEMPLATE
from train.__main__ import main
from train.chat.__main__ import main as ask
from train.config import Config
from train.data.batches import IGNORED, ChatWindows, chat_places, evaluation_batches, pack
from train.loop import Trainer, train
from train.objective import ModelWithLoss, mean_loss
from train.recipes import get_recipe

NAMES = ("Rosa", "Hugo", "Ada", "Emil")


def chat_lines(count: int) -> str:
    """Chats of two exchanges, one after the other of all lengths."""
    lines = []
    for index in range(count):
        name, other = NAMES[index % 4], NAMES[(index + 1) % 4]
        turns = [
            ("user", f"Who is {name}?"),
            ("assistant", "A miller."),
            ("user", f"And {other}?"),
            ("assistant", "A cook."),
        ]
        messages = [{"role": role, "content": content} for role, content in turns[: 2 + 2 * (index % 2)]]
        lines.append(json.dumps({"messages": messages}) + "\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def config(tiny: Config, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """`debug` with the objective of `chat` on 40 chats, going on from the run of `tiny`."""
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text(chat_lines(40), encoding="utf-8")
    return with_fields(
        tiny,
        corpus__source="local",
        corpus__paths=(path,),
        data__objective="chat",
        run__base_model=str(finished_run),
    )


@pytest.fixture(scope="module")
def chat_run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run; read it, do not change it."""
    return train(with_fields(config, run__dir=tmp_path_factory.mktemp("runs") / "chat"), recipe="debug")


def chats_of(config: Config, split: str) -> list[list[dict[str, str]]]:
    chats = [json.loads(line)["messages"] for line in config.corpus.paths[0].read_text().splitlines()]
    return [chat for index, chat in enumerate(chats) if (index % 10 == 9) == (split == "validation")]


def test_the_shards_are_the_chats_as_transformers_encodes_them(config: Config, chat_run: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_run / "tokenizer")
    for name in ("train", "validation"):
        split = TokenSplit.open(chat_run / "tokens", name)
        chats = chats_of(config, name)
        expected = [tokenizer.apply_chat_template(chat, return_dict=False) for chat in chats]
        assert split.read(0, len(split)).tolist() == [token for ids in expected for token in ids]
        assert split.documents == len(chats)
        assert split.marks is not None
        answers = [message["content"] for chat in chats for message in chat if message["role"] == "assistant"]
        assert split.marks.bytes == sum(map(len, answers))
        marks = split.marks.read(0, len(split))
        marked = tokenizer.decode(split.read(0, len(split))[marks == 1].tolist())
        assert marked == "".join(f" {answer}<|endoftext|>" for answer in answers)


def test_the_loss_is_the_cross_entropy_of_the_answers(config: Config, chat_run: Path) -> None:
    checkpoint = RunFolder(chat_run).checkpoint("latest")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    total, count = 0.0, 0
    for chat in chats_of(config, "validation"):
        ids = tokenizer.apply_chat_template(chat, return_dict=False)
        is_answer = np.zeros(len(ids), dtype=bool)
        for index, message in enumerate(chat):
            if message["role"] == "assistant":
                options: dict[str, Any] = {"return_dict": False}
                begin = len(tokenizer.apply_chat_template(chat[:index], add_generation_prompt=True, **options))
                is_answer[begin : len(tokenizer.apply_chat_template(chat[: index + 1], **options))] = True
        context = config.model.max_position_embeddings
        ids, is_answer = ids[-context - 1 :], is_answer[-context - 1 :]
        with torch.no_grad():
            logits_LV = model(torch.tensor([ids[:-1]])).logits[0]
        target_L = torch.tensor(np.where(is_answer[1:], ids[1:], IGNORED))
        total += functional.cross_entropy(logits_LV, target_L, ignore_index=IGNORED, reduction="sum").item()
        count += int(is_answer[1:].sum())
    split = TokenSplit.open(chat_run / "tokens", "validation")
    # One chat a row, so that none sees another.
    batches = evaluation_batches(split, batch_size=2, length=32, windows=100, end_of_text=tokenizer.eos_token_id)
    alone = [row for batch in batches for row in batch.target_BL if (row != IGNORED).any()]
    assert sum(int((row != IGNORED).sum()) for row in alone) == count
    measured = mean_loss(ModelWithLoss(model), batches, torch.device("cpu"))
    assert measured == pytest.approx(total / count, rel=1e-5)
    assert RunFolder(chat_run).state["evaluation"]["validation_loss"] == pytest.approx(total / count, rel=1e-5)


def test_windows_hold_complete_chats_each_once_an_epoch(chat_run: Path) -> None:
    split = TokenSplit.open(chat_run / "tokens", "train")
    end = int(split.read(0, 1)[0])
    for length in (16, 100):
        windows = ChatWindows(split, batch_size=1, length=length, seed=1, end_of_text=end)
        places = chat_places(split, length)
        assert all(ids <= length + 1 for _, ids in places)
        assert sorted(place for window in windows.windows_of(3) for place in window) == sorted(places)
        assert windows.windows_of(3) == windows.windows_of(3) != windows.windows_of(4)
        row = windows.next()
        assert row.input_BL.shape == row.target_BL.shape == (1, length)
        assert (row.target_BL != IGNORED).any()
    assert pack([(0, 5), (5, 5), (10, 9)], 8) == [[(0, 5), (5, 5)], [(10, 9)]]


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    config: Config, chat_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume_to_the_end(with_fields(config, run__dir=tmp_path / "broken"), [5], monkeypatch)
    assert_same_run(tmp_path / "broken", chat_run)


def marks_of(run_dir: Path) -> list[TokenSplit]:
    splits = (TokenSplit.open(run_dir / "tokens", name) for name in ("train", "validation"))
    return [split.marks for split in splits if split.marks is not None]


def test_what_a_run_leaves(chat_run: Path) -> None:
    run = RunFolder(chat_run)
    assert AutoTokenizer.from_pretrained(run.checkpoint("latest")).chat_template == CHAT_TEMPLATE
    assert run.prompts()[0] == "Who is Hugo?"
    assert run.samples()[-1]["text"].startswith(f"{run.samples()[-1]['prompt']}\n")
    log = run.log.read_text()
    assert "36 chats for training, 4 for validation" in log
    borders = [np.append(marks.positions_of(MARK_FIRST), len(marks)) for marks in marks_of(chat_run)]
    long = sum(int((np.diff(places) > 33).sum()) for places in borders)
    assert 0 < long < 40
    assert f"{long} of 40 chats are longer than the model's context of 32 tokens: of these the last 33 tokens" in log
    assert "answers: validation loss" in log
    metrics = [line for line in run.metrics() if "validation_loss" in line][-1]
    assert metrics["bits_per_byte"] > 0


def test_the_card_asks_by_the_template(chat_run: Path, tmp_path: Path) -> None:
    run = RunFolder(chat_run)
    checkpoint = run.checkpoint("latest")
    bundle = shutil.copytree(checkpoint, tmp_path / "bundle")
    shutil.copy(chat_run / "prompts.json", bundle)
    card = render_card(bundle, run, checkpoint, repo=None)
    assert "its weights were trained further on chats: its maker's own text files" in card
    assert 'chat = [{"role": "user", "content": "Who is Hugo?"}]\ninputs = tokenizer.apply_chat_template(chat' in card
    assert "does not follow instructions" not in card


def test_the_recipe_asks_about_stories(tiny: Config, finished_run: Path, tmp_path: Path) -> None:
    config = with_fields(
        tiny, data__objective="chat", corpus__stories=5, run__base_model=str(finished_run), run__dir=tmp_path / "new"
    )
    trainer = Trainer(config, "debug", RunFolder(tmp_path / "new"), quiet=True)
    first = next(generate_chats(seed=0, count=1)).messages[0].content
    assert trainer.objective.sample_prompts()[0] == first
    assert TokenSplit.open(tmp_path / "new" / "tokens", "validation").documents == 2
    recipe = get_recipe("chat")
    assert (recipe.data.objective, recipe.corpus.source) == ("chat", "stories")


def refusal(*words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return str(stopped.value)


def test_refusals(finished_run: Path, tmp_path: Path, config: Config) -> None:
    base = ("--from", str(finished_run), "--run-dir", str(tmp_path / "run"))
    assert "error: --from: expected a model that the chats are trained on top of, got none" in refusal("chat")
    assert "--corpus.source: expected stories or local" in refusal("chat", *base, "--corpus.source", "gutenberg")
    assert "--data.windows: expected it with --data.objective causal or masked only" in refusal(
        "chat", *base, "--data.windows", "packed"
    )
    assert "--run.output-tokens: expected 0 with --data.objective chat" in refusal(
        "chat", *base, "--run.output-tokens", "9"
    )
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        chat_lines(3) + '{"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": ""}]}\n'
    )
    message = refusal("chat", *base, "--corpus", str(bad))
    assert f"{bad}:4: message 2 (assistant): expected an answer, got an empty one; write it" in message
    bad.write_text(chat_lines(3))
    message = refusal("chat", *base, "--corpus", str(bad))
    assert "expected at least 10 chats, of which one validates, got 3; give more chats" in message
    bad.write_text(
        '{"messages": [{"role": "user", "content": "<|endoftext|>"}, {"role": "assistant", "content": "A"}]}\n'
    )
    message = refusal("chat", *base, "--corpus", str(bad))
    assert f"{bad}:1: expected messages without special tokens, got '<|endoftext|>' in one of the user" in message


def test_a_template_that_fails_is_named_and_once_removed_ours_is_taken(
    config: Config, finished_run: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(RunFolder(finished_run).checkpoint("best"), tmp_path / "base")
    (base / "SHA256SUMS").unlink()
    file = base / "slow" / "tokenizer_config.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"chat_template": "{{ 1 / 0 }}"}))
    words = ["chat", "--from", str(base), "--corpus", str(config.corpus.paths[0]), "--steps", "1", "--run-dir"]
    message = refusal(*words, str(tmp_path / "run"))
    assert f":1: the chat template of the tokenizer in {file.parent}: expected a text of the messages, got" in message
    assert "remove it there: `python -m train chat` with a new --run-dir takes ours then" in message
    file.write_text(whole)
    main([*words, str(tmp_path / "new")])
    assert load_tokenizer(tmp_path / "new" / "tokenizer").chat_template == CHAT_TEMPLATE


def test_the_share_of_right_answers_is_printed(
    chat_run: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask([str(chat_run), "--count", "3"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["questions"], printed["cut"]) == (3, 3)
    assert sum(kind["questions"] for kind in printed["by_kind"].values()) == 3
    with pytest.raises(
        SystemExit, match="expected a model that answers, whose tokenizer has a chat template, got one w"
    ):
        ask([str(finished_run)])
    with pytest.raises(SystemExit, match="--count: expected at least 1, got 0"):
        ask([str(chat_run), "--count", "0"])


def test_an_answer_is_right_word_for_word(
    chat_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from train.chat import answers

    tokenizer = AutoTokenizer.from_pretrained(chat_run / "tokenizer")
    asked: list[str] = []

    def said(model: Any, ids: list[int], settings: Any, **_: Any) -> Any:
        asked.append(tokenizer.decode(ids))
        assert settings.temperature == 0
        text = " a MILLER. " if len(asked) == 1 else " A miller"
        return [type("Step", (), {"token_id": token}) for token in tokenizer(text)["input_ids"]]

    monkeypatch.setattr(answers, "stream", said)
    path = tmp_path / "questions.jsonl"
    messages = json.loads(chat_lines(1))["messages"]
    path.write_text(f"{json.dumps({'messages': messages})}\n" * 3)
    ask([str(chat_run), "--questions", str(path), "--count", "2"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"questions": 2, "right": 1, "share": 0.5, "cut": 0}
    assert asked == ["<|endoftext|>User: Who is Rosa?\nAssistant:"] * 2
