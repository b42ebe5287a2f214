"""Print how much code there is by package, products apart. `make count`.

`make count CHECK=1` fails where a package or the sum is more than 1 % above its number in `ceilings.json`, and
`make count LOWER=1` lowers these numbers to what there is. Nothing raises one but a person, in a commit that says why.

A line of code holds a token that is neither a comment nor part of a docstring; a node is one of the syntax tree, so
that lines that are joined stay as much. Every word of a long text is a node too, and files that are not Python have a
row of their own, of lines that are not blank and of words: so code that moves into either shows. A product is a module
of `products` with a `SPEC`.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("driftline.py", "platform_assets", "resources", "sensors")
OTHERS, PRODUCTS, SUM = "files that are not Python", "products", "sum without products"
MARGIN = 1.01
STRETCH_LINES = 36_000
LONG_TEXT = 300
"""Characters of a text whose words are counted."""
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
UNTYPED = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, \"?(?:Any|object|Json)\"?\]")


class Size(NamedTuple):
    """How much code there is in a package."""

    lines: int
    nodes: int


def main(arguments: list[str]) -> int:
    """Print the counts of the checkout that this file lies in, then check or lower its ceilings where asked to."""
    path = ROOT / ".ci" / "ceilings.json"
    sizes = measure(ROOT)
    print(f"{'package':28} {'lines':>7} {'nodes':>9}")
    for name, size in sizes.items():
        print(f"{name:28} {size.lines:7,} {size.nodes:9,}")
    tests = sum(len(test.read_text(encoding="utf-8").splitlines()) for test in (ROOT / "tests").rglob("*.py"))
    print(f"The stretch is {STRETCH_LINES:,} lines without products. Tests have {tests:,} lines.")
    print(f"Untyped mappings: {untyped(ROOT)}.")
    ceilings = {name: Size(**number) for name, number in json.loads(path.read_text(encoding="utf-8")).items()}
    if "--lower" in arguments:
        lowest = lower(sizes, ceilings)
        rows = [f'  "{name}": {json.dumps(size._asdict())}' for name, size in lowest.items()]
        path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
        print(f"{len(set(ceilings.items()) - set(lowest.items()))} ceilings were lowered or removed.")
    problems = list(excesses(sizes, ceilings)) if "--check" in arguments else []
    if "--check" in arguments and (below := sorted(name for name in ceilings if is_below(name, sizes, ceilings))):
        print(f"Below their ceilings: {', '.join(below)}. Run `make count LOWER=1` and commit .ci/ceilings.json.")
    print("\n".join(problems), file=sys.stderr, end="\n" * bool(problems))
    return int(bool(problems))


def measure(root: Path) -> dict[str, Size]:
    """Return the size of each package, of the products, and the sum without these."""
    lines, nodes = Counter[str](), Counter[str]()
    for package in PACKAGES:
        for path in (root / package, *sorted((root / package).rglob("*"))):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            parts, text = path.relative_to(root).parts, path.read_text(encoding="utf-8", errors="replace")
            name = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
            if path.suffix == ".py":
                tree = ast.parse(text)
                is_product = parts[1:2] == ("products",) and any("SPEC" in names_of(node) for node in tree.body)
                name = PRODUCTS if is_product else name
                lines[name] += len(lines_of_code(text, tree))
                nodes[name] += nodes_of(tree)
            else:
                lines[OTHERS] += sum(bool(line.strip()) for line in text.splitlines())
                nodes[OTHERS] += words(text)
    sizes = {name: Size(lines[name], nodes[name]) for name in sorted(lines)}
    others, products = sizes.pop(OTHERS, Size(0, 0)), sizes.pop(PRODUCTS, Size(0, 0))
    total = Size(sum(size.lines for size in sizes.values()), sum(size.nodes for size in sizes.values()))
    return {**sizes, SUM: total, PRODUCTS: products, OTHERS: others}


def excesses(sizes: dict[str, Size], ceilings: dict[str, Size]) -> Iterator[str]:
    """Yield a sentence for each package, or the sum, that is more than 1 % above its ceiling."""
    for name, size in sizes.items():
        ceiling = ceilings.get(name, Size(0, 0))
        over = [
            f"{count:,} {unit}, {count - most:,} above its {most:,}"
            for unit, count, most in zip(Size._fields, size, ceiling, strict=True)
            if name != PRODUCTS and count > most * MARGIN
        ]
        if over:
            yield (
                f"{name} has {' and '.join(over)}. Delete something, or write "
                f'"{name}": {json.dumps(size._asdict())} into .ci/ceilings.json in a commit that says why.'
            )


def is_below(name: str, sizes: dict[str, Size], ceilings: dict[str, Size]) -> bool:
    """Return whether a ceiling can be lowered: one of its numbers is higher, or its package is gone."""
    size = sizes.get(name, Size(0, 0))
    return any(count < most for count, most in zip(size, ceilings[name], strict=True))


def lower(sizes: dict[str, Size], ceilings: dict[str, Size]) -> dict[str, Size]:
    """Return the ceilings with no number above what there is, and without packages that are gone."""
    return {
        name: Size(*(min(numbers) for numbers in zip(sizes[name], ceiling, strict=True)))
        for name, ceiling in ceilings.items()
        if name in sizes
    }


def names_of(node: ast.stmt) -> set[str]:
    """Return the names that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def nodes_of(tree: ast.Module) -> int:
    """Return the number of nodes of a module, without docstrings, and with the words of its long texts."""
    silent = {id(part) for text in docstrings(tree) for part in ast.walk(text)}
    nodes = [node for node in ast.walk(tree) if id(node) not in silent and not isinstance(node, ast.expr_context)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)]
    return (
        len(nodes) - 1 + sum(words(str(text)) for text in texts if len(text) > LONG_TEXT)
    )  # the module itself is none


def words(text: str) -> int:
    """Return the number of words of a text."""
    return len(re.findall(r"\w+", text))


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


def untyped(root: Path) -> int:
    """Return how many annotations are mappings of names to anything, those by an alias too."""
    texts = [path.read_text(encoding="utf-8") for package in PACKAGES[1:] for path in (root / package).rglob("*.py")]
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
