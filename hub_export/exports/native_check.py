"""The proof that a folder works with transformers alone. Run by path in a process of its own, without our packages.

Usage: python -P native_proof.py TASK.json. The task names the folder, the reference (input ids, logits, a prompt and
its greedy continuation), the tolerance and the probe text. What was found goes to report.json beside it.
"""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging


class Proof:
    """The checks in their order; each raises an exception when it does not hold."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, self.folder = task, task["folder"]
        self.reference = load_file(task["reference"])
        self.difference = 0.0

    def stock_config(self) -> None:
        """AutoConfig gives a class of transformers' own."""
        self.config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        expect(type(self.config).__module__.startswith("transformers.models."), f"got {type(self.config)}")
        expect(not list(Path(self.folder).glob("*.py")), "the folder holds code")

    def stock_model(self) -> None:
        """AutoModelForCausalLM loads every weight, and no other."""
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            self.folder, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
        self.model, loading = loaded
        self.model.eval()
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            expect(not loading.get(kind), f"{kind.replace('_', ' ')}: {sorted(map(str, loading.get(kind) or []))}")

    def equal_logits(self) -> None:
        """Within the tolerance, absolute and relative together."""
        with torch.inference_mode():
            logits_BLV = self.model(self.reference["input_ids"]).logits
        self.difference = (logits_BLV - self.reference["logits"]).abs().max().item()
        tolerance = self.task["tolerance"]
        expect(
            torch.allclose(logits_BLV, self.reference["logits"], rtol=tolerance, atol=tolerance),
            f"they differ from the checkpoint's by up to {self.difference:.3g} (tolerance {tolerance:g})",
        )

    def equal_greedy_text(self) -> None:
        """generate writes, with its cache, what our model writes."""
        prompt_1L, text_1L = self.reference["prompt"], self.reference["text"]
        count = text_1L.shape[1] - prompt_1L.shape[1]
        got_1L = self.model.generate(
            prompt_1L, attention_mask=torch.ones_like(prompt_1L), max_new_tokens=count, do_sample=False
        )
        expect(torch.equal(got_1L, text_1L), f"expected the ids {text_1L.tolist()}, got {got_1L.tolist()}")

    def generation_config(self) -> None:
        """It is there and can be read."""
        GenerationConfig.from_pretrained(self.folder)

    def tokenizer(self) -> None:
        """AutoTokenizer gives the ids that the checkpoint's tokenizer gives."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        got = tokenizer(self.task["probe"])["input_ids"]
        expect(got == self.task["probe_ids"], f"expected the ids {self.task['probe_ids']}, got {got}")


def expect(holds: bool, otherwise: str) -> None:
    """Raise with a reason unless it holds."""
    if not holds:
        raise AssertionError(otherwise)


def main() -> int:
    """Prove what the task asks; return the exit status."""
    gc.freeze()  # among what was imported there is no garbage to look for
    path = Path(sys.argv[1])
    task = json.loads(path.read_text(encoding="utf-8"))
    logging.set_verbosity_error()
    torch.set_num_threads(task["threads"])
    proof = Proof(task)
    report: dict[str, Any] = {"checks": []}
    checks: tuple[Callable[[], None], ...] = (
        proof.stock_config,
        proof.stock_model,
        proof.equal_logits,
        proof.equal_greedy_text,
        proof.generation_config,
        proof.tokenizer,
    )
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check()
        except Exception as error:
            message = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            report |= {"failed": name, "error": message}
            break
        report["checks"].append(name)
    report["difference"] = proof.difference
    path.with_name("report.json").write_text(json.dumps(report), encoding="utf-8")
    return 1 if "failed" in report else 0


if __name__ == "__main__":
    sys.exit(main())
