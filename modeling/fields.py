"""The fields of `ScratchGPTConfig` as data, for those who offer them as settings."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SOURCE = Path(__file__).with_name("configuration_scratchgpt.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigField:
    """One field of `ScratchGPTConfig`."""

    name: str
    type: Any
    default: Any
    help: str


def config_fields() -> list[ConfigField]:
    """The fields in the order of their declaration, from the source: importing it takes seconds (transformers)."""
    module = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (declaration,) = (node for node in module.body if getattr(node, "name", "") == "ScratchGPTConfig")
    assert isinstance(declaration, ast.ClassDef)
    fields: list[ConfigField] = []
    for node, after in zip(declaration.body, declaration.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            assert isinstance(node.target, ast.Name)
            assert isinstance(after, ast.Expr)
            fields.append(
                ConfigField(
                    name=node.target.id,
                    type=eval(ast.unparse(node.annotation), {"Any": Any, "Literal": Literal}),
                    default=ast.literal_eval(node.value),
                    help=" ".join(str(ast.literal_eval(after.value)).split()),
                )
            )
    return fields
