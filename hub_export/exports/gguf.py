"""One file with weights and tokenizer for llama.cpp and what is built on it (Ollama, LM Studio).

The weights take the way through the stock architecture (`stock.py`): Qwen3 becomes llama.cpp's `qwen3`, GPT-2 its
`gpt2`. What llama.cpp's graphs compute is narrower than what transformers' classes do, so some models that have a stock
form have no GGUF: its `gpt2` knows one activation, its `qwen3` one and no bias at the end of the attention.
"""

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hub_export.exports.common import Run, begins_with, check_free, find_source, greedy, load_scratch, require
from hub_export.verify import PROBE_TEXT, PROMPT, run_isolated
from storage.files import atomic_file
from storage.prompts import read_prompts
from storage.records import read_json_object

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

Weights = Literal["f32", "f16", "q8_0"]
MAGIC = b"GGUF"
# GPT-2's gelu and the names transformers has for the same formula, the one with tanh.
GELUS = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")
SILUS = ("silu", "swish")
# llama.cpp names its split patterns after models. dbrx has GPT-4's, and merges as we do: `llama-bpe`, with the same
# pattern, takes a pre-token that is in the vocabulary whole, whatever the merges say.
GPT4_PRE, GPT2_PRE = "dbrx", "gpt-2"
TEXTS = (
    PROBE_TEXT,
    "",
    " ",
    "  two  blanks \t tab\u00a0hard\u3000wide",
    "line\nline\r\nline\n\n\n   \n  end  ",
    "It's IT'S we'll WE'LL I'd you're they've 'twas 'S'",
    "0 12 123 1234 12345 1234567.89 1,000,000 ½ Ⅷ ٣٤٥",
    "e\u0301 ñ ß ﬁ İstanbul наука 日本語テキスト हिन्दी ไทย עברית",
    "#!/bin/sh --flag=value {json: [1, 2]} a_b*c **bold** … — “quoted”",
    "👩‍🚀🚀🇨🇭 \u200b zero\u200dwidth \x00\x07",
    "a" * 300 + " " * 40 + "!" * 50,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """A tokenizer.json as GGUF keeps it."""

    tokens: list[str]  # by id, bytes in GPT-2's printable alphabet
    types: list[int]  # gguf.TokenType of each
    merges: list[str]  # "left right", in order
    pre: str  # llama.cpp's name of the split pattern


def gguf(run: Run, out: Path, *, checkpoint: str = "best", weights: Weights = "f32", force: bool = False) -> str:
    """Make a GGUF file for llama.cpp, Ollama and LM Studio; check it where llama-cpp-python is installed.

    Where llama-cpp-python is installed, an isolated process opens the file with it before it gets its name: the token
    ids of a battery of texts and the greedy text must equal ours.

    Args:
        run: a run folder, or a bundle.
        out: the file to make.
        checkpoint: which one of a run: `best`, `latest` or `step-NNNNNN`.
        weights: number format of the matrices: `f32` rounds nothing, `q8_0` is 8 bits with a scale for each 32 numbers.
            Vectors and position tables stay in f32.
        force: replace a GGUF file that exists under this name.

    Returns:
        What was written, and what was checked or not.

    Raises:
        ValueError: the `gguf` package is missing, llama.cpp cannot hold the model or its tokenizer (the message names
            the field), `run` or `out` is not what is expected, or the check failed.
        OSError: the file cannot be written, or the disk is full.
    """
    require("gguf", for_what="a GGUF file")
    from transformers import AutoTokenizer

    from hub_export.exports.stock import stock_model

    check_free(out, force, is_ours=begins_with(out, MAGIC), kind="file of type GGUF")
    source, run_folder = find_source(run, checkpoint)
    model = load_scratch(source)
    stock = stock_model(model)
    check_graph(stock)
    vocabulary = read_vocabulary(source, model.config.vocab_size)
    with atomic_file(out, "wb") as file:
        _write(Path(file.name), stock, vocabulary, weights, name=out.stem)
        if importlib.util.find_spec("llama_cpp") is None:
            return f"{out}: written; not checked, since llama-cpp-python is not installed here."
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        prompts = read_prompts(run_folder.path if run_folder else source)
        prompt_1L, text_1L = greedy(model, tokenizer, next(iter(prompts), PROMPT))
        task = {
            "check": "gguf",
            "file": str(Path(file.name).resolve()),
            "texts": [[text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS],
            "prompt": prompt_1L[0].tolist(),
            "text": text_1L[0].tolist(),
            "context": model.config.max_position_embeddings,
        }
        report = run_isolated(task)
        if "failed" in report:
            raise ValueError(f"{out}: expected a file that llama.cpp opens, but the check failed: {report['error']}.")
        if report["text"] != task["text"] and weights == "f32":
            raise ValueError(
                f"{out}: expected llama.cpp to write the ids {task['text']}, got {report['text']}. "
                "Nothing was left under this name; report this message with the model's config.json."
            )
    return f"{out}: written; llama.cpp opens it. {_in_words(task, report)}"


def _in_words(task: dict[str, Any], report: dict[str, Any]) -> str:
    """What the check found: where the texts diverge, and which texts have other ids."""
    expected, got, start = task["text"], report["text"], len(task["prompt"])
    same = next((i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b), len(expected)) - start
    words = f"Its greedy text is ours for {same} of {len(expected) - start} tokens; "
    wrong = report["wrong"]
    if not wrong:
        return words + f"its token ids are ours on all {len(task['texts'])} texts tried."
    listed = "".join(f"\n  {case['text'][:60]!r}: expected {case['expected']}, got {case['got']}" for case in wrong)
    return words + f"its token ids are NOT ours on {len(wrong)} of {len(task['texts'])} texts:{listed}"


def check_graph(stock: "PreTrainedModel") -> None:
    """Refuses a stock model that llama.cpp would compute otherwise.

    Raises:
        ValueError: naming the field.
    """
    config: Any = stock.config
    if config.model_type == "gpt2":
        if config.activation_function not in GELUS:
            raise ValueError(
                f"hidden_act is {config.activation_function!r}, and llama.cpp's gpt2 computes gelu_new whatever a file "
                "says: train with --model.hidden-act gelu_new. As it is, the model can be exported by `native` and "
                "`onnx`."
            )
        return
    if config.rope_parameters["rope_type"] != "default":
        raise ValueError(
            f"rope_parameters scale the positions ({config.rope_parameters['rope_type']}), which this export does not "
            "write into the file. As it is, the model can be exported by `native`."
        )
    if config.hidden_act not in SILUS:
        raise ValueError(
            f"hidden_act is {config.hidden_act!r}, and llama.cpp's qwen3 computes silu whatever a file says: train "
            "with --model.hidden-act silu. As it is, the model can be exported by `native` and `onnx`."
        )
    if any(name.endswith("o_proj.bias") and tensor.any() for name, tensor in stock.named_parameters()):
        raise ValueError(
            "attention_output_bias is True, and llama.cpp's qwen3 has no bias there: train with "
            "--model.no-attention-output-bias. As it is, the model can be exported by `native` and `onnx`."
        )


def read_vocabulary(source: Path, vocab_size: int) -> Vocabulary:
    """Reads a byte-level BPE from a tokenizer.json; tokens that a larger model has beyond it are marked unused.

    Raises:
        ValueError: it is another kind of tokenizer, or has a split pattern that llama.cpp has not.
    """
    kinds: Any = importlib.import_module("gguf").TokenType
    content = read_json_object(source / "tokenizer.json")
    model = content["model"]
    if model.get("type") != "BPE" or (content.get("decoder") or {}).get("type") != "ByteLevel":
        raise ValueError(
            "tokenizer.kind: expected a byte-level BPE (`bpe` or `gpt2`), got another kind of tokenizer, which "
            "llama.cpp would read otherwise. Train with --tokenizer.kind bpe, or export by `native` and `onnx`."
        )
    ids = dict(model["vocab"])
    types: dict[int, Any] = dict.fromkeys(ids.values(), kinds.NORMAL)
    for token in content.get("added_tokens") or ():
        ids[token["content"]] = token["id"]
        types[token["id"]] = kinds.CONTROL if token["special"] else kinds.USER_DEFINED
    by_id = {index: token for token, index in ids.items()}
    return Vocabulary(
        tokens=[by_id.get(index, f"[UNUSED{index}]") for index in range(vocab_size)],
        types=[int(types.get(index, kinds.UNUSED)) for index in range(vocab_size)],
        merges=[pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
        pre=_pre_tokenizer(content, bool(model.get("ignore_merges"))),
    )


def _pre_tokenizer(content: dict[str, Any], ignores_merges: bool) -> str:
    """llama.cpp's name of the way in which a tokenizer.json splits a text before the merges."""
    from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN  # imports transformers, which takes seconds

    stage = content.get("pre_tokenizer") or {}
    stages = stage.get("pretokenizers", [stage])
    patterns = [part["pattern"].get("Regex") for part in stages if part.get("type") == "Split"]
    levels = [part for part in stages if part.get("type") == "ByteLevel"]
    plain = not content.get("normalizer") and not ignores_merges and len(levels) == 1 and len(stages) < 3
    if plain and not levels[0].get("add_prefix_space"):
        if patterns == [GPT4_SPLIT_PATTERN] and not levels[0].get("use_regex"):
            return GPT4_PRE
        if not patterns and levels[0].get("use_regex"):
            return GPT2_PRE
    raise ValueError(
        "tokenizer.pattern: expected the split pattern of GPT-4 or of GPT-2, got another one, and a GGUF file can only "
        "name patterns that llama.cpp has. Train with the default pattern, or export by `native` and `onnx`."
    )


def _write(path: Path, stock: "PreTrainedModel", vocabulary: Vocabulary, weights: Weights, *, name: str) -> None:
    library: Any = importlib.import_module("gguf")
    config: Any = stock.config
    is_gpt2 = config.model_type == "gpt2"
    architecture = library.MODEL_ARCH.GPT2 if is_gpt2 else library.MODEL_ARCH.QWEN3
    writer = library.GGUFWriter(path, library.MODEL_ARCH_NAMES[architecture])
    writer.add_name(name)
    writer.add_file_type(library.LlamaFileType[f"{'ALL' if weights == 'f32' else 'MOSTLY'}_{weights.upper()}"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if is_gpt2:
        writer.add_feed_forward_length(config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_vocabulary(writer, config, vocabulary)

    names = library.get_tensor_name_map(architecture, config.num_hidden_layers)
    for key, tensor in stock.state_dict().items():
        is_tied = key == "lm_head.weight" and config.tie_word_embeddings
        if is_tied or key.endswith("o_proj.bias"):  # the latter are zeros: `check_graph` has looked
            continue
        values = tensor.float()
        if is_gpt2 and key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            values = values.T
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert target is not None, key
        keep = values.ndim == 1 or key.endswith("wpe.weight")
        _add_tensor(writer, target, values.contiguous().numpy(), "f32" if keep else weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, config: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if (value := getattr(config, name)) is not None:
            getattr(writer, f"add_{name}")(value[0] if isinstance(value, list) else value)


def _add_tensor(writer: Any, name: str, values: "np.ndarray", weights: Weights) -> None:
    library: Any = importlib.import_module("gguf")
    assert weights in get_args(Weights)
    if weights == "q8_0" and values.shape[-1] % 32:  # q8_0 works on rows of whole groups of 32
        weights = "f16"
    kind = library.GGMLQuantizationType[weights.upper()]
    writer.add_tensor(name, library.quantize(values, kind), raw_dtype=kind)
