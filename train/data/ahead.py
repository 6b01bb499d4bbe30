"""The next batch, drawn while the device computes the present one."""

from train.data.batches import Batch, Batches


class AheadBatches:
    """Other batches, of which the next one can be drawn before it is asked for; its position is theirs without that.

    CUDA computes a step after its operations were queued, so the loop draws the next batch between queueing them and
    waiting for their numbers. That needs no second thread, which would wait for the interpreter's lock as long as it
    drew, beside the loop that queues. On a CPU nothing is drawn ahead: a batch is 0.001 to 0.17 % of a step there (0.05
    to 1.0 ms; stories, scifi and wikitext; random, shuffled, packed, masked and chats; one thread with bf16), and there
    is no core that idles.

    Args:
        batches: where they come from.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._drawn: tuple[dict[str, int], Batch] | None = None  # the next batch, and the position before it

    def draw(self) -> None:
        """Draw the next batch, unless it is drawn already. What goes wrong with it is raised by `next`, in its step."""
        if self._drawn is not None:
            return
        position = self.batches.state_dict()
        try:
            self._drawn = position, self.batches.next()
        except Exception:
            self.batches.load_state_dict(position)

    def next(self) -> Batch:
        """The next batch."""
        if self._drawn is None:
            return self.batches.next()
        (_, batch), self._drawn = self._drawn, None
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position of the batch that `next` will return."""
        return self.batches.state_dict() if self._drawn is None else self._drawn[0]

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position; what was drawn ahead is dropped."""
        self._drawn = None
        self.batches.load_state_dict(state)
