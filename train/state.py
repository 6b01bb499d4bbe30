"""What a run knows of itself, apart from weights: saved with each checkpoint, and all that a resume needs."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Counters of a run."""

    step: int = 0  # optimizer steps done
    tokens_seen: int = 0  # target tokens trained on
    seconds: float = 0.0  # wall time of the loop, over all sessions
    best_step: int | None = None  # step of the lowest validation loss that has a checkpoint
    best_validation_loss: float = math.inf  # nats per token
    losses: list[float] = field(default_factory=list)  # training losses since the last line of metrics.jsonl

    def state_dict(self) -> dict[str, Any]:
        """As JSON values (an infinite loss is None)."""
        best = self.best_validation_loss
        return asdict(self) | {"best_validation_loss": None if math.isinf(best) else best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for key, value in state.items():
            setattr(self, key, math.inf if key == "best_validation_loss" and value is None else value)
