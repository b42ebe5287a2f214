"""Digest one definition: what it names in its file, what that names in other files, and nothing else.

A function of a product and a class of the platform are digested alike. Too wide costs a computation, too narrow means
silently wrong data: where a file does something at its top level that names do not show, the whole file counts.
`modules.py` says what of the text counts, and which modules are ours.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from platform_assets.engine.digests import cache, modules
from platform_assets.product import data_files

Reference = str
"""A definition at the top of a module, `platform_assets.data.landed:parse`; without a name all of the module."""
_VERIFIED = "platform_assets.store.tables:TableStore"
"""Where following ends: rows that are read through it are compared with their content digest."""
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_REACHING = {"globals", "locals", "eval", "exec", "__import__"}
"""Calls that access names of this file which do not appear in the text."""
_HIDING = _REACHING | {"getattr", "setattr", "delattr", "vars", "compile"}
"""In a product's file also those that access names of what they are given; the platform's give them no module."""
_COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}
_CONTAINERS = {"dict", "list", "set"}
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
_HARMLESS = _CONTAINERS | {"Path", "frozenset", "len", "max", "min", "pl", "range", "sorted", "str", "sum", "timedelta"}
_HARMLESS |= {"tuple", "zip"}
"""Calls that change no argument and return nothing mutable except containers; the same goes for our own functions."""
_READING = {"copy", "count", "get", "index", "items", "keys", "values"}
"""Methods that do not change a container."""


def digest(function: Callable[..., Any], *, is_whole: bool = False, is_own: bool = False) -> str:
    """Return the sha256 of a function, everything it names at the top of its file, and what that names elsewhere.

    A class defined at the top of the file counts in the same way.

    The rest of its file may change without changing the digest, unless something there may affect what the function
    uses, or the function is neither defined by name at the top nor nested in one that is: then the whole file counts
    (`widening_line`).

    Args:
        is_whole: count the whole file anyway.
        is_own: count the product's own modules, as wholes, and none of the platform's.

    Raises:
        ValueError: the function's file cannot be read.
    """
    digest, names, read = _entry(function, is_whole=is_whole, is_own=is_own)
    if is_own:
        own = modules.digests(*modules.ours(names))
        imported = {name: digest for name, digest in own.items() if modules.is_own(name)}
    else:
        imported = digests(*_resolved(names))
    text = [modules.with_files(digest, _own_files(function, read))]
    text += [f"{name} {digest}" for name, digest in imported.items()]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()


def digests(*references: Reference) -> dict[Reference, str]:
    """Return the sha256 of each definition in the closure of these.

    Raises:
        ValueError: a module has no source file.
    """
    return {name: modules.with_files(_definition(name)[0], _files_of(name)) for name in closure(*references)}


@lru_cache(maxsize=1024)
def closure(*references: Reference) -> tuple[Reference, ...]:
    """Return these definitions and all that they name in any of our modules, sorted; with a product's own packages.

    Packages of the platform do nothing but bind names; what a host's do is the host's.
    """
    visited, pending = {_VERIFIED}, list(references)
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            module = name.partition(":")[0]
            if modules.is_own(module) and not modules.is_in_host(module):
                packages = (module[:index] for index, letter in enumerate(module) if letter == ".")
                pending += [
                    f"{package}:" for package in packages if modules.is_own(package) and modules.is_ours(package)
                ]
            pending += _resolved(_definition(name)[1])
    return tuple(sorted(visited - {_VERIFIED}))


def files(*references: Reference) -> dict[str, Path]:
    """Return each data file that a definition in the closure of these reads, by its place in the project.

    Raises:
        DataFileProblem: one is missing.
    """
    return {place: file for name in closure(*references) for place, file in _files_of(name).items()}


def files_of(function: Callable[..., Any], *, is_whole: bool = False) -> dict[str, Path]:
    """Return each data file that counts in a `digest`, by its place in the project."""
    _, names, read = _entry(function, is_whole=is_whole)
    return _own_files(function, read) | files(*_resolved(names))


def widening_line(function: Callable[..., Any], *, is_whole: bool = False) -> tuple[int, str] | None:
    """Return number and text of the line that makes a whole file count in a `digest`; None without one."""
    source = _source(function)
    file = _file(source)
    if file.widening is not None:
        return file.widening.lineno, ast.unparse(file.widening).splitlines()[0]
    if file.is_named(function) and not is_whole:
        return None
    line = function.__code__.co_firstlineno
    return line, source.splitlines()[line - 1].strip()


def nested_index(function: FunctionType) -> int | None:
    """Return the index of a nested function among those in its outermost function, in text order.

    None for a function at the top, and where it cannot be determined.
    """
    outer = function.__globals__.get(_outermost(function))
    if outer is function or not isinstance(outer, FunctionType) or outer.__qualname__ != _outermost(function):
        return None
    return next((index for index, code in enumerate(_nested(outer.__code__)) if code is function.__code__), None)


@lru_cache(maxsize=4096)
def _definition(reference: Reference) -> cache.Entry:
    """Return the digest of a definition in its own file, what it names in others, and the data files that it reads."""
    module, _, name = reference.partition(":")
    path = modules.path_of(module)
    if path is None:
        raise ValueError(f"module {module!r} has no source file of ours; name an importable module of this project.")
    source = path.read_bytes()

    def make() -> cache.Entry:
        file = _file(source.decode(), is_product=modules.is_own(module))
        return file.entry(name, modules.package_of(module, path))

    return cache.get_or_make(reference, source, make)


def _resolved(names: Iterable[str]) -> set[Reference]:
    """Return our definitions among named ones; see `_File.named`."""
    result = set[Reference]()
    for module, *inside in (name.split(":") for name in names):
        if modules.is_ours(module):
            for name in filter(None, inside):
                if not modules.is_ours(f"{module}.{name}"):
                    result.add(f"{module}:{name}")
                    break
                module = f"{module}.{name}"
            else:
                result.add(f"{module}:")
    return result


def _files_of(reference: Reference) -> dict[str, Path]:
    module, path = reference.partition(":")[0], modules.path_of(reference.partition(":")[0])
    names = _definition(reference)[2]
    return modules.placed(modules.package_of(module, path), path.parent, names) if names and path else {}


def _entry(function: Callable[..., Any], *, is_whole: bool, is_own: bool = False) -> cache.Entry:
    source = _source(function)

    def make() -> cache.Entry:
        file = _file(source)
        name = _outermost(function) if file.is_named(function) and not is_whole else ""
        return file.entry(name, function.__module__.rpartition(".")[0], is_own=is_own)

    name = f"{function.__module__}:{'' if is_whole else function.__qualname__}(){':own' if is_own else ''}"
    return cache.get_or_make(name, source.encode(), make)


def _own_files(function: Callable[..., Any], names: Collection[str]) -> dict[str, Path]:
    """Return data files next to a function's file."""
    if not names:
        return {}
    folder = Path(inspect.getsourcefile(function) or "").parent
    return modules.placed(function.__module__.rpartition(".")[0], folder, names)


def _outermost(function: Callable[..., Any]) -> str:
    return function.__qualname__.split(".<locals>.")[0]


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield the nested functions; comprehensions, which newer Pythons inline, are looked through."""
    for item in code.co_consts:
        if isinstance(item, CodeType):
            if item.co_name not in _COMPREHENSIONS:
                yield item
            yield from _nested(item)


def _source(function: Callable[..., Any]) -> str:
    module = inspect.getmodule(function)
    try:
        return inspect.getsource(module or function)
    except (OSError, TypeError) as problem:
        raise ValueError(
            f"{function.__qualname__} of {function.__module__} has no source file, so its code cannot be digested; "
            "define it in the product's file."
        ) from problem


class _File:
    """The syntax tree of a file, analysed once for its dozen or so definitions."""

    def __init__(self, source: str, *, is_product: bool = True) -> None:
        self.tree = ast.parse(source)
        self._hiding = _HIDING if is_product else _REACHING
        self._public = set[int]()
        self.tree.body = [
            part for item in modules.counting(self.tree.body) for part in _split_imports(item, self._public)
        ]
        self._bound = [(name, part) for part in self.tree.body for name in _defined(part)]
        self._parts = dict(self._bound)
        self._names = {id(part): _names(part) for part in self.tree.body}
        self._imported = {name for name, part in self._bound if isinstance(part, ast.Import | ast.ImportFrom)}
        self._harmless = _HARMLESS | {name for name, part in self._bound if _is_our_import(part)}
        self._contents: dict[int, tuple[str, frozenset[str]]] = {}
        self.aliases = data_files.aliases_in(self.tree)
        self.widening = self._widening()

    def is_named(self, function: Callable[..., Any]) -> bool:
        """Tell whether a function, or the one it is nested in, or a class is defined by name at the top of its file."""
        if isinstance(function, type):
            return isinstance(self._parts.get(function.__qualname__), ast.ClassDef)
        if not isinstance(function, FunctionType):
            return False
        part = self._parts.get(_outermost(function))
        return part is not None and (function.__qualname__ in self._parts or nested_index(function) is not None)

    def content(self, node: ast.AST, package: str, *, is_own: bool = False) -> tuple[str, frozenset[str]]:
        """Return the digested content of a part, and the modules it imports.

        Args:
            is_own: count a public name by itself, whichever module defines it.
        """
        if is_own and isinstance(node, ast.ImportFrom) and id(node) in self._public:
            return ast.dump(node.names[0]), frozenset()
        if id(node) not in self._contents:
            self._contents[id(node)] = modules.content([node], package)
        return self._contents[id(node)]

    def entry(self, name: str, package: str, *, is_own: bool = False) -> cache.Entry:
        """Return what `cache.Entry` holds of a definition; of the whole file if its names do not show what it uses.

        Args:
            name: of the definition; "" for the whole file.
            package: of the code, for relative imports.
            is_own: name imported modules, as `modules.content` does, and a public name by itself.
        """
        is_part = name in self._parts and self.widening is None
        nodes: list[ast.AST] = [*self.reached(name)] if is_part else [self.tree]
        parts = [self.content(node, package, is_own=is_own) for node in nodes]
        text = "\0".join(text for text, _ in parts)
        names = frozenset(name for _, names in parts for name in names)
        names = names if is_own else self.named(name if is_part else None, package)
        return hashlib.sha256(text.encode()).hexdigest(), names, data_files.names_in(nodes, self.aliases)

    def named(self, name: str | None, package: str) -> frozenset[str]:
        """Return what a definition, or the whole file, names in other modules: `module:name:attribute`.

        Of a definition of another module that is imported by its name, the attribute does not matter; of a module, it
        is the definition. Without an attribute, as where it is an argument, all of the module is meant.
        """
        imports = [part for part in self.tree.body if isinstance(part, ast.Import | ast.ImportFrom)]
        top = {alias: target for part in imports for alias, target in _imported(part, package)}
        result, uses = set[str](), set[str]()
        for scope, hidden in (
            pair
            for part in (self.tree.body if name is None else self.reached(name))
            if not isinstance(part, ast.Import | ast.ImportFrom)
            for pair in _scopes(part)
        ):
            inner = {alias: target for node in ast.walk(scope) for alias, target in _imported(node, package)}
            own = _uses(scope)
            # An import in a function may be there for what the module does when it is imported.
            own |= {(alias, "") for alias in inner.keys() - {alias for alias, _ in own}}
            known = {alias: target for alias, target in top.items() if alias not in hidden} | inner
            result |= {f"{known[alias]}:{attribute}" for alias, attribute in own if alias in known}
            uses |= {alias for alias, _ in own}
        # What is imported for others: by a file as a whole, or as the definition that is asked for.
        exported = top.keys() - uses if name is None else {name} & top.keys()
        return frozenset(result | {f"{top[alias]}:" for alias in exported})

    def reached(self, name: str) -> Iterator[ast.stmt]:
        """Yield what a definition names at the top of its file, and what may change that, sorted by name."""
        pending, reached = [name], dict[str, ast.stmt]()
        while pending:
            name = pending.pop()
            if name in self._parts and name not in reached:
                part = reached[name] = self._parts[name]
                pending += self._names[id(part)]
                if _may_change(part, self._harmless):
                    is_flat = _is_flat(part, self._imported)
                    pending += [
                        other
                        for other, item in self._parts.items()
                        if name in self._names[id(item)]
                        and _runs_later(item)
                        and not (is_flat and name not in _changed(item, self._harmless) | _with_methods(item))
                    ]
        yield from (reached[name] for name in sorted(reached))

    def _widening(self) -> ast.stmt | ast.expr | None:
        """Return the first node that prevents taking a file apart, because names alone do not show what it changes."""
        counts, harmless = Counter(name for name, _ in self._bound), self._harmless
        # Functions that may change a value in place during import: those that do, and those that name one of them.
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
            if any(_root(item) in changing | values for item in getattr(part, "decorator_list", ())):
                return part
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Global) or (isinstance(node, ast.Name) and node.id in self._hiding):
                return node
        return None


@lru_cache(maxsize=256)
def _file(source: str, *, is_product: bool = True) -> _File:
    return _File(source, is_product=is_product)


def _split_imports(node: ast.stmt, public: set[int]) -> Iterator[ast.stmt]:
    """Split an import into names; a public name becomes an import from where it is defined, noted in `public`."""
    if not isinstance(node, ast.ImportFrom):
        yield node
        return
    for alias in node.names:
        source, name = modules.defined(node.module or "", alias.name)
        names = [alias if name == alias.name else ast.alias(name=name, asname=alias.asname or alias.name)]
        part = ast.copy_location(ast.ImportFrom(module=source, names=names, level=node.level), node)
        if node.module == modules.PUBLIC:
            public.add(id(part))
        yield part


def _imported(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, with what it is: `module:name`."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], f"{alias.name}:"
    elif isinstance(node, ast.ImportFrom):
        source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        for alias in node.names:
            yield alias.asname or alias.name, ":".join(modules.defined(source, alias.name))


def _scopes(node: ast.AST) -> Iterator[tuple[ast.AST, set[str]]]:
    """Yield the parts of a definition that have names of their own, with those that hide names of the file."""
    if isinstance(node, ast.ClassDef):
        for item in (*node.decorator_list, *node.bases, *node.keywords, *node.body):
            yield from _scopes(item)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for item in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            yield item, set()
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
        yield ast.Module(body=node.body, type_ignores=[]), {item.arg for item in arguments if item is not None}
    else:
        yield node, set()


def _names(node: ast.AST) -> frozenset[str]:
    """Return the names in a part, except in annotations of functions."""
    return frozenset(name for name, _ in _uses(node))


def _uses(node: ast.AST) -> set[tuple[str, str]]:
    """Return the names in a part with the attribute that is taken of them, "" for none; not those in annotations."""
    uses, pending = set[tuple[str, str]](), [node]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            uses.add((node.value.id, node.attr))
            continue
        if isinstance(node, ast.Name):
            uses.add((node.id, ""))
        skipped = modules.SKIPPED.get(type(node), ())
        for name, value in ast.iter_fields(node):
            if name not in skipped:
                pending += [
                    item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST)
                ]
    return uses


def _changed(node: ast.AST, harmless: Collection[str] = _HARMLESS) -> set[str]:
    """Return names whose values may be changed in place: by method, as an argument, in part, by alias."""
    names: set[str | None] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.Call):
            method = item.func.attr if isinstance(item.func, ast.Attribute) else None
            if method is not None and method not in _READING:
                names.add(_root(item.func))
            if _root(item.func) not in harmless:
                arguments = [*item.args, *(keyword.value for keyword in item.keywords)]
                names |= {part.id for part in arguments if isinstance(part, ast.Name)}
        elif isinstance(item, ast.Attribute | ast.Subscript) and not isinstance(item.ctx, ast.Load):
            names.add(_root(item))
        elif isinstance(item, ast.AugAssign):
            names.add(_root(item.target))
        elif isinstance(item, ast.Assign | ast.NamedExpr | ast.Return) and isinstance(item.value, ast.Name):
            names.add(item.value.id)
    return {name for name in names if name is not None}


def _with_methods(node: ast.AST) -> set[str]:
    """Return names of which a method is used that may change them, called or handed on."""
    attributes = (item for item in ast.walk(node) if isinstance(item, ast.Attribute) and item.attr not in _READING)
    return {item.value.id for item in attributes if isinstance(item.value, ast.Name)}


def _is_our_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in modules.PACKAGES


def _may_change(node: ast.stmt, harmless: Collection[str]) -> bool:
    """Tell whether a statement may bind a mutable value, as far as the text shows."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    inside = list(ast.walk(node.value))
    calls = {_root(item.func) for item in inside if isinstance(item, ast.Call)}
    return (
        bool(calls - set(harmless)) or bool(calls & _CONTAINERS) or any(isinstance(item, _DISPLAYS) for item in inside)
    )


def _is_flat(node: ast.stmt, imported: Collection[str]) -> bool:
    """Tell whether a statement binds a container of what cannot change: reading it changes nothing of it."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if isinstance(value, ast.Dict):
        return all(_is_fixed(item, imported) for item in (*value.keys, *value.values))
    return isinstance(value, ast.List | ast.Set) and all(_is_fixed(item, imported) for item in value.elts)


def _is_fixed(node: ast.expr | None, imported: Collection[str]) -> bool:
    """Tell whether a value is a number, a text, a library's attribute such as `pl.Float64`, or a tuple of those."""
    if isinstance(node, ast.Tuple):
        return all(_is_fixed(item, imported) for item in node.elts)
    while isinstance(node, ast.Attribute | ast.UnaryOp):  # -40 is an operation
        node = node.value if isinstance(node, ast.Attribute) else node.operand
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in imported)


def _runs_later(node: ast.stmt) -> bool:
    return isinstance(node, _DEFINITIONS) or any(isinstance(inner, ast.Lambda) for inner in ast.walk(node))


def _root(node: ast.expr) -> str | None:
    """Return the name that an expression starts with: `a` in `a.b[0](c)`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _at_import(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a top-level statement that run on import: no function bodies."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif not isinstance(node, ast.Lambda):
            pending += ast.iter_child_nodes(node)


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a top-level statement defines."""
    if isinstance(node, _DEFINITIONS):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)]
    return []
