"""Hold the values of a frozen dataclass against its annotations, so that a wrong one is a sentence and no traceback.

Belongs here: what an annotation admits, and in which words. Does not belong here: what else a value must be, which its
class says. Standard library only: pydantic would resolve the annotations when a class is made, and they name types of
polars, pandera and torch that are imported for type checking alone, so that definitions load without them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

LONGEST = 80
"""How many letters of a wrong value a sentence repeats."""
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


def check(value: Any, whose: str, **classes: type) -> None:
    """Raise `ValueError` when a value of a dataclass is none that its annotation admits.

    Args:
        value: of a dataclass in a module whose annotations are postponed, and so are text.
        whose: begins the sentence: `Monitors.`, or `orders: ` of a product.
        classes: what the names in annotations stand for besides Python's own; a name that is missing admits anything.
    """
    for each in fields(value):
        given, kinds = getattr(value, each.name), _parts(str(each.type), " | ")
        if not any(_admits(given, kind, classes) for kind in kinds):
            words = accepted(str(each.type), **classes)
            raise ValueError(f"{whose}{each.name} is {_shown(given)}; expected {words}{_hint(given, kinds, classes)}.")


def accepted(annotation: str, **classes: type) -> str:
    """Return in words what an annotation admits, such as `a whole number or None`."""
    return " or ".join(_words(kind, classes) for kind in _parts(annotation, " | "))


def _admits(given: Any, kind: str, classes: Mapping[str, type]) -> bool:
    name, _, inside = kind.partition("[")
    inside = inside.removesuffix("]")
    if name == "Literal":
        return given in ast.literal_eval(f"({inside},)")
    if name == "tuple":
        each = _parts(inside, ", ")
        if not isinstance(given, tuple | list):
            return False
        if each[-1] == "...":
            return all(_admits(one, each[0], classes) for one in given)
        return len(given) == len(each) and all(map(_admits, given, each, [classes] * len(each)))
    if name in _SIMPLE:
        return isinstance(given, _SIMPLE[name][0]) and (name == "bool" or not isinstance(given, bool))
    return name not in classes or isinstance(given, classes[name])


def _words(kind: str, classes: Mapping[str, type]) -> str:
    name, _, inside = kind.partition("[")
    inside = inside.removesuffix("]")
    if name == "Literal":
        return f"one of {inside}"
    if name == "tuple":
        each = _parts(inside, ", ")
        many = "" if each[-1] == "..." else f"{len(each)} values, each "
        return f"a tuple of {many}{_words(each[0], classes)}" + ("" if many else " each")
    if name in _SIMPLE:
        return _SIMPLE[name][1]
    return " or ".join(_leaves(classes[name])) if name in classes else name


def _leaves(kind: type) -> list[str]:
    """Return the names of the classes that a person would write: those that it is the base of, or its own."""
    below: list[type] = kind.__subclasses__()
    named = [_leaves(each) if each.__name__.startswith("_") else [each.__name__] for each in below]
    return [name for names in named for name in names] or [kind.__name__]


def _hint(given: Any, kinds: list[str], classes: Mapping[str, type]) -> str:
    """Return what a single value is as a tuple, where one of such values is expected."""
    inner = [_parts(kind[6:-1], ", ")[0] for kind in kinds if kind.startswith("tuple[") and kind.endswith(", ...]")]
    return f", such as ({_shown(given)},)" if any(_admits(given, kind, classes) for kind in inner) else ""


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _parts(text: str, between: str) -> list[str]:
    """Split an annotation where no bracket is open."""
    parts: list[str] = []
    depth = begin = 0
    for place, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if not depth and text.startswith(between, place):
            parts.append(text[begin:place])
            begin = place + len(between)
    return [*parts, text[begin:]]
