"""Propose other settings as a diff of a product's file, for a person to commit. Nothing is written.

A value is replaced where the file states it: as a literal argument of `Training(...)` or of the learner, or in a
dictionary there; a name is followed to its one assignment. The changed file is then executed, and must configure the
product with these values. If it does not, the proposal has no diff and gives the reason.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_assets.digests import reads
from platform_assets.makers.checkpoint import Learning
from platform_assets.problems import Problem
from platform_assets.product.changes import LEARNER, located, with_values
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import parameters


@dataclass(frozen=True)
class Proposal:
    """A change of a product's file.

    Attributes:
        diff: unified; empty when nothing changes or there is none.
        why: reason that no diff could be made; empty if one was, or if nothing changes.
        settings: `--set` arguments that do the same for one training.
    """

    diff: str
    why: str
    settings: tuple[str, ...]

    def text(self) -> str:
        """Return it as lines for a terminal."""
        if self.diff:
            return self.diff
        head = (
            f"No diff: {self.why}\nThe same for one training:" if self.why else "The file has these settings already:"
        )
        return "\n".join([head, *(f"  --set {setting}" for setting in self.settings)])


class Unclear(Problem):
    """The file does not state a value where it can be replaced."""


def of(spec: ProductSpec, values: Mapping[str, Any]) -> Proposal:
    """Return the change of the product's file that gives it other values, by name."""
    settings = tuple(f"{name}={_toml(value)}" for name, value in values.items())
    path = _file(spec)
    if path is None:
        return Proposal("", f"no file of {spec.name} can be found.", settings)
    before = path.read_text(encoding="utf-8")
    try:
        after = before
        for name, value in values.items():
            after = _replaced(after, name, value, spec)
        _prove(after, path, with_values(spec, values))
    except (Unclear, SyntaxError) as problem:
        return Proposal("", f"{path.name}: {problem}", settings)
    return Proposal(_diff(before, after, path), "", settings)


def _file(spec: ProductSpec) -> Path | None:
    for function in (spec.features, spec.label):
        path = inspect.getsourcefile(function) if inspect.isfunction(function) else None
        if path is not None and Path(path).exists():
            return Path(path)
    return None


def _diff(before: str, after: str, path: Path) -> str:
    roots = (parent for parent in path.parents if (parent / ".git").exists() or (parent / "pyproject.toml").exists())
    name = path.relative_to(next(roots, path.parent)).as_posix()
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(lines)


def _replaced(text: str, name: str, value: Any, spec: ProductSpec) -> str:
    """Return a file's text with a setting's value replaced or added."""
    tree = ast.parse(text)
    member, path = located(name)
    call = _spec_call(tree, spec.name)
    node = _argument(call, "model" if member == LEARNER else "training")
    if node is None and member != LEARNER:
        return _inserted(text, call, "training", f"Training({_nested(path, value)})")
    if node is None:
        raise Unclear("its ProductSpec states no model.")
    for position, step in enumerate(path):
        node = _followed(tree, node)
        below = _member(node, step, name)
        if below is None:
            return _inserted(text, node, step, _nested_value(path[position + 1 :], value))
        node = below
    node = _followed(tree, node)
    try:
        ast.literal_eval(node)
    except ValueError:
        raise Unclear(f"{name} is {ast.unparse(node)!r:.60}, which is computed; expected a plain value.") from None
    return _spliced(text, node, _python(value))


def _spec_call(tree: ast.Module, name: str) -> ast.Call:
    for item in tree.body:
        value = item.value if isinstance(item, ast.Assign | ast.AnnAssign) else None
        stated = _argument(value, "name") if isinstance(value, ast.Call) else None
        if isinstance(value, ast.Call) and isinstance(stated, ast.Constant) and stated.value == name:
            return value
    raise Unclear(f"it has no assignment of a call with name={name!r}.")


def _argument(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def _followed(tree: ast.Module, node: ast.expr) -> ast.expr:
    """Return what a name stands for: its one assignment in the file."""
    if not isinstance(node, ast.Name):
        return node
    assigned = [
        item.value
        for item in ast.walk(tree)
        if isinstance(item, ast.Assign) and any(isinstance(at, ast.Name) and at.id == node.id for at in item.targets)
    ]
    uses = sum(isinstance(item, ast.Name) and item.id == node.id for item in ast.walk(tree))
    if len(assigned) != 1 or uses != 2:
        raise Unclear(
            f"{node.id} is assigned {len(assigned)} times and used {uses - len(assigned)}; expected once each."
        )
    return _followed(tree, assigned[0])


def _member(node: ast.expr, step: str, name: str) -> ast.expr | None:
    """Return what is below a call, a dictionary or a tuple; None for an argument or a key that can be added."""
    if isinstance(node, ast.Call):
        if any(item.arg is None for item in node.keywords):
            raise Unclear(f"{ast.unparse(node.func)}(...), which holds {name}, takes arguments by **.")
        return _argument(node, step)
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if None in keys:
            raise Unclear(f"the dictionary that holds {name} has keys that are computed.")
        return node.values[keys.index(step)] if step in keys else None
    if isinstance(node, ast.Tuple | ast.List) and step.isdigit() and int(step) < len(node.elts):
        return node.elts[int(step)]
    raise Unclear(f"{name} is in {ast.unparse(node)!r:.60}; expected a call, a dictionary or a tuple.")


def _inserted(text: str, node: ast.expr, name: str, value: str) -> str:
    """Return a text with one more argument of a call, or one more key of a dictionary."""
    if isinstance(node, ast.Dict):
        values, item = node.values, f"{_python(name)}: {value}"
    elif isinstance(node, ast.Call) and not _is_function(node):
        values, item = [*node.args, *(keyword.value for keyword in node.keywords)], f"{name}={value}"
    else:
        raise Unclear(f"{name} cannot be added to {ast.unparse(node)!r:.60}.")
    end = _offset(text, node.end_lineno or 0, node.end_col_offset or 0) - 1
    at = max((_offset(text, *_end(other)) for other in values), default=end)
    return f"{text[:at]}{', ' if values else ''}{item}{text[at:]}"


def _is_function(call: ast.Call) -> bool:
    """Whether a call is of a function, which may not take the fields of what it returns."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return not called[:1].isupper()


def _spliced(text: str, node: ast.expr, value: str) -> str:
    begin, end = _offset(text, node.lineno, node.col_offset), _offset(text, *_end(node))
    return text[:begin] + value + text[end:]


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


def _offset(text: str, line: int, column: int) -> int:
    """Return a position in a text; ast counts columns in bytes."""
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())


def _nested(path: Sequence[str], value: Any) -> str:
    return f"{path[0]}={_nested_value(path[1:], value)}"


def _nested_value(path: Sequence[str], value: Any) -> str:
    for step in reversed(path):
        value = {step: value}
    return _python(value)


def _python(value: Any) -> str:
    """Return a value as a formatted file writes it."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_python(name)}: {_python(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_python, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _prove(text: str, path: Path, proposed: ProductSpec) -> None:
    """Raise `Unclear` unless a file's text configures a training of the product as proposed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(text, encoding="utf-8")
        described = importlib.util.spec_from_file_location(f"proposed_{path.stem}", copy)
        assert described is not None
        assert described.loader is not None
        module = importlib.util.module_from_spec(described)
        module.__file__ = str(path)  # its data files lie there
        try:
            with reads.guarded(proposed.module):
                described.loader.exec_module(module)
        except Exception as problem:  # a file may raise anything
            raise Unclear(f"the changed file cannot be loaded: {type(problem).__name__}: {problem}") from problem
    written = [item for item in vars(module).values() if isinstance(item, ProductSpec) and item.name == proposed.name]
    expected = parameters.of(Learning.of(proposed))
    if len(written) != 1 or parameters.of(Learning.of(written[0])) != expected:
        raise Unclear("the changed file would not configure the product as proposed.")
