"""Print how much code there is by package, products apart, and hold the newest order to its budget. `make count`.

`make count CHECK=1` fails where the newest row of `budgets.json` is exceeded: the lines of code that were added since
the commit on which its order began, products apart. Where the budget is negative, `make count DONE=1` asks at the
order's end that it is reached. Code that moved out of the packages, as to `proof/`, counts as kept. A row never
changes, and a new one comes with the first commit of its order.

A line of code holds a token that is neither a comment nor part of a docstring. Files that are not Python count by their
lines that are not blank. A product is a module of `products` with a `SPEC`.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("driftline", "platform_assets", "resources", "sensors")
OTHERS, PRODUCTS, SUM = "files that are not Python", "products", "sum without products"
BUDGETS = ".ci/budgets.json"
MOST_FUNCTION_LINES = 60
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
UNTYPED = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, \"?(?:Any|object|Json)\"?\]")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main(arguments: list[str]) -> int:
    """Print the counts of the checkout that this file lies in, and check its budget where asked to."""
    sizes = measure(ROOT)
    print(f"{'package':28} {'lines':>7}")
    for name, size in sizes.items():
        print(f"{name:28} {size:7,}")
    for name in ("tests", "proof"):
        count = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / name).rglob("*.py"))
        print(f"{name:28} {count:7,} with comments and blank lines")
    print("\n".join(figures(ROOT, sizes[SUM])))
    if not {"--check", "--done"} & set(arguments):
        return 0
    problems = list(excesses(ROOT, sizes[SUM], is_done="--done" in arguments))
    print("\n".join(problems), file=sys.stderr, end="\n" * bool(problems))
    return int(bool(problems))


def measure(root: Path) -> dict[str, int]:
    """Return the lines of each package, of the products, and the sum without these."""
    lines = Counter[str]()
    for package in (*PACKAGES, "driftline.py"):  # a file until the order slim
        for path in (root / package, *sorted((root / package).rglob("*"))):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            parts, text = path.relative_to(root).parts, path.read_text(encoding="utf-8", errors="replace")
            name = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
            if path.suffix == ".py":
                tree = ast.parse(text)
                is_product = parts[1:2] == ("products",) and any("SPEC" in names_of(node) for node in tree.body)
                lines[PRODUCTS if is_product else name] += len(lines_of_code(text, tree))
            else:
                lines[OTHERS] += sum(bool(line.strip()) for line in text.splitlines())
    sizes = {name: lines[name] for name in sorted(lines)}
    others, products = sizes.pop(OTHERS, 0), sizes.pop(PRODUCTS, 0)
    return {**sizes, SUM: sum(sizes.values()), PRODUCTS: products, OTHERS: others}


def excesses(root: Path, now: int, *, is_done: bool) -> Iterator[str]:
    """Yield a sentence where the newest order has more lines than its budget, and for each row that was changed.

    An order that has to delete lines may add none at first; that it has deleted them is asked at its end.
    """
    rows = json.loads((root / BUDGETS).read_text(encoding="utf-8"))
    for commit in git(root, "log", "--format=%H", "--", BUDGETS).split():
        shown = subprocess.run(["git", "show", f"{commit}:{BUDGETS}"], cwd=root, capture_output=True, check=False)
        earlier = json.loads(shown.stdout) if shown.returncode == 0 else []
        if earlier != rows[: len(earlier)]:
            yield f"{BUDGETS} has other rows than in {commit[:12]}. A row never changes: restore it, and append yours."
    newest = rows[-1]
    with tempfile.TemporaryDirectory() as folder:
        packages = git(root, "archive", newest["first_commit"], is_text=False)
        with tarfile.open(fileobj=io.BytesIO(packages)) as archive:
            archive.extractall(folder, filter="data")
        before = measure(Path(folder))[SUM]
    kept = sum(len(lines_of_code(text, ast.parse(text))) for text in moved_out(root, newest["first_commit"]))
    added = now + kept - before
    print(
        f"Order {newest['order']}: {added:+,} lines since {newest['first_commit'][:12]} ({before:,} then, {kept:,} "
        f"moved out of the packages); its budget is {newest['lines']:+,}."
    )
    most = newest["lines"] if is_done else max(0, newest["lines"])
    if added > most:
        yield f"{newest['order']} has {added - most:,} lines more than its budget. Delete something."


def moved_out(root: Path, commit: str) -> Iterator[str]:
    """Yield the text of each Python file that was in a package at a commit and lies elsewhere now."""
    for line in git(
        root, "diff", "--find-renames=40%", "--diff-filter=R", "--name-status", commit, "HEAD"
    ).splitlines():
        _, before, after = line.split("\t")
        if before.endswith(".py") and before.startswith(PACKAGES) and not after.startswith(PACKAGES):
            yield (root / after).read_text(encoding="utf-8")


def git(root: Path, *arguments: str, is_text: bool = True) -> Any:
    """Return what git prints in a checkout."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True, text=is_text).stdout


def figures(root: Path, lines: int) -> Iterator[str]:
    """Yield what else is counted, one sentence each."""
    texts = {
        path: path.read_text(encoding="utf-8") for package in PACKAGES for path in [root / package] if path.is_file()
    }
    for package in PACKAGES[1:]:
        texts |= {path: path.read_text(encoding="utf-8") for path in sorted((root / package).rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    once = [function for tree in trees.values() for function in called_once(tree)]
    plain = [function for function, is_called in once if is_called and is_plain(function)]
    yield (
        f"Private functions with one caller: {len(once)}, {1000 * len(once) / lines:.1f} per 1,000 lines; without "
        f"callbacks, generators and those with several returns {len(plain)}, {1000 * len(plain) / lines:.1f}."
    )
    comments = sum(
        token.type == tokenize.COMMENT
        for text in texts.values()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
    )
    every = sum(len(text.splitlines()) for text in texts.values())
    yield f"Comments: {comments}, {100 * comments / every:.1f} % of {every:,} lines with blank ones and docstrings."
    long = sorted(
        f"{path.relative_to(root)}:{node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function) and length_of(node) > MOST_FUNCTION_LINES
    )
    yield f"Functions over {MOST_FUNCTION_LINES} lines: {', '.join(long) or 'none'}."
    late = sum(isinstance(node, ast.Import | ast.ImportFrom) for tree in trees.values() for node in inside(tree))
    yield f"Imports inside of functions: {late}. Untyped mappings: {untyped(texts.values())}."
    contracts = (root / "pyproject.toml").read_text(encoding="utf-8")
    first = contracts.index("[tool.importlinter]")
    yield f"Lines of import contracts: {len(contracts[first:].splitlines())}."


def called_once(tree: ast.Module) -> Iterator[tuple[Function, bool]]:
    """Yield each private function that one place of its module names, and whether that place calls it."""
    names, calls = Counter[str](), Counter[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            names[named(node)] += 1
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            calls[named(node.func)] += 1
    for node in ast.walk(tree):
        if isinstance(node, Function) and re.match("_[^_]", node.name) and names[node.name] == 1:
            yield node, calls[node.name] == 1


def named(node: ast.Name | ast.Attribute) -> str:
    """Return the last part of a name."""
    return node.id if isinstance(node, ast.Name) else node.attr


def is_plain(function: Function) -> bool:
    """Tell whether a function could stand where it is called: no decorator, no generator, at most one return."""
    nodes = list(ast.walk(function))
    is_generator = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes)
    return not function.decorator_list and not is_generator and sum(isinstance(node, ast.Return) for node in nodes) <= 1


def length_of(function: Function) -> int:
    """Return the lines of a function without its docstring."""
    first = function.body[0]
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def inside(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes in functions."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield from (part for item in node.body for part in ast.walk(item) if not isinstance(item, Function))


def names_of(node: ast.stmt) -> set[str]:
    """Return the names that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    """Yield the texts that stand alone: docstrings, and those under a constant or an attribute."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for item in body if isinstance(body, list) else ():
            if (
                isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            ):
                yield item


def lines_of_code(text: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that hold code."""
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            numbers.update(range(token.start[0], token.end[0] + 1))
    for item in docstrings(tree):
        numbers -= set(range(item.lineno, (item.end_lineno or item.lineno) + 1))
    return numbers


def untyped(texts: Collection[str]) -> int:
    """Return how many annotations are mappings of names to anything, those by an alias too."""
    trees = [ast.parse(text) for text in texts]
    aliases = {
        name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and UNTYPED.search(ast.unparse(node.value).replace("'", '"'))
        for name in names_of(node)
    }
    annotations = [
        annotation
        for tree in trees
        for node in ast.walk(tree)
        if (annotation := getattr(node, "annotation", None) or getattr(node, "returns", None)) is not None
    ]
    parts = [part for annotation in annotations for part in ast.walk(annotation)]
    return sum(len(UNTYPED.findall(text)) for text in texts) + sum(
        isinstance(part, ast.Name) and part.id in aliases for part in parts
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
