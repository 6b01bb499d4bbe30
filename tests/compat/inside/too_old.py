"""Checks with a transformers below the lowest supported one: loading ends with a sentence on what is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer


def run(folders: list[Path], lowest: str) -> list[dict[str, Any]]:
    """Load each bundle in each way; an error must name the lowest version, in one line."""
    found = []
    for folder in folders:
        for auto in (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM):
            error = _error(lambda auto=auto, folder=folder: auto.from_pretrained(folder, trust_remote_code=True))
            found.append(_result(folder.name, auto.__name__, error, lowest))
        for trust in (True, False):
            name = f"AutoTokenizer, {'with' if trust else 'without'} trust"
            error = _error(lambda t=trust, folder=folder: AutoTokenizer.from_pretrained(folder, trust_remote_code=t))
            found.append(_result(folder.name, name, error, lowest, may_work=True))
        error = _error(lambda folder=folder: AutoTokenizer.from_pretrained(folder / "slow", trust_remote_code=True))
        found.append(_result(folder.name, "AutoTokenizer, slow", error, lowest, may_work=True))
    return found


def _error(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _result(kind: str, name: str, error: Exception | None, lowest: str, may_work: bool = False) -> dict[str, Any]:
    said = "loaded without an error" if error is None else f"{type(error).__name__}: {error}"
    sentence = error is not None and lowest in str(error) and "\n" not in str(error).strip()
    passed = sentence or (may_work and error is None)
    return {"bundle": kind, "check": name, "group": "too old", "passed": passed, "error": said[:600]}
