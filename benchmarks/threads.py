"""Tokens a second of a training by its number of threads and by what they share, on a quiet machine and on a busy one.

OpenMP's threads share each operation, and wait for each other at its end. By default (of libgomp, which torch's wheels
bring) they spin: on a busy machine they burn the time that the thread they wait for would need. With
OMP_WAIT_POLICY=PASSIVE and GOMP_SPINCOUNT=0 they sleep, which costs a wake-up each time. `train` shares out the windows
of a batch instead (`train.pacing.data_parallel`), and waits once a step.

Every way is a process of its own, which trains the model of the recipe `stories` (forward, backward, Muon and AdamW) in
the precision that the recipe takes here; they take turns, one at a time. Busy: beside BUSY processes that compute all
the time, each in a session of its own.
`python -m benchmarks.threads [--threads N] [--busy N] [--rounds N] [--seconds S] [--spin-counts N …]` prints a table.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from modeling import PASSIVE_WAITING

CHECKOUT = Path(__file__).parents[1]
BASE = "1 thread"
BY_WINDOWS = "BENCHMARK_THREADS_BY_WINDOWS"
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def run(
    *,
    threads: int | None = None,
    busy: int = 2,
    rounds: int = 3,
    seconds: float = 3.0,
    spin_counts: Sequence[int] = (),
) -> dict[str, Any]:
    """Measure one thread, and `threads` that share windows, that spin, and that sleep, quiet and busy.

    Args:
        threads: default: one for each core, at least two.
        busy: processes that compute beside the training in the busy rounds.
        rounds: turns of each way; what is reported is the median.
        seconds: of a turn.
        spin_counts: further ways: threads that spin so often (GOMP_SPINCOUNT) before they sleep.

    Returns:
        `quiet` and `busy`: tokens a second of each way, and under `ratios` these over one thread's in the same round;
        `busy_over_quiet`, of the same way; `beside`: CPU use of all other processes in the quiet rounds, in cores.
    """
    threads = threads or max(2, os.cpu_count() or 1)
    ways = {
        BASE: (1, PASSIVE_WAITING),
        f"{threads} by windows": (threads, PASSIVE_WAITING | {BY_WINDOWS: "1"}),
        f"{threads} spinning": (threads, {}),
        f"{threads} passive": (threads, PASSIVE_WAITING),
        **{f"{threads} spinning {count}": (threads, {"GOMP_SPINCOUNT": str(count)}) for count in spin_counts},
    }
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(*way)) for name, way in ways.items()}
        quiet, used = _take_turns(workers, rounds, seconds)
        with _busy_processes(busy):
            loaded, _ = _take_turns(workers, rounds, seconds)
    medians = [{name: statistics.median(speeds) for name, speeds in each.items()} for each in (quiet, loaded)]
    return {
        "threads": threads,
        "busy_processes": busy,
        "cores": os.cpu_count(),
        "beside": round(used, 2),
        **{
            name: {"tokens_per_second": {way: round(speed) for way, speed in speeds.items()}, "ratios": _ratios(each)}
            for name, speeds, each in zip(("quiet", "busy"), medians, (quiet, loaded), strict=True)
        },
        "busy_over_quiet": {name: round(medians[1][name] / medians[0][name], 2) for name in ways},
    }


def as_table(result: dict[str, Any]) -> str:
    """The result as Markdown; tokens a second, medians."""
    lines = [
        f"{result['cores']} cores, of which other processes used {result['beside']} in the quiet rounds; busy: beside "
        f"{result['busy_processes']} processes that compute all the time.\n",
        "| tokens a second | quiet | × 1 thread | busy | × 1 thread | busy / quiet |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, share in result["busy_over_quiet"].items():
        cells = [
            f"{result[when]['tokens_per_second'][name]:,} | {result[when]['ratios'][name]:.2f}"
            for when in ("quiet", "busy")
        ]
        lines.append(f"| {' | '.join([name, *cells, f'{share:.2f}'])} |")
    return "\n".join(lines)


class _Worker:
    """A process that trains for some seconds whenever it is told to."""

    def __init__(self, threads: int, environment: dict[str, str]) -> None:
        names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
        inherited = {name: value for name, value in os.environ.items() if name not in names}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.threads", "--worker", str(threads)],
            cwd=CHECKOUT,
            env=inherited | environment | {"PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def train(self, seconds: float) -> float:
        """Tokens a second."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def _take_turns(workers: dict[str, _Worker], rounds: int, seconds: float) -> tuple[dict[str, list[float]], float]:
    """Tokens a second of each worker in each round, after a short turn that is not counted; and cores that others
    used."""
    speeds: dict[str, list[float]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.train(seconds / 3)
    before, started = _cpu_seconds(workers.values()), time.monotonic()
    for _ in range(rounds):
        for name, worker in workers.items():
            speeds[name].append(worker.train(seconds))
    return speeds, (_cpu_seconds(workers.values()) - before) / (time.monotonic() - started)


def _ratios(speeds: dict[str, list[float]]) -> dict[str, float]:
    """How many times as fast as one thread: the median of the ratios within a round."""
    base = speeds[BASE]
    return {
        name: round(statistics.median(own / one for own, one in zip(each, base, strict=True)), 2)
        for name, each in speeds.items()
    }


def _cpu_seconds(workers: Iterable[_Worker]) -> float:
    """CPU time of everything on the machine but these workers."""
    total = psutil.cpu_times()
    own = [psutil.Process(worker.process.pid).cpu_times() for worker in workers]
    return total.user + total.nice + total.system - sum(each.user + each.system for each in own)


@contextlib.contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """So many processes that compute, each in a session of its own, as other programs are."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _serve(threads: int) -> None:
    """Train for as many seconds as each line of the standard input says; print the tokens a second."""
    import torch

    from modeling import ScratchGPTForCausalLM
    from train.data.batches import Batch
    from train.device import make_accelerator, muon_dtype
    from train.kernels import use_kernels
    from train.objective import ModelWithLoss, forward_backward
    from train.optimizer import build_optimizers
    from train.pacing import data_parallel
    from train.recipes import get_recipe

    if BY_WINDOWS not in os.environ:
        data_parallel.MOST_THREADS = 1
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    recipe = get_recipe("stories")
    vocabulary = recipe.tokenizer.vocab_size
    accelerator = make_accelerator(recipe)
    model = ScratchGPTForCausalLM(recipe.model.build(vocab_size=vocabulary, end_of_text=vocabulary - 1))
    use_kernels(model, "cpu")
    with_loss, *optimizers = accelerator.prepare(
        ModelWithLoss(model).train(),
        *build_optimizers(model, recipe.optimizer, muon_dtype=muon_dtype(accelerator)),
    )
    rows = recipe.data.batch_size
    for line in sys.stdin:
        end, tokens, started = time.monotonic() + float(line), 0, time.monotonic()
        while time.monotonic() < end:
            ids_BL = torch.randint(vocabulary, (rows, recipe.model.max_position_embeddings))
            forward_backward(accelerator, with_loss, Batch(ids_BL, ids_BL.roll(-1, 1)), rows)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            tokens += ids_BL.numel()
        print(tokens / (time.monotonic() - started), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--spin-counts", type=int, nargs="*", default=[], metavar="N")
    parser.add_argument("--json", action="store_true", help="the numbers as JSON")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    worker, as_json = given.pop("worker"), given.pop("json")
    if worker:
        _serve(worker)
        return
    result = run(**given)
    print(json.dumps(result, indent=1) if as_json else as_table(result))


if __name__ == "__main__":
    main()
