"""Who may ask: the name under which the page is called, and the web site whose script calls it.

A page on one's own machine is within reach of every web site that its owner visits: the browser runs their scripts on
the same machine. Two of their ways lead here. A request to http://127.0.0.1:7860 from another site carries the header
Origin. A site whose name resolves to 127.0.0.1 (DNS rebinding) is the page's own origin for the browser, but its name
is in the header Host. OWASP's Cross-Site Request Forgery Prevention Cheat Sheet has both headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from panels.guard.refusal import RefusedError, shown

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


def is_loopback(name: str) -> bool:
    """Whether a host name means this machine alone: localhost, what ends with .localhost, 127.0.0.0/8 and ::1."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(address: str) -> str:
    """The name in `name:port`, in lower case, without a dot at the end; "" where there is none."""
    try:
        return (urlsplit(f"//{address}").hostname or "").rstrip(".")
    except ValueError:  # a bracket without its pair
        return ""


def origin_name(origin: str) -> str:
    """The name in `scheme://name:port`; "" for the opaque origin `null`, and for what is none."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return host_name(parts.netloc) if parts.scheme in ("http", "https") else ""


def check_host(headers: Mapping[str, str], *, listens_on: str, allowed: Collection[str]) -> None:
    """Raise RefusedError (421) where a page that listens on this machine alone is called by another name.

    Args:
        listens_on: the address of `--host`.
        allowed: names of `--allow-host`.
    """
    if not is_loopback(host_name(listens_on)):
        return  # its names are not known here
    host = headers.get("host", "")
    name = host_name(host)
    if not is_loopback(name) and name not in allowed:
        raise RefusedError(
            421,
            f"Host: expected a name of this machine, such as 127.0.0.1 or localhost, got {shown(host)}. "
            "Where a proxy passes on that name, start the page with --allow-host NAME.",
        )


def check_origin(method: str, headers: Mapping[str, str], *, allowed: Collection[str]) -> None:
    """Raise RefusedError (403) where a script of another web site calls what may change something.

    The ports may differ: a page of this machine may call another one. X-Forwarded-Host, which proxies set and no
    browser sends to another site unasked, counts as Host."""
    origin = headers.get("origin")
    if origin is None or method in SAFE_METHODS:
        return
    site, own = origin_name(origin), {host_name(headers.get(name, "")) for name in ("host", "x-forwarded-host")}
    is_own = site in own or site in allowed or (is_loopback(site) and any(map(is_loopback, own)))
    if not site or not is_own:
        raise RefusedError(
            403,
            f"Origin: expected a page of {shown(headers.get('host', ''))}, got {shown(origin)}. Web pages of other "
            "sites may not call this one; where a proxy serves both, start the page with --allow-host NAME.",
        )
