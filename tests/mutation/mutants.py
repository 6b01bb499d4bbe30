"""Small faults put into a source file, one at a time: what a mutant is, and all that a file has.

A mutant replaces one piece of the text; everything else, comments and line numbers too, stays as it is. Not mutated,
because no test should tell: docstrings, annotations, decorators, asserts, and texts of messages (strings with a space
in them, and f-strings).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: the bytes from `start` to `end` of a file become `text`."""

    name: str  # function: what -> what; unique in its file, and the same as long as this code is
    line: int
    start: int
    end: int
    text: str

    def apply(self, source: bytes) -> bytes:
        """The file with the fault."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants_of(source: bytes) -> list[Mutant]:
    """Every mutant of a file, in the order of its text."""
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    found, times = [], Counter[str]()
    for node, function, text in _changes(tree, ""):
        start = offsets[node.lineno - 1] + node.col_offset
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        name = f"{function or 'module'}: {_shown(source[start:end].decode())} -> {_shown(text)}"
        times[name] += 1
        name += f" ({times[name]})" if times[name] > 1 else ""
        found.append(Mutant(name, node.lineno, start, end, text))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end))


def _shown(text: str) -> str:
    return " ".join(text.split())


def _changes(node: ast.AST, function: str) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """Each piece that is mutated, the function it is in, and what comes in its place."""
    if isinstance(node, FUNCTIONS):
        function = f"{function}.{node.name}" if function else node.name
    if isinstance(node, ast.expr):
        yield from ((node, function, f"({ast.unparse(changed)})") for changed in _expressions(node))
    elif isinstance(node, ast.stmt):
        yield from ((node, function, text) for text in _statements(node))
    for test in _conditions(node):
        yield test, function, f"(not ({ast.unparse(test)}))"
    for child in _children(node):
        yield from _changes(child, function)


def _conditions(node: ast.AST) -> list[ast.expr]:
    """The conditions of a node that no other mutant turns around."""
    match node:
        case ast.If(test) | ast.While(test) | ast.IfExp(test):
            tests = [test]
        case ast.comprehension(ifs=tests):
            pass
        case _:
            return []
    return [test for test in tests if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant)]


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is below a node and may be mutated."""
    match node:
        case ast.JoinedStr():  # Python 3.11 does not know where its parts are
            return
        case ast.FunctionDef() | ast.AsyncFunctionDef():  # without decorators and annotations
            yield from (default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None)
            yield from _without_docstring(node.body)
        case ast.ClassDef() | ast.Module():
            yield from _without_docstring(node.body)
        case ast.AnnAssign():
            yield from [node.value] if node.value is not None else []
        case ast.Assert():  # a belief of the author, which no input should break
            return
        case _:
            yield from ast.iter_child_nodes(node)


def _without_docstring(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            yield statement


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left, ops, comparators):
            for index, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:index], other(), *ops[index + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
            if value == 1:
                yield ast.Constant(0)
        case ast.Constant(str() as value) if " " not in value.strip():
            yield ast.Constant(value + "XX")
        case ast.Constant(bytes() as value):
            yield ast.Constant(value + b"XX")


def _statements(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Return(value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield "pass"
        case ast.Assign(targets) if not any(isinstance(target, ast.Name) for target in targets):
            yield "pass"
        case ast.AugAssign(target, op, value):
            yield "pass"
            if type(op) in ARITHMETIC:
                yield ast.unparse(ast.AugAssign(target, ARITHMETIC[type(op)](), value))
