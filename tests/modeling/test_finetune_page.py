"""The program in docs/finetune.md runs as it stands: beside a bundle and a book, in a process of its own."""

import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, DataCollatorForSeq2Seq

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tokenization import ScratchGPTTokenizer, save_tokenizer
from tokenization.saving import build_fast

PAGE = Path(__file__).parents[2] / "docs" / "finetune.md"


def test_the_program_of_the_page_makes_a_plain_model(clean_python, tmp_path):
    pytest.importorskip("peft", reason="needs peft")
    program = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    shape = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ScratchGPTForCausalLM(ScratchGPTConfig(**shape, max_position_embeddings=32)).save_pretrained(tmp_path / "bundle")
    save_tokenizer(ScratchGPTTokenizer.from_merges([]), tmp_path / "bundle")
    (tmp_path / "book.txt").write_text("The keeper counts the ships. " * 40, encoding="utf-8")
    done = clean_python.run("-c", program, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trainable params:" in done.stdout
    assert (tmp_path / "finetuned-adapter" / "adapter_model.safetensors").exists()
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("bundle", "finetuned"))
    ids = AutoTokenizer.from_pretrained(tmp_path / "finetuned")("The keeper counts", return_tensors="pt")["input_ids"]
    assert type(after) is ScratchGPTForCausalLM
    assert after(ids, labels=ids).loss < before(ids, labels=ids).loss


def test_the_ends_of_texts_are_padded_as_the_page_says():
    """transformers' collator for language models takes the ends out of the loss, the one of the page does not."""
    tokenizer = build_fast(ScratchGPTTokenizer.from_merges([]))
    end = tokenizer.eos_token_id
    assert tokenizer.pad_token_id == end
    rows = [dict(tokenizer(text + tokenizer.eos_token)) for text in ("abc", "a")]
    stock = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)
    assert stock["labels"].tolist() == [[97, 98, 99, -100], [97, -100, -100, -100]]
    padded = DataCollatorForSeq2Seq(tokenizer)([{**row, "labels": row["input_ids"]} for row in rows])
    assert padded["labels"].tolist() == [[97, 98, 99, end], [97, end, -100, -100]]
    assert padded["input_ids"].tolist() == [[97, 98, 99, end], [97, end, end, end]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
