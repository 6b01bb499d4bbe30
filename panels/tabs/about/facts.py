"""Facts about a model: its sizes, its parts, how it was trained, its limits, and code that loads it.

They come from the loaded model, its folder and its run; what is not known is left out."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling.families import describe_architecture
from panels.components.from_pretrained import from_pretrained_arguments, literal
from panels.formats import duration, file_size, short_number
from panels.models import LoadedModel, ModelSource
from storage.run_folder import RunFolder, step_of

Facts = list[tuple[str, str]]
"""Names and values, in the order in which they are read."""

PICTURE_LIMIT = 200_000
"""Bytes of a picture that is still small enough to be part of the page."""
NEW_TOKENS = 100
"""Tokens that the code asks for, or half a context where that is less."""
NEUTRAL_PROMPT = "Once"
_KINDS = {
    "normalisation": r"(?i)norm|\bln_|(^|\.)ln\d*(\.|$)",
    "positions": r"\bwpe\b|position",
    "attention": r"attn|attention|\b[qkvo]_proj",
    "feed-forward": r"mlp|feed_?forward|ffn|\bfc\d|dense|gate|up_proj|down_proj|intermediate|output",
}
"""What a weight belongs to, by patterns in its name, in this order."""


def parts_of(model: Any) -> dict[str, int]:
    """The parameters of any model of transformers by what they do, each counted once, the most first."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    head = None if head is None else head.weight
    is_tied = head is embedding
    sums: dict[str, int] = {}
    for name, weight in model.named_parameters():
        if weight is embedding:
            kind = "token embeddings, which are the output layer too" if is_tied else "token embeddings"
        elif weight is head or re.match(r"lm_head|embed_out", name):
            kind = "output layer"
        else:
            kind = next((kind for kind, pattern in _KINDS.items() if re.search(pattern, name)), "other")
        sums[kind] = sums.get(kind, 0) + weight.numel()
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def model_facts(loaded: LoadedModel) -> Facts:
    """What the model is and what it costs."""
    model, config = loaded.model, loaded.model.config.get_text_config(decoder=True)
    weights = list(model.parameters())
    parameters = sum(weight.numel() for weight in weights)
    facts = [("architecture", type(model).__name__), ("parameters", f"{parameters:,}")]
    shape, values_per_token = _shape(config)
    if shape:
        facts.append(("shape", shape))
    if config.model_type == "scratchgpt":
        facts.append(("family", describe_architecture(config.to_dict())))
    if loaded.context_length:
        facts.append(("context", f"{loaded.context_length:,} tokens"))
    facts.append(("vocabulary", f"{len(loaded.tokenizer):,} tokens"))
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    number_format = str(weights[0].dtype).removeprefix("torch.")
    memory = f"{file_size(size)} of weights ({number_format})"
    if values_per_token:
        memory += f", and {file_size(values_per_token * weights[0].element_size())} of key-value cache per token"
    facts.append(("memory", memory))
    if config.model_type == "scratchgpt":
        from modeling.sizing import flops_per_token

        training = flops_per_token(config, config.max_position_embeddings)
        read, learned = short_number(round(training / 3)), short_number(round(training))
        arithmetic = f"{read} floating-point operations per token in use, {learned} in training"
        facts.append(("arithmetic", f"{arithmetic}, at full context"))
    return facts


def training_facts(source: ModelSource, run: RunFolder | None) -> Facts:
    """How the model was trained and how good it is, as far as it is known; ValueError where run.json or recipe.json is
    damaged."""
    state = run.state if run and run.has_state else {}
    recipe = run.recipe if run and run.recipe_file.is_file() else {}
    windows = ((recipe.get("config") or {}).get("data") or {}).get("batch_size")
    step, seconds = _spent(source, run, state) if run else (None, None)
    versions = recipe.get("versions") or {}
    seen, bits = source.tokens_seen, source.bits_per_byte
    perplexity, pseudo = source.perplexity, source.pseudo_perplexity
    share = f", {seen / source.parameters:.2g} per parameter" if seen and source.parameters else ""
    facts = {
        "base model": (state.get("base_model") or {}).get("name"),
        "trained on": source.trained_on,
        "recipe": recipe.get("recipe"),
        "tokens seen": f"{seen:,}{share}" if seen else None,
        "steps": f"{step:,}{f', with a batch of {windows:,} sequences each' if windows else ''}" if step else None,
        "time": duration(seconds) if seconds else None,
        "on validation text": _quality(bits, source.floor_bits_per_byte) if bits is not None else None,
        "perplexity": f"{perplexity:.3g} per token" if perplexity is not None else None,
        "pseudo-perplexity": f"{pseudo:.3g}" if pseudo is not None else None,
        "made with": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "code": f"git commit {str(recipe['git_commit'])[:12]}" if recipe.get("git_commit") else None,
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _spent(source: ModelSource, run: RunFolder, state: dict[str, Any]) -> tuple[int | None, float | None]:
    """The step of the model's checkpoint and the seconds of training until then; run.json has those of the run's end,
    and the model is its best checkpoint, where its folder does not say of which step it is."""
    step = step_of(source.folder) if source.folder is not None else None
    if step is None and state.get("best_checkpoint"):
        step = step_of(Path(state["best_checkpoint"]))
    if step is None or step == state.get("step"):
        return state.get("step"), state.get("seconds")
    try:
        return step, run.record_at(step, "seconds").get("seconds")
    except ValueError:  # metrics.jsonl is damaged
        return step, None


CHATS = "It was tuned to answer as the chats do that it was shown. It follows no other instructions."


def limits(loaded: LoadedModel) -> list[str]:
    """What the model cannot do."""
    source = loaded.source
    what, forgotten = "It is a base model: it continues a text. It does not", "; what lies further back is not seen"
    if source.masked:
        what, forgotten = "It fills blanks in a text; it does not write,", ""
    context = f"It sees at most {loaded.context_length:,} tokens at once{forgotten}." if loaded.context_length else ""
    found = [
        CHATS if source.chat else f"{what} answer questions or follow instructions.",
        f"It has read {source.trained_on or 'its training text'}"
        f"{f', before that {source.read_before},' if source.read_before else ''} and nothing else. "
        "It knows no facts, and what it states is invented.",
        context,
        "It repeats the views and the language of what it read. Do not use it where an error could do harm.",
    ]
    return list(filter(None, found))


def load_code(loaded: LoadedModel, home: Path, *, is_public: bool = False) -> str:
    """Python code that loads the model without this page and uses it; run in `home` where the model is a folder there.
    It writes what the page writes at temperature 0.

    Its `from_pretrained` calls are those of `from_pretrained_arguments`."""
    source = loaded.source
    model, tokenizer = from_pretrained_arguments(source, home, is_public=is_public)
    prompt = literal(next(iter(source.prompts), NEUTRAL_PROMPT))
    if source.masked:
        return _MASKED_CODE.format(model=model, text=literal(_with_blank(loaded)))
    new_tokens = min(NEW_TOKENS, (loaded.context_length or 2 * NEW_TOKENS) // 2)
    plainly = "add_special_tokens=False, " if _closes_texts(loaded.tokenizer) else ""
    begin = f"{literal(loaded.tokenizer.decode(loaded.prefix_ids))} + " if _needs_begin(loaded) else ""
    return _CAUSAL_CODE.format(
        model=model, tokenizer=tokenizer, prompt=begin + prompt, new_tokens=new_tokens, plainly=plainly
    )


def api_code(source: ModelSource, address: str) -> str:
    """Python code that asks the page at `address` for a text, or for the words in a blank."""
    prompt = next(iter(source.prompts), NEUTRAL_PROMPT)
    if source.masked:
        call = f'client.predict({literal(f"{prompt} ____")}, 5, api_name="/fill")'
    else:
        call = f'client.predict({literal(prompt)}, max_new_tokens=50, seed=5, api_name="/generate")'
    return f"from gradio_client import Client\n\nclient = Client({literal(address)})\nprint({call})"


def picture(path: Path) -> str | None:
    """A small PNG file as a `data:` URL, so that the page serves no files; None where there is none."""
    try:
        content = path.read_bytes() if path.stat().st_size <= PICTURE_LIMIT else b""
    except OSError:
        return None
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


_CAUSAL_CODE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoModelForCausalLM.from_pretrained({model})
inputs = tokenizer({prompt}, {plainly}return_tensors="pt")
text_ids = model.generate(**inputs, max_new_tokens={new_tokens}, do_sample=False)
print(tokenizer.decode(text_ids[0], skip_special_tokens=True))"""
_MASKED_CODE = """\
from transformers import pipeline

fill = pipeline("fill-mask", model={model})
for guess in fill({text}):
    print(f"{{guess['score']:.3f}}", guess["sequence"])"""


def _shape(config: Any) -> tuple[str, int]:
    """The shape in words, as far as a config tells it, and the numbers that the key-value cache holds of one token."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    layers, width, heads, inner = (getattr(config, name, None) for name in names)
    if not (isinstance(layers, int) and isinstance(width, int)):
        return "", 0
    shape, cached = [f"{layers:,} layer{'' if layers == 1 else 's'}, hidden size {width:,}"], 0
    if isinstance(heads, int):
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or width // heads
        shared = "" if key_heads == heads else f" that share {key_heads} key-value heads"
        shape.append(f"{heads} attention heads of size {head_dim}{shared}")
        cached = 2 * layers * key_heads * head_dim
    if isinstance(inner, int):
        shape.append(f"feed-forward size {inner:,}")
    return ", ".join(shape), cached


def _quality(bits: float, floor: float | None) -> str:
    if not floor or not math.isfinite(bits / floor):
        return f"{bits:.4f} bits per byte"
    above = 100 * (bits / floor - 1)  # of figures that a card rounds: no more digits than they give
    share = f"{above:.{0 if above >= 2 else 1}f}\u00a0%"
    return f"{bits:.4f} bits per byte, {share} above the floor of {floor:.4f}, the text's entropy"


def _closes_texts(tokenizer: Any) -> bool:
    """Whether a call of the tokenizer appends a token, after which a model would not continue the text."""
    plain: Sequence[int] = tokenizer(NEUTRAL_PROMPT, add_special_tokens=False)["input_ids"]
    return list(tokenizer(NEUTRAL_PROMPT)["input_ids"])[-1:] != list(plain)[-1:]


def _needs_begin(loaded: LoadedModel) -> bool:
    """Whether the page puts tokens before a prompt, and a call of the tokenizer does not."""
    adds = list(loaded.tokenizer(NEUTRAL_PROMPT)["input_ids"])[: len(loaded.prefix_ids)] == list(loaded.prefix_ids)
    return bool(loaded.prefix_ids) and (_closes_texts(loaded.tokenizer) or not adds)


def _with_blank(loaded: LoadedModel) -> str:
    """A prompt with the mask token instead of its middle word, and of the space before it where tokens include it."""
    from tokenization import plain_ids
    from tokenization.spans import label

    words = next((prompt for prompt in loaded.source.prompts if len(prompt.split()) > 2), "The lamp burned low").split()
    middle = len(words) // 2
    tokens = [label(loaded.tokenizer, token_id) for token_id in plain_ids(loaded.tokenizer, " ".join(words))]
    joins = any(len(token) > 1 and token[0] == "\u2423" for token in tokens)
    before, after = " ".join(words[:middle]), " ".join(words[middle + 1 :])
    return f"{before}{'' if joins else ' '}{loaded.tokenizer.mask_token} {after}"
