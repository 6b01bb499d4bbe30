"""HTML from templates that escape what is put into them."""

from __future__ import annotations

from functools import cache

import jinja2

_ENVIRONMENT = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


def render(template: str, **values: object) -> str:
    """`template` (Jinja2) with `values`, of which none can become markup."""
    return _compile(template).render(**values)


@cache
def _compile(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)
