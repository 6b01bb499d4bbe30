"""The check that a model folder works anywhere. Run by path in an isolated process, it imports nothing of ours.

Usage: python -P proof.py TASK.json. The task names the folder, the reference logits, the arithmetic to use and the
probe text. What was found goes to report.json beside it: `{"checks": […], "transformers": VERSION}`, with `failed` and
`error` when one did not hold.

It uses only what every transformers from 4.57 on has, since it runs with the one that is installed. Axes in tensor
names: B texts, L tokens, N new tokens, V vocabulary.
"""

import contextlib
import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SHORT, BLOCK = 3, 80
"""Tokens of the prompts: a few, and more than the 64 that attention may take at a time."""
NEW_TOKENS, FEW = 16, 3
"""Tokens written after each prompt, by a model of up to LARGE parameters and by a larger one."""
LARGE = 50_000_000
PASS = 30_000_000_000
"""Parameters times tokens of a pass that takes seconds; the longest text that is checked is no longer than that …"""
LONGEST = 2048
"""… nor than this many tokens."""
TOLERANCE = 1e-4
"""Absolute, and relative to each logit, in float32: one token at a time is added up in another order than all."""
SEEDS = (1, 2)
PLAIN = {"num_beams": 1, "repetition_penalty": 1.0}
"""Settings that make greedy choices those of the logits, whatever the folder's generation config says."""
DRAWN = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def main() -> int:
    """Prove what the task asks; return the exit status."""
    task_path = Path(sys.argv[1])
    task = json.loads(task_path.read_text(encoding="utf-8"))
    report: dict[str, Any] = {"checks": [], "transformers": None}
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
        import transformers
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
        report["transformers"] = transformers.__version__
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
        logits_BLV, expected_BLV = model(reference["input_ids"]).logits, reference["logits"]
        difference = (logits_BLV.float() - expected_BLV.float()).abs().max().item()
        tolerance = task["tolerance"]  # 0 where the folder's code is the one that computed the reference
        _expect(
            torch.equal(logits_BLV, expected_BLV)
            if not tolerance
            else torch.allclose(logits_BLV.float(), expected_BLV.float(), rtol=tolerance, atol=tolerance),
            f"they differ from the checkpoint's by up to {difference:.3g} "
            f"({f'tolerance {tolerance:g}' if tolerance else 'they must be equal bit for bit'})",
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

    torch.set_float32_matmul_precision("highest")  # from here on, passes of other shapes are compared
    if not task["masked"]:
        _check_generation(model, report)

    with _check(report, "pipeline"):
        if task["masked"]:
            fill = pipeline("fill-mask", model=folder, trust_remote_code=True, device="cpu")
            filled: Any = fill(task["prompt"] + str(tokenizer.mask_token))
            _expect("token_str" in filled[0], f"expected a list of token_str, got {filled!r}")
        else:
            write = pipeline("text-generation", model=folder, trust_remote_code=True, device="cpu")
            _check_pipeline(write, task["prompt"])


def _check_generation(model: Any, report: dict[str, Any]) -> None:
    """The checks of what `generate` writes: every step's logits are those of one pass over the text without a cache."""
    import torch

    context, parameters = int(model.config.max_position_embeddings), model.num_parameters()
    large = parameters > LARGE
    count = min(FEW if large else NEW_TOKENS, context // 2)
    room = context - count
    if not large:
        torch.set_num_threads(1)  # several would only wait for each other, for longer than they work
    short, block = min(SHORT, room), min(BLOCK, room)
    longest = min(context, PASS // parameters, LONGEST) - count

    if model.dtype != torch.float32:
        with _check(report, f"generation in {str(model.dtype).removeprefix('torch.')}"):
            Writer(model).write(_prompt(model, short), count)
        model.float()  # nothing is rounded by that, and differences that are left are mistakes

    writer = Writer(model)
    with _check(report, "generation with a cache"):
        lengths, ways = sorted({short, block, max(longest, block)}), (None, SEEDS[0])
        for number, length in enumerate(lengths):
            for seed in ways[number % 2 : number % 2 + 1] if large else ways:
                writer.write(_prompt(model, length), count, seed=seed)

    with _check(report, "generation without a cache"):
        prompt_1L = _prompt(model, short)
        writer.expect_equal_texts(prompt_1L, count, seeds=(None,))
        writer.expect_equal_texts(prompt_1L, count, seeds=SEEDS)

    with _check(report, "generation with a static cache"):
        options: dict[str, Any] = {"cache_implementation": "static"}
        if hasattr(model.generation_config, "disable_compile"):
            options["disable_compile"] = True
        for seed in ways[:1] if large else ways:
            writer.write(_prompt(model, block), count, seed=seed, **options)

    with _check(report, "generation of a padded batch"):
        prompts = [_prompt(model, short)[0], _prompt(model, min(short + 8, room))[0].flip(0)]
        width = max(map(len, prompts))
        padded_BL = torch.stack([torch.nn.functional.pad(ids_L, (width - len(ids_L), 0)) for ids_L in prompts])
        mask_BL = torch.stack([(torch.arange(width) >= width - len(ids_L)).long() for ids_L in prompts])
        writer.write(padded_BL, count, mask_BL=mask_BL)


class Writer:
    """What a causal model writes with `generate`, each step compared with one pass over the text without a cache."""

    def __init__(self, model: Any) -> None:
        import torch

        self.model = model
        # A step rounds elsewhere than a pass, each to eps: that shows in a type of few bits.
        self.tolerance = max(TOLERANCE, 8 * torch.finfo(model.dtype).eps)

    def write(
        self,
        prompt_BL: "Tensor",
        count: int,
        *,
        mask_BL: "Tensor | None" = None,
        seed: int | None = None,
        **options: Any,
    ) -> tuple["Tensor", "Tensor"]:
        """Writes `count` tokens, greedy or drawn with a seed; returns them (B, N), and their logits (B, N, V).

        Raises:
            CheckError: the logits of a step are not those of one pass over the same text (of each text alone, where
                they are padded on the left).
        """
        import torch

        mask_BL = torch.ones_like(prompt_BL) if mask_BL is None else mask_BL
        if seed is not None:
            torch.manual_seed(seed)
        written = self.model.generate(
            prompt_BL,
            attention_mask=mask_BL,
            max_new_tokens=count,
            min_new_tokens=count,  # an end-of-text token must not end it early
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=0,
            **PLAIN,
            **({"do_sample": False} if seed is None else DRAWN),
            **options,
        )
        text_BL, logits_BNV = written.sequences, torch.stack(written.logits, dim=1).float()
        _expect(
            logits_BNV.shape[1] == count and text_BL.shape[1] == prompt_BL.shape[1] + count,
            f"expected {count} new tokens and their logits, got {text_BL.shape[1] - prompt_BL.shape[1]} and "
            f"{logits_BNV.shape[1]}",
        )
        for text_L, logits_NV, padding in zip(text_BL, logits_BNV, (1 - mask_BL).sum(dim=1).tolist(), strict=True):
            how = "greedy" if seed is None else f"sampled with seed {seed}"
            how += f", padded on the left by {padding}" if padding else ""
            self._expect_as_one_pass(text_L[padding:], logits_NV, how=how)
        return text_BL[:, -count:], logits_BNV

    def expect_equal_texts(self, prompt_1L: "Tensor", count: int, *, seeds: tuple[int | None, ...]) -> None:
        """With and without a cache the same tokens come, unless two are as probable; drawn ones for one of the seeds.

        Raises:
            CheckError: they differ.
        """
        said = ""
        for seed in seeds:
            cached_1N, logits_1NV = self.write(prompt_1L, count, seed=seed)
            uncached_1N, _ = self.write(prompt_1L, count, seed=seed, use_cache=False)
            different = (cached_1N != uncached_1N)[0].nonzero().flatten().tolist()
            if not different:
                return
            first = different[0]
            tokens = int(cached_1N[0, first]), int(uncached_1N[0, first])
            logits_V = logits_1NV[0, first]
            gap = (logits_V[tokens[0]] - logits_V[tokens[1]]).abs().item()
            if seed is None and gap <= 2 * self.tolerance * (1 + logits_V.abs().max().item()):
                return
            said = (
                f"new token {first + 1} ({'greedy' if seed is None else f'seed {seed}'}) is {tokens[0]} with a cache "
                f"and {tokens[1]} without one, though the logits before it are equal"
            )
        raise CheckError(said)

    def _expect_as_one_pass(self, text_L: "Tensor", logits_NV: "Tensor", *, how: str) -> None:
        expected_NV = self.one_pass(text_L, len(logits_NV))
        for number, (got_V, expected_V) in enumerate(zip(logits_NV, expected_NV, strict=True), start=1):
            if not got_V.allclose(expected_V, rtol=self.tolerance, atol=self.tolerance):
                difference = (got_V - expected_V).abs().max().item()
                raise CheckError(
                    f"after a prompt of {len(text_L) - len(logits_NV)} tokens ({how}), the logits of new token "
                    f"{number} of {len(logits_NV)} differ by up to {difference:.3g} from those of one pass over the "
                    f"same text without a cache (tolerance {self.tolerance:.2g}): what `generate` and `pipeline` "
                    "write with this model is wrong"
                )

    def one_pass(self, text_L: "Tensor", count: int) -> "Tensor":
        """The logits (N, V) that one forward pass without a cache has for the last `count` tokens of a text."""
        import torch

        with torch.no_grad():
            return self.model(text_L[None], use_cache=False).logits[0, -count - 1 : -1].float()


def _prompt(model: Any, length: int) -> "Tensor":
    """Ids (1, L), from all over the vocabulary."""
    import torch

    return torch.arange(1, length + 1).mul(7919).remainder(model.config.vocab_size)[None]


def _check_pipeline(write: Any, prompt: str) -> None:
    """Checks that a pipeline writes greedily the likeliest tokens, as one pass without a cache has them."""
    import torch

    count = min(FEW, write.model.config.max_position_embeddings // 2)
    options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, **PLAIN}
    text_L = torch.tensor(write(prompt, return_tensors=True, **options)[0]["generated_token_ids"])
    writer = Writer(write.model)
    logits_NV = writer.one_pass(text_L, count)
    ends = write.model.generation_config.eos_token_id
    logits_NV[:, torch.tensor([ends] if isinstance(ends, int) else ends or [], dtype=torch.long)] = -torch.inf
    for number, (token, logits_V) in enumerate(zip(text_L[-count:].tolist(), logits_NV, strict=True), start=1):
        best = logits_V.max().item()
        _expect(
            logits_V[token].item() >= best - 2 * writer.tolerance * (1 + abs(best)),
            f"new token {number} after {prompt!r} is {token}, but a pass over the same text without a cache has "
            f"{logits_V.argmax().item()} as the likeliest: what it writes is wrong",
        )
    written = write(prompt, return_full_text=True, **options)
    _expect(
        "generated_text" in written[0] and written[0]["generated_text"].startswith(prompt),
        f"expected a list of generated_text that begins with {prompt!r}, got {written!r}",
    )


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
