"""What each size costs: the text for counting, learning and encoding; vocabulary, context, width and batch for a step.

One axis at a time, the others stay; CPU seconds of one thread, which say the same on a busy machine, and the exponent
between the last two sizes (1: in proportion). The text is made (`benchmarks._text`) and read from its file; each stage
that reads it is a process of its own. `python -m benchmarks.scale --megabytes 10 100 1000 --picture docs/scale.png`
takes other sizes (disk: that of the largest) and draws all beside the line of proportion. A step is forward, loss,
backward, AdamW of the `modern` recipe's kind of model, fp32; beside its seconds stands what it should take by
`modeling.sizing.flops_per_token`, at the rate of the axis' middle size.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._report import report
from benchmarks._text import write_words
from benchmarks.bpe import CHECKOUT
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.families import MODERN
from modeling.sizing import flops_per_token
from tokenization import ScratchGPTTokenizer, load_tokenizer, save_tokenizer
from tokenization.bpe import count_pretokens, train_bpe
from tokenization.encoding import encode_corpus
from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN, Splitter
from train.config import ModelConfig
from train.kernels import use_kernels
from train.objective import ModelWithLoss
from train.recipes import get_recipe

MEGABYTES = (1, 10, 100)
STAGES = ("counting", "learning", "encoding")
VOCABULARIES = (1024, 4096, 16_384, 65_536)
CONTEXTS = (128, 512, 1024, 4096)
WIDTHS = (64, 128, 256, 512)
BATCHES = (1, 4, 16, 64)
BPE_MEGABYTES = 10
"""Of text for the vocabularies."""
TOKENS = 4096
"""Of a step where the context or the width changes."""
PIECE = 1 << 20
"""Bytes of a document, up to its last line's end."""
Costs = dict[str, dict[int, float]]
"""Seconds by stage and size."""


def run(*, megabytes: Sequence[int] = MEGABYTES) -> dict[str, Any]:
    """By axis: seconds of each stage by size, and `exponent`.

    Args:
        megabytes: of text, ascending.

    Raises:
        ValueError: there is no room for the largest text.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        axes = {
            "megabytes of text": text_costs(megabytes),
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
    costs: Costs = {stage: {} for stage in STAGES}
    with tempfile.TemporaryDirectory() as folder:
        if (free := shutil.disk_usage(folder).free) < 1.1e6 * max(sizes):
            raise ValueError(f"{folder}: expected room for {max(sizes):,} MB of text, got {free // 10**6:,} MB")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
        for size in sizes:
            write_words(Path(folder, "text.txt"), size * 10**6)
            for stage in STAGES:
                command = [sys.executable, "-m", "benchmarks.scale", "--stage", stage, folder]
                done = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, check=True)
                costs[stage][size] = float(done.stdout.split()[-1])
                print(f"{size:,} MB, {stage}: {costs[stage][size]:.2f} CPU s", file=sys.stderr)
    return costs


def stage_costs(stage: str, folder: Path) -> float:
    """CPU seconds of a stage on the text in a folder, where learning leaves the tokenizer for encoding."""
    texts = documents(folder / "text.txt")
    if stage == "counting":
        return cpu_seconds(lambda: count_pretokens(texts, Splitter(GPT4_SPLIT_PATTERN)))[1]
    if stage == "learning":
        merges, seconds = cpu_seconds(lambda: train_bpe(texts, get_recipe("modern").tokenizer.vocab_size))
        save_tokenizer(ScratchGPTTokenizer.from_merges(merges), folder / "tokenizer")
        return seconds
    tokenizer = load_tokenizer(folder / "tokenizer")
    return cpu_seconds(lambda: sum(map(len, encode_corpus(tokenizer, texts))))[1]


def documents(path: Path) -> Iterator[str]:
    """A text in pieces, so that none of any size need be held."""
    with path.open(encoding="ascii") as file:
        while lines := file.readlines(PIECE):
            yield "".join(lines)


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


def main() -> None:
    """The command line; also that of one stage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", metavar="N", default=MEGABYTES, help="sizes of the text")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the costs there, a PNG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the section in it, as tables")
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        torch.set_num_threads(1)
        print(stage_costs(given.stage[0], Path(given.stage[1])))
        return

    def measure() -> dict[str, Any]:
        result = run(megabytes=sorted(given.megabytes))
        if given.picture:
            draw(result, given.picture)
        return result

    flags = ["--megabytes", *map(str, given.megabytes)]
    flags += ["--picture", str(given.picture)] if given.picture else []
    report("scale", measure, given.markdown, flags)


if __name__ == "__main__":
    main()
