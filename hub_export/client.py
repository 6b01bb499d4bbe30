"""One conversation with the Hub: each call is tried again where that may help, and explained where it does not."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from corpus.hub import connection_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before the second try and those after it
LONGEST_WAIT = 60.0  # seconds; where the Hub asks for more (Retry-After), it is left in peace
PASSING = frozenset((408, 429, 500, 502, 503, 504))  # statuses that may be gone at the next try
LOGIN = (
    "Make a token that may write at https://huggingface.co/settings/tokens and give it with `hf auth login` "
    "or in the environment variable HF_TOKEN"
)
ADVICE = {
    400: "Change what it names, and run the same command again.",
    401: f"The token was not accepted. {LOGIN}.",
    402: "The account would have to pay for that: choose other hardware (--hardware), or leave out --space.",
    403: f"The token has no right to do that. {LOGIN}.",
    409: "Something else changed the repository at the same time. Run the same command again.",
    412: "Something else changed the repository at the same time. Run the same command again.",
}
AGAIN = "Run the same command again in a while; it goes on where this one stopped."

logger = logging.getLogger(__name__)


class AbsentError(ValueError):
    """The Hub shows no such repository."""


@dataclass(kw_only=True, slots=True)
class Conversation:
    """The calls of one command, and what they have brought about so far."""

    api: "HfApi"
    """The Hub and the account."""
    standing: str = "Nothing has been uploaded."
    """What is on the Hub now, in words, for the message of whatever goes wrong next."""
    done: str = ""
    """What earlier uploads of the same command have brought there, in words and with a space behind them."""
    waits: tuple[float, ...] = WAITS
    """Seconds before each further try; as many as there are further tries."""
    tries: int = field(default=0, init=False)
    """Calls that failed and were tried again."""

    def call(self, doing: str, function: Callable[..., T], *args: Any, again: bool = True, **kwargs: Any) -> T:
        """`function(*args, **kwargs)`, tried again after what may pass.

        Args:
            doing: what the call does, for the message.
            again: whether to try again (default); no for what huggingface_hub tries again by itself.

        Raises:
            ValueError: it failed for good; the message says what happened, what is on the Hub now and what to do.
            LocalTokenNotFoundError: there is no token.
            AbsentError: there is no such repository, or it is private and somebody else's.
        """
        for wait in (*(self.waits if again else ()), None):
            try:
                return function(*args, **kwargs)
            except Exception as error:
                cause, pause = self._judge(doing, error)
                if wait is None or pause is None:
                    raise self.explained(doing, cause) from error
                logger.info("%s: %s; trying again", doing, _happening(cause))
                self.tries += 1
                time.sleep(max(wait, pause))
        raise AssertionError("the last try returns or raises")

    def explained(self, doing: str, cause: BaseException) -> ValueError:
        """What is told of a call that failed for good."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        if isinstance(cause, OfflineModeIsEnabled):
            happening, advice = "HF_HUB_OFFLINE is set", "Unset it and run the same command again."
        elif isinstance(cause, HfHubHTTPError):
            happening, advice = _happening(cause), ADVICE.get(cause.response.status_code, AGAIN)
        elif isinstance(cause, ValueError) and not isinstance(cause, json.JSONDecodeError):
            happening, advice = str(cause).strip().replace("\n", " "), "Mend that and run the same command again."
        else:
            happening, advice = _happening(cause), f"Check the network. {AGAIN}"
        return ValueError(f"{doing}: {happening}. {self.done}{self.standing} {advice}")

    def _judge(self, doing: str, error: Exception) -> tuple[BaseException, float | None]:
        """What really happened, and how long the Hub wants to be left alone; None where another try cannot help."""
        from huggingface_hub import get_token
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalTokenNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        cause = error
        while isinstance(cause, RuntimeError) and isinstance(cause.__cause__, Exception):  # of a file's upload
            cause = cause.__cause__
        if isinstance(cause, LocalTokenNotFoundError):
            raise cause
        if isinstance(cause, RepositoryNotFoundError) and not (cause.response.status_code == 401 and get_token()):
            raise AbsentError(str(self.explained(doing, cause))) from error
        if isinstance(cause, HfHubHTTPError):
            if cause.response.status_code not in PASSING:
                return cause, None
            pause = _seconds(cause.response.headers.get("Retry-After"))
            return cause, pause if pause <= LONGEST_WAIT else None
        if isinstance(cause, OfflineModeIsEnabled):
            return cause, None
        if isinstance(cause, (*connection_errors(), RuntimeError, json.JSONDecodeError)):
            return cause, 0.0
        if isinstance(cause, ValueError):
            return cause, None
        raise error


def _happening(cause: BaseException) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(cause, HfHubHTTPError):
        detail = cause.server_message or str(cause).strip().splitlines()[0]
        return f"the Hub answered {cause.response.status_code} ({detail.rstrip('.')})"
    if isinstance(cause, json.JSONDecodeError):
        return "the Hub answered something that is no JSON"
    return f"the Hub cannot be reached ({str(cause) or type(cause).__name__})"


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 0.0
