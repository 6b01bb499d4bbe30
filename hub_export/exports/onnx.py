"""An ONNX file of a model, for onnxruntime and, with its cache, for transformers.js. Every shape of ours has one.

Names and shapes of inputs and outputs are those that Hugging Face's own exports use. Axes: B batch, L tokens of this
call, P tokens cached before it, G key/value heads, D head_dim, V vocabulary; B, L and P are free.

causal            input_ids (B, L) -> logits (B, L, V)
causal, cached    input_ids (B, L), attention_mask (B, P + L), position_ids (B, L), past_key_values.N.key and .value
                  (B, G, P, D) -> logits (B, L, V), present.N.key and .value (B, G, P + L, D); P is 0 in the first call
masked            input_ids (B, L), attention_mask (B, L) -> logits (B, L, V)
"""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_export.exports.common import Run, begins_with, check_free, find_source, require
from modeling.loading import is_masked_lm, load_model
from modeling.stored.weights import read_weights
from storage.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4
MAGIC = b"\x08"  # the tag of the first field, ir_version
LARGEST = 1_900_000_000  # bytes: a file of Protocol Buffers ends at 2 GiB

logger = logging.getLogger(__name__)


def onnx(run: Run, out: Path, *, checkpoint: str = "best", cache: bool = False, force: bool = False) -> str:
    """Make an ONNX file in float32; it gets its name once onnxruntime computes the same with it.

    Args:
        run: a run folder, or a bundle; causal or masked.
        out: the file to make.
        checkpoint: which one of a run: `best`, `latest` or `step-NNNNNN`.
        cache: let keys and values go in and out, as transformers.js wants it, so that writing a token does not compute
            the text before it again; only for causal models.
        force: replace an ONNX file that exists under this name.

    Returns:
        What was written and how near its logits are.

    Raises:
        ValueError: a package is missing, `run` or `out` is not what is expected, the model is too large for one file,
            or its logits differ by more than 1e-4 (plus 1e-4 of their size).
        OSError: the file cannot be written, or the disk is full.
    """
    require("onnx", "onnxscript", "onnxruntime", for_what="an ONNX file")
    import torch

    check_free(out, force, is_ours=begins_with(out, MAGIC), kind="file of type ONNX")
    source, _ = find_source(run, checkpoint)
    masked = is_masked_lm(source)
    if cache and masked:
        raise ValueError(f"{source}: a masked model reads the whole text at once and has no cache: leave --cache out.")
    if 4 * read_weights(source).parameters > LARGEST:
        raise ValueError(f"{source}: one ONNX file holds at most {LARGEST // 4_000_000} million parameters in float32.")
    model = load_model(source, device="cpu")
    if (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") == "dynamic":
        raise ValueError(
            f"{source}: rope_parameters scale the positions by the length of the text (dynamic), which a graph cannot. "
            "As it is, the model can be exported by `native`."
        )
    graph = Graph(model, cached=cache, masked=masked)
    logger.info("exporting (about half a minute) …")
    with _quiet():
        program = torch.onnx.export(
            graph.module,
            graph.example,
            dynamo=True,
            dynamic_shapes=graph.free_axes,
            input_names=graph.inputs,
            output_names=graph.outputs,
            verbose=False,
        )
    assert program is not None
    with atomic_file(out, "wb") as file:
        program.save(file.name)
        difference = graph.compare(file.name)
    return f"{out}: written; onnxruntime computes the same logits, within {difference:.2g}."


class Graph:
    """What is exported: a module that takes and gives tensors only, an example of its inputs, and all their names."""

    def __init__(self, model: Any, *, cached: bool, masked: bool) -> None:
        self.model, self.cached = model, cached
        self.inputs, self.outputs = ["input_ids"], ["logits"]
        if masked or cached:
            self.inputs += ["attention_mask"]
        if cached:
            layers = [f"{index}.{kind}" for index in range(model.config.num_hidden_layers) for kind in ("key", "value")]
            self.inputs += ["position_ids", *(f"past_key_values.{name}" for name in layers)]
            self.outputs += [f"present.{name}" for name in layers]
        self.module = _module(model, cached)
        context = model.config.max_position_embeddings
        past = min(3, context - 1)
        self.example = self.arguments(_some_ids(model, 2, past + min(4, context - past)), past if cached else 0)

    @property
    def free_axes(self) -> tuple[Any, ...]:
        """Which axes of each input are free, and the names by which transformers.js knows them."""
        plain = {0: "batch_size", 1: "sequence_length"}
        if not self.cached:
            return tuple(plain for _ in self.inputs)
        total = {0: "batch_size", 1: "total_sequence_length"}
        past = {0: "batch_size", 2: "past_sequence_length"}
        return plain, total, plain, tuple(past for _ in self.inputs[3:])

    def arguments(self, input_ids_BL: "Tensor", past: int) -> "tuple[Tensor, ...]":
        """The inputs for the tokens behind the first `past` ones, whose keys and values our own model computes."""
        import torch

        from modeling.cache_decoder import cache_of

        ids_BL = input_ids_BL[:, past:]
        if not self.cached:
            return (ids_BL, torch.ones_like(ids_BL))[: len(self.inputs)]
        config = self.model.config
        empty = torch.zeros(len(ids_BL), config.num_key_value_heads, 0, config.head_dim)
        tensors = [empty] * (2 * config.num_hidden_layers)
        if past:
            with torch.inference_mode():
                cache = cache_of(self.model(input_ids_BL[:, :past], use_cache=True))
            tensors = [part.clone() for layer in cache.layers for part in (layer.keys, layer.values)]
        positions_BL = torch.arange(past, input_ids_BL.shape[1]).expand(ids_BL.shape).contiguous()
        return ids_BL, torch.ones_like(input_ids_BL), positions_BL, *tensors

    def compare(self, path: str) -> float:
        """The largest difference between onnxruntime's logits and ours, over several shapes.

        Raises:
            ValueError: it is more than the tolerance.
        """
        import numpy
        import torch

        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        largest, context = 0.0, self.model.config.max_position_embeddings
        for batch, length, past in ((1, 1, 0), (2, min(context, 64), 0), (3, min(context, 9), min(context, 9) - 1)):
            ids_BL = _some_ids(self.model, batch, length)
            past = past if self.cached else 0
            with torch.inference_mode():
                expected = self.model(ids_BL).logits[:, past:].numpy()
            values = (tensor.numpy() for tensor in self.arguments(ids_BL, past))
            got: Any = session.run(["logits"], dict(zip(self.inputs, values, strict=True)))[0]
            largest = max(largest, float(numpy.abs(got - expected).max()))
            if not numpy.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE):
                raise ValueError(
                    f"expected onnxruntime to compute our logits to {TOLERANCE:g}, but they differ by up to "
                    f"{largest:.3g} for {batch} x {length} tokens. Nothing was left under the final name."
                )
        return largest


def _module(model: Any, cached: bool) -> Any:
    """The model as a module whose `forward` takes the inputs of the graph and returns its outputs."""
    from torch import nn
    from transformers.cache_utils import DynamicCache

    from modeling.cache_decoder import cache_of

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

    class Plain(Wrapped):
        def forward(self, input_ids: "Tensor", attention_mask: "Tensor | None" = None) -> "Tensor":
            if attention_mask is None:
                return self.model(input_ids=input_ids, use_cache=False).logits
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    class Cached(Wrapped):
        def forward(
            self, input_ids: "Tensor", attention_mask: "Tensor", position_ids: "Tensor", *past: "Tensor"
        ) -> "tuple[Tensor, ...]":
            outputs = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=DynamicCache(list(zip(past[::2], past[1::2], strict=True))),
                use_cache=True,
            )
            present = (part for layer in cache_of(outputs).layers for part in (layer.keys, layer.values))
            return outputs.logits, *present

    return Cached() if cached else Plain()


def _some_ids(model: Any, batch: int, length: int) -> "Tensor":
    import torch

    return torch.arange(batch * length).mul(7919).remainder(model.config.vocab_size).view(batch, length)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns of its own internals and of packages that it does not need."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
