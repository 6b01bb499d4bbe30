"""What the headers of a model's safetensors files say; neither torch nor transformers is imported."""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from storage.records import read_json_object

WEIGHTS_NAME = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What the headers of a model's safetensors files say."""

    parameters: int  # numbers stored; a tied matrix counts once, as it is stored once
    dtypes: tuple[str, ...]  # safetensors' names of the number formats, sorted: F32, BF16, …
    size_bytes: int  # of all files


def read_weights(folder: Path) -> Weights:
    """Read the headers of a folder's model.safetensors, or of the files that its index names.

    Raises:
        ValueError: a file is missing, damaged, cut off, or empty of tensors.
    """
    index = folder / WEIGHTS_INDEX
    names = _weights_files(index) if index.is_file() else [WEIGHTS_NAME]
    parameters, dtypes, size, size_bytes = 0, set(), 0, 0
    for name in names:
        path = folder / name
        try:
            size = path.stat().st_size
            with safe_open(path, framework="np") as tensors:  # numpy: the headers alone need no torch
                slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118 (no mapping)
        except OSError as error:
            reason = "the file is missing" if isinstance(error, FileNotFoundError) else error.strerror or error
            raise ValueError(
                f"{folder} has no weights: expected {name}, but {reason}. "
                "Export or copy the model again, or take another checkpoint."
            ) from error
        except SafetensorError as error:
            complete = _complete_size(path)
            got = f"expected {complete} bytes, got {size}" if complete else f"it is no safetensors file ({error})"
            raise ValueError(
                f"{path} is damaged: {got}. Export or copy the model again, or take another checkpoint."
            ) from error
        parameters += sum(prod(part.get_shape()) for part in slices)
        dtypes |= {part.get_dtype() for part in slices}
        size_bytes += size
    if not parameters:
        raise ValueError(
            f"{folder} has no weights: expected tensors in {', '.join(names) or index.name}, got none. "
            "Export or copy the model again, or take another checkpoint."
        )
    return Weights(parameters=parameters, dtypes=tuple(sorted(dtypes)), size_bytes=size_bytes)


def _weights_files(index: Path) -> list[str]:
    """The names of the files in an index, each of which lies beside it."""
    places = read_json_object(index).get("weight_map", {})
    names = list(places.values()) if isinstance(places, dict) else [places]
    if wrong := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise ValueError(
            f"{index}: expected names of files beside it, got {str(wrong[0])[:80]!r}. Export or copy the model again."
        )
    return sorted(set(names))


def _complete_size(path: Path) -> int | None:
    """The size in bytes that the header of a safetensors file asks for; None where it has no such header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError):
            return None
    return 8 + length + max(ends, default=0)
