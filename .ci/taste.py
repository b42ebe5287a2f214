"""Print where the code departs from conventions of taste, which fail nothing. `make taste`.

Lengths of functions, modules and the two files that only wire, the tree of the README against the folders, and names of
variables that are verbs or question words where style asks for nouns.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("platform_assets", "resources", "sensors")
MOST_FUNCTION_LINES = 50
MOST_LINES = 300
WIRING = ("platform_assets/definitions.py", "platform_assets/automation/factory.py")
MOST_WIRING_LINES = 79
UNLISTED = {"__pycache__", ".git", ".venv", ".driftline", "shared", "build", "dist", ".hypothesis"}
FOREIGN = {
    *("told", "said", "found", "made", "each", "known", "wanted", "came", "asked", "given", "kept", "seen", "shown"),
    *("held", "whose", "what", "why", "by", "own", "it", "words"),
}


def main() -> int:
    """Print all reports of the checkout that this file lies in."""
    modules = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    report(f"functions over {MOST_FUNCTION_LINES} lines", long_functions(modules))
    report(f"modules over {MOST_LINES} lines", long_modules(modules, MOST_LINES))
    report(f"wiring over {MOST_WIRING_LINES} lines", long_modules([ROOT / name for name in WIRING], MOST_WIRING_LINES))
    report("folders that the README's tree does not match", readme_tree())
    report("variables, arguments and attributes with names that are not nouns", foreign_names(modules))
    return 0


def report(title: str, lines: Iterator[str]) -> None:
    """Print a title with a count, and the lines below it."""
    rows = list(lines)
    print(f"{title}: {len(rows) or 'none'}")
    for row in rows:
        print(f"  {row}")


def long_functions(modules: list[Path]) -> Iterator[str]:
    """Yield the longest functions, the longest first; docstrings do not count."""
    lengths: list[tuple[int, str]] = []
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if ast.get_docstring(node) else 0
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring
                lengths.append((length, f"{path.relative_to(ROOT)}:{node.name}"))
    yield from (f"{name} {length}" for length, name in sorted(lengths, reverse=True) if length > MOST_FUNCTION_LINES)


def long_modules(modules: list[Path], most: int) -> Iterator[str]:
    """Yield the modules with more lines than `most`."""
    for path in modules:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > most:
            yield f"{path.relative_to(ROOT)} {lines}"


def readme_tree() -> Iterator[str]:
    """Yield the differences between each folder that the README's tree opens and that folder."""
    block = re.search(r"```text tree\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    listed: dict[str, set[str]] = {}
    path: list[str] = []
    for line in block[1].splitlines() if block else ():
        entry = re.match(r"((?:  )*)(\S+)", line)
        if entry is not None:
            path[len(entry[1]) // 2 :] = [entry[2]]
            listed.setdefault("".join(path[:-1]), set()).add(entry[2])
    for folder, names in listed.items():
        there = {item.name + "/" * item.is_dir() for item in (ROOT / folder).iterdir() if is_listed(item)}
        if missing := sorted(there - names):
            yield f"{folder or './'} does not list {', '.join(missing)}"
        if gone := sorted(names - there):
            yield f"{folder or './'} lists {', '.join(gone)}, which are not there"


def is_listed(path: Path) -> bool:
    """Tell whether a tree would show this path."""
    return path.name not in UNLISTED and not path.name.endswith((".egg-info", "_cache"))


def foreign_names(modules: list[Path]) -> Iterator[str]:
    """Yield the count of such names by package, the most frequent ones named."""
    counts: dict[str, Counter[str]] = {}
    for path in modules:
        parts = path.relative_to(ROOT).parts
        package = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        names = counts.setdefault(package, Counter())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names.update(name for name in bound_names(node) if name.lstrip("_") in FOREIGN)
    for package, names in sorted(counts.items()):
        if names:
            frequent = ", ".join(f"{name} {count}" for name, count in names.most_common(5))
            yield f"{package} {names.total()}: {frequent}"


def bound_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node binds."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr


if __name__ == "__main__":
    sys.exit(main())
