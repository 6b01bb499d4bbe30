"""A run in memory: model, optimizers, batches, schedule and counters, and what it records of itself."""

import math
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from corpus.short_texts import MANY_PASSES, passes
from modeling.sizing import flops_per_token
from storage.checksums import describe_damage
from storage.run_folder import RunFolder
from train import checkpoint
from train.base.base_model import start_from
from train.base.teacher import load_teacher, with_teacher
from train.checkpoint import TrainState
from train.checks import changed_fields, check_same_run, kept_fields, recorded_config
from train.config import Config, replace_fields, write_recipe
from train.data.ahead import AheadBatches
from train.data.batches import (
    evaluation_batches,
    training_batches,
    training_evaluation_batches,
)
from train.data.fitting import MINUTES, fitted_before
from train.data.prepare import Prepared, naming_skip_broken, prepare
from train.data.replay import OLD, OldText
from train.device import (
    ASSUMED_UTILIZATION,
    OLD_NATIVE_BF16_WIDTH,
    PRECISIONS,
    can_compile,
    describe,
    make_accelerator,
    muon_dtype,
    precision_of,
)
from train.kernels import use_kernels
from train.numerics.guard import Guard
from train.numerics.pending import DeviceGuard, PendingStep
from train.objective import OBJECTIVES, ModelWithLoss, threads_of
from train.optimizer import Schedule, build_optimizers
from train.pacing.compilation import Compilation, may_try
from train.pacing.data_parallel import windows_at_a_time
from train.pacing.minutes import fit
from train.pacing.threads import PASS_SECONDS, ThreadCount, training_pass
from train.pacing.time_limit import Pace, TimeLimit
from train.recipes import RECIPES
from train.run_log import RunLog
from train.samples import Samples
from train.trackers import accelerator_arguments, check_tracker


class Run:
    """A run at step 0 or, with `--resume`, at the latest checkpoint of its folder.

    Args:
        config: the resolved config.
        recipe: name of the recipe, for the record.
        folder: its folder.
        given: fields that keep their values, whatever fits a config to its text or time (`kept_fields`).
        quiet: print nothing.
    """

    def __init__(
        self, config: Config, recipe: str, folder: RunFolder, *, given: Collection[str] = (), quiet: bool = False
    ) -> None:
        self.config, self.recipe, self.folder = config, recipe, folder
        saved = folder.checkpoints()
        if saved and not config.run.resume:
            raise ValueError(
                f"{folder.path}: expected a new run folder, got one with a run of {max(saved)} steps; "
                "continue it with --resume, or choose another --run-dir"
            )
        self.is_resumed = bool(saved)
        recorded = recorded_config(folder)  # a damaged one is refused before anything is taken from it
        books = ((recorded or {}).get("corpus") or {}).get("books")
        if books == "scifi" != recipe and "corpus.books" not in given and config.corpus.source == "local":
            config = replace_fields(config, {"corpus.books": books})  # earlier versions read any text so
        kept = kept_fields(config, RECIPES[recipe](), given) if recipe in RECIPES else set(given)
        config, self.base = start_from(config, kept, folder)
        config, fitted, lines = self._fit(with_teacher(config), kept, (lambda line: None) if quiet else print)
        self.config = config
        check_same_run(config, folder)
        self.teacher = load_teacher(config)  # before anything is made that binds the folder
        check_tracker(config.run.tracker)
        self.accelerator = make_accelerator(config, **accelerator_arguments(config.run.tracker, folder.path))
        transformers_logging.disable_progress_bar()
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.log = RunLog(folder, silent=not self.accelerator.is_main_process, quiet=quiet)
        if self.accelerator.is_main_process:
            write_recipe(config, recipe, folder, fitted)
        for line in lines:
            self.log.info(line)
        if config.schedule.warmup_steps > config.run.steps:
            self.log.info(
                f"the warm-up takes {config.schedule.warmup_steps} steps and the run {config.run.steps}: the learning "
                "rate stays below its peak (--schedule.warmup-steps, --steps)"
            )
        self.old_text = OldText.open(config, folder, self.log.info)  # before anything is made that binds the folder
        # One makes the tokenizer and the shards, the others open them; a machine with its own disk makes its own.
        with self.accelerator.main_process_first(), self.accelerator.local_main_process_first():
            prepared = prepare(config, folder, self.log.info)
        self._build(prepared)
        self.log.info(
            f"{recipe}: {self.unwrapped.num_parameters():,} parameters, {describe(self.accelerator)}, "
            f"run folder {folder.path}"
        )
        if config.data.teacher is not None:
            self.log.info(
                f"half of the training loss is the cross-entropy with the probabilities of {config.data.teacher}; "
                "the validation loss is that of the text alone"
            )
        if self.base is not None and not saved:
            self.log.info(
                f"going on from {self.base.facts['name']}: its architecture, vocabulary and weights are kept, the "
                "optimizer and the schedule begin anew"
            )
        if saved:
            self._resume(saved[max(saved)])
        self._check_processes_agree(len(prepared.train))
        if saved:
            return
        if self.accelerator.is_main_process:
            self.folder.rewind(0)  # what a process wrote that was killed before its first checkpoint
        if (count := self._passes(prepared)) > MANY_PASSES:
            self.log.info(
                f"the text is short: {config.run.steps:,} steps read it {count:,.0f} times, and the model will learn "
                "it by heart (more text, or fewer --steps)"
            )

    def _check_processes_agree(self, tokens: int) -> None:
        """Raise a ValueError, in every process, where they found different run folders or chose different precisions:
        other machines have other disks, and other CPUs.

        Args:
            tokens: of the training text here.
        """
        if self.accelerator.num_processes == 1:
            return
        precision = PRECISIONS.index(precision_of(self.accelerator))
        found = torch.tensor([[self.state.step, tokens, precision]], device=self.accelerator.device)
        steps, counts, precisions = self.accelerator.gather(found).T.tolist()
        if len({*steps}) > 1 or len({*counts}) > 1:
            raise ValueError(
                f"{self.folder.path}: expected the same run folder on every machine, got folders at steps {steps} with "
                f"{counts} training tokens; put it on a file system that all share, or copy it to all of them"
            )
        if len({*precisions}) > 1:
            names = ", ".join(PRECISIONS[precision] for precision in precisions)
            raise ValueError(
                f"--run.precision: expected the same for every process, got {names}; name one on every machine, as in "
                "--run.precision fp32"
            )

    def _fit(
        self, config: Config, kept: Collection[str], say: Callable[[str], None]
    ) -> tuple[Config, dict[str, Any], list[str]]:
        """The config for its time and its text, the fields that differ for their sake, and a line on each that is
        new; `say` tells what is measured for it."""
        if self.recipe not in RECIPES:
            return config, {}, []
        if (before := fitted_before(config, kept, self.folder)) is not None:
            recorded = self.folder.peek_recipe()
            earlier = ((recorded.get("config") or {}).get("run") or {}).get(MINUTES.partition(".")[2])
            return before, ({MINUTES: earlier} if earlier else {}) | (recorded.get("fitted") or {}), []
        with naming_skip_broken(config):
            fitted, lines = fit(config, kept, self.folder, say)
        planned = {MINUTES: config.run.minutes} if config.run.minutes else {}
        return fitted, changed_fields(fitted, config) | planned, lines

    def _passes(self, prepared: Prepared) -> float:
        data, length = self.config.data, self.config.model.max_position_embeddings
        return passes(self.config.run.steps * data.batch_size * length, len(prepared.train))

    def _build(self, prepared: Prepared) -> None:
        """Model, optimizers, batches and schedule at step 0."""
        config, accelerator = self.config, self.accelerator
        torch.manual_seed(config.run.seed)
        self.objective = OBJECTIVES[config.data.objective](config, prepared)
        kept = {} if self.base is None else self.base.kept
        self.unwrapped = self.objective.model(
            config.model.build(vocab_size=len(prepared.tokenizer), end_of_text=prepared.end_of_text, **kept)
        )
        if self.base is not None and not self.is_resumed:
            self.base.fill(self.unwrapped)
        # All processes begin with the same weights; from here on each draws a dropout of its own.
        torch.manual_seed(config.run.seed + accelerator.process_index)
        use_kernels(self.unwrapped, accelerator.device)
        self.model, *self.optimizers = accelerator.prepare(
            ModelWithLoss(self.unwrapped, None if self.teacher is None else self.teacher.to(accelerator.device)),
            *build_optimizers(self.unwrapped, config.optimizer, muon_dtype=muon_dtype(accelerator)),
        )
        self.windows_at_a_time = windows_at_a_time(
            accelerator, self.unwrapped.config, config.data, config.model.max_position_embeddings
        )
        self.inner_optimizers = [getattr(optimizer, "optimizer", optimizer) for optimizer in self.optimizers]
        sizes = dict(
            batch_size=config.data.batch_size,
            length=config.model.max_position_embeddings,
            end_of_text=prepared.end_of_text,
        )
        # Every process draws the same batches and takes its rows of them, so that their number changes no batch.
        make_batches = training_batches if self.old_text is None else self.old_text.among
        self.batches = AheadBatches(
            self.objective.training(make_batches(prepared.train, config.data.windows, **sizes, seed=config.run.seed))
        )
        self.draws_ahead = accelerator.device.type == "cuda"
        sizes["windows"] = config.data.evaluation_windows
        self.validation = self.objective.validation(evaluation_batches(prepared.validation, **sizes))
        self.train_evaluation = self.objective.evaluation(
            training_evaluation_batches(prepared.train, prepared.validation, **sizes)
        )
        self.samples = Samples(self.objective, config.run, self.log)
        self.schedule = Schedule(config.schedule, config.run.steps)
        self.state = TrainState()
        self.guard = Guard(
            spike_factor=config.run.spike_factor,
            guess_loss=math.log(len(prepared.tokenizer)),
            clipping=config.optimizer.max_grad_norm,
        )
        # A gradient scaler reads the device in each step by itself, and processes that stop together do.
        defers = accelerator.device.type == "cuda" and accelerator.scaler is None and accelerator.num_processes == 1
        self.device_guard = DeviceGuard(self.inner_optimizers, accelerator.device) if defers else None
        self.pending: list[PendingStep] = []  # steps whose numbers are not read yet
        self.position = self.batches.state_dict()  # where the batch of the present step begins
        self.evaluation: dict[str, float] | None = None  # the latest one …
        self.evaluation_step: int | None = None  # … and its step
        self.last_loss = math.nan
        self.gradient_norm: float | None = None  # of the last step, where it was computed
        self.peak_flops = 0.0  # of all processes together; measured when the run starts
        run = config.run
        device, processes = accelerator.device, accelerator.num_processes
        kind = {"processes": processes, "max_seconds": run.max_seconds, "objective": config.data.objective}
        tries = can_compile(device) and may_try(device.type, **kind)
        self.compilation = Compilation(run.compile, self.model, may_try=tries, device_type=device.type)
        # The threads of one process would compete with another's, and a compiled model's are not those that are tried.
        # A run without a time limit is the same for the same seed; trying could find something else each time.
        tries = processes == 1 and run.max_seconds > 0 and device.type == "cpu" and run.compile != "yes"
        self.threads = ThreadCount(run.threads, may_try=tries)
        self.limit = TimeLimit(run.max_seconds, run.max_stretch, run.steps)
        self.pace = Pace(
            evaluate_every=run.evaluate_every,
            checkpoint_every=run.checkpoint_every,
            evaluation_passes=len(self.validation)
            + len(self.train_evaluation)
            + (0 if self.old_text is None else len(self.old_text.validation)),
            limit=run.max_seconds,
        )

    def _resume(self, folder: Path) -> None:
        """Continue from a checkpoint, as if the run had never stopped."""
        process = self.accelerator.process_index
        saved = checkpoint.load(folder, self.unwrapped, self.inner_optimizers, process_index=process)
        self.state.load_state_dict(saved["state"])
        self.schedule.load_state_dict(saved["schedule"])
        self.batches.load_state_dict(saved["batches"])
        self.evaluation, self.evaluation_step = saved["evaluation"], saved["evaluation_step"]
        state, schedule, planned = self.state, self.schedule, self.config.run.steps
        is_cut = state.step >= schedule.steps and schedule.steps < saved["planned_steps"]
        if "guard" in saved:  # checkpoints of older versions have none
            self.guard.load_state_dict(saved["guard"])
        if self.accelerator.scaler is not None and saved.get("scaler"):
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        before, now = saved.get("precision"), precision_of(self.accelerator)
        if before is None and self.config.run.precision == "auto" and self.accelerator.device.type == "cpu":
            before = "fp32" if self.config.model.hidden_size < OLD_NATIVE_BF16_WIDTH else now
        if before not in (None, now):
            self.log.info(f"{now} from here on, {before} until now (--run.precision {before} keeps it)")
        self.limit.resume(saved.get("limit"), renewed_at=state.seconds if is_cut else None)
        # The saved schedule may have been shortened to fit a time limit, which may hold still.
        if planned != saved["planned_steps"] or is_cut or not self.limit.end:
            if state.step < planned and schedule.steps < planned:
                schedule.extend(state.step, planned)
            schedule.steps = planned
        if self.accelerator.is_main_process:
            if changed := self.folder.changed_records(saved.get("records") or {}):
                names = describe_damage(changed)
                self.log.info(
                    f"{self.folder.path}: {names}: the curve or the samples are not those of this run any more"
                )
            self.folder.rewind(self.state.step)
        self.log.info(f"resuming from step {state.step}")
        if is_cut and state.step < planned:
            self.log.info(f"{self.folder.path}: its time limit had cut it short; it goes on to {planned:,} steps")

    def _summary(self) -> str:
        """One sentence on the latest evaluation."""
        assert self.evaluation is not None
        summary = self.objective.summary(self.evaluation)
        if (loss := self.evaluation.get(f"{OLD}validation_loss")) is not None:
            summary += f"; validation loss {loss:.4f} on the old text"
        if (loss := self.evaluation.get("train_eval_loss")) is None:  # restored from a checkpoint of 0.1
            return summary
        return f"{summary}; training loss {loss:.4f} in evaluation mode"

    def _progress(self) -> str:
        """The steps done, of those planned."""
        done, planned = self.state.step, self.config.run.steps
        return f"{done:,} of {planned:,} planned steps ({done / planned:.0%} of its tokens)"

    def _resume_command(self, *flags: str) -> str:
        """What continues this run, from the same working directory."""
        words = ("python", "-m", "train", str(self.folder.recipe_file), "--run-dir", str(self.folder.path), "--resume")
        return shlex.join([*words, *flags])

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
        flops = self.state.tokens_seen * self._flops_per_token()
        return round(flops / self.state.seconds / self.peak_flops, 4)

    def _flops_per_token(self) -> float:
        return flops_per_token(self.unwrapped.config, self.config.model.max_position_embeddings)

    def _estimate_seconds(self, tokens: int) -> float:
        """What training on so many tokens takes, at a guess."""
        return tokens * self._flops_per_token() / (ASSUMED_UTILIZATION * self.peak_flops)

    def _seconds_left(self) -> float:
        """A guess of what the steps that are left will take."""
        tokens = self.config.data.batch_size * self.config.model.max_position_embeddings
        return (self.schedule.steps - self.state.step) * self._estimate_seconds(tokens)

    def _seconds_to_compile_for(self) -> float:
        """An estimate of what the steps of a run that begins will take, no more than its time limit.

        On CUDA from passes that are timed: small models reach a much smaller share of its peak than the guess has. The
        guess may be far too long, too; the limit is not.
        """
        seconds, limit = self._seconds_left(), self.limit.end or math.inf
        if self.compilation.device_type == "cuda":
            passes = self.schedule.steps * self.config.data.batch_size / self.windows_at_a_time
            seconds = passes * self.compilation.pass_seconds(self._make_pass)
        return min(seconds, limit)

    def _make_pass(self, model: Any, row_seconds: float = 0.0) -> Callable[[], None]:
        """A pass of a model on windows of the training text: as many as a step takes at a time, or what `PASS_SECONDS`
        allow."""
        most = self.windows_at_a_time
        rows = max(1, min(most, int(PASS_SECONDS / row_seconds))) if row_seconds else most
        threads = threads_of(model, self.accelerator.device, most)  # they share the windows: as many for each
        return training_pass(self.accelerator, model, self.train_evaluation[0], max(threads, rows - rows % threads))

    def _write_state(self, status: str, *, cut_short: str | None = None, resume_command: str | None = None) -> None:
        """Write run.json.

        Args:
            cut_short: one sentence on a run that has ended before its planned steps.
            resume_command: what continues it.
        """
        state, objective = self.state, self.objective
        latest = max(self.folder.checkpoints(), default=None)

        def name(step: int | None) -> str | None:
            return None if step is None else RunFolder(Path()).checkpoint_folder(step).as_posix()

        self.log.state(
            status=status,
            recipe=self.recipe,
            base_model=None if self.base is None else self.base.facts,
            step=state.step,
            steps=self.schedule.steps,
            planned_steps=self.config.run.steps,
            max_seconds=round(self.limit.end, 1),
            cut_short=cut_short,
            resume_command=resume_command,
            threads=self.threads.record,
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

    def _advance_bar(self) -> None:
        shown = {"loss": f"{self.last_loss:.3f}"}
        if self.evaluation is not None:
            losses = (self.evaluation[key] for key in ("train_eval_loss", "validation_loss") if key in self.evaluation)
            shown["train/val"] = "/".join(f"{loss:.4f}" for loss in losses)
            if "bits_per_byte" in self.evaluation:
                shown["bits/byte"] = f"{self.evaluation['bits_per_byte']:.4f}"
        costs = self.pace.costs
        left = None if costs is None else costs.seconds(self.state.step, self.schedule.steps)
        self.log.advance(left, **shown, **{"tokens/s": f"{self.state.tokens_seen / self.state.seconds:,.0f}"})

    def _over_processes(self, value: float, how: str) -> float:
        """The `sum` or `mean` of a number over all processes."""
        if self.accelerator.num_processes == 1:
            return value
        tensor = torch.tensor(value, device=self.accelerator.device)
        return float(self.accelerator.reduce(tensor, how))
