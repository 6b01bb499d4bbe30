"""The proof that a model folder works for a stranger. Run by path in a process of its own, it imports nothing of ours.

Usage: python -P proof.py TASK.json. The task names the folder, the reference logits, the arithmetic to use and the
probe text. What was found goes to report.json beside it: `{"checks": […]}`, with `failed` and `error` when one did.
"""

import contextlib
import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main() -> int:
    """Prove what the task asks; return the exit status."""
    task_path = Path(sys.argv[1])
    task = json.loads(task_path.read_text(encoding="utf-8"))
    report: dict[str, Any] = {"checks": []}
    try:
        _prove(task, report)
    except CheckError:
        return 1
    finally:
        task_path.with_name("report.json").write_text(json.dumps(report), encoding="utf-8")
    return 0


class CheckError(Exception):
    """One check did not hold; the report says which and why."""


def _prove(task: dict[str, Any], report: dict[str, Any]) -> None:
    folder = task["folder"]

    with _check(report, "import torch and transformers"):
        gc.disable()  # among what they import there is no garbage to look for
        import torch
        from safetensors.torch import load_file
        from transformers import (
            AutoConfig,
            AutoModel,
            AutoModelForCausalLM,
            AutoModelForMaskedLM,
            AutoTokenizer,
            GenerationConfig,
            pipeline,
        )
        from transformers.utils import logging

        gc.freeze()
        gc.enable()
        logging.set_verbosity_error()
        torch.set_num_threads(task["threads"])
        torch.set_float32_matmul_precision(task["matmul_precision"])
        reference = load_file(task["reference"])

    with _check(report, "AutoConfig"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        _expect_remote(type(config))

    head = AutoModelForMaskedLM if task["masked"] else AutoModelForCausalLM
    with _check(report, head.__name__):
        loaded: Any = head.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
        model, loading = loaded
        model.eval()
        _expect_remote(type(model))
        _expect_complete(loading)

    with _check(report, "AutoModel"):
        base = AutoModel.from_pretrained(folder, trust_remote_code=True)
        _expect_remote(type(base))
        expected = model.base_model.state_dict()
        for name, tensor in base.state_dict().items():
            _expect(torch.equal(tensor, expected[name]), f"{name} differs from the one of {head.__name__}")

    with _check(report, "finite weights"):
        for name, tensor in model.state_dict().items():
            _expect(bool(torch.isfinite(tensor).all()), f"{name} holds a value that is not finite")

    with _check(report, "tied weights"):
        if config.tie_word_embeddings:
            embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            _expect(embedding is head, "the config ties the output layer to the embedding, the loaded model does not")

    with _check(report, "equal logits"), torch.inference_mode():
        logits_BLV = model(reference["input_ids"]).logits
        difference = (logits_BLV.float() - reference["logits"].float()).abs().max().item()
        _expect(
            torch.equal(logits_BLV, reference["logits"]),
            f"they differ from the checkpoint's by up to {difference:.3g} (they must be equal bit for bit)",
        )

    if not task["masked"]:
        with _check(report, "generation config"):
            GenerationConfig.from_pretrained(folder)

    with _check(report, "AutoTokenizer without remote code"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        probe_ids = tokenizer(task["probe"])["input_ids"]
        _expect(len(tokenizer) <= config.vocab_size, f"{len(tokenizer)} tokens for a model of {config.vocab_size}")
        _expect(max(probe_ids) < config.vocab_size, f"id {max(probe_ids)} for a model of {config.vocab_size} ids")
        if task["masked"]:
            _expect(tokenizer.mask_token_id is not None, "the tokenizer has no mask token, which a masked model needs")

    for name, trust in (("AutoTokenizer with no word on remote code", None), ("AutoTokenizer with remote code", True)):
        with _check(report, name):
            other = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
            _expect_same_ids(other(task["probe"])["input_ids"], probe_ids)

    if (Path(folder) / "slow").is_dir():
        with _check(report, "from-scratch tokenizer"):
            slow = AutoTokenizer.from_pretrained(folder, subfolder="slow", trust_remote_code=True)
            _expect_remote(type(slow))
            _expect_same_ids(slow(task["probe"])["input_ids"], probe_ids)
            text = slow.decode(probe_ids)
            _expect(text == task["probe"], f"decoding its own ids of {task['probe']!r} gives {text!r}")

    with _check(report, "pipeline"):
        if task["masked"]:
            fill = pipeline("fill-mask", model=folder, trust_remote_code=True, device="cpu")
            filled: Any = fill(task["prompt"] + str(tokenizer.mask_token))
            _expect("token_str" in filled[0], f"expected a list of token_str, got {filled!r}")
        else:
            write = pipeline("text-generation", model=folder, trust_remote_code=True, device="cpu")
            written = write(task["prompt"], max_new_tokens=4, do_sample=False, return_full_text=True)
            _expect("generated_text" in written[0], f"expected a list of generated_text, got {written!r}")


@contextlib.contextmanager
def _check(report: dict[str, Any], name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        report["failed"] = name
        report["error"] = str(error) if isinstance(error, CheckError) else f"{type(error).__name__}: {error}"
        raise CheckError from error
    report["checks"].append(name)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckError(otherwise)


def _expect_remote(cls: type) -> None:
    _expect(
        cls.__module__.startswith("transformers_modules."),
        f"expected a class from the folder's own code, got {cls.__module__}.{cls.__qualname__}",
    )


def _expect_complete(loading: dict[str, Any]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        _expect(not loading.get(kind), f"{kind.replace('_', ' ')}: {sorted(map(str, loading.get(kind) or []))}")


def _expect_same_ids(got: list[int], expected: list[int]) -> None:
    _expect(got == expected, f"expected the ids of tokenizer.json {expected}, got {got}")


if __name__ == "__main__":
    sys.exit(main())
