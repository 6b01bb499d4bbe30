"""A writing to take along: the same text and settings as Python with transformers, and as curl to the page's API."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panels.components.from_pretrained import from_pretrained_arguments, literal
from panels.generate import encode_prompt
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from modeling.generation import SamplingSettings
    from panels.models import LoadedModel

ENDPOINT = "/gradio_api/call/generate"
API_SETTINGS = (
    "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "typical_p"
)  # fmt: skip
"""The settings in the order of the endpoint's parameters, between `prompt` and `stop`."""


def python_code(
    loaded: LoadedModel,
    prompt: str,
    settings: SamplingSettings,
    *,
    stop: str = "",
    home: Path,
    is_public: bool = False,
) -> str:
    """Python code that continues `prompt` with transformers alone; run in `home` where the model is a folder there.

    It writes the page's text, greedy or with a seed; without one, transformers draws another text each time. `generate`
    does not move its window on: where the page would, the code keeps the end of the prompt and asks for what fits."""
    model, tokenizer = from_pretrained_arguments(loaded.source, home, is_public=is_public)
    prompt = replace_surrogates(prompt)
    ids = encode_prompt(loaded, prompt)
    front = list(loaded.prefix_ids if prompt else loaded.start_ids)
    if not ids:
        raise ValueError(f"{loaded.source.name} cannot begin by itself: write something first.")
    encoded = 'tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]' if prompt else ""
    draws_as_here = settings.seed is not None and settings.temperature > 0
    processors = ", LogitsProcessor, LogitsProcessorList" if draws_as_here else ""
    lines = [
        "import torch",
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{processors}",
        "",
        *(_sampler_code(settings, loaded.model.get_input_embeddings().weight.shape[0]) if draws_as_here else []),
        f"tokenizer = AutoTokenizer.from_pretrained({tokenizer})",
        f"model = AutoModelForCausalLM.from_pretrained({model})",
        "",
        f"prompt = {literal(prompt)}",
        f"ids = {' + '.join(filter(None, [str(front) if front else '', encoded]))}",
    ]
    context, new_tokens = loaded.context_length, settings.max_new_tokens
    if context and len(ids) + new_tokens > context:
        kept = min(len(ids), context - min(new_tokens, max(1, context // 2)))
        new_tokens = context - kept
        lines.append(f"# The model sees {context} tokens at once. The page moves its window on; generate does not.")
        lines += [f"ids = ids[-{kept}:]"] if kept < len(ids) else []
    if settings.seed is None and settings.temperature > 0:
        lines.append("# Without a seed, another text each time. With one, this program draws what the page draws.")
    lines += [
        "output = model.generate(",
        "    torch.tensor([ids]),",
        "    attention_mask=torch.ones(1, len(ids), dtype=torch.long),",
        *(f"    {name}={value}," for name, value in _options(settings, new_tokens, stop).items()),
        ")",
    ]
    if stop:
        lines += [
            "written = tokenizer.decode(output[0, len(ids):], skip_special_tokens=True)",
            f"print(prompt + written.partition({literal(stop)})[0])",
        ]
    else:
        lines.append("print(tokenizer.decode(output[0], skip_special_tokens=True))")
    return "\n".join(lines)


def curl_command(address: str, prompt: str, settings: SamplingSettings, *, stop: str = "") -> str:
    """Two calls of curl, for a POSIX shell, that have the page at `address` continue `prompt`: the first asks for it,
    the second shows how the text grows.

    Raises ValueError for what is no address of a page."""
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./~%-]*)?", address):
        raise ValueError(f"address: expected http://HOST:PORT, got {address!r}.")
    url = address.rstrip("/") + ENDPOINT
    values = [prompt, *(getattr(settings, name) for name in API_SETTINGS), stop]
    return "\n".join(
        [
            f"EVENT=$(curl -s {url} -H 'Content-Type: application/json' -d @- <<'JSON' |",
            json.dumps({"data": values}),
            "JSON",
            """sed 's/.*"event_id": *"\\([^"]*\\)".*/\\1/')""",
            f"curl -sN {url}/$EVENT",
        ]
    )


def _sampler_code(settings: SamplingSettings, vocab_size: int) -> list[str]:
    """A logits processor that draws as `modeling.sampling` does, with these settings: generate's own draws take their
    random numbers in another way. The repetition penalty is generate's, which comes before it."""
    has_top_k = 0 < settings.top_k < vocab_size
    is_ranked = has_top_k or settings.top_p < 1 or settings.min_p > 0
    lines = [
        "",
        "class PageSampler(LogitsProcessor):",
        '    """Draws as the page does: one random number for each token, whatever the settings leave to draw from."""',
        "",
        f"    generator = torch.Generator().manual_seed({settings.seed})",
        "",
        "    def __call__(self, input_ids, scores):",
        "        logits = scores[0].float().cpu()",
    ]
    if has_top_k:
        lines += [
            f"        logits, order = logits.topk(int((logits >= logits.topk({settings.top_k}).values[-1]).sum()))",
        ]
    if settings.temperature != 1:
        lines.append(f"        logits = (logits - logits.max()) / {float(settings.temperature)}")
    lines.append("        probability = torch.softmax(logits, -1)")
    if is_ranked and not has_top_k:
        lines.append("        probability, order = probability.topk(len(probability))")
    elif not is_ranked:
        lines.append("        order = torch.arange(len(probability))")
    lines.append("        cumulative = probability.cumsum(0, dtype=torch.float64)")
    lines.append("        kept = len(order)")
    if settings.top_p < 1:
        lines.append(f"        kept = min(kept, int(torch.searchsorted(cumulative, {float(settings.top_p)})) + 1)")
    if settings.min_p > 0:
        lines.append(f"        kept = min(kept, int((probability >= {settings.min_p} * probability[0]).sum()))")
    if settings.typical_p < 1:
        lines += [
            "        probability, order = probability[:kept], order[:kept]",
            "        share = probability.double() / cumulative[kept - 1]",
            "        distance = (-share.log() + (share * share.log()).nansum()).abs()",
            "        nearest, ranks = distance.sort()",
            f"        last = int((share[ranks].cumsum(0) < {float(settings.typical_p)}).sum())",
            "        typical = (distance <= nearest[min(last, kept - 1)]).nonzero()[:, 0]",
            "        probability, order, kept = probability[typical], order[typical], len(typical)",
            "        cumulative = probability.cumsum(0, dtype=torch.float64)",
        ]
    return [
        *lines,
        "        number = torch.rand((), generator=self.generator, dtype=torch.float64) * cumulative[kept - 1]",
        "        token = order[min(int(torch.searchsorted(cumulative, number, right=True)), kept - 1)]",
        "        return torch.full_like(scores, -torch.inf).index_fill(1, token[None].to(scores.device), 0.0)",
        "",
        "",
    ]


def _options(settings: SamplingSettings, new_tokens: int, stop: str) -> dict[str, Any]:
    """The arguments of `generate`, as Python code."""
    draws_as_here = settings.seed is not None and settings.temperature > 0
    does_draw = settings.temperature > 0 and not draws_as_here
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": does_draw}
    if draws_as_here:
        options["logits_processor"] = "LogitsProcessorList([PageSampler()])"
    if does_draw:
        options |= {"temperature": float(settings.temperature), "top_k": settings.top_k, "top_p": float(settings.top_p)}
        options |= {"min_p": settings.min_p} if settings.min_p > 0 else {}
        options |= {"typical_p": settings.typical_p} if settings.typical_p < 1 else {}
    options["repetition_penalty"] = float(settings.repetition_penalty)
    return options | ({"stop_strings": f"[{literal(stop)}]", "tokenizer": "tokenizer"} if stop else {})
