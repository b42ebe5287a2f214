"""JSON values as they come from outside: what one holds is asked before it is used.

A path names members of mappings, one within the other.
"""

from __future__ import annotations

from collections.abc import Mapping


def member(value: object, *path: str) -> object:
    """Return what lies at a path, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def items(value: object, *path: str) -> list[object]:
    """Return the mappings of a list."""
    found = member(value, *path)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list | tuple) else []


def text(value: object, *path: str) -> str:
    """Return a text, or an empty one where there is none."""
    found = member(value, *path)
    return found if isinstance(found, str) else ""


def texts(value: object, *path: str) -> dict[str, str]:
    """Return the members of a mapping that are text, such as labels."""
    found = member(value, *path)
    whole = found if isinstance(found, Mapping) else {}
    return {name: each for name, each in whole.items() if isinstance(each, str)}
