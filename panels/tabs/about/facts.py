"""What there is to say about a model: its sizes, its parts, how it was trained, its limits, and code that loads it.

Everything is read from the loaded model and from the files of its folder and of its run; what they do not tell is left
out."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.families import describe_architecture
from panels.formats import short_number
from panels.models import LoadedModel, ModelSource
from storage.records import read_json_object

Facts = list[tuple[str, str]]
"""Names and values, in the order in which they are read."""

PICTURE_LIMIT = 200_000
"""Bytes of a picture that is still small enough to stand in the page itself."""
NEW_TOKENS = 100
"""Tokens that the code asks for, or half a context where that is less."""
NEUTRAL_PROMPT = "Once"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The weights of one kind."""

    name: str
    parameters: int


def parts_of(model: Any) -> list[Part]:
    """The parameters of any model of transformers by what they do, each counted once; none are left out."""
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
            kind = _kind_of(name)
        sums[kind] = sums.get(kind, 0) + weight.numel()
    return [Part(name=name, parameters=count) for name, count in sorted(sums.items(), key=lambda item: -item[1])]


def model_facts(loaded: LoadedModel) -> Facts:
    """What the model is and what it costs."""
    model, config = loaded.model, loaded.model.config.get_text_config(decoder=True)
    weights = list(model.parameters())
    parameters = sum(weight.numel() for weight in weights)
    facts = [("architecture", type(model).__name__), ("parameters", f"{parameters:,}")]
    facts += _shape_facts(config)
    if loaded.context_length:
        facts.append(("context", f"{loaded.context_length:,} tokens"))
    facts.append(("vocabulary", f"{len(loaded.tokenizer):,} tokens"))
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    number_format = str(weights[0].dtype).removeprefix("torch.")
    memory = f"{bytes_in_words(size)} of weights ({number_format})"
    if per_token := _cache_bytes(config, weights[0].element_size()):
        memory += f", and {bytes_in_words(per_token)} for each token it has read"
    facts.append(("memory", memory))
    if config.model_type == "scratchgpt":
        from modeling.sizing import flops_per_token

        training = flops_per_token(config, config.max_position_embeddings)
        facts.append(
            (
                "arithmetic",
                f"{short_number(round(training / 3))} floating-point operations for a token read, "
                f"{short_number(round(training))} for one learned from, at full context",
            )
        )
    return facts


def training_facts(source: ModelSource, run: Path | None) -> Facts:
    """How it was trained and how well it came out, as far as it is known; from run.json and recipe.json, if there is a
    run. Raises ValueError for a file that is damaged."""
    state = _object(run, "run.json")
    recipe = _object(run, "recipe.json")
    config = recipe.get("config") or {}
    facts: Facts = []
    if source.trained_on:
        facts.append(("trained on", source.trained_on))
    if recipe.get("recipe"):
        facts.append(("recipe", str(recipe["recipe"])))
    if source.tokens_seen:
        share = f", {source.tokens_seen / source.parameters:.2g} for each parameter" if source.parameters else ""
        facts.append(("tokens seen", f"{source.tokens_seen:,}{share}"))
    if state.get("step"):
        windows = (config.get("data") or {}).get("batch_size")
        facts.append(("steps", f"{state['step']:,}" + (f" of {windows:,} windows" if windows else "")))
    if state.get("seconds"):
        facts.append(("time", duration(state["seconds"])))
    if source.bits_per_byte is not None:
        facts.append(("on unseen text", _quality(source)))
    if source.perplexity is not None:
        facts.append(("perplexity", f"{source.perplexity:.3g} per token"))
    if source.pseudo_perplexity is not None:
        facts.append(("pseudo-perplexity", f"{source.pseudo_perplexity:.3g}"))
    versions = recipe.get("versions") or {}
    if versions:
        facts.append(("made with", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if recipe.get("git_commit"):
        facts.append(("code", f"git commit {str(recipe['git_commit'])[:12]}"))
    return facts


def limits(loaded: LoadedModel) -> list[str]:
    """What the model cannot do, in plain words."""
    source = loaded.source
    what = (
        "It fills blanks in a text; it does not write, answer or follow instructions."
        if source.masked
        else "It is a base model: it goes on with a text. It does not answer questions or follow instructions."
    )
    text = source.trained_on or "its training text"
    found = [what, f"It has read {text} and nothing else. It knows no facts, and what it states is invented."]
    if loaded.context_length:
        found.append(
            f"It sees at most {loaded.context_length:,} tokens at once; what lies further back is forgotten."
            if not source.masked
            else f"It sees at most {loaded.context_length:,} tokens at once."
        )
    found.append("It repeats the views and the language of what it read. Do not use it where an error could do harm.")
    return found


def load_code(loaded: LoadedModel, home: Path, *, is_public: bool = False) -> str:
    """Python code that loads the model without this page and uses it; run in `home` where the model is a folder there.

    It names the Hub's repository, with its revision, or the folder: relative to `home` where it lies below, else as it
    was given, and on a public page by its name alone. `trust_remote_code=True` stands where the folder's config asks
    for it."""
    source = loaded.source
    model, tokenizer = from_pretrained_arguments(source, home, is_public=is_public)
    prompt = literal(next(iter(source.prompts), NEUTRAL_PROMPT))
    if source.masked:
        return _MASKED_CODE.format(model=model, text=literal(_with_blank(loaded)))
    new_tokens = min(NEW_TOKENS, (loaded.context_length or 2 * NEW_TOKENS) // 2)
    plainly = "add_special_tokens=False, " if _closes_texts(loaded.tokenizer) else ""
    return _CAUSAL_CODE.format(model=model, tokenizer=tokenizer, prompt=prompt, new_tokens=new_tokens, plainly=plainly)


def api_code(source: ModelSource, address: str) -> str:
    """Python code that asks the page at `address` for a text, or for the words in a blank."""
    prompt = next(iter(source.prompts), NEUTRAL_PROMPT)
    if source.masked:
        call = f'client.predict({literal(f"{prompt} ____")}, 5, api_name="/fill")'
    else:
        call = f'client.predict({literal(prompt)}, max_new_tokens=50, seed=5, api_name="/generate")'
    return f"from gradio_client import Client\n\nclient = Client({literal(address)})\nprint({call})"


def from_pretrained_arguments(source: ModelSource, home: Path, *, is_public: bool = False) -> tuple[str, str]:
    """What `from_pretrained` is called with, as Python code: for the model, and for its tokenizer."""
    place, revision = whereabouts(source, home, is_public=is_public)
    has_code = _has_code(source.folder, "config.json")  # which AutoTokenizer reads too, and asks about
    return (
        _call_of(place, revision, has_code),
        _call_of(place, revision, has_code or _has_code(source.folder, "tokenizer_config.json")),
    )


def whereabouts(source: ModelSource, home: Path, *, is_public: bool = False) -> tuple[str, str | None]:
    """Where `from_pretrained` finds the model: a Hub id and its revision, or a folder and None."""
    folder = source.folder
    given = Path(source.given).expanduser()
    if folder is not None and folder.absolute().is_relative_to(given.absolute()):
        inside, home = folder.resolve(), home.resolve()
        if inside.is_relative_to(home):
            return inside.relative_to(home).as_posix(), None
        return (folder.name if is_public else folder.as_posix()), None
    name, _, revision = source.given.partition("@")
    return name, revision or None


def literal(text: str) -> str:
    """`text` as a Python literal on one line."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)


def picture(path: Path) -> str | None:
    """A small PNG file as a `data:` URL, so that the page serves no file for it; None where there is none."""
    try:
        content = path.read_bytes() if path.stat().st_size <= PICTURE_LIMIT else b""
    except OSError:
        return None
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def bytes_in_words(count: float) -> str:
    """A number of bytes in three digits: 4.34 MB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that say something: 2 min 23 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    units = [(hours, "h"), (minutes, "min"), (rest, "s")]
    said = [f"{count} {unit}" for count, unit in units if count]
    return " ".join(said[:2]) or "less than a second"


_CAUSAL_CODE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({tokenizer})
model = AutoModelForCausalLM.from_pretrained({model})
inputs = tokenizer({prompt}, {plainly}return_tensors="pt")
text_ids = model.generate(**inputs, max_new_tokens={new_tokens}, do_sample=True)
print(tokenizer.decode(text_ids[0], skip_special_tokens=True))"""
_MASKED_CODE = """\
from transformers import pipeline

fill = pipeline("fill-mask", model={model})
for guess in fill({text}):
    print(f"{{guess['score']:.3f}}", guess["sequence"])"""


def _kind_of(name: str) -> str:
    if re.search(r"norm|\bln_|(^|\.)ln\d*(\.|$)", name, re.IGNORECASE):
        return "normalisation"
    if re.search(r"\bwpe\b|position", name):
        return "positions"
    if re.search(r"attn|attention|\b[qkvo]_proj", name):
        return "attention"
    if re.search(r"mlp|feed_?forward|ffn|\bfc\d|dense|gate|up_proj|down_proj|intermediate|output", name):
        return "feed-forward"
    return "other"


def _shape_facts(config: Any) -> Facts:
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    heads, inner = getattr(config, "num_attention_heads", None), getattr(config, "intermediate_size", None)
    if not (isinstance(layers, int) and isinstance(width, int)):
        return []
    shape = [f"{layers:,} layer{'' if layers == 1 else 's'}, {width:,} wide"]
    if isinstance(heads, int):
        keys = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or width // heads
        shared = "" if keys == heads else f" over {keys} heads of keys and values"
        shape.append(f"{heads} heads of {head_dim}{shared}")
    if isinstance(inner, int):
        shape.append(f"{inner:,} wide inside the feed-forward part")
    facts = [("shape", ", ".join(shape))]
    if config.model_type == "scratchgpt":
        facts.append(("family", describe_architecture(config.to_dict())))
    return facts


def _cache_bytes(config: Any, bytes_per_value: int) -> int | None:
    """Keys and values of one token in all layers; None for a config that does not tell."""
    sizes = [getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    layers, heads, width = (int(size or 0) for size in sizes)
    keys = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or width // heads
    return 2 * layers * keys * head_dim * bytes_per_value


def _quality(source: ModelSource) -> str:
    bits, floor = source.bits_per_byte, source.floor_bits_per_byte
    assert bits is not None
    if not floor or not math.isfinite(bits / floor):
        return f"{bits:.4f} bits per byte"
    above = 100 * (bits / floor - 1)  # of figures that a card rounds: no more digits than they give
    share = f"{above:.{0 if above >= 2 else 1}f}\u00a0%"
    return f"{bits:.4f} bits per byte, {share} above the floor of {floor:.4f} that no model can beat"


def _object(run: Path | None, name: str) -> dict[str, Any]:
    return read_json_object(run / name) if run is not None and (run / name).is_file() else {}


def _has_code(folder: Path | None, name: str) -> bool:
    """Whether a folder's config names Python files of its own."""
    if folder is None or not (folder / name).is_file():
        return False
    return bool(read_json_object(folder / name).get("auto_map"))


def _call_of(place: str, revision: str | None, has_code: bool) -> str:
    arguments = [literal(place)]
    if revision:
        arguments.append(f"revision={literal(revision)}")
    if has_code:
        arguments.append("trust_remote_code=True")
    return ", ".join(arguments)


def _closes_texts(tokenizer: Any) -> bool:
    """Whether a call of the tokenizer puts something behind the text, which a model would not go on from."""
    plain: Sequence[int] = tokenizer(NEUTRAL_PROMPT, add_special_tokens=False)["input_ids"]
    return list(tokenizer(NEUTRAL_PROMPT)["input_ids"])[-1:] != list(plain)[-1:]


def _with_blank(loaded: LoadedModel) -> str:
    """A prompt with the mask token in the place of its middle word, and of the space before it where tokens bring
    theirs."""
    from tokenization import plain_ids
    from tokenization.spans import label

    words = next((prompt for prompt in loaded.source.prompts if len(prompt.split()) > 2), "The lamp burned low").split()
    middle = len(words) // 2
    tokens = [label(loaded.tokenizer, token_id) for token_id in plain_ids(loaded.tokenizer, " ".join(words))]
    joins = any(len(token) > 1 and token[0] == "\u2423" for token in tokens)
    before, after = " ".join(words[:middle]), " ".join(words[middle + 1 :])
    return f"{before}{'' if joins else ' '}{loaded.tokenizer.mask_token} {after}"
