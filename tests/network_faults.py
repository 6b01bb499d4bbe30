"""A Hub on 127.0.0.1 whose network always fails, in a way of your choice."""

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator

from tests.hub_double import NO_LINGER, serving

FAULTS = {
    "reset": "Connection reset by peer",
    "hangup": "Server disconnected without sending a response",
    "garbage": "illegal status line",
    "short": "peer closed connection without sending complete message body",
    "packed": "Error -3 while decompressing data",
    "silence": "timed out",
}
"""Faults of the network that `serve_faults` makes, and what the message about each must hold. ("portal" is one more:
an answer that is no JSON, as a login page gives it, about which callers say different things.)"""


@contextlib.contextmanager
def serve_faults() -> Iterator[str]:
    """The address of a Hub whose network fails as the name of the data set asked for says."""
    done = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            match = re.search(rb"/alice/(\w+)", self.request.recv(65536))
            fault = match[1].decode() if match else "hangup"
            if fault == "silence":
                done.wait()
            elif fault == "reset":
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                self.request.close()
            else:
                self.request.sendall(_FAULTY[fault])

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as url:
        try:
            yield url
        finally:
            done.set()


_FAULTY = {
    "hangup": b"",
    "garbage": b"no HTTP\r\n\r\n",
    "short": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{",
    "packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "portal": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 8\r\n\r\n<p>Login",
}
