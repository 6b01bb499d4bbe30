"""Checks of exported models. Run by path in an isolated process, it imports nothing of this project.

Usage: python -P checks.py TASK.json. `check` in the task names one of `CHECKS`, the rest are its arguments. What was
found goes to report.json beside it: `{"transformers": VERSION, "checks": [what held, in order], …}`, with `failed` and
`error` when a check did not hold.

It uses only what every transformers from 4.57 on has, since it runs with the one that is installed. Axes in tensor
names: B texts, L tokens, N new tokens, V vocabulary.
"""
# ruff: noqa: E402 (imports between two calls of gc)

import gc

gc.disable()  # nothing that these imports make is garbage

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline
from transformers.utils import logging

gc.freeze()
gc.enable()

# An installed ScratchGPT must not stand in for a file that the folder lacks: None makes the import fail.
for name in ("storage", "corpus", "modeling", "tokenization", "train", "hub_export", "panels"):
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]

SHORT, BLOCK = 3, 80
"""Tokens of the prompts: a few, and more than the 64 that attention may take at a time."""
NEW_TOKENS, FEW = 16, 3
"""Tokens generated after each prompt, by a model of up to LARGE parameters and by a larger one."""
LARGE = 50_000_000
MAX_WORK, MAX_LENGTH = 30_000_000_000, 2048
"""Limits of the longest text that is checked: parameters times tokens (a pass of seconds), and tokens."""
TOLERANCE = 1e-4
"""Absolute, and relative to each logit, in float32: a cache changes the order of the sums."""
SEEDS = (1, 2)
PLAIN = {"num_beams": 1, "repetition_penalty": 1.0}
"""Settings that make greedy choices those of the logits, whatever the folder's generation config has."""
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


class CheckError(Exception):
    """A check did not hold; the message says why."""


def main() -> int:
    """Run the check of the task; return the exit status."""
    path = Path(sys.argv[1])
    report = run(json.loads(path.read_text(encoding="utf-8")))
    path.with_name("report.json").write_text(json.dumps(report), encoding="utf-8")
    return 1 if "failed" in report else 0


def run(task: dict[str, Any]) -> dict[str, Any]:
    """The report on a task."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if "threads" in task:
        torch.set_num_threads(task["threads"])
    report: dict[str, Any] = {"transformers": transformers.__version__, "checks": []}
    with contextlib.suppress(CheckError):
        CHECKS[task["check"]](task, report)
    return report


def check_bundle(task: dict[str, Any], report: dict[str, Any]) -> None:
    """A bundle: everything loads, computes the `reference` logits within `tolerance`, and generates as it computes."""
    folder, masked = task["folder"], task["masked"]
    torch.set_float32_matmul_precision(task["matmul_precision"])
    reference = load_file(task["reference"])

    with _check(report, "AutoConfig"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        _expect_remote(type(config))

    head = transformers.AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with _check(report, head.__name__):
        model = _load_complete(head, folder, trust_remote_code=True)
        _expect_remote(type(model))

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
            tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
            _expect(tied, "the config ties the output layer to the embedding, the loaded model does not")

    with _check(report, "equal logits"):
        _expect_reference_logits(model, reference, task["tolerance"])

    if not masked:
        with _check(report, "generation config"):
            GenerationConfig.from_pretrained(folder)

    with _check(report, "AutoTokenizer without remote code"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        probe_ids = tokenizer(task["probe"])["input_ids"]
        _expect(len(tokenizer) <= config.vocab_size, f"{len(tokenizer)} tokens for a model of {config.vocab_size}")
        _expect(max(probe_ids) < config.vocab_size, f"id {max(probe_ids)} for a model of {config.vocab_size} ids")
        if masked:
            _expect(tokenizer.mask_token_id is not None, "the tokenizer has no mask token, which a masked model needs")

    for name, trust in (("AutoTokenizer with default trust", None), ("AutoTokenizer with remote code", True)):
        with _check(report, name):
            other = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
            _expect_ids(other(task["probe"])["input_ids"], probe_ids)

    if (Path(folder) / "slow").is_dir():
        with _check(report, "from-scratch tokenizer"):
            slow = AutoTokenizer.from_pretrained(folder, subfolder="slow", trust_remote_code=True)
            _expect_remote(type(slow))
            _expect_ids(slow(task["probe"])["input_ids"], probe_ids)
            text = slow.decode(probe_ids)
            _expect(text == task["probe"], f"decoding its own ids of {task['probe']!r} gives {text!r}")

    torch.set_float32_matmul_precision("highest")  # from here on, passes of other shapes are compared
    if not masked:
        _check_generation(model, report)

    with _check(report, "pipeline"):
        task_name = "fill-mask" if masked else "text-generation"
        pipe: Any = pipeline(task_name, model=folder, trust_remote_code=True, device="cpu")
        if masked:
            filled = pipe(task["prompt"] + str(tokenizer.mask_token))
            _expect("token_str" in filled[0], f"expected a list of token_str, got {filled!r}")
        else:
            _expect_pipeline(pipe, task["prompt"])


def check_published(task: dict[str, Any], report: dict[str, Any]) -> None:
    """A repository of the Hub at a commit: it loads and computes what the uploaded folder here computes.

    `snapshot` is where its files were downloaded to, in the cache of the Hub's client.
    """
    repo, folder, at_commit = task["repo"], task["folder"], {"revision": task["revision"]}
    with _check(report, "config"):
        config = AutoConfig.from_pretrained(repo, trust_remote_code=True, **at_commit)
    with _check(report, "logits, bit for bit"):
        head = next(name for name in config.architectures or () if "For" in name).split("For")[1]
        auto_class = getattr(transformers, f"AutoModelFor{head}")
        model = auto_class.from_pretrained(repo, trust_remote_code=True, **at_commit).eval()
        uploaded = auto_class.from_pretrained(folder, trust_remote_code=True).eval()
        ids_BL = _ids(config.vocab_size, 24)
        with torch.inference_mode():
            equal = torch.equal(model(ids_BL).logits, uploaded(ids_BL).logits)
        _expect(equal, "the model computes other logits than the one that was uploaded")
    if head == "CausalLM":
        with _check(report, "generation"):
            count = min(8, config.max_position_embeddings // 2)
            prompt_1L = _ids(config.vocab_size, min(8, config.max_position_embeddings - count))
            Generation(model.float()).generate(prompt_1L, count)
    with _check(report, "tokenizer"):
        expected = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(task["probe"])["input_ids"]
        tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=False, **at_commit)
        _expect_ids(tokenizer(task["probe"])["input_ids"], expected)
    if (Path(folder) / "slow").is_dir():
        with _check(report, "from-scratch tokenizer"):
            # By the repository's name transformers asks the Hub for slow/config.json, which there is none of.
            slow = AutoTokenizer.from_pretrained(task["snapshot"], subfolder="slow", trust_remote_code=True)
            _expect_ids(slow(task["probe"])["input_ids"], expected)


def check_native(task: dict[str, Any], report: dict[str, Any]) -> None:
    """A folder of a stock architecture: no code in it, and the `reference` logits and greedy text."""
    folder, reference = task["folder"], load_file(task["reference"])
    with _check(report, "stock config"):
        config_class = type(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        _expect(config_class.__module__.startswith("transformers.models."), f"got {config_class}")
        _expect(not list(Path(folder).glob("*.py")), "the folder holds code")
    with _check(report, "stock model"):
        model = _load_complete(AutoModelForCausalLM, folder, trust_remote_code=False, dtype=torch.float32)
    with _check(report, "equal logits"):
        report["difference"] = _expect_reference_logits(model, reference, task["tolerance"])
    with _check(report, "equal greedy text"):
        prompt_1L, text_1L = reference["prompt"], reference["text"]
        count = text_1L.shape[1] - prompt_1L.shape[1]
        mask_1L = torch.ones_like(prompt_1L)
        got_1L = model.generate(prompt_1L, attention_mask=mask_1L, max_new_tokens=count, do_sample=False)
        _expect(torch.equal(got_1L, text_1L), f"expected the ids {text_1L.tolist()}, got {got_1L.tolist()}")
    with _check(report, "generation config"):
        GenerationConfig.from_pretrained(folder)
    with _check(report, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        _expect_ids(tokenizer(task["probe"])["input_ids"], task["probe_ids"])


def check_gguf(task: dict[str, Any], report: dict[str, Any]) -> None:
    """What llama.cpp does with a GGUF file: `wrong`, the texts with other token ids, and `text`, its greedy text."""
    with _check(report, "llama.cpp"):
        llama_cpp = importlib.import_module("llama_cpp")
        f32 = llama_cpp.GGML_TYPE_F32
        model = llama_cpp.Llama(task["file"], n_ctx=task["context"], n_threads=1, type_k=f32, type_v=f32, verbose=False)
        report["wrong"] = []
        for text, ids in task["texts"]:
            got = model.tokenize(text.encode("utf-8"), add_bos=False, special=True)
            if got != ids:
                report["wrong"].append({"text": text, "expected": ids, "got": got})
        report["text"] = list(task["prompt"])
        for token in model.generate(task["prompt"], temp=0.0, repeat_penalty=1.0):
            if len(report["text"]) == len(task["text"]):
                break
            report["text"].append(token)


CHECKS = {"bundle": check_bundle, "published": check_published, "native": check_native, "gguf": check_gguf}


def _check_generation(model: Any, report: dict[str, Any]) -> None:
    """`generate` in each of its ways: every step's logits are those of one pass over the text without a cache."""
    context, parameters = int(model.config.max_position_embeddings), model.num_parameters()
    vocab_size = model.config.vocab_size
    large = parameters > LARGE
    count = min(FEW if large else NEW_TOKENS, context // 2)
    room = context - count
    if not large:
        torch.set_num_threads(1)  # synchronising several would take longer than their work
    short, block = min(SHORT, room), min(BLOCK, room)
    longest = min(context, MAX_WORK // parameters, MAX_LENGTH) - count

    if model.dtype != torch.float32:
        with _check(report, f"generation in {str(model.dtype).removeprefix('torch.')}"):
            Generation(model).generate(_ids(vocab_size, short), count)
        model.float()  # rounds nothing; the differences that remain are errors

    generation = Generation(model)
    with _check(report, "generation with a cache"):
        lengths, seeds = sorted({short, block, max(longest, block)}), (None, SEEDS[0])
        for number, length in enumerate(lengths):
            for seed in seeds[number % 2 : number % 2 + 1] if large else seeds:
                generation.generate(_ids(vocab_size, length), count, seed=seed)

    with _check(report, "generation without a cache"):
        prompt_1L = _ids(vocab_size, short)
        generation.expect_cache_keeps_text(prompt_1L, count, seeds=(None,))
        generation.expect_cache_keeps_text(prompt_1L, count, seeds=SEEDS)

    with _check(report, "generation with a static cache"):
        options: dict[str, Any] = {"cache_implementation": "static"}
        if hasattr(model.generation_config, "disable_compile"):
            options["disable_compile"] = True
        for seed in seeds[:1] if large else seeds:
            generation.generate(_ids(vocab_size, block), count, seed=seed, **options)

    with _check(report, "generation of a padded batch"):
        prompts = [_ids(vocab_size, short)[0], _ids(vocab_size, min(short + 8, room))[0].flip(0)]
        width = max(map(len, prompts))
        padded_BL = torch.stack([torch.nn.functional.pad(ids_L, (width - len(ids_L), 0)) for ids_L in prompts])
        mask_BL = torch.stack([(torch.arange(width) >= width - len(ids_L)).long() for ids_L in prompts])
        generation.generate(padded_BL, count, mask_BL=mask_BL)


class Generation:
    """`generate` of a causal model, each step compared with one pass over the text without a cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        # A step and a pass round differently, each to eps: that is visible in a type of few bits.
        self.tolerance = max(TOLERANCE, 8 * torch.finfo(model.dtype).eps)

    def generate(
        self, prompt_BL: Tensor, count: int, *, mask_BL: Tensor | None = None, seed: int | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Generate `count` tokens, greedily or sampled with a seed; return them (B, N), and their logits (B, N, V).

        Raises:
            CheckError: the logits of a step are not those of one pass over the same text (of each text alone, where
                they are padded on the left).
        """
        mask_BL = torch.ones_like(prompt_BL) if mask_BL is None else mask_BL
        if seed is not None:
            torch.manual_seed(seed)
        output = self.model.generate(
            prompt_BL,
            attention_mask=mask_BL,
            max_new_tokens=count,
            min_new_tokens=count,  # an end-of-text token must not end it early
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=0,
            **PLAIN,
            **({"do_sample": False} if seed is None else SAMPLED),
            **options,
        )
        text_BL, logits_BNV = output.sequences, torch.stack(output.logits, dim=1).float()
        new = text_BL.shape[1] - prompt_BL.shape[1]
        _expect(
            logits_BNV.shape[1] == new == count,
            f"expected {count} new tokens and their logits, got {new} and {logits_BNV.shape[1]}",
        )
        for text_L, logits_NV, padding in zip(text_BL, logits_BNV, (1 - mask_BL).sum(dim=1).tolist(), strict=True):
            how = "greedy" if seed is None else f"sampled with seed {seed}"
            how += f", padded on the left by {padding}" if padding else ""
            self._expect_one_pass(text_L[padding:], logits_NV, how)
        return text_BL[:, -count:], logits_BNV

    def expect_cache_keeps_text(self, prompt_1L: Tensor, count: int, *, seeds: tuple[int | None, ...]) -> None:
        """With and without a cache the tokens are equal, for one of the seeds at least (None: greedy).

        Two greedy tokens that are equally probable may differ.

        Raises:
            CheckError: they differ.
        """
        problem = ""
        for seed in seeds:
            cached_1N, logits_1NV = self.generate(prompt_1L, count, seed=seed)
            uncached_1N, _ = self.generate(prompt_1L, count, seed=seed, use_cache=False)
            different = (cached_1N != uncached_1N)[0].nonzero().flatten().tolist()
            if not different:
                return
            first = different[0]
            tokens = int(cached_1N[0, first]), int(uncached_1N[0, first])
            logits_V = logits_1NV[0, first]
            gap = (logits_V[tokens[0]] - logits_V[tokens[1]]).abs().item()
            if seed is None and gap <= 2 * self.tolerance * (1 + logits_V.abs().max().item()):
                return
            problem = (
                f"new token {first + 1} ({'greedy' if seed is None else f'seed {seed}'}) is {tokens[0]} with a cache "
                f"and {tokens[1]} without one, though the logits before it are equal"
            )
        raise CheckError(problem)

    def one_pass(self, text_L: Tensor, count: int) -> Tensor:
        """The logits (N, V) that one forward pass without a cache has for the last `count` tokens of a text."""
        with torch.no_grad():
            return self.model(text_L[None], use_cache=False).logits[0, -count - 1 : -1].float()

    def _expect_one_pass(self, text_L: Tensor, logits_NV: Tensor, how: str) -> None:
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


def _expect_pipeline(pipe: Any, prompt: str) -> None:
    """A pipeline's greedy tokens are the most probable ones of a pass without a cache."""
    count = min(FEW, pipe.model.config.max_position_embeddings // 2)
    options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, **PLAIN}
    text_L = torch.tensor(pipe(prompt, return_tensors=True, **options)[0]["generated_token_ids"])
    generation = Generation(pipe.model)
    logits_NV = generation.one_pass(text_L, count)
    ends = pipe.model.generation_config.eos_token_id
    logits_NV[:, torch.tensor([ends] if isinstance(ends, int) else ends or [], dtype=torch.long)] = -torch.inf
    for number, (token, logits_V) in enumerate(zip(text_L[-count:].tolist(), logits_NV, strict=True), start=1):
        best = logits_V.max().item()
        _expect(
            logits_V[token].item() >= best - 2 * generation.tolerance * (1 + abs(best)),
            f"new token {number} after {prompt!r} is {token}, but in a pass over the same text without a cache "
            f"{logits_V.argmax().item()} is the most probable: what it writes is wrong",
        )
    output = pipe(prompt, return_full_text=True, **options)
    _expect(
        "generated_text" in output[0] and output[0]["generated_text"].startswith(prompt),
        f"expected a list of generated_text that begins with {prompt!r}, got {output!r}",
    )


def _ids(vocab_size: int, length: int) -> Tensor:
    """Ids (1, L) from all over the vocabulary."""
    return torch.arange(1, length + 1).mul(7919).remainder(vocab_size)[None]


def _load_complete(auto_class: Any, folder: str, **options: Any) -> Any:
    """A model in evaluation mode that takes every weight of the folder, and no other."""
    model, loading = auto_class.from_pretrained(folder, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        _expect(not loading.get(kind), f"{kind.replace('_', ' ')}: {sorted(map(str, loading.get(kind) or []))}")
    return model.eval()


def _expect_reference_logits(model: Any, reference: dict[str, Tensor], tolerance: float) -> float:
    """The largest difference from the checkpoint's logits; with tolerance 0 they must be equal bit for bit."""
    with torch.inference_mode():
        got_BLV, expected_BLV = model(reference["input_ids"]).logits, reference["logits"]
    difference = (got_BLV.float() - expected_BLV.float()).abs().max().item()
    if tolerance:
        equal = torch.allclose(got_BLV.float(), expected_BLV.float(), rtol=tolerance, atol=tolerance)
    else:
        equal = torch.equal(got_BLV, expected_BLV)
    required = f"tolerance {tolerance:g}" if tolerance else "they must be equal bit for bit"
    _expect(equal, f"they differ from the checkpoint's by up to {difference:.3g} ({required})")
    return difference


@contextlib.contextmanager
def _check(report: dict[str, Any], name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = str(error) if isinstance(error, CheckError) else f"{type(error).__name__}: {error}"
        report |= {"failed": name, "error": message}
        raise CheckError(message) from error
    report["checks"].append(name)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckError(otherwise)


def _expect_remote(cls: type) -> None:
    _expect(
        cls.__module__.startswith("transformers_modules."),
        f"expected a class from the folder's own code, got {cls.__module__}.{cls.__qualname__}",
    )


def _expect_ids(got: list[int], expected: list[int]) -> None:
    _expect(got == expected, f"expected the ids of tokenizer.json {expected}, got {got}")


if __name__ == "__main__":
    sys.exit(main())
