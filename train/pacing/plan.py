"""What a run will take: parameters, FLOPs, memory, time. `python -m train RECIPE --plan` says it and trains nothing.

Time and memory are measured: a model of that shape takes a few steps on random tokens, once with few windows and once
with more, and both grow in a straight line with the windows of a step. On another device the time follows from the
FLOPs, at an assumed share of its peak.
"""

import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch

from modeling.sizing import count_parameters, flops_per_token
from storage.run_folder import RunFolder
from storage.text import duration
from tokenization import load_tokenizer
from train.base.teacher import load_teacher
from train.config import Config
from train.data.batches import IGNORED, Batch
from train.device import ASSUMED_UTILIZATION, describe, make_accelerator, muon_dtype
from train.kernels import use_kernels
from train.objective import OBJECTIVES, ModelWithLoss, forward_backward, mean_loss
from train.optimizer import build_optimizers
from train.pacing.data_parallel import thread_count, windows_at_a_time
from train.pacing.time_limit import Costs

GPT2_VOCABULARY = 50_257
ASSUMED_CHARACTERS = 128
"""Size of a vocabulary of characters, which only the text tells."""
TRIAL_SECONDS = 4.0
"""The larger trial has as many windows as take about so long, in a step."""
STEPS = 3
"""Steps of each trial; the first warms up, the mean of the others counts."""
DEVICES: dict[str, tuple[float, float]] = {
    "T4 (fp16)": (65, 16),
    "L4": (121, 24),
    "RTX 3090": (71, 24),
    "RTX 4090": (165, 24),
    "A100": (312, 80),
    "H100": (989, 80),
    "H200": (989, 141),
}
"""Peak of dense bf16 matrix products in TFLOP/s, with fp32 accumulation, and memory in GB, by NVIDIA's data sheets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A step with so many windows: seconds of forward and backward, of the update, and of an evaluation's forward; peak
    memory of the process in bytes."""

    windows: int
    pass_seconds: float
    update_seconds: float
    evaluation_seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will take on this machine; seconds and bytes."""

    parameters: int
    vocabulary: int
    tokens: int
    flops: float
    step_seconds: float
    seconds: float
    memory: int
    checkpoint_bytes: int
    device: str
    trials: tuple[Trial, ...]

    def lines(self, config: Config, recipe: str) -> list[str]:
        """The plan for a reader."""
        run, data, length = config.run, config.data, config.model.max_position_embeddings
        tried = ", ".join(
            f"{trial.windows} {'window' if trial.windows == 1 else 'windows'} in {trial.pass_seconds:.3g} s"
            for trial in self.trials
        )
        kept = min(run.keep_checkpoints + 1, math.ceil(run.steps / run.checkpoint_every))
        lines = [
            f"plan of {recipe}: {self.parameters:,} parameters, vocabulary {self.vocabulary:,}, {self.device}, "
            f"{torch.get_num_threads()} threads",
            f"tokens   {self.tokens:,}: {run.steps:,} steps of {data.batch_size} windows of {length} tokens",
            f"compute  {self.flops:.3g} floating-point operations, {self.flops / self.tokens / 1e6:.4g} M a token",
            f"a step   {self.step_seconds:.3g} s, of which {self.trials[-1].update_seconds:.2g} s for the optimizer "
            f"(tried: {tried})",
            f"time     {duration(self.seconds)}, evaluations included; reading the text, its tokenizer, encoding, "
            "checkpoints and samples come on top",
            f"memory   {self.memory / 1e9:.2f} GB at most, of this process",
            f"disk     {self.checkpoint_bytes / 1e6:,.0f} MB a checkpoint, {kept} kept at the end",
        ]
        if run.max_seconds and self.seconds > run.max_seconds:
            most = duration(run.max_seconds * run.max_stretch)
            stretch = f"the limit stretches to at most {most}, then " if run.max_stretch > 1 else ""
            lines.append(
                f"limit    {duration(run.max_seconds)} do not suffice at this pace: {stretch}the schedule is shortened"
            )
        needed = 16 * self.parameters / 1e9  # fp32 weights, gradients and AdamW's two moments
        times = [
            f"{name} {duration(self.flops / (ASSUMED_UTILIZATION * peak * 1e12))}"
            for name, (peak, size) in DEVICES.items()
            if needed < size
        ]
        lines.append(
            f"GPUs     {', '.join(times) or 'none that is known has room'}: not measured, {ASSUMED_UTILIZATION:.0%} of "
            "the peak in their data sheets, of which a small model reaches less"
        )
        return lines


def make_plan(config: Config, folder: RunFolder, log: Callable[[str], None]) -> Plan:
    """Try steps of the run's shape in this process, which should have done nothing else; nothing is written.

    Args:
        config: the resolved config, valid.
        folder: the run's; its tokenizer counts where there is one.
        log: called with a line on what is assumed, and on each trial.

    Raises:
        ValueError: a device that this machine does not have.
    """
    vocabulary = vocabulary_size(config, folder, log)
    accelerator = make_accelerator(config)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    shape = config.model.build(vocab_size=vocabulary, end_of_text=vocabulary - 1)
    length, run, data = config.model.max_position_embeddings, config.run, config.data
    most = windows_at_a_time(accelerator, shape, data, length)
    torch.manual_seed(run.seed)
    unwrapped = OBJECTIVES[data.objective].model(shape)
    use_kernels(unwrapped, accelerator.device)
    if (teacher := load_teacher(config)) is not None:
        teacher.to(accelerator.device)
    model, *optimizers = accelerator.prepare(
        ModelWithLoss(unwrapped, teacher),
        *build_optimizers(unwrapped, config.optimizer, muon_dtype=muon_dtype(accelerator)),
    )
    model.train()
    evaluated_together = thread_count(data.evaluation_windows // data.batch_size)  # threads share them

    def try_windows(windows: int) -> Trial:
        log(f"trying {STEPS} steps of {windows} of {most} windows")
        ids = torch.randint(vocabulary, (windows, length + 1))
        target = ids[:, 1:].clone()
        if data.objective == "masked":
            target[torch.rand(target.shape) >= data.mask_rate] = IGNORED
        batch = Batch(ids[:, :-1].contiguous(), target)
        passes, updates, evaluations = [], [], []
        for _ in range(STEPS):
            begun = time.perf_counter()
            forward_backward(accelerator, model, batch, windows)
            synchronize(accelerator.device)
            passed = time.perf_counter()
            accelerator.clip_grad_norm_(unwrapped.parameters(), config.optimizer.max_grad_norm or math.inf)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            synchronize(accelerator.device)
            updated = time.perf_counter()
            mean_loss(model, [batch] * evaluated_together, accelerator.device)
            passes.append(passed - begun)
            updates.append(updated - passed)
            evaluations.append((time.perf_counter() - updated) / evaluated_together)
        return Trial(
            windows=windows,
            pass_seconds=statistics.mean(passes[1:]),
            update_seconds=statistics.mean(updates[1:]),
            evaluation_seconds=statistics.mean(evaluations[1:]),
            memory=peak_memory(accelerator.device),
        )

    first = try_windows(thread_count(most))
    trials = [first]
    # What one window takes is no measure of many: the second trial is as large as its time allows.
    while trials[-1].windows < most and trials[-1].pass_seconds < TRIAL_SECONDS / 4:
        room = max(2, int(TRIAL_SECONDS / max(trials[-1].pass_seconds, 1e-3)))
        trials.append(try_windows(min(most, trials[-1].windows * min(8, room))))
    step = data.batch_size / most * at(most, "pass_seconds", trials) + trials[-1].update_seconds
    evaluated = 2 * data.evaluation_windows  # of the validation text and of the training text
    costs = Costs(
        step=step,
        evaluation=evaluated / data.batch_size * at(data.batch_size, "evaluation_seconds", trials),
        checkpoint=0.0,
        evaluate_every=run.evaluate_every,
        checkpoint_every=run.checkpoint_every,
    )
    tokens = run.steps * data.batch_size * length
    flops = flops_per_token(shape, length) + (0 if teacher is None else flops_per_token(teacher.config, length) / 3)
    parameters = count_parameters(shape)
    moments = sum(
        value.numel() * value.element_size()
        for optimizer in optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return Plan(
        parameters=parameters,
        vocabulary=vocabulary,
        tokens=tokens,
        flops=tokens * flops,
        step_seconds=step,
        seconds=costs.seconds(0, run.steps),
        memory=round(at(most, "memory", trials)),
        checkpoint_bytes=4 * parameters + moments,
        device=describe(accelerator),
        trials=tuple(trials),
    )


def at(windows: int, name: str, trials: Sequence[Trial]) -> float:
    """What a field of the trials is for so many windows: on the line through the last two; in proportion to a single
    one."""
    *_, last = trials
    value = getattr(last, name)
    if len(trials) == 1:
        return value * windows / last.windows
    before = trials[-2]
    slope = (value - getattr(before, name)) / (last.windows - before.windows)
    return value + max(0.0, slope) * (windows - last.windows)


def vocabulary_size(config: Config, folder: RunFolder, log: Callable[[str], None]) -> int:
    """Size of the vocabulary: of the tokenizer that exists already, or as the config has it."""
    tokenizer = config.tokenizer
    if (made := folder.tokenizer if folder.tokenizer.exists() else tokenizer.path) is not None:
        return len(load_tokenizer(made))
    if tokenizer.kind == "gpt2":
        return GPT2_VOCABULARY
    if tokenizer.kind == "characters":
        log(f"assumed: a vocabulary of {ASSUMED_CHARACTERS} characters; the text tells how many there are")
        return ASSUMED_CHARACTERS
    return tokenizer.vocab_size


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: of the GPU where it computes there, else its resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    gc.collect()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
