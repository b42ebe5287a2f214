"""Check the values of a frozen dataclass against its annotations, so that a wrong value gives a sentence, not a
traceback.

Further conditions on a value are checked by its class. Standard library only: pydantic would resolve the annotations
when a class is created, and they name types of polars, pandera and torch that are imported for type checking alone, so
that definitions load without them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

LONGEST = 80
"""How many characters of a wrong value a message repeats."""
_SIMPLE: Mapping[str, tuple[Any, str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "True or False"),
    "str": (str, "text"),
    "None": (type(None), "None"),
    "timedelta": (timedelta, "a timedelta"),
    "Mapping": (Mapping, "a mapping"),
    "Callable": (Callable, "a function"),
}


def check(value: Any, prefix: str, **classes: type) -> None:
    """Raise `ValueError` if a member of a dataclass has a value that its annotation does not allow.

    Args:
        value: of a dataclass in a module with postponed annotations, which therefore are text.
        prefix: begins the sentence: `Monitors.`, or `orders: ` of a product.
        classes: meaning of names in annotations, besides Python's own; an unlisted name allows anything.
    """
    for member in fields(value):
        item, kinds = getattr(value, member.name), _parts(str(member.type), " | ")
        if not any(_admits(item, kind, classes) for kind in kinds):
            expected = accepted(str(member.type), **classes)
            tuples = [kind for kind in kinds if kind.startswith("tuple[") and kind.endswith(", ...]")]
            if any(_admits(item, _parts(kind[6:-1], ", ")[0], classes) for kind in tuples):
                expected += f", such as ({_quoted(item)},)"  # one value instead of a tuple of such values
            raise ValueError(f"{prefix}{member.name} is {_quoted(item)}; expected {expected}.")


def accepted(annotation: str, **classes: type) -> str:
    """Describe the values an annotation allows, such as `a whole number or None`."""
    return " or ".join(_expected(kind, classes) for kind in _parts(annotation, " | "))


def _admits(value: Any, kind: str, classes: Mapping[str, type]) -> bool:
    name, _, inside = kind.partition("[")
    inside = inside.removesuffix("]")
    if name == "Literal":
        return value in ast.literal_eval(f"({inside},)")
    if name == "tuple":
        parts = _parts(inside, ", ")
        if not isinstance(value, tuple | list):
            return False
        if parts[-1] == "...":
            return all(_admits(item, parts[0], classes) for item in value)
        return len(value) == len(parts) and all(map(_admits, value, parts, [classes] * len(parts)))
    if name in _SIMPLE:
        # bool is a subclass of int, so True would pass as 1.
        return isinstance(value, _SIMPLE[name][0]) and (name == "bool" or not isinstance(value, bool))
    return name not in classes or isinstance(value, classes[name])


def _expected(kind: str, classes: Mapping[str, type]) -> str:
    name, _, inside = kind.partition("[")
    inside = inside.removesuffix("]")
    if name == "Literal":
        return f"one of {inside}"
    if name == "tuple":
        parts = _parts(inside, ", ")
        many = "" if parts[-1] == "..." else f"{len(parts)} values, each "
        return f"a tuple of {many}{_expected(parts[0], classes)}" + ("" if many else " each")
    if name in _SIMPLE:
        return _SIMPLE[name][1]
    return " or ".join(_leaves(classes[name])) if name in classes else name


def _leaves(kind: type) -> list[str]:
    """Return the class names a person would write: the concrete subclasses, or the class itself."""
    subclasses: list[type] = kind.__subclasses__()
    names_below = [
        _leaves(subclass) if subclass.__name__.startswith("_") else [subclass.__name__] for subclass in subclasses
    ]
    return [name for names in names_below for name in names] or [kind.__name__]


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _parts(text: str, separator: str) -> list[str]:
    """Split an annotation at separators outside of brackets."""
    parts: list[str] = []
    depth = begin = 0
    for position, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if not depth and text.startswith(separator, position):
            parts.append(text[begin:position])
            begin = position + len(separator)
    return [*parts, text[begin:]]
