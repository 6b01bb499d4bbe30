"""Whether the model that a config asks for fits the weights that are stored beside it."""

from pathlib import Path
from typing import Any

from modeling.stored.weights import read_weights
from storage.records import read_json_object

SIZE_NAMES = {
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim", "d_ff"),
    "vocabulary": ("vocab_size",),
    "heads": ("num_attention_heads", "n_head"),
    "key heads": ("num_key_value_heads",),
    "head width": ("head_dim",),
    "positions": ("max_position_embeddings", "n_positions"),
    "token types": ("type_vocab_size",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
}
"""What configs call the sizes that decide how much memory a model takes."""
SIZE_MARGIN = 64
"""How often a model may use each number that its files store. Shared layers (ALBERT: 12 times) and packed numbers
(4 bits: 8 times) are the reasons why a model is larger than its files."""
MAY_BE_ZERO = ("head_dim", *SIZE_NAMES["token types"], *SIZE_NAMES["experts"])
PLAIN_MARGIN = 4
"""The same for the parameters of a model that is not quantized, which count once where layers share them."""
LARGEST_BUFFERS = 2**30
"""Bytes. Tables that a model computes: rotary frequencies, masks."""
LONGEST_CONTEXT = 2**24
"""Positions. Some models compute a table of that many rows, which no file stores."""


def check_sizes(folder: Path) -> None:
    """Compare the sizes in a folder's config.json with what its weights hold, before anything of these sizes is made.

    A model takes the memory that its config asks for, and a config of a few bytes may ask for any.

    Raises:
        ValueError: a size is no whole number above 0, or together they ask for far more numbers than are stored.
    """
    config = read_json_object(folder / "config.json")
    config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    sizes: dict[str, int] = {}
    for kind, names in SIZE_NAMES.items():
        name = next((name for name in names if config.get(name) is not None), None)
        if name is None:
            continue
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < (name not in MAY_BE_ZERO):
            raise ValueError(
                f"{folder / 'config.json'}: {name}: expected a whole number above 0, got {str(value)[:40]!r}. "
                "Export or copy the model again."
            )
        sizes[kind] = value
    if (positions := sizes.get("positions", 0)) > LONGEST_CONTEXT:
        raise ValueError(
            f"{folder / 'config.json'}: expected a context of at most {LONGEST_CONTEXT:,} tokens, got {positions:,}. "
            "Export or copy the model again."
        )
    if "width" not in sizes:
        return  # another kind of config, whose names are not known here
    width, layers = sizes["width"], sizes.get("layers", 1)
    queries = sizes.get("heads", 1) * sizes.get("head width", 0)
    keys = sizes.get("key heads", 0) * sizes.get("head width", 0)
    block = width * (width + queries + keys + sizes.get("inner", 0))
    # Of experts each has at least a row of the router.
    tables = sizes.get("vocabulary", 1) + sizes.get("token types", 0) + sizes.get("experts", 0)
    asked = layers * block + width * tables
    ours = config.get("model_type") == "scratchgpt"
    is_gpt2 = "n_positions" in config or config.get("model_type") in ("gpt2", "openai-gpt")
    if config.get("position_embedding", "learned") == "learned" if ours else is_gpt2:
        asked += width * positions  # a table that the weights hold
    stored = read_weights(folder).parameters
    if asked > SIZE_MARGIN * stored:
        raise ValueError(
            f"{folder / 'config.json'}: expected sizes that fit its weights, which hold {stored:,} numbers; got those "
            f"of a model with at least {asked:,} (width {width:,}, {layers:,} layers). Export or copy the model again."
        )


def check_parameters(folder: Path, auto_class: Any) -> None:
    """Compare the parameters and buffers of the model that a folder's config makes with what its weights hold.

    The model is made on torch's meta device, where tensors take no memory. Our own class, whose sizes `check_sizes`
    knows, is not made.

    Args:
        folder: the model folder, which `check_sizes` has passed.
        auto_class: the class of transformers that loads it: AutoModelForCausalLM, AutoModelForMaskedLM.

    Raises:
        ValueError: it has far more parameters than are stored, or buffers of more than 1 GiB.
    """
    if read_json_object(folder / "config.json").get("model_type") == "scratchgpt":
        return
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = auto_class.from_config(config, trust_remote_code=False)
    stored = read_weights(folder).parameters
    margin = SIZE_MARGIN if getattr(config, "quantization_config", None) else PLAIN_MARGIN
    counts = {name: each.numel() for name, each in model.named_parameters()}  # what is tied is there once
    asked = sum(counts.values())
    if asked > margin * stored:
        raise ValueError(
            f"expected sizes that fit its weights, which hold {stored:,} numbers; got those of a model with {asked:,} "
            f"({max(counts, key=counts.__getitem__)} alone {max(counts.values()):,}). Export or copy the model again"
        )
    buffers = sum(each.numel() * each.element_size() for each in model.buffers())
    if buffers > LARGEST_BUFFERS:
        raise ValueError(f"expected tables of at most {LARGEST_BUFFERS:,} bytes that it computes, got {buffers:,}")
