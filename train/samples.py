"""What the model of a run writes while it learns: samples.jsonl and output.txt."""

from pathlib import Path
from typing import Any

from storage.files import atomic_file
from train.config import RunConfig
from train.objective import Objective
from train.run_log import RunLog

EARLY_TOKENS = 40
"""Length of the samples between the checkpoints."""


def is_early_step(step: int) -> bool:
    """Whether a step is one of 1, 3, 10, 30, 100, 300 …, after which the first prompt is continued."""
    return str(step).rstrip("0") in ("1", "3")


class Samples:
    """Writes the samples of a run; the random numbers of the training stay as they are.

    The same prompts and the same seed each time, so that samples can be compared.
    """

    def __init__(self, objective: Objective, run: RunConfig, log: RunLog) -> None:
        self.objective, self.run, self.log = objective, run, log

    def write(self, model: Any, step: int, *, written: int = 0) -> None:
        """Those of a checkpoint: of every prompt, but for the first `written` ones."""
        for prompt in self.objective.sample_prompts()[written:]:
            self._write(model, step, prompt, self.run.sample_tokens)

    def write_early(self, model: Any, step: int) -> None:
        """A short one of the first prompt, between the checkpoints, so that the first steps can be watched.

        The empty prompt counts only where there is no other: a new model with tied embeddings ends such a text at once.
        """
        prompts = self.objective.sample_prompts()
        for prompt in [*filter(None, prompts), *prompts][:1]:
            self._write(model, step, prompt, min(self.run.sample_tokens, EARLY_TOKENS))

    def write_output(self, model: Any, path: Path) -> None:
        """The long one from an empty prompt, for recipes that have it; it is logged too."""
        _, text = self._sample(model, "", self.run.output_tokens)
        with atomic_file(path) as stream:
            stream.write(text)
        self.log.info(f"from an empty prompt (kept in {path}):\n{text}")

    def _write(self, model: Any, step: int, prompt: str, tokens: int) -> None:
        shown, text = self._sample(model, prompt, tokens)
        self.log.sample(step=step, prompt=shown, text=text, seed=self.run.seed)

    def _sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        model.eval()
        sample = self.objective.sample(model, prompt, tokens)
        model.train()
        return sample
