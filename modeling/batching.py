"""Continuous batching: many texts are written at once, and each pass of the model reads the next token of all of them.

Texts join and leave between two tokens. Each has its own seed, sampler, stop, deadline and alternatives, and is the
same, bit for bit, alone and in any company (`modeling.batch_decoder`). One thread computes, as long as there is a text:
two would wait for Python's lock more than they share. A pass reads parts of prompts (`PREFILL_CHUNK` tokens in all)
before the tokens, so that a long prompt makes the others wait for a moment only.
"""

import atexit
import inspect
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from modeling.batch_decoder import LANES, BatchDecoder, CannotBatchError, bytes_of_a_text
from modeling.cache_decoder import CacheBatchDecoder, cache_argument, transposed
from modeling.configuration_scratchgpt import ScratchGPTConfig
from modeling.fast_decoder import COPY_LIMIT, has_plain_weights, is_plain
from modeling.generation import (
    PREFILL_CHUNK,
    Continuation,
    SamplingSettings,
    Step,
    passes,
    reason_to_halt,
)
from modeling.loading import context_length
from modeling.modeling_scratchgpt import ScratchGPTForCausalLM

ROOM = 32
"""Texts of a pass, and those that are meant to be written at once."""
MEMORY = 2**30
"""Bytes that the keys and values of `ROOM` texts may take."""
PACE = 0.03
"""Seconds for each text of all, between two times that a text's reader is woken, but for its beginning and its end:
what a reader does with the tokens takes the others time."""
DEPENDENT_ROPE = ("dynamic", "longrope")
"""Kinds of rotary positions that depend on the longest text of a pass."""
BEGINNING = 4
"""Tokens of a text whose reader is woken for each: a character takes up to four tokens."""


class BatchGenerator:
    """Writes many texts at once with one model. Its weights are read when it is made. From the first text on torch
    computes with one thread in the whole process (`torch.set_num_threads`): a second one gains less than the requests
    beside it lose.

    Args:
        model: one that `can_batch`, in evaluation mode.
        width: texts of a pass at most.

    Raises:
        CannotBatchError: where texts of this model cannot share passes, or would depend on each other.
    """

    def __init__(self, model: PreTrainedModel, *, width: int = ROOM) -> None:
        self.model = model
        with torch.inference_mode():
            self.decoder = batch_decoder(model, width)
        self.widths: Counter[int] = Counter()
        """How many passes read a token of so many texts, since it was made."""
        self._texts: list[_Text] = []
        self._lock = threading.Lock()

    @property
    def pace(self) -> float:
        """Seconds between two times that the reader of a text gets tokens, but for its beginning and its end."""
        return PACE * len(self._texts)

    def stream(
        self,
        prompt_ids: Sequence[int],
        settings: SamplingSettings,
        *,
        stop_token_ids: Collection[int] = (),
        alternatives: int = 0,
        should_stop: Callable[[], bool] | None = None,
        deadline: float | None = None,
    ) -> Generator[Step, None, str]:
        """`modeling.generation.stream` in a batch: the same arguments, steps, endings and errors. Closing the generator
        ends the text at its next token."""
        text = Continuation(self.model, prompt_ids, settings, stop_token_ids, alternatives)
        return self._steps(_Text(self.decoder, text, partial(reason_to_halt, should_stop, deadline)))

    def _steps(self, text: "_Text") -> Generator[Step, None, str]:
        self._join(text)
        try:
            while True:
                text.news.wait()
                text.news.clear()
                is_over = text.is_over  # before the steps are taken: none comes after it
                while text.steps:
                    yield text.steps.popleft()
                if is_over:
                    if text.error is not None:
                        raise text.error
                    assert text.ending is not None
                    return text.ending
        finally:
            text.is_closed = True

    def _join(self, text: "_Text") -> None:
        with self._lock:
            self._texts.append(text)
            if len(self._texts) == 1:
                worker = threading.Thread(target=self._work, name="batch", daemon=True)
                worker.start()
                _workers.add(worker)

    def _work(self) -> None:
        """The thread's life: passes, until there is no text."""
        torch.set_num_threads(1)
        while True:
            with self._lock:
                self._texts = [text for text in self._texts if not text.is_over]
                if not self._texts or _is_exiting.is_set():
                    return
                texts = self._texts
            with torch.inference_mode():
                try:
                    self._pass(texts)
                except BaseException as error:  # of the model itself, such as a lack of memory: no text can go on
                    for text in texts:
                        if not text.is_over:
                            text.finish(error=error)

    def _pass(self, texts: "list[_Text]") -> None:
        """One token, or a part of what it has to read, for each text that goes on."""
        texts = [text for text in texts if text.goes_on()]
        budget = PREFILL_CHUNK
        for text in texts:
            if len(text.unread) > 1 and budget > 0:
                budget -= text.read_part()
        ready = [text for text in texts if len(text.unread) == 1]
        for start in range(0, len(ready), self.decoder.width):
            part = ready[start : start + self.decoder.width]
            self.widths[len(part)] += 1
            logits_NV = self.decoder.step([text.decoder for text in part], [text.unread[0] for text in part])
            for text, logits_V in zip(part, logits_NV, strict=True):
                text.draw(logits_V)
        now, pace = time.monotonic(), self.pace
        for text in texts:
            if text.steps and (text.drawn <= BEGINNING or now - text.told >= pace):
                text.told = now
                text.news.set()


class _Text:
    """One text of a batch: written by its worker, read by whoever asked for it."""

    def __init__(
        self, decoder: BatchDecoder | CacheBatchDecoder, continuation: Continuation, halt: Callable[[], str | None]
    ) -> None:
        self.continuation, self.halt = continuation, halt
        with torch.inference_mode():
            self.decoder: Any = decoder.new_text(continuation.capacity)
        self.unread = [*continuation.unread]
        self.steps: deque[Step] = deque()
        self.news = threading.Event()
        """There are steps, or it is over."""
        self.told = 0.0
        self.drawn = 0  # tokens
        self.is_over = self.is_closed = False
        self.ending: str | None = None
        self.error: BaseException | None = None

    def finish(self, ending: str | None = None, error: BaseException | None = None) -> None:
        """It is over."""
        self.ending, self.error = ending, error
        self.is_over = True
        self.news.set()
        self.decoder.close()

    def goes_on(self) -> bool:
        """Whether it takes part in the next pass; it ends here where it was stopped, closed, or is out of time."""
        if self.is_closed:
            self.finish("stopped")
            return False
        try:
            reason = self.halt()
        except Exception as error:  # of whoever asked for the text: the others go on
            self.finish(error=error)
            return False
        if reason is not None:
            self.finish(reason)
        return reason is None

    def read_part(self) -> int:
        """Read the next part of several tokens, and draw where that was all. Returns how many were read."""
        part = passes(self.decoder, self.unread)[0]
        logits_V = self.decoder.read(part)
        self.unread = self.unread[len(part) :]
        if not self.unread:
            self.draw(logits_V)
        return len(part)

    def draw(self, logits_V: Tensor) -> None:
        """Take the next token, hand it on, and find out what is to be read then."""
        continuation = self.continuation
        try:
            step = continuation.draw(logits_V)
        except ValueError as error:  # the logits are broken
            return self.finish(error=error)
        if step is None:
            return self.finish("stop_token")
        self.steps.append(step)
        self.drawn += 1
        if continuation.is_complete:
            return self.finish("length")
        if continuation.unread is continuation.window:
            self.decoder.reset()
        self.unread = [*continuation.unread]
        return None


_workers: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
_is_exiting = threading.Event()


@atexit.register
def _end_workers() -> None:
    """Python would end them in the middle of torch's code, which aborts the process."""
    _is_exiting.set()
    for worker in [*_workers]:
        worker.join(timeout=10.0)


def batch_generator(model: PreTrainedModel) -> BatchGenerator | None:
    """What writes many texts at once with a model; None for a model that cannot or is too large, and on a machine
    where the texts would depend on each other."""
    if not can_batch(model):
        return None
    if is_plain(model) and ROOM * bytes_of_a_text(cast(ScratchGPTConfig, model.config)) > MEMORY:
        return None  # before the tables of a long context are computed
    try:
        batch = BatchGenerator(model)
    except CannotBatchError:
        return None
    if isinstance(batch.decoder, CacheBatchDecoder) and ROOM * batch.decoder.bytes_of_a_text > MEMORY:
        return None  # a foreign model's cache is known when texts have been read
    return batch


def can_batch(model: PreTrainedModel) -> bool:
    """Whether a batch decoder may take the model: on the CPU in float32, not too large for a second copy of its
    weights, and a plain ScratchGPT or one that `_is_decoder`."""
    return (
        (is_plain(model) or _is_decoder(model))
        and model.device.type == "cpu"
        and model.dtype == torch.float32
        and model.get_memory_footprint() <= COPY_LIMIT
    )


def _is_decoder(model: PreTrainedModel) -> bool:
    """Whether it is a causal model of transformers itself, as it comes, that takes positions and a cache, all of whose
    matrices are those of linear layers (no mixture of experts), of widths that are multiples of `LANES`, and whose
    rotary positions do not depend on the longest text."""
    modules = [*model.modules()]
    return (
        all(type(module).__module__.startswith(("torch.nn.modules.", "transformers.")) for module in modules)
        and has_plain_weights(model)
        and not model.config.is_encoder_decoder
        and bool(context_length(model))
        and cache_argument(model) is not None
        and "position_ids" in inspect.signature(model.forward).parameters
        and all(
            isinstance(module, nn.Embedding)
            or (isinstance(module, (nn.Linear, Conv1D)) and transposed(module).shape[0] % LANES == 0)
            or all(weight.ndim < 2 for weight in module.parameters(recurse=False))
            for module in modules
        )
        and not any(kind in str(getattr(module, "rope_type", "")) for module in modules for kind in DEPENDENT_ROPE)
    )


def batch_decoder(model: PreTrainedModel, width: int) -> BatchDecoder | CacheBatchDecoder:
    """What reads tokens of several texts of a model that `can_batch`. Raises CannotBatchError as its class does."""
    if is_plain(model):
        return BatchDecoder(cast(ScratchGPTForCausalLM, model), width)
    return CacheBatchDecoder(model, width)
