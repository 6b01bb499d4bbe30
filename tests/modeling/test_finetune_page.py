"""The program in docs/finetune.md runs as it stands: beside a bundle and a book, in a process of its own."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tokenization import ScratchGPTTokenizer, save_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "finetune.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_program_of_the_page_makes_a_plain_model(clean_python, tmp_path):
    pytest.importorskip("peft", reason="needs peft")
    shape = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ScratchGPTForCausalLM(ScratchGPTConfig(**shape, max_position_embeddings=32)).save_pretrained(tmp_path / "bundle")
    save_tokenizer(ScratchGPTTokenizer.from_merges([]), tmp_path / "bundle")
    (tmp_path / "book.txt").write_text("The keeper counts the ships. " * 40, encoding="utf-8")
    done = clean_python.run("-c", PROGRAMS[0], folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trainable params:" in done.stdout
    assert (tmp_path / "finetuned-adapter" / "adapter_model.safetensors").exists()
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("bundle", "finetuned"))
    ids = AutoTokenizer.from_pretrained(tmp_path / "finetuned")("The keeper counts", return_tensors="pt")["input_ids"]
    assert type(after) is ScratchGPTForCausalLM
    assert after(ids, labels=ids).loss < before(ids, labels=ids).loss


def test_texts_of_different_lengths_keep_their_end_in_the_loss():
    tokenizer: Any = ScratchGPTTokenizer.from_merges([])
    tokenizer.model_max_length = 5
    found: dict[str, Any] = {"tokenizer": tokenizer, "texts": ["ab", "a long text"]}
    exec(PROGRAMS[1], found)
    batch = found["collate"](found["rows"])
    assert batch["input_ids"].tolist() == [[97, 98, 256, 256, 256], [97, 32, 108, 111, 256]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[97, 98, 256, -100, -100], [97, 32, 108, 111, 256]]
    rows = [{"input_ids": row["input_ids"]} for row in found["rows"]]
    without_ends = [[97, 98, -100, -100, -100], [97, 32, 108, 111, -100]]
    assert DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)["labels"].tolist() == without_ends
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    labels = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)["labels"]
    assert labels.tolist() == batch["labels"].tolist()
