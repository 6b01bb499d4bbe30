"""The code that a published model carries: its version, the transformers versions it works with, and its renewal.

The code of a model on the Hub is frozen there while transformers moves on. So each bundle names the version of its
code (`CODE_VERSION` in configuration_scratchgpt.py, `scratchgpt_version` in config.json), and the code in a bundle is
always this project's, whatever the code was that a checkpoint was saved with.
"""

import ast
import json
import re
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modeling.loading import is_masked_lm
from storage.records import read_json_object

ROOT = Path(__file__).parents[1]
CONFIGURATION = "configuration_scratchgpt.py"
MODEL_CODE = (CONFIGURATION, "modeling_scratchgpt.py")
TOKENIZER_CODE = "tokenization_scratchgpt.py"
MARK = "scratchgpt_version"  # in config.json and in proof.json


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A version of the code files, and the transformers versions that it was run with."""

    version: str
    lowest: str  # the first transformers that it works with
    newest: str  # the last one that it was tested with
    outside: str  # what other versions do, for messages

    @property
    def range(self) -> str:
        """The transformers versions that it works with, for messages."""
        return f"transformers {self.lowest} to {self.newest}"

    def takes(self, transformers: str) -> bool:
        """Whether a transformers version is one of those that it was tested with; a patch release counts as such."""
        from modeling.configuration_scratchgpt import version_numbers  # imports transformers, which takes seconds

        installed = version_numbers(transformers)
        return version_numbers(self.lowest) <= installed and installed[:2] <= version_numbers(self.newest)[:2]


# Code from before there was a mark, with what was measured of it (docs/compatibility.md). Newer code names its range.
UNMARKED = Code(
    version="0.1.0",
    lowest="5.21",
    newest="5.23",
    outside="earlier versions do not load it, and with later ones it writes nonsense without an error",
)
UNMARKED_MASKED = replace(UNMARKED, newest="5.24", outside="earlier versions do not load it")


def read_code(folder: Path) -> Code | None:
    """The code that a model folder carries; None for a folder without. Reads it, and does not run it.

    Raises:
        ValueError: the code is damaged, or names a version that is none.
    """
    path = folder / CONFIGURATION
    if not path.is_file():
        return None
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: expected Python, but it cannot be read ({error}). The file is damaged.") from error
    named = _constants(body)
    if "CODE_VERSION" not in named:
        return UNMARKED_MASKED if (folder / "config.json").is_file() and is_masked_lm(folder) else UNMARKED
    found = [str(named.get(name)) for name in ("CODE_VERSION", "LOWEST_TRANSFORMERS", "NEWEST_TRANSFORMERS")]
    if not all(re.fullmatch(r"\d+(\.\d+)*\w*", name) for name in found):
        raise ValueError(
            f"{path}: expected CODE_VERSION, LOWEST_TRANSFORMERS and NEWEST_TRANSFORMERS to be versions, got "
            f"{', '.join(found)}. The file was edited, or is damaged."
        )
    outside = "earlier versions are refused with a message, and later ones were not tested with it"
    return Code(version=found[0], lowest=found[1], newest=found[2], outside=outside)


def project_code() -> Code:
    """The code of this project."""
    code = read_code(ROOT / "modeling")
    assert code is not None
    return code


def installed_transformers() -> str:
    """The version of the installed transformers; nothing is imported."""
    return version("transformers")


def refuse_newer(code: Code | None, name: object) -> None:
    """Refuse what was made with a later version of this project.

    Args:
        code: what it carries.
        name: what it is called, for the message.

    Raises:
        ValueError: it carries later code; the message says to update.
    """
    from modeling.configuration_scratchgpt import version_numbers

    ours = project_code().version
    if code is not None and version_numbers(code.version) > version_numbers(ours):
        raise ValueError(
            f"{name}: its code is of version {code.version}, later than this project's {ours} "
            f"(it says that it works with {code.range}). Update this project and run the same command again."
        )


def put_code(folder: Path) -> None:
    """Puts this project's code into a bundle, in the place of the code that is there, and its version into config.json.

    The tokenizer's class there becomes one that every transformers knows, and its longest text the model's context.

    Args:
        folder: the bundle: config, weights, tokenizers.
    """
    from tokenization.saving import complete_config

    for path in folder.rglob("*.py"):
        path.unlink()
    for name, path in _code_files(folder).items():
        shutil.copyfile(path, folder / name)
    config, mark = read_json_object(folder / "config.json"), project_code().version
    if config.get(MARK) != mark:
        write_config(folder, config | {MARK: mark})
    complete_config(folder)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write a config.json in the form that transformers writes."""
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")


def other_code(folder: Path) -> list[str]:
    """Names of the files by which a folder, loaded with `trust_remote_code=True`, runs other code than this project's.

    These are Python files that are not, byte for byte, this project's, those of them that are missing, and
    configurations that name other code: another file, or another repository (`user/name--file.Class`).

    Raises:
        ValueError: a configuration is damaged.
    """
    ours = _code_files(folder)
    # transformers runs more than what a config names: custom_generate/generate.py, for one.
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    found = present - ours.keys()
    found |= {
        name
        for name, path in ours.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != path.read_bytes()
    }
    modules = {Path(name).stem for name in ours}
    for path in folder.rglob("*config.json"):
        config = read_json_object(path)
        if config.get("custom_pipelines") or not _classes(config.get("auto_map")) <= modules:
            found.add(path.relative_to(folder).as_posix())
    return sorted(found)


def _classes(auto_map: Any) -> set[str]:
    """The modules of the classes in an `auto_map`, with the repository where one is named."""
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return {str(name).rpartition(".")[0] for name in names if name is not None}


def _code_files(folder: Path) -> dict[str, Path]:
    """The code that a bundle has: each file's name there, and where it is in this project."""
    code = {name: ROOT / "modeling" / name for name in MODEL_CODE}
    if (folder / "slow").is_dir():
        # At the root transformers looks for it, whatever the subfolder; beside slow/'s files, a copy of it alone works.
        code |= {name: ROOT / "tokenization" / TOKENIZER_CODE for name in (TOKENIZER_CODE, f"slow/{TOKENIZER_CODE}")}
    return code


def _constants(body: list[ast.stmt]) -> dict[str, str]:
    """The names at the top of a module that are given a text, also several in one line."""
    found = {}
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names, values = target.elts, node.value.elts
            for name, value in zip(names, values, strict=False):
                if isinstance(name, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[name.id] = value.value
    return found
