"""Which errors mean that the Hub did not answer, whatever HTTP library the installed huggingface_hub works with."""

import functools
import sys


@functools.cache
def connection_errors() -> tuple[type[Exception], ...]:
    """What a call of the Hub raises when no whole answer came: no such host, refused, reset, cut short, too slow.

    An answer that says no is huggingface_hub's own HfHubHTTPError. Both derive from the same library's errors: httpx up
    to huggingface_hub 1, httpx2 since 2. It is found by that, so neither has to be installed.
    """
    from huggingface_hub.errors import HfHubHTTPError

    base = next((kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"), Exception)
    library = sys.modules.get(base.__module__.partition(".")[0])
    request_error = getattr(library, "RequestError", None)
    return (*((request_error,) if request_error else ()), ConnectionError, TimeoutError)
