"""What llama.cpp makes of a GGUF file. Run by path in a process of its own, it imports nothing of ours.

Usage: python -P gguf_proof.py TASK.json. The task names the file, texts with their token ids, a prompt and its greedy
continuation. What was found goes to report.json beside it: `wrong`, the texts with other ids, and `text`, what it
wrote.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Look at the file of the task and report; return the exit status."""
    path = Path(sys.argv[1])
    task = json.loads(path.read_text(encoding="utf-8"))
    path.with_name("report.json").write_text(json.dumps(examine(task)), encoding="utf-8")
    return 0


def examine(task: dict[str, Any]) -> dict[str, Any]:
    """Tokenize the texts, and write on from the prompt."""
    llama_cpp = importlib.import_module("llama_cpp")
    model = llama_cpp.Llama(
        task["file"],
        n_ctx=task["context"],
        n_threads=1,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    wrong = []
    for text, ids in task["texts"]:
        got = model.tokenize(text.encode("utf-8"), add_bos=False, special=True)
        if got != ids:
            wrong.append({"text": text, "expected": ids, "got": got})
    prompt, expected = task["prompt"], task["text"]
    text = list(prompt)
    for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
        if len(text) == len(expected):
            break
        text.append(token)
    return {"wrong": wrong, "text": text}


if __name__ == "__main__":
    sys.exit(main())
