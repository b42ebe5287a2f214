"""Digest one function of a product's file: what it names there, and what that imports, but nothing else of the file.

Belongs here: reading a file's syntax tree. Does not belong here: whole modules and what they import (`closure.py`). Too
wide costs a computation, too narrow is wrong data without a word: where a file does something at its top that names do
not show, all of it counts.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from platform_assets.compute import closure

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_HIDING = {"getattr", "setattr", "delattr", "globals", "locals", "vars", "eval", "exec", "compile", "__import__"}
"""What reaches a name that nobody can read in the text."""
_CONTAINERS = {"dict", "list", "set"}
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
_HARMLESS = _CONTAINERS | {"Path", "frozenset", "len", "max", "min", "pl", "range", "sorted", "str", "sum", "timedelta"}
_HARMLESS |= {"tuple", "zip"}
"""What changes none of its arguments and returns nothing that can be changed but containers, as what is ours does."""
_READING = {"copy", "count", "get", "index", "items", "keys", "values"}
"""Methods that leave a container as it is."""


def digest(function: Callable[..., Any]) -> str:
    """Return the sha256 over a function, all that it names at the top of its file, and the modules that these import.

    The rest of its file may change without changing it, unless something there may change what the function meets: then
    the whole file counts (`widened_by`). Annotations do not count: nothing runs by them.

    Args:
        function: defined by name at the top of a module.

    Raises:
        ValueError: a lambda, or a function inside of another.
    """
    tree = _tree(function)
    if _widening(tree) is not None:
        text = ast.unparse(tree)
    else:
        reached = _reached(tree, function.__name__)
        text = "\n".join(ast.unparse(reached[name]) for name in sorted(reached))
    modules = set().union(*(closure.closure(name) for name in closure.imported(text)))
    return hashlib.sha256(f"{text}\0{closure.source_digest(*modules)}".encode()).hexdigest()


def widened_by(function: Callable[..., Any]) -> tuple[int, str] | None:
    """Return number and text of the line for which all of a file counts in a `digest`; None without one."""
    node = _widening(_tree(function))
    return None if node is None else (node.lineno, ast.unparse(node).splitlines()[0])


def _tree(function: Callable[..., Any]) -> ast.Module:
    """Return a function's file without annotations of functions and blocks for type checking alone."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(function) or function))
    if function.__name__ not in {name for statement in tree.body for name in _defined(statement)}:
        raise ValueError(
            f"{function.__qualname__} of {function.__module__} is not defined by name at the top of its file, so its "
            "code has no digest; write it as a function."
        )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    tree.body = [statement for statement in tree.body if not _is_for_types(statement)]
    return tree


def _widening(tree: ast.Module) -> ast.stmt | ast.expr | None:
    """Return the first node for which a file cannot be taken apart: by names alone nobody sees what it changes."""
    bound = [name for statement in tree.body for name in _defined(statement)]
    harmless = _HARMLESS | {name for statement in tree.body if _is_ours(statement) for name in _defined(statement)}
    # Who may change a value in place when the file is imported: functions that do, and those that name one of them.
    values = {name for statement in tree.body if _may_change(statement, harmless) for name in _defined(statement)}
    changing = {name for part in tree.body if _changed(part) & values for name in _defined(part)}
    while more := {name for part in tree.body if _names(part) & changing for name in _defined(part)} - changing:
        changing |= more
    for statement in tree.body:
        is_known = isinstance(statement, (*_DEFINITIONS, ast.Import, ast.ImportFrom)) or _is_text(statement)
        is_known |= isinstance(statement, ast.Assign | ast.AnnAssign) and bool(_defined(statement))
        if not is_known or any(bound.count(name) > 1 or name == "*" for name in _defined(statement)):
            return statement
        for node in _at_import(statement):
            if isinstance(node, ast.NamedExpr):
                return node
            if isinstance(node, ast.Call) and (_root(node.func) in changing or _changed(node, harmless) & values):
                return node
        if any(_root(each) in changing | values for each in getattr(statement, "decorator_list", ())):
            return statement
    for node in ast.walk(tree):
        if isinstance(node, ast.Global) or (isinstance(node, ast.Name) and node.id in _HIDING):
            return node
    return None


def _reached(tree: ast.Module, name: str) -> dict[str, ast.stmt]:
    """Return by name what a definition names at the top of its file, and what may change that."""
    parts = {name: statement for statement in tree.body for name in _defined(statement)}
    harmless = _HARMLESS | {name for statement in tree.body if _is_ours(statement) for name in _defined(statement)}
    waiting, reached = [name], dict[str, ast.stmt]()
    while waiting:
        name = waiting.pop()
        if name in parts and name not in reached:
            reached[name] = parts[name]
            waiting += _names(parts[name])
            if _may_change(parts[name], harmless):
                waiting += [other for other, part in parts.items() if name in _names(part) and _runs_later(part)]
    return reached


def _names(node: ast.AST) -> frozenset[str]:
    return frozenset(item.id for item in ast.walk(node) if isinstance(item, ast.Name))


def _changed(node: ast.AST, harmless: Collection[str] = _HARMLESS) -> set[str]:
    """Return the names whose values something may change in place: by method, in a call by name, in part, by alias."""
    found: set[str | None] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.Call):
            method = item.func.attr if isinstance(item.func, ast.Attribute) else None
            if method is not None and method not in _READING:
                found.add(_root(item.func))
            if _root(item.func) not in harmless:
                given = [*item.args, *(keyword.value for keyword in item.keywords)]
                found |= {part.id for part in given if isinstance(part, ast.Name)}
        elif isinstance(item, ast.Attribute | ast.Subscript) and not isinstance(item.ctx, ast.Load):
            found.add(_root(item))
        elif isinstance(item, ast.AugAssign):
            found.add(_root(item.target))
        elif isinstance(item, ast.Assign | ast.NamedExpr | ast.Return) and isinstance(item.value, ast.Name):
            found.add(item.value.id)
    return {name for name in found if name is not None}


def _is_ours(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in closure.PACKAGES


def _may_change(node: ast.stmt, harmless: Collection[str]) -> bool:
    """Tell whether a statement binds a value that can be changed in place, as far as one sees."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    inside = list(ast.walk(node.value))
    calls = {_root(item.func) for item in inside if isinstance(item, ast.Call)}
    return (
        bool(calls - set(harmless)) or bool(calls & _CONTAINERS) or any(isinstance(item, _DISPLAYS) for item in inside)
    )


def _runs_later(node: ast.stmt) -> bool:
    return isinstance(node, _DEFINITIONS) or any(isinstance(inner, ast.Lambda) for inner in ast.walk(node))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_for_types(node: ast.stmt) -> bool:
    is_block = isinstance(node, ast.If) and _root(node.test) in ("TYPE_CHECKING", "typing") and not node.orelse
    return is_block and all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)  # type: ignore[attr-defined]


def _root(node: ast.expr) -> str | None:
    """Return the name with which an expression begins: `a` of `a.b[0](c)`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _at_import(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield what of a statement at the top of a file runs when the file is imported: no function's body."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a file defines."""
    if isinstance(node, _DEFINITIONS):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)]
    return []
