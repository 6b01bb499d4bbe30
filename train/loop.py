"""The training loop: `train` runs a config in its folder; a `Trainer` holds the run and steps through it."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from modeling.sizing import flops_per_token
from storage.run_folder import RunFolder
from train import checkpoint
from train.checkpoint import TrainState
from train.checks import check_same_run, validate
from train.config import Config, write_recipe
from train.data.batches import (
    IGNORED,
    Batch,
    evaluation_batches,
    training_batches,
    training_evaluation_batches,
)
from train.data.prepare import Prepared, prepare
from train.device import catch_signals, describe, make_accelerator, measure_peak_flops
from train.kernels import use_kernels
from train.objective import ModelWithLoss, build_objective, mean_loss
from train.optimizer import Schedule, build_optimizers, set_learning_rate
from train.publishing import is_first_process
from train.run_log import RunLog
from train.trackers import accelerator_arguments, check_tracker, tracking

Watch = Callable[[int, dict[str, float]], str | None]


class NonFiniteLossError(ValueError):
    """The loss or the gradient became infinite or not a number."""


def train(config: Config, *, recipe: str, quiet: bool = False, watch: Watch | None = None) -> Path:
    """Train as the config says; return the run folder.

    A resumed run begins at the folder's latest checkpoint; SIGINT and SIGTERM save one and end the run.

    Args:
        config: the resolved config.
        recipe: name of the recipe, for the record.
        quiet: print nothing; train.log has the lines.
        watch: called with the step and the metrics of each evaluation; a reason that it returns ends the run there,
            saved, as a signal would.

    Raises:
        ValueError: for a config, a corpus or a run folder that does not fit; the message says what to do.
    """
    validate(config)
    folder = RunFolder(config.run.dir or Path("runs") / recipe)
    with folder.lock() if is_first_process() else nullcontext():
        trainer = Trainer(config, recipe, folder, quiet=quiet, watch=watch)
        state, steps = trainer.state, trainer.schedule.steps
        with tracking(config, folder.path, trainer.accelerator, trainer.log, step=state.step, steps=steps):
            trainer.run()
    return folder.path


class Trainer:
    """A run in memory, at step 0 or, with `--resume`, at the latest checkpoint of its folder.

    The arguments are those of `train`.
    """

    def __init__(
        self, config: Config, recipe: str, folder: RunFolder, *, quiet: bool = False, watch: Watch | None = None
    ) -> None:
        self.config, self.recipe, self.folder, self.watch = config, recipe, folder, watch
        saved = folder.checkpoints()
        if saved and not config.run.resume:
            raise ValueError(
                f"{folder.path}: expected a new run folder, got one with a run of {max(saved)} steps; "
                "continue it with --resume, or choose another --run-dir"
            )
        check_same_run(config, folder)
        check_tracker(config.run.tracker)
        self.accelerator = make_accelerator(config, **accelerator_arguments(config.run.tracker, folder.path))
        transformers_logging.disable_progress_bar()
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.log = RunLog(folder, silent=not self.accelerator.is_main_process, quiet=quiet)
        if self.accelerator.is_main_process:
            write_recipe(config, recipe, folder)
        if config.schedule.warmup_steps > config.run.steps:
            self.log.info(
                f"the warm-up takes {config.schedule.warmup_steps} steps and the run {config.run.steps}: the learning "
                "rate stays below its peak (--schedule.warmup-steps, --steps)"
            )
        with self.accelerator.main_process_first():  # it makes the tokenizer and the shards; the others open them
            prepared = prepare(config, folder, self.log.info)
        self._build(prepared)
        self.log.info(
            f"{recipe}: {self.unwrapped.num_parameters():,} parameters, {describe(self.accelerator)}, "
            f"{torch.get_num_threads()} threads, run folder {folder.path}"
        )
        if saved:
            self._resume(saved[max(saved)])

    def _build(self, prepared: Prepared) -> None:
        """Model, optimizers, batches and schedule at step 0."""
        config, accelerator = self.config, self.accelerator
        torch.manual_seed(config.run.seed)
        self.objective = build_objective(config, prepared)
        self.unwrapped = self.objective.model(
            config.model.build(vocab_size=len(prepared.tokenizer), end_of_text=prepared.end_of_text)
        )
        # All processes begin with the same weights; from here on each draws a dropout of its own.
        torch.manual_seed(config.run.seed + accelerator.process_index)
        use_kernels(self.unwrapped, accelerator.device)
        model, *self.optimizers = accelerator.prepare(
            ModelWithLoss(self.unwrapped), *build_optimizers(self.unwrapped, config.optimizer)
        )
        self.inner_optimizers = [getattr(optimizer, "optimizer", optimizer) for optimizer in self.optimizers]
        self.model: Any = torch.compile(model) if config.run.compile else model
        sizes = dict(
            batch_size=config.data.batch_size,
            length=config.model.max_position_embeddings,
            end_of_text=prepared.end_of_text,
        )
        # Every process draws the same batches and takes its rows of them, so that their number changes no batch.
        self.batches = self.objective.training(
            training_batches(prepared.train, config.data.windows, **sizes, seed=config.run.seed)
        )
        sizes["windows"] = config.data.evaluation_windows
        self.validation = self.objective.validation(evaluation_batches(prepared.validation, **sizes))
        self.train_evaluation = self.objective.evaluation(
            training_evaluation_batches(prepared.train, prepared.validation, **sizes)
        )
        self.schedule = Schedule(config.schedule, config.run.steps)
        self.state = TrainState()
        self.evaluation: dict[str, float] | None = None  # the latest one …
        self.evaluation_step: int | None = None  # … and its step
        self.last_loss = math.nan
        self.gradient_norm: float | None = None  # of the last step, where it was computed
        self.peak_flops = 0.0  # of all processes together; measured when the run starts
        self.stop_reason: str | None = None  # why to stop before the last step
        self.pace_mark: tuple[int, float] = (0, 0.0)  # step and seconds when the time limit was last checked

    def _resume(self, folder: Path) -> None:
        """Continue from a checkpoint, as if the run had never stopped."""
        process = self.accelerator.process_index
        saved = checkpoint.load(folder, self.unwrapped, self.inner_optimizers, process_index=process)
        self.state.load_state_dict(saved["state"])
        self.schedule.load_state_dict(saved["schedule"])
        self.batches.load_state_dict(saved["batches"])
        self.evaluation, self.evaluation_step = saved["evaluation"], saved["evaluation_step"]
        # The saved schedule may have been resized to fit a time limit; only another --steps replaces its length.
        if self.config.run.steps != saved["planned_steps"]:
            self.schedule.steps = self.config.run.steps
        if self.accelerator.is_main_process:
            self.folder.rewind(self.state.step)
        self.log.info(f"resuming from step {self.state.step}")

    def run(self) -> None:
        """Step until the last one, a signal, or a loss that is not finite."""
        state, run = self.state, self.config.run
        if state.step >= self.schedule.steps:
            self.log.info(f"the run is finished: {state.step} steps are done (more: --steps)")
            return
        self.peak_flops = self._over_processes(measure_peak_flops(self.accelerator), "sum")
        self.log.info(f"peak of matrix products: {self.peak_flops / 1e12:.3g} TFLOP/s (measured)")
        self.model.train()
        self.log.start_bar(step=state.step, steps=self.schedule.steps)
        self._write_state("running")
        started, seconds_before = time.monotonic(), state.seconds
        try:
            with catch_signals(self._stop):
                while state.step < self.schedule.steps and not self._stop_requested():
                    self._step()
                    state.seconds = seconds_before + time.monotonic() - started
                    evaluates = self._is_due(run.evaluate_every)
                    if evaluates:
                        self._evaluate()
                    if evaluates or self._is_due(run.log_every):
                        self._write_metrics()
                    if self._is_due(run.checkpoint_every):
                        self._checkpoint()
                    self._fit_time()
                    self._advance_bar()
        except NonFiniteLossError:
            self._write_state("failed")
            raise
        finally:
            self.log.close()
        if state.step < self.schedule.steps:
            self._checkpoint()
            self._write_state("stopped")
            self.log.info(
                f"{self.stop_reason}: stopped after step {state.step} of {self.schedule.steps}; "
                "everything is saved, the same command with --resume continues from here"
            )
            return
        self._write_state("finished")
        self._finish()

    def _is_due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and after the last one, happens now."""
        return self.state.step % every == 0 or self.state.step == self.schedule.steps

    def _step(self) -> None:
        """One optimizer step: forward and backward over the micro-batches, clip, update."""
        state, config = self.state, self.config
        set_learning_rate(self.inner_optimizers, self.schedule.factor(state.step))
        batch = self.batches.next()
        loss = self._forward_backward(batch)
        self._check_finite("loss", loss)
        self.gradient_norm = None
        limit = config.optimizer.max_grad_norm
        # Without clipping the norm costs a pass over all gradients, so only steps that are logged pay for it. The
        # infinite limit multiplies the gradients by exactly 1.
        if limit or (state.step + 1) % config.run.log_every == 0:
            self.gradient_norm = float(self.accelerator.clip_grad_norm_(self.unwrapped.parameters(), limit or math.inf))
            # With fp16 an overflow is expected at times: the gradient scaler skips that update and lowers its scale.
            if self.accelerator.scaler is None:
                self._check_finite("gradient norm", self.gradient_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.step += 1
        state.tokens_seen += batch.target_BL.numel()
        state.losses.append(loss)
        self.last_loss = loss

    def _check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the {name} of step {self.state.step + 1} is {value} (batch {self.batches.state_dict()}); the weights "
                "were not touched and the last checkpoint is good: resume from it with a lower learning rate "
                "(--optimizer.learning-rate), clipping (--optimizer.max-grad-norm 1) or --run.precision fp32"
            )

    def _forward_backward(self, batch: Batch) -> float:
        """Gradients of a batch, over this process' share in micro-batches; return the loss over all processes."""
        accelerator = self.accelerator
        size = self.config.data.batch_size // self.config.data.gradient_accumulation_steps
        micro_batches = list(zip(batch.input_BL.split(size), batch.target_BL.split(size), strict=True))
        # Each micro-batch' sum of losses is divided by the targets of the complete batch, not by its own: parts with
        # unequal numbers of targets then add up to the gradient of one big batch. DDP and FSDP average gradients over
        # the processes where we need their sum, hence the further division of the divisor by their number.
        targets = torch.tensor(max(1.0, float((batch.target_BL != IGNORED).sum())), device=accelerator.device)
        per_process = targets / accelerator.num_processes
        total = torch.zeros((), device=accelerator.device)
        rows = slice(accelerator.process_index, None, accelerator.num_processes)
        for index, (input_BL, target_BL) in enumerate(micro_batches):
            input_BL, target_BL = (ids_BL[rows].to(accelerator.device) for ids_BL in (input_BL, target_BL))
            # Gradients are exchanged once a step: with the last micro-batch.
            is_last = index == len(micro_batches) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.model):
                loss = self.model(input_BL, target_BL, num_items_in_batch=per_process)
                accelerator.backward(loss)
            total += loss.detach()
        return float(accelerator.reduce(total, "mean"))  # the mean, since each was multiplied by their number

    def _evaluate(self) -> None:
        step, device = self.state.step, self.accelerator.device
        loss = mean_loss(self.model, self.validation, device)
        self.evaluation, self.evaluation_step = self.objective.metrics(self.model, loss, device), step
        # Dropout is off for both losses, and a fixed part of the text measured: their distance is the generalization
        # gap, which the mean of `train_loss`, of other windows under dropout, does not show.
        self.evaluation["train_eval_loss"] = mean_loss(self.model, self.train_evaluation, device)
        if self.schedule.evaluated(loss):
            self.log.info(f"step {step}: the validation loss is on a plateau, the learning rate falls")
        self.log.info(f"step {step}: {self._summary()}")
        if self.watch is not None:
            self._stop(self.watch(step, self.evaluation))

    def _summary(self) -> str:
        """One sentence on the latest evaluation."""
        assert self.evaluation is not None
        summary = self.objective.summary(self.evaluation)
        if (loss := self.evaluation.get("train_eval_loss")) is None:  # restored from a checkpoint of 0.1
            return summary
        return f"{summary}; training loss {loss:.4f} in evaluation mode"

    def _write_metrics(self) -> None:
        state = self.state
        self.log.metrics(
            step=state.step,
            tokens_seen=state.tokens_seen,
            train_loss=sum(state.losses) / len(state.losses) if state.losses else None,
            learning_rate=self.inner_optimizers[0].param_groups[0]["lr"],
            **({} if self.gradient_norm is None else {"gradient_norm": self.gradient_norm}),
            seconds=round(state.seconds, 2),
            tokens_per_second=round(state.tokens_seen / state.seconds),
            model_flops_utilization=self._utilization(),
            **((self.evaluation or {}) if self.evaluation_step == state.step else {}),
        )
        state.losses = []

    def _utilization(self) -> float | None:
        """Model FLOPs utilization (PaLM, arXiv:2204.02311, appendix B): the share of the machine's peak, from 0 to 1.

        None before the first step.
        """
        if not self.peak_flops or not self.state.seconds:
            return None
        flops = self.state.tokens_seen * flops_per_token(
            self.unwrapped.config, self.config.model.max_position_embeddings
        )
        return round(flops / self.state.seconds / self.peak_flops, 4)

    def _checkpoint(self) -> None:
        """Save, note whether it is the best, write samples and the picture, prune."""
        state, run = self.state, self.config.run
        if self.evaluation is not None and self.evaluation_step == state.step:
            loss = self.evaluation["validation_loss"]
            if loss < state.best_validation_loss:
                state.best_validation_loss, state.best_step = loss, state.step
        # These three communicate, so every process calls them; the rest is the main process' alone.
        model = checkpoint.unsharded_model(self.unwrapped, self.accelerator)
        tensors = checkpoint.optimizer_tensors(self.unwrapped, self.inner_optimizers)
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
                },
            )
            # The same prompts and the same seed at each checkpoint, so that samples can be compared.
            for prompt in self.objective.sample_prompts():
                shown, text = self._sample(model, prompt, run.sample_tokens)
                self.log.sample(step=state.step, prompt=shown, text=text, seed=run.seed)
            checkpoint.prune(self.folder, keep=run.keep_checkpoints, best_step=state.best_step)
            self.log.picture(self.objective)
        self._write_state("running")

    def _sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        model.eval()
        sample = self.objective.sample(model, prompt, tokens)
        model.train()
        return sample

    def _finish(self) -> None:
        """Report the result, and write the long sample of a recipe that has one."""
        self.log.info(f"finished after {self.state.step} steps, {self.state.seconds:.0f} s")
        self.log.info(self._summary())
        if not self.config.run.output_tokens:
            return
        model = checkpoint.unsharded_model(self.unwrapped, self.accelerator)
        if self.accelerator.is_main_process:
            _, text = self._sample(model, "", self.config.run.output_tokens)
            self.folder.output.write_text(text, encoding="utf-8")
            self.log.info(f"from an empty prompt (kept in {self.folder.output}):\n{text}")

    def _fit_time(self) -> None:
        """Let the schedule end where the time limit will end the run, at the pace of the last ten steps."""
        state, limit = self.state, self.config.run.max_seconds
        if not limit or state.step % 10 or state.step >= self.schedule.steps:
            return
        # One clock for all processes: they must agree on the number of steps.
        seconds = self._over_processes(state.seconds, "mean")
        pace = (state.step - self.pace_mark[0]) / max(seconds - self.pace_mark[1], 1e-9)
        reachable = min(self.config.run.steps, max(state.step + 1, int(state.step + (limit - seconds) * pace)))
        self.pace_mark = state.step, seconds
        # Shrink soon, since lost time does not come back; grow only by a fifth, since a fast stretch may pass.
        if not 0.99 <= reachable / self.schedule.steps <= 1.2:
            self.schedule.resize(state.step, reachable)
            self.log.set_steps(reachable)

    def _advance_bar(self) -> None:
        shown = {"loss": f"{self.last_loss:.3f}"}
        if self.evaluation is not None:
            losses = (self.evaluation[key] for key in ("train_eval_loss", "validation_loss") if key in self.evaluation)
            shown["train/val"] = "/".join(f"{loss:.4f}" for loss in losses)
            if "bits_per_byte" in self.evaluation:
                shown["bits/byte"] = f"{self.evaluation['bits_per_byte']:.4f}"
        self.log.advance(**shown, **{"tokens/s": f"{self.state.tokens_seen / self.state.seconds:,.0f}"})

    def _write_state(self, status: str) -> None:
        state, objective = self.state, self.objective
        latest = max(self.folder.checkpoints(), default=None)

        def name(step: int | None) -> str | None:
            return None if step is None else RunFolder(Path()).checkpoint_folder(step).as_posix()

        self.log.state(
            status=status,
            recipe=self.recipe,
            step=state.step,
            steps=self.schedule.steps,
            best_checkpoint=name(state.best_step),
            latest_checkpoint=name(latest),
            best_validation_loss=None if math.isinf(state.best_validation_loss) else state.best_validation_loss,
            seconds=round(state.seconds, 1),
            tokens_seen=state.tokens_seen,
            parameters=self.unwrapped.num_parameters(),
            model_flops_utilization=self._utilization(),
            floor_bits_per_byte=None if objective.floor is None else objective.floor * objective.bits_per_byte,
            evaluation=self.evaluation,
        )

    def _over_processes(self, value: float, how: str) -> float:
        """The `sum` or `mean` of a number over all processes."""
        if self.accelerator.num_processes == 1:
            return value
        tensor = torch.tensor(value, device=self.accelerator.device)
        return float(self.accelerator.reduce(tensor, how))

    def _stop(self, reason: str | None) -> None:
        """Let the loop end after this step; the first reason counts."""
        self.stop_reason = self.stop_reason or reason

    def _stop_requested(self) -> bool:
        """Whether this process or any other was asked to stop: all stop after the same step."""
        if self._over_processes(float(self.stop_reason is not None), "sum"):
            self._stop("requested by another process")
        return self.stop_reason is not None
