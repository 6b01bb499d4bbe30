"""The weights of a checkpoint, read from the header of model.safetensors without loading them."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What the header of a weight file says."""

    parameters: int  # numbers stored; a tied matrix counts once, as it is stored once
    dtypes: tuple[str, ...]  # safetensors' names of the number formats, sorted: F32, BF16, …
    size_bytes: int  # of the file


def read_weights(folder: Path) -> Weights:
    """Reads the header of `folder`'s model.safetensors.

    Raises:
        ValueError: the file is missing, broken, cut short, or empty of tensors.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder}: expected the weights in {WEIGHTS_NAME}, but the file is missing. "
            "Take another checkpoint of the run (`--checkpoint`), or train on from one that is whole."
        )
    try:
        with safe_open(path, framework="pt") as tensors:
            slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118 (no mapping)
            parameters = sum(prod(part.get_shape()) for part in slices)
            dtypes = tuple(sorted({part.get_dtype() for part in slices}))
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a whole safetensors file, but it cannot be read ({error}). "
            "It is damaged or was cut short; take another checkpoint of the run (`--checkpoint`)."
        ) from error
    if not parameters:
        raise ValueError(f"{path}: expected weights, but the file holds no tensor. Take another checkpoint.")
    return Weights(parameters=parameters, dtypes=dtypes, size_bytes=path.stat().st_size)
