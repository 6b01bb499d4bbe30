"""Step → learning rate, as a factor of the peak."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from train.config import ScheduleConfig


@dataclass(slots=True)
class Schedule:
    """The learning-rate factor at each step, and how many steps there will be.

    The state is `steps`, which may change to fit a time limit; where `wsd` began to fall, and from which factor; and,
    for `plateau`, what the validation loss did so far.
    """

    config: ScheduleConfig
    steps: int  # the run's length
    fall_step: int | None = None  # set when the length changed while the rate was falling
    fall_factor: float = 1.0  # the factor at `fall_step`
    plateau_factor: float = 1.0  # product of the reductions so far
    best: float = math.inf  # lowest validation loss that counted as an improvement
    evaluations_without_improvement: int = 0

    def factor(self, step: int) -> float:
        """The factor for the update that makes step `step` (from 0) into `step + 1`."""
        config = self.config
        warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.name == "plateau":
            return warmup * max(self.plateau_factor, config.final_ratio)
        if config.name == "cosine":
            done = min(1.0, max(0.0, step - config.warmup_steps) / max(1, self.steps - config.warmup_steps))
            return warmup * (config.final_ratio + (1 - config.final_ratio) * (1 + math.cos(math.pi * done)) / 2)
        if config.name == "wsd" and step >= self.decay_start:
            left = (self.steps - step) / max(1, self.steps - self.decay_start)
            return warmup * (config.final_ratio + (self.fall_factor - config.final_ratio) * left)
        return warmup

    @property
    def decay_start(self) -> int:
        """The step from which `wsd` falls linearly to the last one."""
        if self.fall_step is not None:
            return self.fall_step
        return round(self.steps * (1 - self.config.decay_fraction))

    def resize(self, step: int, steps: int) -> None:
        """Make the run end after `steps`, seen at `step`; a rate that is falling falls on from where it is."""
        assert step < steps
        if self.config.name == "wsd" and step >= self.decay_start:
            self.fall_step, self.fall_factor = step, self.factor(step)
        self.steps = steps
        if self.config.name == "wsd" and self.fall_step is None and step > self.decay_start:
            self.fall_step = step

    def evaluated(self, validation_loss: float) -> bool:
        """Note an evaluation; True when the learning rate falls because of it.

        The rule of torch's ReduceLROnPlateau with a relative threshold.
        """
        if self.config.name != "plateau":
            return False
        if validation_loss < self.best * (1 - self.config.plateau_threshold):
            self.best, self.evaluations_without_improvement = validation_loss, 0
            return False
        self.evaluations_without_improvement += 1
        if self.evaluations_without_improvement <= self.config.plateau_patience:
            return False
        self.plateau_factor *= self.config.plateau_factor
        self.evaluations_without_improvement = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values (an infinite best is None)."""
        state = {key: value for key, value in asdict(self).items() if key != "config"}
        return state | {"best": None if math.isinf(self.best) else self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for key, value in state.items():
            setattr(self, key, math.inf if key == "best" and value is None else value)
