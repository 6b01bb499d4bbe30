"""The texts of a request, made by the page's generation loop: piece by piece, with log probabilities."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from panels.generate import TIME_LIMIT, Draft, encode_prompt, generate_queued
from panels.openai_api.requests import FieldError, TextRequest
from panels.request_queue import QueueFullError

if TYPE_CHECKING:
    from panels.context import AppContext
    from panels.generate import Ending, Token
    from panels.models import LoadedModel, ModelLoader

ECHO_LIMIT = 500_000
"""Log probabilities of the tokens of prompts in one answer, which is held in memory: about 0.3 kB each."""
LOWEST = -9999.0
"""The log probability of a token that cannot come: JSON has no minus infinity."""


class Scored(NamedTuple):
    """A token of the vocabulary, and how likely the model found it."""

    name: str  # its text; `bytes:\\xe2\\x80` where its bytes are no whole characters, as OpenAI writes it
    content: bytes | None  # None for a special token
    logprob: float | None  # natural logarithm, before the sampler; None for a first token, which nothing precedes


@dataclass(frozen=True, kw_only=True, slots=True)
class TextToken:
    """A token of a text."""

    text: str  # the characters that it completed
    scored: Scored | None = None  # None where no log probabilities are asked for
    alternatives: tuple[Scored, ...] = ()  # the model's likeliest tokens here, the likeliest first


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What is new in one of the texts, or that it still waits."""

    index: int  # of the text among those of the request
    ahead: int = 0  # requests in the queue that must end before this text is made
    tokens: tuple[TextToken, ...] = ()
    rest: str = ""  # characters behind the last token, and of a prompt without log probabilities all of them
    ending: Ending | None = None  # with the last piece of a text
    seed: int | None = None  # with the last piece
    prompt_tokens: int = 0  # with the last piece; 0 for all but the first text of a prompt
    new_tokens: int = 0  # with the last piece
    warnings: tuple[str, ...] = ()  # with the last piece

    @property
    def text(self) -> str:
        """The characters that it adds."""
        return "".join(token.text for token in self.tokens) + self.rest


def make_pieces(
    context: AppContext, loader: ModelLoader, asked: TextRequest, should_stop: Callable[[], bool]
) -> Iterator[Piece]:
    """The texts that `asked` wants of the model of `loader`, which is there, one after the other; each takes its turn
    in the page's request queue.

    The n-th text of a prompt is drawn with the n-th seed from the given one on. Raises ValueError for a wrong setting,
    token ids that the model does not have, more log probabilities of prompts than `ECHO_LIMIT`, a full queue, and a
    model that fills blanks."""
    loaded = loader.wait()
    check_prompt_ids(loaded, asked)  # of all prompts, before the first text is begun
    check_echo(loaded, asked)
    prompts = asked.prompts if not asked.is_chat else (chat_ids(loaded, asked),)
    index = 0
    for prompt in prompts:
        for number in range(asked.count):
            seed = None if asked.seed is None else (asked.seed + number) % 2**63
            pieces = _make_text(context, loader, asked, index, prompt, seed, is_first=number == 0, stop=should_stop)
            try:
                yield from _without_beginning_space(pieces) if asked.is_chat else pieces
            except QueueFullError as error:
                if not index:
                    raise
                made = f"{index} of {len(prompts) * asked.count} texts were made"
                raise QueueFullError(
                    f"The request queue is full: {made}. Send the request again in a minute."
                ) from error
            index += 1


def _without_beginning_space(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces of an answer in a chat without the white space that it begins with, as the page shows it."""
    is_begun = False
    for piece in pieces:
        if is_begun:
            yield piece
            continue
        tokens = []
        for token in piece.tokens:
            tokens.append(token if is_begun else dataclasses.replace(token, text=token.text.lstrip()))
            is_begun = is_begun or bool(tokens[-1].text)
        yield dataclasses.replace(piece, tokens=tuple(tokens), rest=piece.rest if is_begun else piece.rest.lstrip())


def check_prompt_ids(loaded: LoadedModel, asked: TextRequest) -> None:
    """Raise FieldError for a token id of a prompt that is not in the model's vocabulary."""
    from modeling.generation import check_ids

    try:
        for prompt in asked.prompts:
            if not isinstance(prompt, str):
                check_ids(loaded.model, prompt)
    except ValueError as error:
        raise FieldError("prompt", f"prompt: {error}") from error


def check_echo(loaded: LoadedModel, asked: TextRequest) -> None:
    """Raise FieldError for more log probabilities of the prompts' tokens than one answer may hold."""
    if not asked.echo or asked.logprobs is None:
        return
    tokens = sum(len(encode_prompt(loaded, each) if isinstance(each, str) else each) for each in asked.prompts)
    if (count := tokens * asked.count * (asked.logprobs + 1)) > ECHO_LIMIT:
        raise FieldError(
            "logprobs",
            f"logprobs: expected at most {ECHO_LIMIT:,} log probabilities with echo (tokens of all prompts, times n, "
            f"times logprobs + 1), got {count:,}. Take shorter prompts, several requests or a smaller logprobs.",
        )


def chat_ids(loaded: LoadedModel, asked: TextRequest) -> tuple[int, ...]:
    """The token ids of a chat, up to where the model's answer begins. Raises FieldError for turns that the model's
    template refuses."""
    from tokenization.chat_template import prompt_ids

    turns = [{"role": message.role, "content": message.content} for message in asked.messages]
    try:
        return tuple(prompt_ids(loaded.tokenizer, turns))
    except ValueError as error:
        raise FieldError("messages", f"messages: {error}") from error


def _make_text(
    context: AppContext,
    loader: ModelLoader,
    asked: TextRequest,
    index: int,
    prompt: str | tuple[int, ...],
    seed: int | None,
    *,
    is_first: bool,
    stop: Callable[[], bool],
) -> Iterator[Piece]:
    loaded = loader.wait()
    ids = None if isinstance(prompt, str) else list(prompt)
    text = prompt if isinstance(prompt, str) else loaded.tokenizer.decode(list(prompt))
    if asked.echo:
        yield from _echo(context, loader, asked, index, text, ids, stop)
    if asked.max_tokens == 0:
        read = len(encode_prompt(loaded, text) if ids is None else ids)
        yield Piece(index=index, ending="length", prompt_tokens=read if is_first else 0)
        return
    drafts = generate_queued(
        context,
        text,
        prompt_ids=ids,
        seed=seed,
        stop=asked.stops,
        should_stop=stop,
        loader=loader,
        alternatives=asked.logprobs or 0,
        max_new_tokens=asked.max_tokens,
        **asked.sampler,
    )
    for draft in drafts:
        if draft.ahead:
            yield Piece(index=index, ahead=draft.ahead)
            continue
        tokens = tuple(_text_token(loaded, token, asked.logprobs) for token in draft.tokens)
        if draft.ending is None:
            yield Piece(index=index, tokens=tokens)
        else:
            yield Piece(
                index=index,
                tokens=tokens,
                rest=draft.rest,
                ending=draft.ending,
                seed=draft.seed,
                prompt_tokens=draft.prompt_tokens if is_first else 0,
                new_tokens=draft.new_tokens,
                warnings=tuple(_warnings(draft)),
            )


def _echo(
    context: AppContext,
    loader: ModelLoader,
    asked: TextRequest,
    index: int,
    text: str,
    ids: list[int] | None,
    should_stop: Callable[[], bool],
) -> Iterator[Piece]:
    """The prompt, with log probabilities where they are asked for."""
    if asked.logprobs is None or not (text or ids):
        yield Piece(index=index, rest=text)
        return
    from modeling.generation import StoppedError

    with context.queue.join() as ticket:
        for ahead in ticket.wait_for_turn(should_stop):
            yield Piece(index=index, ahead=ahead)
        if should_stop():
            return
        deadline = time.monotonic() + TIME_LIMIT
        try:
            tokens = loader.call(
                prompt_tokens,
                text,
                ids,
                asked.logprobs,
                should_stop=lambda: should_stop() or time.monotonic() > deadline,
            )
        except StoppedError:
            if should_stop():
                return
            raise FieldError(
                "prompt",
                f"prompt: expected one whose log probabilities take at most {TIME_LIMIT:.0f} seconds, got a longer "
                "one. Send it in parts.",
            ) from None
        yield Piece(index=index, tokens=tuple(tokens))


def prompt_tokens(
    loaded: LoadedModel, text: str, ids: list[int] | None, alternatives: int, **named: Any
) -> list[TextToken]:
    """The tokens of a prompt with their log probabilities, as a plain forward pass gives them: of a text after what
    precedes every prompt of this model, of token ids as they are."""
    from modeling.inspection import surprisals
    from tokenization import StreamingDecoder, plain_ids

    first = list(loaded.prefix_ids) if ids is None else []
    ids = plain_ids(loaded.tokenizer, text) if ids is None else ids
    decoder = StreamingDecoder(loaded.tokenizer)
    found = surprisals(loaded.model, [*first, *ids], alternatives=alternatives, **named)[len(first) :]
    tokens = []
    for place, token in enumerate(found, start=1):
        piece = decoder.push(token.token_id) + (decoder.finish() if place == len(found) else "")
        others = tuple(_scored(loaded, guess.token_id, _log(guess.probability)) for guess in token.alternatives)
        own = next((guess.probability for guess in token.alternatives if guess.token_id == token.token_id), None)
        log = None if token.bits is None else _finite(-token.bits * math.log(2)) if own is None else _log(own)
        tokens.append(TextToken(text=piece, scored=_scored(loaded, token.token_id, log), alternatives=others))
    return tokens


def _text_token(loaded: LoadedModel, token: Token, logprobs: int | None) -> TextToken:
    if logprobs is None:
        return TextToken(text=token.text)
    own = _scored(loaded, token.token_id, _log(token.model_probability))
    others = (_scored(loaded, each.token_id, _log(each.model_probability)) for each in token.alternatives)
    return TextToken(text=token.text, scored=own, alternatives=tuple(others))


def _scored(loaded: LoadedModel, token_id: int, logprob: float | None) -> Scored:
    from tokenization.spans import label, token_bytes

    content = token_bytes(loaded.tokenizer, token_id)
    if content is None:
        return Scored(label(loaded.tokenizer, token_id), None, logprob)
    try:
        return Scored(content.decode(), content, logprob)
    except UnicodeDecodeError:
        return Scored("bytes:" + "".join(f"\\x{byte:02x}" for byte in content), content, logprob)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else LOWEST


def _finite(log: float) -> float:
    return max(log, LOWEST)


def _warnings(draft: Draft) -> Iterable[str]:
    """What a user should know of a text that ended."""
    context = draft.context_length
    if context and draft.prompt_tokens > context:
        yield (
            f"The model sees {context} tokens at once: the first {draft.prompt_tokens - context} of the prompt's "
            f"{draft.prompt_tokens} were not read."
        )
    elif draft.tokens_out_of_window:
        yield (
            f"The model sees {context} tokens at once: at the end the first {draft.tokens_out_of_window} tokens of the "
            "text were out of its sight."
        )
    if draft.ending == "deadline":
        yield f"Time is up: one text may take {TIME_LIMIT:.0f} seconds. Send the text so far as the prompt to continue."
