"""Digest one function of a product's file: what it names there, and what that imports, but nothing else of the file.

Belongs here: reading one file's syntax tree. Does not belong here: whole modules and what they import (`modules.py`).
Too wide costs a computation, too narrow is wrong data without a word: where a file does something at its top that names
do not show, all of it counts.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from platform_assets.digests import cache, modules

VOCABULARY = "platform_assets.specs.base"
"""Re-exports what products are made of, and imports what no function of a product runs."""
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_HIDING = {"getattr", "setattr", "delattr", "globals", "locals", "vars", "eval", "exec", "compile", "__import__"}
"""What reaches a name that nobody can read in the text."""
_COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}
_CONTAINERS = {"dict", "list", "set"}
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
_HARMLESS = _CONTAINERS | {"Path", "frozenset", "len", "max", "min", "pl", "range", "sorted", "str", "sum", "timedelta"}
_HARMLESS |= {"tuple", "zip"}
"""What changes none of its arguments and returns nothing that can be changed but containers, as what is ours does."""
_READING = {"copy", "count", "get", "index", "items", "keys", "values"}
"""Methods that leave a container as it is."""


def digest(function: Callable[..., Any], *, is_whole: bool = False) -> str:
    """Return the sha256 over a function, all that it names at the top of its file, and the modules that these import.

    The rest of its file may change without changing it, unless something there may change what the function meets, or
    the function is not defined by name at the top, nor inside of a function that is: then the whole file counts
    (`widening_line`).

    Args:
        is_whole: the whole file counts anyway.

    Raises:
        ValueError: a function whose file nobody can read.
    """
    source = _source(function)

    def make() -> cache.Entry:
        file = _file(source)
        is_part = file.is_named(function) and file.widening is None and not is_whole
        nodes: list[ast.AST] = [*file.reached(_outermost(function))] if is_part else [file.tree]
        parts = [file.content(node, function.__module__.rpartition(".")[0]) for node in nodes]
        text = "\0".join(text for text, _ in parts)
        return hashlib.sha256(text.encode()).hexdigest(), frozenset(name for _, names in parts for name in names)

    name = f"{function.__module__}:{'' if is_whole else function.__qualname__}"
    digest, names = cache.get_or_make(name, source.encode(), make)
    imported = modules.digests(*modules.ours(names))
    text = [digest, *(f"{name} {digest}" for name, digest in imported.items())]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()


def widening_line(function: Callable[..., Any], *, is_whole: bool = False) -> tuple[int, str] | None:
    """Return number and text of the line for which all of a file counts in a `digest`; None without one."""
    source = _source(function)
    file = _file(source)
    if file.widening is not None:
        return file.widening.lineno, ast.unparse(file.widening).splitlines()[0]
    if file.is_named(function) and not is_whole:
        return None
    line = function.__code__.co_firstlineno
    return line, source.splitlines()[line - 1].strip()


def nested_index(function: FunctionType) -> int | None:
    """Return which of the functions inside of one at the top of its file this is, in the order of their text.

    None for a function at the top, and for one of which nobody can tell.
    """
    outer = function.__globals__.get(_outermost(function))
    if outer is function or not isinstance(outer, FunctionType) or outer.__qualname__ != _outermost(function):
        return None
    return next((place for place, code in enumerate(_inside(outer.__code__)) if code is function.__code__), None)


def _outermost(function: Callable[..., Any]) -> str:
    return function.__qualname__.split(".<locals>.")[0]


def _inside(code: CodeType) -> Iterator[CodeType]:
    """Yield the functions in a function; comprehensions, which newer Pythons inline, are passed through."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_name not in _COMPREHENSIONS:
                yield each
            yield from _inside(each)


def _source(function: Callable[..., Any]) -> str:
    module = inspect.getmodule(function)
    try:
        return inspect.getsource(module or function)
    except (OSError, TypeError) as problem:
        raise ValueError(
            f"{function.__qualname__} of {function.__module__} has no source file, so its code has no digest; define "
            "it in the product's file."
        ) from problem


class _File:
    """The syntax tree of a product's file, taken apart once: a product has a dozen functions in it."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.tree.body = [part for each in modules.counting(self.tree.body) for part in _parted(each)]
        self._bound = [(name, part) for part in self.tree.body for name in _defined(part)]
        self._parts = dict(self._bound)
        self._names = {id(part): _names(part) for part in self.tree.body}
        self._harmless = _HARMLESS | {name for name, part in self._bound if _is_ours(part)}
        self._contents: dict[int, tuple[str, frozenset[str]]] = {}
        self.widening = self._widening()

    def is_named(self, function: Callable[..., Any]) -> bool:
        """Tell whether the name of a function, or of one that it was made in, stands for it at the top of its file."""
        if not isinstance(function, FunctionType):
            return False
        part = self._parts.get(_outermost(function))
        return part is not None and (function.__qualname__ in self._parts or nested_index(function) is not None)

    def content(self, node: ast.AST, package: str) -> tuple[str, frozenset[str]]:
        """Return what counts of a part, and which modules it imports."""
        if id(node) not in self._contents:
            self._contents[id(node)] = modules.content([node], package)
        return self._contents[id(node)]

    def reached(self, name: str) -> Iterator[ast.stmt]:
        """Yield what a definition names at the top of its file, and what may change that, sorted by name."""
        waiting, reached = [name], dict[str, ast.stmt]()
        while waiting:
            name = waiting.pop()
            if name in self._parts and name not in reached:
                part = reached[name] = self._parts[name]
                waiting += self._names[id(part)]
                if _may_change(part, self._harmless):
                    waiting += [
                        other
                        for other, each in self._parts.items()
                        if name in self._names[id(each)] and _runs_later(each)
                    ]
        yield from (reached[name] for name in sorted(reached))

    def _widening(self) -> ast.stmt | ast.expr | None:
        """Return the first node for which a file cannot be taken apart: by names alone nobody sees what it changes."""
        counts, harmless = Counter(name for name, _ in self._bound), self._harmless
        # Who may change a value in place when the file is imported: functions that do, and those that name one of them.
        values = {name for name, part in self._bound if _may_change(part, harmless)}
        changing = {name for name, part in self._bound if _changed(part) & values}
        while more := {name for name, part in self._bound if self._names[id(part)] & changing} - changing:
            changing |= more
        for part in self.tree.body:
            is_known = isinstance(part, (*_DEFINITIONS, ast.Import, ast.ImportFrom))
            is_known |= isinstance(part, ast.Assign | ast.AnnAssign) and bool(_defined(part))
            if not is_known or any(counts[name] > 1 or name == "*" for name in _defined(part)):
                return part
            for node in _at_import(part):
                if isinstance(node, ast.NamedExpr):
                    return node
                if isinstance(node, ast.Call) and (_root(node.func) in changing or _changed(node, harmless) & values):
                    return node
            if any(_root(each) in changing | values for each in getattr(part, "decorator_list", ())):
                return part
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Global) or (isinstance(node, ast.Name) and node.id in _HIDING):
                return node
        return None


@lru_cache(maxsize=64)
def _file(source: str) -> _File:
    return _File(source)


def _parted(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yield an import name by name; one from the vocabulary of products as one from the module that defines it."""
    if not isinstance(node, ast.ImportFrom):
        yield node
        return
    for alias in node.names:
        source = _vocabulary().get(alias.name, node.module) if node.module == VOCABULARY else node.module
        yield ast.copy_location(ast.ImportFrom(module=source, names=[alias], level=node.level), node)


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, str]:
    """Return which module defines what products import from one place, by name."""
    path = modules.path_of(VOCABULARY)
    assert path is not None
    found = (node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module for node in found for alias in node.names if node.module and not alias.asname}


def _names(node: ast.AST) -> frozenset[str]:
    """Return the names in a part, but for those of the annotations of functions."""
    found, waiting = set[str](), [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        skipped = modules.SKIPPED.get(type(node), ())
        for name, value in ast.iter_fields(node):
            if name not in skipped:
                waiting += [
                    each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST)
                ]
    return frozenset(found)


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
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in modules.PACKAGES


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
