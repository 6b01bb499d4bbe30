"""The config's fields by name: their types, and values that come from outside as text or JSON."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from train.config import Config


def field_types() -> dict[str, Any]:
    """The type of every field, as `section.field`."""
    return {
        f"{section}.{name}": hint
        for section, kind in get_type_hints(Config).items()
        for name, hint in get_type_hints(kind).items()
    }


def field_name(text: str) -> str:
    """`section.field`, of a name that may be written with hyphens.

    Raises:
        ValueError: for a field that does not exist; the message lists those of the section.
    """
    name = text.replace("-", "_")
    known = field_types()
    if name not in known:
        section = name.split(".")[0] + "."
        close = [other for other in known if other.startswith(section)]
        expected = ", ".join(close) if close else "section.field, such as optimizer.learning_rate"
        raise ValueError(f"unknown field {text!r}: expected {expected}")
    return name


def replace_fields(config: Config, values: dict[str, Any]) -> Config:
    """The config with the values of some `section.field` replaced."""
    for name, value in values.items():
        section, leaf = name.split(".")
        config = dataclasses.replace(
            config, **{section: dataclasses.replace(getattr(config, section), **{leaf: value})}
        )
    return config


def check_field(name: str, value: Any) -> None:
    """Check that a JSON value has the type of its field.

    Raises:
        ValueError: naming the field, what was expected and what was got.
    """
    hint = field_types()[name]
    if not _fits(hint, value):
        raise ValueError(f"{name}: expected {describe(hint)}, got {value!r}")


def parse_field(name: str, text: str) -> Any:
    """The value that a text stands for in a field of numbers, words or truth values.

    Raises:
        ValueError: naming the field, what was expected and what was got.
    """
    hint = field_types()[name]
    for kind in _alternatives(hint):
        if kind is type(None) and text.lower() == "none":
            return None
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if get_origin(kind) is Literal and text in get_args(kind):
            return text
        if kind is str:
            return text
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    raise ValueError(f"{name}: expected {describe(hint)}, got {text!r}")


def describe(hint: Any) -> str:
    """A type in words: `a whole number or none`."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return " or ".join(
        "none"
        if kind is type(None)
        else ", ".join(map(str, get_args(kind)))
        if get_origin(kind) is Literal
        else "a list of paths"
        if get_origin(kind) is tuple
        else words[kind]
        for kind in _alternatives(hint)
    )


def is_numeric(name: str) -> type[int] | type[float] | None:
    """`int` or `float` for a field of numbers, else None."""
    kinds = _alternatives(field_types()[name])
    return int if int in kinds else float if float in kinds else None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, without annotations."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return (hint,) if get_origin(hint) in (Literal, tuple) or not get_args(hint) else get_args(hint)


def _fits(hint: Any, value: Any) -> bool:
    for kind in _alternatives(hint):
        if get_origin(kind) is Literal:
            fits = value in get_args(kind)
        elif get_origin(kind) is tuple:
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        elif kind is float:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        elif kind is int:
            fits = isinstance(value, int) and not isinstance(value, bool)
        else:
            fits = isinstance(value, str if kind is Path else kind)
        if fits:
            return True
    return False
