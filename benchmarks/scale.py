"""What each size costs: the text for counting, learning and encoding; vocabulary, context, width and batch for a step.

One axis at a time, the others stay; CPU seconds of one thread, which say the same on a busy machine, and the exponent
between the last two sizes (1: in proportion). `python -m benchmarks.scale --picture docs/scale.png` draws them beside
the line of proportion. A step is forward, loss, backward, AdamW of the `modern` recipe's kind of model, fp32; beside
its seconds stands what it should take by `modeling.sizing.flops_per_token`, at the rate of the axis' middle size.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._text import write_words
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.families import MODERN
from modeling.sizing import flops_per_token
from tokenization import ScratchGPTTokenizer
from tokenization.bpe import count_pretokens, train_bpe
from tokenization.encoding import encode_corpus
from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN, Splitter
from train.config import ModelConfig
from train.kernels import use_kernels
from train.objective import ModelWithLoss
from train.recipes import get_recipe

MEGABYTES = (1, 3, 10)
VOCABULARIES = (1024, 4096, 16_384, 65_536)
CONTEXTS = (128, 512, 1024, 4096)
WIDTHS = (64, 128, 256, 512)
BATCHES = (1, 4, 16, 64)
BPE_MEGABYTES = 10
"""Of text for the vocabularies."""
TOKENS = 4096
"""Of a step where the context or the width changes."""
Costs = dict[str, dict[int, float]]
"""Seconds by stage and size."""


def run() -> dict[str, Any]:
    """By axis: seconds of each stage by size, and `exponent`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        axes = {
            "megabytes of text": text_costs(MEGABYTES),
            "vocabulary": bpe_costs(VOCABULARIES) | step_costs(VOCABULARIES, lambda size: Step(vocabulary=size)),
            "context": step_costs(CONTEXTS, lambda size: Step(context=size, windows=max(1, TOKENS // size))),
            "width": step_costs(WIDTHS, lambda size: Step(width=size)),
            "windows of a step": step_costs(BATCHES, lambda size: Step(windows=size)),
        }
    finally:
        torch.set_num_threads(threads)
    return {
        axis: {
            **{stage: {f"{size:,}": round(value, 4) for size, value in by.items()} for stage, by in costs.items()},
            "exponent": {stage: exponent(by) for stage, by in costs.items()},
        }
        for axis, costs in axes.items()
    }


def text_costs(sizes: Sequence[int]) -> Costs:
    """Of megabytes of text: counting its pre-tokens, learning 8,257 tokens (counting included), and encoding it."""
    split, vocabulary, costs = Splitter(GPT4_SPLIT_PATTERN), get_recipe("modern").tokenizer.vocab_size, {}
    for size in sizes:
        texts = [make_text(size)]
        merges, learning = cpu_seconds(lambda texts=texts: train_bpe(texts, vocabulary))
        tokenizer = ScratchGPTTokenizer.from_merges(merges)
        measured = {
            "counting": cpu_seconds(lambda texts=texts: count_pretokens(texts, split))[1],
            "learning": learning,
            "encoding": cpu_seconds(lambda texts=texts, tokenizer=tokenizer: list(encode_corpus(tokenizer, texts)))[1],
        }
        for stage, seconds in measured.items():
            costs.setdefault(stage, {})[size] = seconds
    return costs


def bpe_costs(sizes: Sequence[int]) -> Costs:
    """Of tokens of a vocabulary, counting included: when one training reached each of the sizes."""
    began, reached, last = time.process_time(), {}, max(sizes)

    def note(token: int, *_: Any) -> None:
        if token + 2 in sizes:  # ids begin at 0, and the end of text is the last
            reached[token + 2] = time.process_time() - began

    text = make_text(BPE_MEGABYTES)
    began = time.process_time()
    train_bpe([text], last, on_merge=note)
    return {f"learning from {BPE_MEGABYTES} MB": reached}


class Step:
    """A training step of a small model of the modern family.

    Args:
        vocabulary: in tokens.
        context: length of a window, in tokens.
        width: hidden size; the heads are 32 wide.
        windows: of the step.
    """

    def __init__(self, *, vocabulary: int = 4096, context: int = 256, width: int = 128, windows: int = 16) -> None:
        section = ModelConfig(
            hidden_size=width, intermediate_size=3 * width, num_hidden_layers=2, num_attention_heads=width // 32,
            head_dim=32, max_position_embeddings=context, attention_dropout=0.0, residual_dropout=0.0,
            embedding_dropout=0.0, **MODERN,
        )  # fmt: skip
        self.shape: ScratchGPTConfig = section.build(vocab_size=vocabulary, end_of_text=vocabulary - 1)
        self.flops = flops_per_token(self.shape, context) * windows * context
        self.ids_BL = torch.randint(vocabulary, (windows, context + 1))

    def seconds(self, repeats: int = 3) -> float:
        """The least CPU seconds of so many steps after a first one."""
        model = ScratchGPTForCausalLM(self.shape)
        use_kernels(model, "cpu")
        with_loss: Any = ModelWithLoss(model.train())
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step() -> None:
            with_loss(self.ids_BL[:, :-1], self.ids_BL[:, 1:]).backward()
            optimizer.step()
            optimizer.zero_grad()

        return min([cpu_seconds(step)[1] for _ in range(repeats + 1)][1:])


def step_costs(sizes: Sequence[int], make: Callable[[int], Step]) -> Costs:
    """Of a step by one of its sizes; and what it should take by its operations, at the rate of the middle size."""
    torch.manual_seed(0)
    steps = {size: make(size) for size in sizes}
    measured = {size: step.seconds() for size, step in steps.items()}
    middle = sizes[len(sizes) // 2]
    rate = steps[middle].flops / measured[middle]
    return {"a step": measured, "a step by its operations": {size: step.flops / rate for size, step in steps.items()}}


def make_text(megabytes: int) -> str:
    """A text of so many megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        write_words(path, megabytes * 10**6)
        return path.read_text(encoding="ascii")


def cpu_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and the CPU seconds that it took."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def exponent(by_size: dict[int, float]) -> float | None:
    """Of the power law through the last two sizes; None of a single one."""
    *_, before, last = [None, *by_size]
    if before is None:
        return None
    return round(math.log(by_size[last] / by_size[before]) / math.log(last / before), 2)


def draw(result: dict[str, Any], picture: Path) -> None:
    """Draw what `run` returned: a panel for each axis, both scales logarithmic, with a line of proportion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), dpi=100, layout="constrained")
    panels = list(figure.subplots(2, 3).flat)
    for axes, (axis, stages) in zip(panels, result.items(), strict=False):
        for stage, by_size in stages.items():
            if stage == "exponent":
                continue
            sizes, seconds = [int(size.replace(",", "")) for size in by_size], list(by_size.values())
            style = "--" if "operations" in stage else "-"
            axes.plot(sizes, seconds, style, marker="o", markersize=3, label=stage)
        first = stages.get("a step") or next(iter(stages.values()))
        sizes = [int(size.replace(",", "")) for size in first]
        start = min(first.values())
        axes.plot(sizes, [start * size / sizes[0] for size in sizes], ":", color="#999999", label="in proportion")
        axes.set_xscale("log", base=10)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel(axis)
        axes.set_ylabel("CPU seconds")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    for axes in panels[len(result) :]:
        axes.set_axis_off()
    with picture.open("wb") as stream:
        FigureCanvasAgg(figure).print_png(stream)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the costs there, a PNG")
    given = parser.parse_args()
    measured = run()
    print(json.dumps(measured, indent=2))
    if given.picture:
        draw(measured, given.picture)
