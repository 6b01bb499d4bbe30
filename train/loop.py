"""The training loop: `train` runs a config in its folder; a `Trainer` steps through the run."""

import math
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from storage.files import remove_leftovers
from storage.run_folder import RunFolder
from train import checkpoint
from train.checks import validate
from train.config import Config
from train.data.batches import Batch
from train.data.replay import OLD
from train.device import catch_signals, failure_reason, measure_peak_flops, precision_of, torch_errors_explained
from train.numerics.diagnosis import broken_state, broken_weight, find_place, try_step
from train.numerics.guard import DivergedError
from train.numerics.pending import PendingStep
from train.objective import forward_backward, mean_loss, threads_of
from train.optimizer import set_learning_rate, step_scaled
from train.pacing.time_limit import TIMES
from train.publishing import is_first_process
from train.run import Run
from train.samples import is_early_step
from train.trackers import tracking

Watch = Callable[[int, dict[str, float]], str | None]


def train(
    config: Config, *, recipe: str, given: Collection[str] = (), quiet: bool = False, watch: Watch | None = None
) -> Path:
    """Train as the config says; return the run folder.

    A resumed run begins at the folder's latest checkpoint; SIGINT and SIGTERM save one and end the run.

    Args:
        config: the resolved config.
        recipe: name of the recipe, for the record.
        given: fields that keep their values, whatever fits a config to its text or time; see `Run`.
        quiet: print nothing; train.log has the lines.
        watch: called with the step and the metrics of each evaluation; a reason that it returns ends the run, saved.

    Raises:
        ValueError: for a config, a corpus or a run folder that does not fit; the message says what to do.
        ConnectionError, MemoryError: another process of the run is gone; memory is short.
    """
    validate(config)
    folder = RunFolder(config.run.dir or Path("runs") / recipe)
    with folder.lock() if is_first_process() else nullcontext(), torch_errors_explained(folder):
        if is_first_process():
            remove_leftovers(folder.path)
        trainer = Trainer(config, recipe, folder, given=given, quiet=quiet, watch=watch)
        state, steps = trainer.state, trainer.schedule.steps
        with tracking(trainer.config, folder.path, trainer.accelerator, trainer.log, step=state.step, steps=steps):
            trainer.run()
    return folder.path


class Trainer(Run):
    """A run that steps; the arguments are those of `train`."""

    def __init__(self, *run: Any, watch: Watch | None = None, **options: Any) -> None:
        super().__init__(*run, **options)
        self.watch = watch
        self.stop_reason: str | None = None  # why to stop before the last step
        self.failed_batch = 0  # the number of the one with which numbers went wrong

    def run(self) -> None:
        """Step until the last one, a signal, or numbers that must not reach the weights. Of any error run.json says
        that the run failed, and why.

        Raises:
            DivergedError: the loss, the gradient or a weight is not finite, or far above what it was.
            RuntimeError: as `train.device.torch_errors_explained` rewords it.
        """
        try:
            self._run()
        except BaseException as error:
            if self.folder.peek_state().get("status") == "finished":
                raise  # the result stands; only its long sample, or the picture, is missing
            diverged = isinstance(error, DivergedError)
            command = self._skipping_command() if diverged else self._resume_command()
            cut_short = f"failed after {self._progress()}: {error.reason if diverged else failure_reason(error)}"
            with suppress(Exception):  # on a full disk, for one: the first error is the one to report
                self._write_state("failed", cut_short=cut_short, resume_command=command)
            raise

    def _run(self) -> None:
        state, run = self.state, self.config.run
        self._write_missing_samples()
        if state.step >= self.schedule.steps:
            if self.folder.peek_state().get("status") != "finished":
                # A process was killed after the last checkpoint, or a run that was stopped is declared long enough; or
                # run.json is gone.
                if self.evaluation_step != state.step:
                    self._evaluate()
                    self._write_metrics()
                    self._checkpoint()  # it may be the best
                self._finish()
            self.log.info(f"the run is finished: {state.step} steps are done (more: --steps)")
            return
        self.peak_flops = self._over_processes(measure_peak_flops(self.accelerator), "sum")
        self.log.info(f"peak of matrix products: {self.peak_flops / 1e12:.3g} TFLOP/s (measured)")
        self.model.train()
        if self.base is not None and not state.step:
            loss = mean_loss(self.model, self.validation, self.accelerator.device)
            evaluation = self.objective.metrics(self.model, loss, self.accelerator.device)
            self.log.info(f"before the first step: {self.objective.summary(evaluation)}")
            if self.old_text is not None:
                old_loss = mean_loss(self.model, self.old_text.validation, self.accelerator.device)
                self.log.info(f"before the first step: validation loss {old_loss:.4f} on the old text")
        self._begin_threads()
        self._begin_compilation()
        self.log.start_bar(step=state.step, steps=self.schedule.steps)
        self._write_state("running")
        started, seconds_before = time.monotonic(), state.seconds

        def timed(part: Callable[[], None]) -> float:
            begun = time.monotonic()
            part()
            state.seconds = seconds_before + time.monotonic() - started
            return time.monotonic() - begun

        try:
            with catch_signals(self._stop):
                while state.step < self.schedule.steps and not self._stop_requested():
                    self.threads.repeat(state.step)
                    step_seconds = timed(self._step)
                    self.pace.step_took(step_seconds)
                    evaluates, is_early = self._is_due(run.evaluate_every), is_early_step(state.step)
                    if evaluates:
                        self.pace.evaluation = timed(self._evaluate)
                    if evaluates or is_early or self._is_due(run.log_every):
                        self._write_metrics()
                    if self._is_due(run.checkpoint_every):
                        self.pace.checkpoint = timed(self._checkpoint)
                    elif is_early and run.sample_tokens:
                        self._sample_early()
                    if reason := self.threads.step_took(step_seconds):
                        self._look_at_threads(reason)
                    self._fit_time()
                    self._advance_bar()
        finally:
            self.log.close()
        if state.step < self.schedule.steps:
            self._checkpoint()
            cut_short = f"stopped ({self.stop_reason}) after {self._progress()}"
            self._write_state("stopped", cut_short=cut_short, resume_command=self._resume_command())
            self.log.info(
                f"{self.stop_reason}: stopped after step {state.step} of {self.schedule.steps}; "
                "everything is saved, the same command with --resume continues from here"
            )
            return
        self._finish()

    def _write_missing_samples(self) -> None:
        """Write those of the checkpoint that the run begins at: a process that was killed right after it did not."""
        step = self.state.step
        written = sum(sample["step"] == step for sample in self.folder.samples()) if step else 0
        wanted = len(self.objective.sample_prompts()) if step and self.accelerator.is_main_process else 0
        if not self._over_processes(float(wanted > written), "sum"):
            return
        model = checkpoint.unsharded_model(self.unwrapped, self.accelerator)
        if self.accelerator.is_main_process:
            self.samples.write(model, step, written=written)

    def _begin_compilation(self) -> None:
        """Compute with torch.compile or without: as asked for, as the run did so far, or as trying finds."""
        state, compilation = self.state, self.compilation
        line = compilation.begin(False if state.step and state.compiled is None else state.compiled)
        # Threads that share the windows gain more, and a compiled model's do not.
        shared = threads_of(self.model, self.accelerator.device, self.windows_at_a_time) > 1
        if not (state.step or shared) and compilation.tries(self._seconds_to_compile_for):
            self.log.info("torch.compile is tried, which takes a minute or two (--run.compile no leaves it out)")
            begun = time.monotonic()
            line = compilation.look(self._make_pass)
            state.seconds += time.monotonic() - begun  # a time limit counts it
        if line:
            self.log.info(line)
        state.compiled = compilation.is_on
        if state.compiled:
            self.threads.keep()

    def _begin_threads(self) -> None:
        """Take the number of threads: the one that was asked for, that of the run so far, or what trying finds."""
        state, recorded = self.state, self.folder.peek_state().get("threads")
        seconds = self._seconds_left()
        if line := self.threads.begin(state.threads, state.step, recorded=recorded, seconds=seconds):
            self.log.info(line)
        if not state.threads:
            self._look_at_threads()

    def _look_at_threads(self, reason: str | None = None) -> None:
        """Try numbers of threads on windows of the training text."""
        row_seconds = self._estimate_seconds(self.config.model.max_position_embeddings)
        run_pass = self._make_pass(self.model, row_seconds)
        if line := self.threads.look(run_pass, self.state.step, reason):
            self.log.info(line)
            self._write_state("running")

    def _is_due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and after the last one, happens now."""
        return self.state.step % every == 0 or self.state.step == self.schedule.steps

    def _step(self) -> None:
        """One optimizer step: forward and backward over the micro-batches, clip, update."""
        state, config = self.state, self.config
        set_learning_rate(self.inner_optimizers, self.schedule.factor(state.step))
        batch = self._next_batch()
        loss = self._forward_backward(batch)
        # The infinite limit multiplies the gradients by exactly 1.
        limit = config.optimizer.max_grad_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(self.unwrapped.parameters(), limit)
        if self.draws_ahead and state.step + 1 < self.schedule.steps:
            self.batches.draw()  # the device computes, and its numbers are waited for below at the earliest
        step = PendingStep(
            loss=loss, norm=norm, batch=batch, position=self.position,
            step=state.step, skipped=state.skipped, tokens_seen=state.tokens_seen,
        )  # fmt: skip
        self.pending.append(step)
        if self.device_guard is None:
            self._read_numbers()
        else:
            self.device_guard.judge(step, self.guard)
        if self.accelerator.scaler is None:
            for optimizer in self.optimizers:
                optimizer.step()
        else:
            step_scaled(self.accelerator.scaler, self.inner_optimizers, norm)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        state.step += 1
        state.tokens_seen += batch.target_BL.numel()
        events = config.run.log_every, config.run.evaluate_every, config.run.checkpoint_every
        if is_early_step(state.step) or any(map(self._is_due, events)):
            self._read_numbers()

    def _forward_backward(self, batch: Batch) -> torch.Tensor:
        return forward_backward(self.accelerator, self.compilation.model, batch, self.windows_at_a_time)

    def _read_numbers(self) -> None:
        """Wait for the steps whose numbers are not read yet, and judge these, all by the history before them.

        Raises:
            DivergedError: a step must not go on; no weight has changed in it, nor since.
        """
        steps, self.pending = self.pending, []
        numbers = [(float(step.loss), float(step.norm)) for step in steps]
        for step, (loss, norm) in zip(steps, numbers, strict=True):
            if reason := self.guard.judge_loss(loss):
                self._fail_step(step, "loss", loss, reason)
            # With fp16 an overflow is expected at times: the gradient scaler skips that update and lowers its scale.
            if reason := self.guard.judge_norm(norm, is_scaled=self.accelerator.scaler is not None):
                self._fail_step(step, "gradient norm", norm, reason)
        for step, (loss, norm) in zip(steps, numbers, strict=True):
            self.guard.remember(loss, norm)
            self.state.losses.append(loss)
            self.last_loss = loss
            # Without clipping it is a number of the logged steps alone, as in the files of earlier versions.
            is_logged = self.config.optimizer.max_grad_norm or (step.step + 1) % self.config.run.log_every == 0
            self.gradient_norm = norm if is_logged and math.isfinite(norm) else None

    def _fail_step(self, step: PendingStep, name: str, value: float, reason: str) -> NoReturn:
        """Raise the error of a step, with the run's counters as they were before it."""
        state = self.state
        state.step, state.skipped, state.tokens_seen = step.step, step.skipped, step.tokens_seen
        self.position = step.position
        # Clipping has spread what is not finite over all gradients, and later steps have theirs: compute them again.
        if self.device_guard is not None or not math.isfinite(value):
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            self._forward_backward(step.batch)
        self._fail(name, value, reason, find_place(name, self.unwrapped, step.batch, self.accelerator))

    def _next_batch(self) -> Batch:
        """The next batch that is not to be left out."""
        state = self.state
        while True:
            self.position = self.batches.state_dict()
            batch = self.batches.next()
            if state.step + state.skipped + 1 not in self.config.run.skip_batches:
                return batch
            state.skipped += 1
            self.log.info(f"step {state.step + 1}: batch {state.step + state.skipped} is left out, as asked")

    def _skipping_command(self) -> str:
        """What continues this run without the batch that it failed with."""
        batches = sorted({*self.config.run.skip_batches, self.failed_batch})
        return self._resume_command("--run.skip-batches", *map(str, batches))

    def _fail(
        self, name: str, value: float | None, reason: str, place: str | None, *, touched: bool = False
    ) -> NoReturn:
        """Raise a `DivergedError` that says where it happened and what to do.

        Args:
            name: what went wrong, and `value`, what it is.
            reason: why it must not go on, after the name.
            place: the parameter or layer that it was found in.
            touched: the weights are those after the step, not before it.
        """
        step = self.state.step + (not touched)
        where = ", ".join(f"{key} {number}" for key, number in self.position.items())
        self.failed_batch = batch = step + self.state.skipped
        saved = self.folder.good_checkpoint()
        good = f"the last good checkpoint is {saved.name}" if saved else "there is no checkpoint yet"
        older = [path.name for path in self.folder.checkpoints().values() if saved and path.name < saved.name]
        kept = "Nothing was saved of this step" if touched else "The weights were not touched and nothing was saved"
        raise DivergedError(
            f"the {name} of step {step} {reason}"
            f"{'' if value is None else f': expected a number like those before it, got {value:.6g}'}"
            f"{f', found in {place}' if place else ''}, with batch {batch} ({where}). {kept}; {good}. "
            f"Continue from there without this batch:\n  {self._skipping_command()}\n"
            f"{f'If it fails there again, delete {saved}: the same command begins at {older[-1]}. ' if older else ''}"
            "If it comes again, the learning rate is too high for this model: train it in another --run-dir with a "
            "lower --optimizer.learning-rate, with clipping (--optimizer.max-grad-norm 1)"
            f"{'' if self.accelerator.mixed_precision == 'no' else ' or with --run.precision fp32'}. "
            "(--run.spike-factor 0 stops at what is not finite only.)",
            f"the {name} of step {step} {reason.partition(',')[0]}",
        )

    def _evaluate(self) -> None:
        step, device = self.state.step, self.accelerator.device
        loss = mean_loss(self.model, self.validation, device)
        evaluation = self.objective.metrics(self.model, loss, device)
        # Dropout is off for both losses, and a fixed part of the text measured: their distance is the generalization
        # gap, which the mean of `train_loss`, of other windows under dropout, does not show.
        evaluation["train_eval_loss"] = mean_loss(self.model, self.train_evaluation, device)
        if self.old_text is not None:
            evaluation[f"{OLD}validation_loss"] = mean_loss(self.model, self.old_text.validation, device)
        for name, value in evaluation.items():
            if reason := self.guard.judge_evaluated(name, value):
                self._fail(name.replace("_", " "), value, reason, broken_weight(self.unwrapped), touched=True)
        self.evaluation, self.evaluation_step = evaluation, step
        if self.schedule.evaluated(loss):
            self.log.info(f"step {step}: the validation loss is on a plateau, the learning rate falls")
        self.log.info(f"step {step}: {self._summary()}")
        if self.watch is not None:
            self._stop(self.watch(step, self.evaluation))

    def _checkpoint(self) -> None:
        """Save, note whether it is the best, write samples and the picture, prune."""
        self._read_numbers()
        state, run = self.state, self.config.run
        tensors = checkpoint.optimizer_tensors(self.unwrapped, self.inner_optimizers)
        if broken := broken_weight(self.unwrapped) or broken_state(tensors):
            self._fail("state after the update", None, "is not finite", broken, touched=True)
        # What is finite may be of no use all the same, and an evaluation sees no gradient: try what the next step does.
        batch, windows = self.train_evaluation[0], self.windows_at_a_time
        loss, norm = try_step(self.accelerator, self.compilation.model, batch, windows)
        if reason := self.guard.judge_loss(loss):
            self._fail("loss after the update", loss, reason, None, touched=True)
        if reason := self.guard.judge_norm(norm, is_scaled=self.accelerator.scaler is not None):
            self._fail("gradient norm after the update", norm, reason, None, touched=True)
        if self.evaluation is not None and self.evaluation_step == state.step:
            loss = self.evaluation["validation_loss"]
            if loss < state.best_validation_loss:
                state.best_validation_loss, state.best_step = loss, state.step
        # These three communicate, so every process calls them; the rest is the main process' alone.
        model = checkpoint.unsharded_model(self.unwrapped, self.accelerator)
        tensors = checkpoint.gather_tensors(tensors, self.accelerator) | checkpoint.random_states(self.accelerator)
        if self.accelerator.is_main_process:
            checkpoint.save(
                self.folder.checkpoint_folder(state.step),
                model=model,
                tokenizer_folder=self.folder.tokenizer,
                tensors=tensors,
                state={
                    "state": state.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "batches": self.batches.state_dict(),
                    "evaluation": self.evaluation,
                    "evaluation_step": self.evaluation_step,
                    "planned_steps": run.steps,
                    "limit": self.limit.state_dict(),
                    "guard": self.guard.state_dict(),
                    "precision": precision_of(self.accelerator),
                    "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
                    "records": self.folder.record_checksums(),
                },
            )
            self.samples.write(model, state.step)
            self._write_state("running")  # before others are removed: who reads it finds the checkpoints that it names
            checkpoint.prune(self.folder, keep=run.keep_checkpoints, best_step=state.best_step)
            self.log.picture(self.objective)

    def _sample_early(self) -> None:
        model = checkpoint.unsharded_model(self.unwrapped, self.accelerator)
        if self.accelerator.is_main_process:
            self.samples.write_early(model, self.state.step)
        self._write_state("running")  # the page reads the samples when this has changed

    def _finish(self) -> None:
        """Report the result, and write the long sample of a recipe that has one."""
        cut_short = resume_command = None
        if self.state.step < self.config.run.steps:
            cut_short = self.limit.describe_cut(self._progress())
            resume_command = self._resume_command("--run.max-seconds", "0")
        self._write_state("finished", cut_short=cut_short, resume_command=resume_command)
        self.log.info(f"finished after {self.state.step} steps, {self.state.seconds:.0f} s")
        self.log.info(self._summary())
        if cut_short:
            self.log.info(f"cut short: {cut_short}; it goes on, without a limit, with\n  {resume_command}")
        if not self.config.run.output_tokens:
            return
        model = checkpoint.unsharded_model(self.unwrapped, self.accelerator)
        if self.accelerator.is_main_process:
            self.samples.write_output(model, self.folder.output)

    def _fit_time(self) -> None:
        """Stretch the time limit, or let the schedule end where it will end the run, at the present pace."""
        state, costs = self.state, self.pace.costs
        if not self.limit.end or costs is None or state.step >= self.schedule.steps:
            return
        if not self.pace.is_check_due(state.step, state.seconds, by_time=self.accelerator.num_processes == 1):
            return
        # One clock for all processes: they must agree on the number of steps.
        means = {name: self._over_processes(getattr(costs, name), "mean") for name in TIMES}
        seconds = self._over_processes(state.seconds, "mean")
        steps, line = self.limit.fit(state.step, seconds, self.schedule.steps, replace(costs, **means))
        if line:
            self.log.info(f"step {state.step}: {line}")
        # Shrink soon, since lost time does not come back; grow only by a tenth, since a fast stretch may pass.
        is_far = not 0.99 <= steps / self.schedule.steps <= 1.1
        if steps != self.schedule.steps and (is_far or steps == self.config.run.steps):
            self.schedule.resize(state.step, steps)
            self.log.set_steps(steps)
        if line:
            self._write_state("running")

    def _stop(self, reason: str | None) -> None:
        """Let the loop end after this step; the first reason counts."""
        self.stop_reason = self.stop_reason or reason

    def _stop_requested(self) -> bool:
        """Whether this process or any other was asked to stop: all stop after the same step."""
        if self._over_processes(float(self.stop_reason is not None), "sum"):
            self._stop("requested by another process")
        return self.stop_reason is not None
