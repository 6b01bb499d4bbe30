"""The training loop, as prose."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from transformers.utils import logging as transformers_logging

from train.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    load_checkpoint,
    optimizer_tensors,
    prune_checkpoints,
    save_checkpoint,
)
from train.config import Config, validate
from train.data.batches import IGNORED, Batch, Batches, PackedWindows, RandomWindows, evaluation_batches
from train.data.prepare import Prepared, prepare
from train.device import check_processes, choose_device, choose_precision, describe, over_processes
from train.distributed import gather, shard_on_cpus, whole_model
from train.evaluate import evaluate
from train.kernels import use_kernels
from train.loss import ModelWithLoss
from train.objective import Objective, build_objective, check_objective, nats_to_bits_per_byte, sample_prompts
from train.optimizer import build_optimizers, set_learning_rate
from train.provenance import check_same_run, write_recipe
from train.run_log import Report
from train.schedule import Schedule
from train.state import TrainState
from train.trackers import accelerator_arguments, check_tracker, tracking

Watch = Callable[[int, dict[str, float]], str | None]


class NonFiniteLossError(ValueError):
    """The loss became infinite or not a number."""


def train(config: Config, *, recipe: str, quiet: bool = False, watch: Watch | None = None) -> Path:
    """Train as the config says; return the run folder.

    The folder's latest checkpoint is where a resumed run begins; SIGINT and SIGTERM save one and end the run.

    Args:
        config: the resolved config.
        recipe: name of the recipe, for the record.
        quiet: no bar and no lines on the console; train.log has them.
        watch: told the step and the numbers of each evaluation; a reason that it returns ends the run there, saved,
            as a signal would.

    Raises:
        ValueError: for a config, a corpus or a run folder that does not fit; the message says what to do.
    """
    validate(config)
    check_objective(config)
    run_dir = config.run.dir or Path("runs") / recipe
    run_dir.mkdir(parents=True, exist_ok=True)
    is_main = os.environ.get("RANK", "0") == "0"
    try:
        with FileLock(run_dir / ".lock", timeout=0) if is_main else nullcontext():
            return _train_locked(config, recipe, run_dir, quiet, watch)
    except Timeout:
        raise ValueError(
            f"{run_dir}: expected a run folder that is free, got one that another process trains in; "
            "wait for it, stop it, or choose another --run-dir"
        ) from None


def _train_locked(config: Config, recipe: str, run_dir: Path, quiet: bool, watch: Watch | None) -> Path:
    steps_there = checkpoint_steps(run_dir)
    if steps_there and not config.run.resume:
        raise ValueError(
            f"{run_dir}: expected a new run folder, got one with a run of {steps_there[-1]} steps; "
            "go on from there with --resume, or choose another --run-dir"
        )
    check_same_run(config, run_dir)
    check_tracker(config.run.tracker)
    device = choose_device(config.run.device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision={"fp32": "no"}.get(precision := choose_precision(config, device), precision),
        **accelerator_arguments(config.run.tracker, run_dir),
    )
    transformers_logging.disable_progress_bar()
    report = Report(run_dir, silent=not accelerator.is_main_process, quiet=quiet)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    shard_on_cpus(accelerator)
    check_processes(config, accelerator)
    if accelerator.is_main_process:
        write_recipe(config, recipe, run_dir)
    with accelerator.main_process_first():
        prepared = prepare(config, run_dir, report.say)
    trainer = Trainer.build(config, recipe, run_dir, accelerator, report, prepared)
    report.say(
        f"{recipe}: {trainer.unwrapped.num_parameters():,} parameters, {describe(accelerator)}, {precision}, "
        f"{torch.get_num_threads()} threads, run folder {run_dir}"
    )
    if steps_there:
        trainer.resume(checkpoint_folder(run_dir, steps_there[-1]))
    trainer.watch = watch
    with tracking(config, run_dir, accelerator, report, step=trainer.state.step, steps=trainer.schedule.steps):
        trainer.run()
    return run_dir


@dataclass(kw_only=True, slots=True)
class Trainer:
    """A run in memory: everything that a step touches."""

    config: Config
    recipe: str
    run_dir: Path
    accelerator: Accelerator
    report: Report
    prepared: Prepared
    model: Any  # the model with its loss, prepared (possibly wrapped, possibly compiled)
    unwrapped: Any  # the model itself
    objective: Objective
    optimizers: list[Any]
    batches: Batches
    validation: list[Batch]
    schedule: Schedule
    state: TrainState
    evaluation: dict[str, float] | None = None  # the latest one …
    evaluation_step: int | None = None  # … and its step
    last_loss: float = math.nan
    stop_signal: str | None = None  # why to stop before the last step
    watch: Watch | None = None
    pace_mark: tuple[int, float] = (0, 0.0)  # step and seconds when the time limit was last looked at

    @classmethod
    def build(
        cls,
        config: Config,
        recipe: str,
        run_dir: Path,
        accelerator: Accelerator,
        report: Report,
        prepared: Prepared,
    ) -> "Trainer":
        """A run at step 0."""
        torch.manual_seed(config.run.seed)
        model_config = config.model.build(vocab_size=len(prepared.tokenizer), end_of_text=prepared.end_of_text)
        objective = build_objective(config, prepared)
        unwrapped = objective.model(model_config)
        torch.manual_seed(config.run.seed + accelerator.process_index)
        use_kernels(unwrapped, accelerator.device)
        parts = ModelWithLoss(unwrapped), *build_optimizers(unwrapped, config.optimizer)
        model, *optimizers = accelerator.prepare(*parts)
        data, length = config.data, config.model.max_position_embeddings
        per_draw = dict(batch_size=data.batch_size, length=length, seed=config.run.seed)
        batches: Batches = (
            RandomWindows(prepared.train, **per_draw)
            if data.windows == "random"
            else PackedWindows(prepared.train, **per_draw, end_of_text=prepared.end_of_text)
        )
        return cls(
            config=config,
            recipe=recipe,
            run_dir=run_dir,
            accelerator=accelerator,
            report=report,
            prepared=prepared,
            model=torch.compile(model) if config.run.compile else model,
            unwrapped=unwrapped,
            objective=objective,
            optimizers=optimizers,
            batches=objective.training(batches),
            validation=objective.validation(
                evaluation_batches(
                    prepared.validation,
                    batch_size=data.batch_size,
                    length=length,
                    windows=data.evaluation_windows,
                    end_of_text=prepared.end_of_text,
                )
            ),
            schedule=Schedule(config.schedule, config.run.steps),
            state=TrainState(),
        )

    def run(self) -> None:
        """Step until the last one, a signal, or a loss that is not finite."""
        state, run = self.state, self.config.run
        if state.step >= self.schedule.steps:
            self.report.say(f"the run is finished: {state.step} steps are done (more: --steps)")
            return
        self.model.train()
        self.report.start_bar(step=state.step, steps=self.schedule.steps)
        self._write_run("running")
        begun, seconds_before = time.monotonic(), state.seconds
        try:
            with self._signals():
                while state.step < self.schedule.steps and not self._is_told_to_stop():
                    self._step()
                    state.seconds = seconds_before + time.monotonic() - begun
                    last = state.step == self.schedule.steps
                    if last or state.step % run.evaluate_every == 0:
                        self._evaluate()
                    if last or state.step % run.log_every == 0 or state.step % run.evaluate_every == 0:
                        self._log()
                    if last or state.step % run.checkpoint_every == 0:
                        self._checkpoint()
                    self._fit_time()
                    self._show()
        except NonFiniteLossError:
            self._write_run("failed")
            raise
        finally:
            self.report.close()
        if state.step < self.schedule.steps:
            self._checkpoint()
            self._write_run("stopped")
            self.report.say(
                f"{self.stop_signal}: stopped after step {state.step} of {self.schedule.steps}; "
                "everything is saved, the same command with --resume goes on from here"
            )
            return
        self._write_run("finished")
        self._finish()

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint, as if the run had never stopped."""
        saved = load_checkpoint(folder, model=self.unwrapped, optimizers=self._inner_optimizers)
        self.state.load_state_dict(saved["state"])
        self.schedule.load_state_dict(saved["schedule"])
        self.batches.load_state_dict(saved["batches"])
        self.evaluation, self.evaluation_step = saved["evaluation"], saved["evaluation_step"]
        if self.config.run.steps != saved["planned_steps"]:
            self.schedule.steps = self.config.run.steps
        self.report.rewind(self.state.step)
        self.report.say(f"going on from step {self.state.step}")

    @property
    def _inner_optimizers(self) -> list[torch.optim.Optimizer]:
        return [getattr(optimizer, "optimizer", optimizer) for optimizer in self.optimizers]

    def _step(self) -> None:
        """One optimizer step: forward and backward over the micro-batches, clip, update."""
        state, config = self.state, self.config
        set_learning_rate(self._inner_optimizers, self.schedule.factor(state.step))
        batch = self.batches.next()
        loss = self._forward_backward(batch)
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss of step {state.step + 1} is {loss} (batch {self.batches.state_dict()}); the weights were "
                "not touched and the last checkpoint is good: go on from it with a lower learning rate "
                "(--optimizer.learning-rate), clipping (--optimizer.max-grad-norm 1) or --run.precision fp32"
            )
        if config.optimizer.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.unwrapped.parameters(), config.optimizer.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.step += 1
        state.tokens_seen += batch.target_BL.numel()
        state.losses.append(loss)
        self.last_loss = loss

    def _forward_backward(self, batch: Batch) -> float:
        """Gradients of a batch, over this process' share in micro-batches; return the loss over all processes."""
        accelerator = self.accelerator
        size = self.config.data.batch_size // self.config.data.gradient_accumulation_steps
        micro_batches = list(zip(batch.input_BL.split(size), batch.target_BL.split(size), strict=True))
        targets = torch.tensor(max(1.0, float((batch.target_BL != IGNORED).sum())), device=accelerator.device)
        per_process = targets / accelerator.num_processes
        total = torch.zeros((), device=accelerator.device)
        for index, (input_BL, target_BL) in enumerate(micro_batches):
            rows = slice(accelerator.process_index, None, accelerator.num_processes)
            input_BL = input_BL[rows].to(accelerator.device)
            target_BL = target_BL[rows].to(accelerator.device)
            more = index < len(micro_batches) - 1
            with accelerator.no_sync(self.model) if more else nullcontext():
                loss = self.model(input_BL, target_BL, num_items_in_batch=per_process)
                accelerator.backward(loss)
            total += loss.detach()
        return over_processes(accelerator, float(total), "mean")

    def _evaluate(self) -> None:
        loss, _ = evaluate(self.model, self.validation, self.accelerator.device)
        self.evaluation = self.objective.metrics(self.model, loss, self.accelerator.device)
        self.evaluation_step = self.state.step
        if self.schedule.evaluated(loss):
            self.report.say(f"step {self.state.step}: the validation loss is on a plateau, the learning rate falls")
        said = self.objective.summary(self.evaluation, self._floor_bits_per_byte)
        self.report.say(f"step {self.state.step}: {said}")
        if self.watch is not None:
            reason = self.watch(self.state.step, self.evaluation)
            self.stop_signal = self.stop_signal or reason

    def _log(self) -> None:
        state = self.state
        self.report.metrics(
            step=state.step,
            tokens_seen=state.tokens_seen,
            train_loss=sum(state.losses) / len(state.losses) if state.losses else None,
            learning_rate=self._inner_optimizers[0].param_groups[0]["lr"],
            seconds=round(state.seconds, 2),
            tokens_per_second=round(state.tokens_seen / state.seconds),
            **(self.evaluation if self.evaluation is not None and self.evaluation_step == state.step else {}),
        )
        state.losses = []

    def _checkpoint(self) -> None:
        """Save, note whether it is the best, write samples and the picture, prune."""
        state = self.state
        if self.evaluation is not None and self.evaluation_step == state.step:
            loss = self.evaluation["validation_loss"]
            if loss < state.best_validation_loss:
                state.best_validation_loss, state.best_step = loss, state.step
        model = whole_model(self.unwrapped, self.accelerator, self.objective.model)
        optimizer_state = gather(optimizer_tensors(self.unwrapped, self._inner_optimizers), self.accelerator)
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.run_dir,
                state.step,
                model=model,
                tokenizer_folder=self.run_dir / "tokenizer",
                optimizer_state=optimizer_state,
                state={
                    "state": state.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "batches": self.batches.state_dict(),
                    "evaluation": self.evaluation,
                    "evaluation_step": self.evaluation_step,
                    "planned_steps": self.config.run.steps,
                },
            )
            self._samples(model)
            prune_checkpoints(self.run_dir, keep=self.config.run.keep_checkpoints, best_step=state.best_step)
            self.report.picture(
                floor=self._floor_nats_per_token,
                nats_to_bits_per_byte=self._nats_to_bits_per_byte,
                label=self.objective.loss_label,
            )
        self._write_run("running")

    def _samples(self, model: Any) -> None:
        """The same prompts and the same seed at each checkpoint."""
        for prompt in sample_prompts(self.prepared.prompts, self.objective):
            shown, text = self._sample(model, prompt, self.config.run.sample_tokens)
            self.report.sample(step=self.state.step, prompt=shown, text=text, seed=self.config.run.seed)

    def _sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        model.eval()
        sample = self.objective.sample(model, prompt, tokens)
        model.train()
        return sample

    def _finish(self) -> None:
        assert self.evaluation is not None
        self.report.say(f"finished after {self.state.step} steps, {self.state.seconds:.0f} s")
        self.report.say(self.objective.summary(self.evaluation, self._floor_bits_per_byte))
        if not self.config.run.output_tokens:
            return
        model = whole_model(self.unwrapped, self.accelerator, self.objective.model)
        if self.accelerator.is_main_process:
            _, text = self._sample(model, "", self.config.run.output_tokens)
            (self.run_dir / "output.txt").write_text(text, encoding="utf-8")
            self.report.say(f"from an empty prompt (kept in {self.run_dir / 'output.txt'}):\n{text}")

    def _fit_time(self) -> None:
        """Let the schedule end where the time limit will end the run, at the pace of the last steps."""
        state, limit = self.state, self.config.run.max_seconds
        if not limit or state.step % 10 or state.step >= self.schedule.steps:
            return
        seconds = over_processes(self.accelerator, state.seconds, "mean")
        pace = (state.step - self.pace_mark[0]) / max(seconds - self.pace_mark[1], 1e-9)
        reachable = min(self.config.run.steps, max(state.step + 1, int(state.step + (limit - seconds) * pace)))
        self.pace_mark = state.step, seconds
        if not 0.99 <= reachable / self.schedule.steps <= 1.2:
            self.schedule.resize(state.step, reachable)
            self.report.plan(reachable)

    def _show(self) -> None:
        shown = {"loss": f"{self.last_loss:.3f}"}
        if self.evaluation is not None:
            key = "bits_per_byte" if self.objective.is_of_the_text else "validation_loss"
            shown[key.replace("_per_", "/").replace("_", " ")] = f"{self.evaluation[key]:.4f}"
        self.report.show(**shown, **{"tokens/s": f"{self.state.tokens_seen / self.state.seconds:,.0f}"})

    def _write_run(self, status: str) -> None:
        state = self.state
        steps = checkpoint_steps(self.run_dir)

        def name(step: int | None) -> str | None:
            return checkpoint_folder(Path(), step).as_posix() if step is not None else None

        self.report.run(
            status=status,
            recipe=self.recipe,
            step=state.step,
            steps=self.schedule.steps,
            best_checkpoint=name(state.best_step),
            latest_checkpoint=name(steps[-1] if steps else None),
            best_validation_loss=None if math.isinf(state.best_validation_loss) else state.best_validation_loss,
            seconds=round(state.seconds, 1),
            tokens_seen=state.tokens_seen,
            parameters=self.unwrapped.num_parameters(),
            floor_bits_per_byte=self._floor_bits_per_byte,
            evaluation=self.evaluation,
        )

    @property
    def _nats_to_bits_per_byte(self) -> float:
        return nats_to_bits_per_byte(self.prepared) if self.objective.is_of_the_text else 0.0

    @property
    def _floor_nats_per_token(self) -> float | None:
        split = self.prepared.validation
        if split.log_probability is None or not self.objective.is_of_the_text:
            return None
        return -split.log_probability / (len(split) - 1)

    @property
    def _floor_bits_per_byte(self) -> float | None:
        floor = self._floor_nats_per_token
        return None if floor is None else floor * self._nats_to_bits_per_byte

    def _is_told_to_stop(self) -> bool:
        """Whether this process was told to stop, or any other: all stop after the same step."""
        if over_processes(self.accelerator, float(self.stop_signal is not None), "sum"):
            self.stop_signal = self.stop_signal or "told by another process"
        return self.stop_signal is not None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the loop after its step; a second SIGINT ends the program."""

        def stop(number: int, _: Any) -> None:
            self.stop_signal = signal.Signals(number).name
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
