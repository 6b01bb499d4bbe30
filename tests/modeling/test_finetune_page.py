"""The program in docs/finetune.md runs as it stands: beside a bundle and a book, in a process of its own."""

import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tokenization import ScratchGPTTokenizer, save_tokenizer

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
