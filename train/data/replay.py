"""Old text among the new (`--replay`): a share of the windows of each batch is from the text of an earlier run.

A model that goes on from another (`--from`) forgets the text that it was trained on; a share of that text in each batch
keeps it (experience replay: Rolnick et al., arXiv:1811.11682; for language models Ibrahim et al., arXiv:2403.08763,
where 5 % suffice for a similar text).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_manifest
from tokenization import load_tokenizer
from train.config import Config
from train.data.batches import Batch, Batches, evaluation_batches, training_batches

OLD = "replay_"
"""Before the names of the old text's position, and of what is measured on it."""


class ReplayedBatches:
    """Batches of new windows, then old ones; how many of each is the same in every batch.

    Args:
        new: batches of the run's own text.
        old: batches of the old text.
    """

    def __init__(self, new: Batches, old: Batches) -> None:
        self.new, self.old = new, old

    def next(self) -> Batch:
        """The next batch."""
        parts = [self.new.next(), self.old.next()]
        return Batch(
            torch.cat([part.input_BL for part in parts]),
            torch.cat([part.target_BL for part in parts]),
        )

    def state_dict(self) -> dict[str, int]:
        """The positions in both texts."""
        return self.new.state_dict() | {f"{OLD}{name}": value for name, value in self.old.state_dict().items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to positions in both texts."""
        self.new.load_state_dict({name: value for name, value in state.items() if not name.startswith(OLD)})
        self.old.load_state_dict(
            {name.removeprefix(OLD): value for name, value in state.items() if name.startswith(OLD)}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OldText:
    """The text that is replayed."""

    train: TokenSplit
    windows: int
    """Of each batch."""
    validation: list[Batch]
    """Fixed windows of its held-out part: what the model still knows of it."""

    @classmethod
    def open(cls, config: Config, folder: RunFolder, log: Callable[[str], None]) -> "OldText | None":
        """The text of the run in `data.replay`, for batches of `config`; None without.

        Args:
            folder: this run's, with its tokenizer, or else `tokenizer.path` is what it will be.
            log: called with a line on what is replayed.

        Raises:
            ValueError: there are no tokens of that run, they are of chats or of another vocabulary, its text is
                shorter than a window, a shard is damaged, or the share is no window of a batch, or all of them.
        """
        place, data, length = config.data.replay, config.data, config.model.max_position_embeddings
        if place is None:
            return None
        run = RunFolder(place)
        manifest = read_manifest(run.tokens)
        if manifest is None:
            raise ValueError(
                f"--replay {place}: expected the folder of a run, whose tokens/ are there, got none; give the run that "
                "the model of --from is of, or give the old text with --corpus beside the new one"
            )
        train, validation = (TokenSplit(run.tokens, manifest[name]) for name in ("train", "validation"))
        if train.marks is not None:
            raise ValueError(f"--replay {place}: expected a run on text, got one on chats; give its --from run")
        own = folder.tokenizer if folder.tokenizer.exists() else config.tokenizer.path
        assert own is not None  # a run with --from has one
        if load_tokenizer(run.tokenizer).get_vocab() != load_tokenizer(own).get_vocab():
            raise ValueError(
                f"--replay {place}: expected tokens of the vocabulary of --from {config.run.base_model}, got those of "
                "another; give the run that this model is of, or give the old text with --corpus beside the new one"
            )
        if len(train) < length + 1:
            raise ValueError(f"--replay {place}: expected at least {length + 1} training tokens, got {len(train)}")
        for split in (train, validation):
            split.check(again=f"`python -m train {run.recipe_file} --run-dir {run.path} --resume`")
        windows = round(data.replay_share * data.batch_size)
        if not 0 < windows < data.batch_size:
            raise ValueError(
                f"--data.replay-share: expected a share that is at least one window of a batch of {data.batch_size} "
                f"and leaves one to the new text, got {data.replay_share:g}, which is {windows}; change it, or raise "
                "--data.batch-size"
            )
        log(
            f"replay: {windows} of the {data.batch_size} windows of each step are from the {len(train):,} training "
            f"tokens of {run.path.name}"
        )
        sizes = dict(batch_size=data.batch_size, length=length, end_of_text=manifest["end_of_text"])
        fixed = evaluation_batches(validation, **sizes, windows=data.evaluation_windows)
        return cls(train=train, windows=windows, validation=fixed)

    def among(self, new: TokenSplit, windows: str, *, batch_size: int, **sizes: int) -> ReplayedBatches:
        """The batches of a run on `new`; the arguments are those of `training_batches`."""
        return ReplayedBatches(
            training_batches(new, windows, batch_size=batch_size - self.windows, **sizes),
            training_batches(self.train, windows, batch_size=self.windows, **sizes),
        )
