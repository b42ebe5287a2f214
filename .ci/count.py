"""Print how much code there is: lines by package, functions, untyped mappings. `make count`.

A line of code holds a token that is neither a comment nor part of a docstring. A function's length is its lines of code
with its `def`. Untyped mappings are annotations `dict[str, X]`, `Mapping[str, X]` or `MutableMapping[str, X]` of Any,
object or any JSON value, nested ones too, and each use of a name that stands for one.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

PACKAGES = ("platform_assets", "resources", "sensors")
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
UNTYPED = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, \"?(?:Any|object|Json)\"?\]")


def main() -> int:
    """Print the counts of the checkout that this file lies in."""
    root = Path(__file__).resolve().parents[1]
    lines, files, untyped = Counter[str](), Counter[str](), Counter[str]()
    functions: list[tuple[int, str]] = []
    names = aliases(root)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            tree, parts = ast.parse(text), path.relative_to(root).parts
            name = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
            code = lines_of_code(text, tree)
            lines[name] += len(code)
            files[name] += 1
            untyped[name] += len(UNTYPED.findall(text)) + sum(used(tree, names))
            functions += [
                (
                    len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))),
                    f"{'/'.join(parts)}:{node.name}",
                )
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
    print(f"{'package':28} {'files':>6} {'lines':>7} {'untyped':>8}")
    for name in sorted(lines):
        print(f"{name:28} {files[name]:6} {lines[name]:7,} {untyped[name]:8}")
    print(f"{'all':28} {files.total():6} {lines.total():7,} {untyped.total():8}")
    longest = sorted(functions, reverse=True)[:3]
    print(f"{len(functions):,} functions, {mean(size for size, _ in functions):.1f} lines on average; the longest:")
    print("\n".join(f"  {size} {name}" for size, name in longest))
    return 0


def aliases(root: Path) -> set[str]:
    """Return the names that stand for an untyped mapping, such as `Document = dict[str, Any]`."""
    paths = (path for package in PACKAGES for path in (root / package).rglob("*.py"))
    assigned = (node for path in paths for node in ast.parse(path.read_text(encoding="utf-8")).body)
    return {
        node.targets[0].id
        for node in assigned
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if UNTYPED.search(ast.unparse(node.value).replace("'", '"'))
    }


def used(tree: ast.Module, names: set[str]) -> Iterator[bool]:
    """Yield, per name in the annotations of a module, whether it is one of `names`."""
    for node in ast.walk(tree):
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        for part in ast.walk(annotation) if isinstance(annotation, ast.AST) else ():
            yield isinstance(part, ast.Name) and part.id in names


def lines_of_code(text: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that hold code."""
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            numbers.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            for item in body:
                # A text that stands alone: docstrings, and those under a constant or an attribute.
                if (
                    isinstance(item, ast.Expr)
                    and isinstance(item.value, ast.Constant)
                    and isinstance(item.value.value, str)
                ):
                    numbers -= set(range(item.lineno, (item.end_lineno or item.lineno) + 1))
    return numbers


if __name__ == "__main__":
    sys.exit(main())
