"""The check of a model after its upload. Run by path in an isolated process, it imports nothing of ours.

Usage: python -P landing.py TASK.json. The task names the repository, the commit, the bundle that was uploaded and a
probe text; what was found goes to report.json beside it: `{"checks": […]}`, with `error` when one did not hold.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Load the model from the Hub by its commit, and compare; return the exit status."""
    task_path = Path(sys.argv[1])
    task = json.loads(task_path.read_text(encoding="utf-8"))
    report: dict[str, Any] = {"checks": []}
    try:
        _load(task, report["checks"])
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}"
    task_path.with_name("report.json").write_text(json.dumps(report), encoding="utf-8")
    return 1 if "error" in report else 0


def _load(task: dict[str, Any], checks: list[str]) -> None:
    gc.disable()  # among what they import there is no garbage to look for
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer, PreTrainedModel  # noqa: F401  the last brings the most along
    from transformers.utils import logging

    gc.freeze()
    gc.enable()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    there = {"revision": task["revision"]}
    repo, folder = task["repo"], task["folder"]
    config = AutoConfig.from_pretrained(repo, trust_remote_code=True, **there)
    checks.append("config")
    head = next(name for name in config.architectures or () if "For" in name).split("For")[1]
    auto_class = getattr(transformers, f"AutoModelFor{head}")
    model = auto_class.from_pretrained(repo, trust_remote_code=True, **there).eval()
    here = auto_class.from_pretrained(folder, trust_remote_code=True).eval()
    ids_BL = torch.arange(24).mul(7919).remainder(config.vocab_size)[None]
    with torch.inference_mode():
        logits_BLV, expected_BLV = model(ids_BL).logits, here(ids_BL).logits
    if not torch.equal(logits_BLV, expected_BLV):
        raise ValueError("the model computes other logits than the one that was uploaded")
    checks.append("logits, bit for bit")
    if head == "CausalLM":
        _generate(model)
        checks.append("generation")
    expected = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(task["probe"])["input_ids"]
    if AutoTokenizer.from_pretrained(repo, trust_remote_code=False, **there)(task["probe"])["input_ids"] != expected:
        raise ValueError("the tokenizer gives other ids than the one that was uploaded")
    checks.append("tokenizer")
    if (Path(folder) / "slow").is_dir():
        slow = AutoTokenizer.from_pretrained(repo, subfolder="slow", trust_remote_code=True, **there)
        if slow(task["probe"])["input_ids"] != expected:
            raise ValueError("the from-scratch tokenizer gives other ids than the one that was uploaded")
        checks.append("from-scratch tokenizer")


def _generate(model: Any) -> None:
    """Writes a few tokens with a cache; each step's logits must be those of one pass over the text without one."""
    import torch

    model.float()  # weights of few bits would round a step in other places than a pass
    context = model.config.max_position_embeddings
    count = min(8, context // 2)
    prompt_1L = torch.arange(1, 1 + min(8, context - count)).mul(7919).remainder(model.config.vocab_size)[None]
    written = model.generate(
        prompt_1L,
        attention_mask=torch.ones_like(prompt_1L),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        num_beams=1,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    logits_NV = torch.cat(written.logits)
    with torch.inference_mode():
        expected_NV = model(written.sequences, use_cache=False).logits[0, -count - 1 : -1]
    if not torch.allclose(logits_NV, expected_NV, rtol=1e-4, atol=1e-4):
        difference = (logits_NV - expected_NV).abs().max().item()
        raise ValueError(
            f"what it generates with a cache has logits that differ by up to {difference:.3g} from those of a pass "
            "over the same text without one"
        )


if __name__ == "__main__":
    sys.exit(main())
