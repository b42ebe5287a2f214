"""Change one thing in a module's syntax tree: a constant, an operator, a default, or a statement at its top."""

import ast
import copy
from collections.abc import Callable, Container, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from random import Random

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
ADDED = {
    ast.Constant: ("{0} += {0}", "if True:\n    {0} = {0} + {0}", "for _ in range(1):\n    {0} = {0} + {0}"),
    ast.Tuple: ("{0} += {0}[-1:]", "if True:\n    {0} = {0}[1:]", "{0}, _ = {0}[:-1], 1"),
    ast.List: ("{0} += {0}[-1:]", "{0}.pop()", "for _ in range(1):\n    {0}.append({0}[0])"),
    ast.Dict: ("{0}.popitem()", "{0} |= {{}}", "if True:\n    {0} = dict(list({0}.items())[1:])"),
    ast.Call: ("{0} = {0}", "try:\n    {0} = {0}\nexcept ValueError:\n    pass"),
}
"""Statements inserted after the first binding of a name at the top of a file, by the kind of its value."""


@dataclass(frozen=True)
class Mutant:
    """A changed module: the change, its line, and the whole text."""

    module: str
    kind: str
    line: int
    change: str
    text: str


def mutants(module: str, text: str, kind: str, random: Random, lines: Container[int] | None = None) -> Iterator[Mutant]:
    """Yield the mutants of one kind of a module, in random order; see `KINDS`.

    Args:
        lines: where changes may be; anywhere by default.
    """
    tree = ast.parse(text)
    changes = [change for change in KINDS[kind](tree) if lines is None or change[0] in lines]
    random.shuffle(changes)
    for line, subject, change in changes:
        changed = copy.deepcopy(tree)
        change(changed)
        yield Mutant(module, kind, line, subject, ast.unparse(ast.fix_missing_locations(changed)) + "\n")


def running(text: str, ran: AbstractSet[int]) -> set[int]:
    """Return the lines of a module that a run depends on.

    These are the lines that ran, the heads of the functions that they belong to, and what is outside of functions.
    """
    result = set(range(1, text.count("\n") + 2))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            head = set(range(node.lineno, node.body[0].lineno))
            body = set(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
            result -= head | body
            result |= head if ran & body else set()
    return result | ran


Change = tuple[int, str, Callable[[ast.Module], None]]


def _constants(tree: ast.Module) -> Iterator[Change]:
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.Constant) and id(node) not in skipped and _other(node.value) is not None:
            yield node.lineno, f"{node.value!r} -> {_other(node.value)!r}", _replacing(index, _other(node.value))


def _defaults(tree: ast.Module) -> Iterator[Change]:
    of_functions = {
        id(default)
        for node in ast.walk(tree)
        if isinstance(node, ast.arguments)
        for default in (*node.defaults, *node.kw_defaults)
    }
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.Constant) and id(node) in of_functions and _other(node.value) is not None:
            other = _other(node.value)
            yield node.lineno, f"default {node.value!r} -> {other!r}", _replacing(index, other)


def _operators(tree: ast.Module) -> Iterator[Change]:
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPERATORS:
            new = OPERATORS[type(node.op)]
            yield node.lineno, f"{type(node.op).__name__} -> {new.__name__}", _operating(index, new, first=False)
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            new = OPERATORS[type(node.ops[0])]
            yield node.lineno, f"{type(node.ops[0]).__name__} -> {new.__name__}", _operating(index, new, first=True)


def _statements(tree: ast.Module) -> Iterator[Change]:
    for index, node in enumerate(tree.body):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        for text in ADDED.get(type(node.value), ()):
            added = text.format(node.targets[0].id)
            yield node.lineno, added.replace("\n   ", ""), _adding(index + 1, added)


KINDS = {"constant": _constants, "default": _defaults, "operator": _operators, "statement": _statements}


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}_" if isinstance(value, str) and value else None


def _replacing(index: int, value: object) -> Callable[[ast.Module], None]:
    def change(tree: ast.Module) -> None:
        node = list(ast.walk(tree))[index]
        assert isinstance(node, ast.Constant)
        node.value = value  # type: ignore[assignment]

    return change


def _operating(index: int, new: type, *, first: bool) -> Callable[[ast.Module], None]:
    def change(tree: ast.Module) -> None:
        node = list(ast.walk(tree))[index]
        if first:
            node.ops[0] = new()  # type: ignore[attr-defined]
        else:
            node.op = new()  # type: ignore[attr-defined]

    return change


def _adding(index: int, text: str) -> Callable[[ast.Module], None]:
    def change(tree: ast.Module) -> None:
        tree.body[index:index] = ast.parse(text).body

    return change
