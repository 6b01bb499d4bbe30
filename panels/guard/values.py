"""Arguments of the page's functions, each checked against its component, so that the functions get what they expect."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components.api_component import Api

from panels.guard.refusal import shown

MESSAGE = {"role", "content"}
"""What a message of a chat has: the one kind of list that an endpoint takes (`/chat`)."""


def check_values(inputs: Sequence[Any], values: Sequence[Any], session: Any) -> None:
    """Raise ValueError where the values of a call do not fit the components that they come from.

    Args:
        inputs: the components of a function's arguments.
        values: what the client sent for them.
        session: Gradio's `SessionState` of the visitor, which has the components as they were updated for them; None:
            the page's own.
    """
    if len(values) < len(inputs):
        raise ValueError(f"expected {len(inputs)} values, got {len(values)}. Reload the page, and try again.")
    for number, (component, value) in enumerate(zip(inputs, values, strict=False), start=1):
        if session is not None and not component.stateful and component._id in session:
            component = session[component._id]
        if expected := _unfit(component, value):
            label = None if isinstance(component, Api) else getattr(component, "label", None)
            name = label or f"argument {number}"
            raise ValueError(f"{name}: expected {expected}, got {html.escape(shown(value), quote=False)}.")


def _unfit(component: Any, value: Any) -> str | None:
    """What was expected, where the value does not fit; None: it does."""
    if isinstance(component, gr.State):
        return None  # the server's own; what the client sends for it is not read
    if isinstance(component, gr.Slider):
        low, high = component.minimum, component.maximum
        return None if _is_number(value) and low <= value <= high else f"a number from {low} to {high}"
    if isinstance(component, gr.Number):
        return None if value is None or _is_number(value) else "a number"
    if isinstance(component, gr.Checkbox):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(component, (gr.Dropdown, gr.Radio)):
        return _unfit_choice(component, value)
    if isinstance(component, gr.Dataset):
        last = len(component.samples or []) - 1
        is_index = isinstance(value, int) and not isinstance(value, bool)
        return None if is_index and 0 <= value <= last else f"the number of a sample from 0 to {last}"
    if isinstance(component, gr.File):
        fits = value is None or (isinstance(value, dict) and isinstance(value.get("path"), str))
        return None if fits else "an uploaded file"
    if isinstance(component, Api):  # the endpoints say what is wrong with a text or a number themselves
        if component.api_info().get("type") == "array":
            return None if _are_messages(value) else "a list of messages, each of a role and a content, both texts"
        return "a text, a number or nothing" if isinstance(value, (list, dict)) else None
    return None if value is None or isinstance(value, str) else "a text"


def _unfit_choice(component: Any, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and getattr(component, "allow_custom_value", False)):
        return None
    choices = [choice for _, choice in component.choices]
    is_one = isinstance(value, (str, int, float)) and not isinstance(value, bool) and value in choices
    return None if is_one else "one of the choices that are there by now"


def _are_messages(value: Any) -> bool:
    """Whether a value is a list of objects with `role` and `content` alone: in none of them Gradio finds a file."""
    return isinstance(value, list) and all(
        isinstance(each, dict) and each.keys() == MESSAGE and all(isinstance(text, str) for text in each.values())
        for each in value
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
