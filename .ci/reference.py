"""Write docs/reference.md from the types of a product file: `make reference`, and `--check` compares only.

Every sentence on the page comes from the code: fields, defaults and accepted values from the dataclasses, units and
meanings from their `Attributes:` sections (`name (unit): meaning.`), refusals from the messages that the code raises.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from platform_assets.base import keys, kinds
from platform_assets.base.wording import plural
from platform_assets.data.channels.dealt_file import DealtFile
from platform_assets.data.channels.object_prefix import ObjectPrefix
from platform_assets.data.channels.one_file import OneFile
from platform_assets.data.channels.sql_window import SqlWindow
from platform_assets.product import channels, monitoring, spec
from platform_assets.training.learners.blend import Blend
from platform_assets.training.learners.boosted import LightGbm
from platform_assets.training.learners.estimator import Estimator
from platform_assets.training.learners.finished import FinishedOnnx
from platform_assets.training.learners.network import Network

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
TYPES: tuple[tuple[str, Sequence[type]], ...] = (
    ("The product", (spec.Product,)),
    ("Grain", (keys.DailyGrain, keys.HourlyGrain, keys.BatchGrain)),
    ("Sources", (spec.Source, spec.Column)),
    ("Channels", (OneFile, DealtFile, SqlWindow, ObjectPrefix)),
    ("Fields", (spec.Field,)),
    ("Task", (spec.Binary, spec.MultiClass, spec.Regression)),
    ("Learners", (Network, LightGbm, Estimator, FinishedOnnx, Blend)),
    ("Training and gates", (spec.Training, spec.Gates)),
    ("Search for settings", (spec.Range, spec.Choice)),
    ("Faults, drift and retraining", (spec.Monitors, spec.CrossRule, spec.Retraining)),
    ("Service", (spec.Service,)),
    ("Pods", (spec.Pods,)),
    ("Recording", (spec.History, spec.FaultKind)),
    ("What the functions of a product get", (spec.Window,)),
)
CHECKING = (
    "platform_assets/check",
    "platform_assets/training/changes.py",
    "platform_assets/launch/prices.py",
    "platform_assets/product/planned.py",
)
DECLARED = (
    "platform_assets/data/declared.py",
    "platform_assets/evaluation/measures",
    "platform_assets/product/tasks/probabilities.py",
    "platform_assets/product/tasks",
)
"""Modules whose functions the checks call with what a product's functions returned."""
BASES = {"Grain": "Grain", "Learner": "Learners", "Setting": "Search for settings", "Task": "Task"}
"""Base class -> the section with the classes that a product file writes instead of it."""
CLASSES = {
    name: value for name, value in vars(spec).items() if isinstance(value, type) and name not in (*BASES, "Channel")
}
NUMBERS = re.compile(r"\b(int|float)\b")
HEADER = """# Reference of a product file

Written by `make reference` from the types themselves; a test fails when the page is out of date. A product is one file
in `platform_assets/products/` with one `SPEC = Product(...)`; everything below is imported from `driftline`. How to
write one step by step: [add a product](add_a_product.md); worked examples: [cookbook](cookbook.md); words:
[glossary](glossary.md).

A value of the wrong type is refused when the file is imported, in one sentence that names the field. "Refused" lists
what else is refused then; `…` stands for the value. What only the data can show is found by `driftline check`
([last section](#what-driftline-check-refuses)). Numbers of keys count partition keys, whatever the grain.
"""


@dataclass(frozen=True)
class Entry:
    """What a docstring says about a field."""

    unit: str
    meaning: str


def main() -> int:
    """Write the page, or compare it with `--check`; return the exit code."""
    text = render()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        print("docs/reference.md is not what the code says: run `make reference`")
        return 1
    return 0


def render() -> str:
    """Return the page."""
    parts = [HEADER]
    for title, types in TYPES:
        parts.append(f"## {title}\n")
        parts += [_section(kind, "###" if len(types) > 1 else "") for kind in types]
    parts += [_channel(), _checks()]
    return "\n".join(parts)


def entries(kind: type) -> dict[str, Entry]:
    """Return the `Attributes:` of a class and of its bases, by field."""
    merged: dict[str, Entry] = {}
    for owner in reversed(kind.__mro__):
        _, _, text = inspect.cleandoc(owner.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for item in re.split(r"\n(?=\S)", textwrap.dedent(text)):
            match = re.fullmatch(r"(\w+)(?: \(([^)]+)\))?: (.*)", " ".join(item.split()))
            if match is not None:
                merged[match[1]] = Entry(unit=match[2] or "", meaning=match[3])
    return merged


def check_entries(kind: type) -> list[str]:
    """Return what is missing in the docstring of a class: meanings, and units of numbers."""
    described, problems = entries(kind), []
    for field in fields(kind):
        entry = described.get(field.name)
        is_number = bool(NUMBERS.search(_plain(field))) and not re.search("tuple|Literal", _plain(field))
        if entry is None:
            problems.append(f"{kind.__name__}.{field.name} is not described")
        elif is_number and not entry.unit:
            problems.append(f"{kind.__name__}.{field.name} has no unit: write `{field.name} (unit): ...`")
        elif entry.unit and not is_number:
            problems.append(f"{kind.__name__}.{field.name} is not a number and has a unit")
    return problems


def _section(kind: type, heading: str) -> str:
    summary = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]
    described, refusals = entries(kind), list(_refusals(kind))
    rows = ["| field | accepted | default | unit | meaning | refused |", "|---|---|---|---|---|---|"]
    for field in fields(kind):
        entry = described[field.name]
        numbers = ", ".join(str(place) for place, (_, names) in enumerate(refusals, 1) if field.name in names)
        cells = (f"`{field.name}`", _accepted(field), _default(field), entry.unit, _cell(entry.meaning), numbers)
        rows.append(f"| {' | '.join(cells)} |")
    lines = [f"{heading} {kind.__name__}\n"] if heading else []
    lines += [summary, "", *rows, ""]
    if refusals:
        lines += ["Refused:", "", *(f"{place}. {text}" for place, (text, _) in enumerate(refusals, 1)), ""]
    return "\n".join(lines)


def _channel() -> str:
    """Return the section on sources of another kind."""
    about, _, places = inspect.cleandoc(channels.Channel.__doc__ or "").partition("\n\nAttributes:\n    PLACES: ")
    lines = ["## Channel\n", *about.splitlines(), "", f"`PLACES` names {' '.join(places.split())}", ""]
    lines += ["| method | what it does |", "|---|---|"]
    for name, method in vars(channels.Channel).items():
        if inspect.isfunction(method):
            lines.append(f"| `{name}{_signature(method)}` | {_cell(_first_line(method.__doc__))} |")
    lines += ["", "`fetch` returns a `Landed`:", "", "| field | meaning |", "|---|---|"]
    described = entries(channels.Landed)
    lines += [f"| `{field.name}` | {_cell(described[field.name].meaning)} |" for field in fields(channels.Landed)]
    return "\n".join([*lines, ""])


def _signature(method: Any) -> str:
    text = str(inspect.signature(method)).replace("self, ", "").replace("self", "").replace("|", "or")
    return text.replace("= ''", '= ""').replace("'", "")


# Refusals ------------------------------------------------------------------------------------------------------------


def _refusals(kind: type) -> Iterator[tuple[str, set[str]]]:
    """Yield each message that a class raises about its values, with the fields that it is about."""
    names = {field.name for field in fields(kind)}
    done: set[str] = set()
    for function in _checks_of(kind):
        for text, condition in _raised(function):
            about = {name for name in names if _is_about(name, text, condition)}
            for loop in _loops(function):
                if "{name}" in text and set(loop) <= names and all(f"'{name}'" in condition for name in loop):
                    about |= set(loop)
                    text = text.replace("{name}", " / ".join(loop))
            sentence = _readable(text)
            if sentence not in done:
                done.add(sentence)
                yield sentence, about


def _checks_of(kind: type) -> Iterator[ast.FunctionDef]:
    """Yield the functions that run when a class is made: its own, its bases', and those of the spec as a whole."""
    for owner in reversed(kind.__mro__):
        if owner.__module__.startswith("platform_assets"):
            node = next(
                node
                for node in _tree(inspect.getsourcefile(owner) or "").body
                if isinstance(node, ast.ClassDef) and node.name == owner.__name__
            )
            for child in node.body:
                if isinstance(child, ast.FunctionDef) and (
                    child.name == "__post_init__" or child.name.startswith("_check_")
                ):
                    yield child
    if kind is spec.Product:
        for node in _tree(monitoring.__file__).body:
            if isinstance(node, ast.FunctionDef) and node.name in ("check_rules", "check_possible"):
                yield node


def _raised(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Yield the message of each `raise`, and the source of the conditions around it."""
    for node, conditions in _walk(function, ()):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = _text(node.exc.args[0])
            if text:
                yield text, " ".join(conditions)


def _walk(node: ast.AST, conditions: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    for child in ast.iter_child_nodes(node):
        more = conditions
        if isinstance(node, ast.If):
            more = (*conditions, ast.unparse(node.test))
        elif isinstance(node, ast.For):
            more = (*conditions, ast.unparse(node.iter))
        yield child, more
        yield from _walk(child, more)


def _loops(function: ast.FunctionDef) -> Iterator[tuple[str, ...]]:
    """Yield the names that loops over literals of field names go through."""
    for node in ast.walk(function):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
            literals = [item.elts[0] if isinstance(item, ast.Tuple) and item.elts else item for item in node.iter.elts]
            if all(isinstance(item, ast.Constant) and isinstance(item.value, str) for item in literals):
                yield tuple(str(item.value) for item in literals if isinstance(item, ast.Constant))


def _is_about(name: str, text: str, condition: str) -> bool:
    """Tell whether a message names a field, or stands under a condition on it."""
    is_named = re.search(rf"(?<![\w.])(?<!\ba ){name}(=| is | are | must | name |\.)", text)
    return bool(is_named or re.search(rf"\b(?:self|spec)\.{name}\b", condition))


def _text(node: ast.expr) -> str:
    """Return a message with its placeholders, or nothing for one that is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = []
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts.append(str(value.value))
            elif isinstance(value, ast.FormattedValue):
                inner = ast.unparse(value.value)
                parts.append(f"{{{inner}}}" if inner == "name" else _constant(inner) or _worded(value.value) or "…")
        return "".join(parts)
    return ""


def _worded(node: ast.expr) -> str | None:
    """Return what functions of `platform_assets.base.wording` write, with `…` for values: `… keys`, `… to …`."""
    name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    if name == "counted" and isinstance(node, ast.Call) and isinstance(node.args[1], ast.Constant):
        return f"… {plural(str(node.args[1].value))}"
    return "… to …" if name == "span" else None


def _constant(name: str) -> str | None:
    """Return the value of a constant in capitals that a message states."""
    if not re.fullmatch(r"[A-Z_]+", name):
        return None
    for module in (spec, monitoring, sys.modules[spec.Field.__module__], sys.modules[spec.MultiClass.__module__]):
        value = getattr(module, name, None)
        if isinstance(value, int | float):
            return f"{value:,}"
    return None


def _readable(text: str) -> str:
    """Return a message for the page: values as `…`, without the product's name before it."""
    text = re.sub(r"^…: ", "", text.replace("{name}", "…"))
    text = re.sub(r"(?<=[.;…]) ?…\.?$", "", text)  # what ends so many of them: in which file to fix it
    return _cell(" ".join(text.split()))


# `driftline check` ---------------------------------------------------------------------------------------------------


def _checks() -> str:
    """Return the section on `driftline check`: its lines, what each tries, and what it refuses."""
    functions: dict[str, ast.FunctionDef] = {}
    for place in (*CHECKING, *DECLARED):
        paths = sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / place]
        for path in paths:
            for node in ast.walk(_tree(str(path))):
                if isinstance(node, ast.FunctionDef):
                    functions.setdefault(node.name, node)
    lines = [
        "## What `driftline check` refuses\n",
        "It calls the product's functions on a few keys of its recording, or of what has landed, and prints one line",
        "per check. Below is what each line tries, and the sentences with which it refuses. A sentence stands once,",
        "under the first line that may print it.",
        "",
    ]
    done: set[str] = set()
    for name, step in _steps():
        function = functions[step]
        what = _first_line(ast.get_docstring(function))
        lines.append(f"- **{name}**" + (f": {what[:1].lower()}{what[1:]}" if what else ""))
        for text in _refused_by(function, functions):
            if text not in done and len(text.replace("…", "")) > 20:
                done.add(text)
                lines.append(f"  - {text}")
    return "\n".join([*lines, ""])


def _steps() -> Iterator[tuple[str, str]]:
    """Yield the name of each line with the function behind it, in the order of the module."""
    done = set()
    for node in ast.walk(_tree(str(ROOT / "platform_assets/check/__init__.py"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "line_of":
            label, step = _text(node.args[1]).replace("…", "NAME"), ast.unparse(node.args[2]).rpartition(".")[2]
            if (label, step) not in done and step != "_declared":
                done.add((label, step))
                yield label, step


def _refused_by(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> list[str]:
    """Return the messages that a function, or what it calls in these modules, raises as problems of the file."""
    reached, waiting, sentences = {function.name}, [function], []
    while waiting:
        current = waiting.pop(0)
        for node in ast.walk(current):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind = ast.unparse(node.exc.func)
                if kind in ("Problem", "ValueError") and node.exc.args and (text := _text(node.exc.args[0])):
                    sentences.append(_readable(text))
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                if called in functions and called not in reached and called not in ("call", "call_for_frame"):
                    reached.add(called)
                    waiting.append(functions[called])
    return list(dict.fromkeys(sentences))


# Cells ---------------------------------------------------------------------------------------------------------------


def _plain(field: Field[Any]) -> str:
    """Return an annotation whose aliases are written out."""
    text = str(field.type)
    for name, alias in vars(spec).items():
        if get_origin(alias) is Literal:
            text = re.sub(rf"\b{name}\b", f"Literal{list(get_args(alias))}", text)
        elif get_origin(alias) is Callable:
            text = re.sub(rf"\b{name}\b", "Callable", text)
    return text


def _accepted(field: Field[Any]) -> str:
    """Return what a field takes, in the words with which a wrong value is refused."""
    text = re.sub(r"^a tuple of (\w+) each", r"a tuple of \1", kinds.accepted(_plain(field), **CLASSES))
    for name, title in BASES.items():
        options = [kind.__name__ for kind in dict(TYPES)[title]]
        text = re.sub(rf"\b{name}\b", f"{', '.join(options[:-1])} or {options[-1]}", text)
    return _cell(text)


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        value = field.default_factory()
        return f"`{type(value).__name__}()`" if value or not isinstance(value, dict) else "`{}`"
    value = field.default
    if value is MISSING:
        return "required"
    if isinstance(value, monitoring._ByGrain):
        days, hours, batches = (value.of_kind[kind] for kind in ("daily", "hourly", "batch"))
        return f"{days} days, {hours} hours or {batches} batches"
    if isinstance(value, timedelta):
        return f"`timedelta({_duration(value)})`"
    return f"`{value!r}`" if not isinstance(value, str) else f'`"{value}"`'


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds % size == 0 and seconds != 86_400:
            return f"{unit}={seconds // size}"
    return "hours=24" if seconds == 86_400 else f"seconds={seconds}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n\n")[0].replace("\n", " ").strip()


def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
