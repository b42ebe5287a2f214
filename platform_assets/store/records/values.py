"""Read JSON values from outside, checking types on the way.

A path names members of nested mappings.
"""

from __future__ import annotations

from collections.abc import Mapping


def member(value: object, *path: str) -> object:
    """Return the value at a path, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def items(value: object, *path: str) -> list[object]:
    """Return the mappings in a list; empty where there is no list."""
    members = member(value, *path)
    return [item for item in members if isinstance(item, Mapping)] if isinstance(members, list | tuple) else []


def text(value: object, *path: str) -> str:
    """Return a text, or an empty one where there is none."""
    content = member(value, *path)
    return content if isinstance(content, str) else ""


def texts(value: object, *path: str) -> dict[str, str]:
    """Return the members of a mapping that are text, such as labels."""
    mapping = member(value, *path)
    if not isinstance(mapping, Mapping):
        return {}
    return {name: content for name, content in mapping.items() if isinstance(content, str)}
