"""JSON values as they come from outside: what one holds is asked before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Object = Mapping[str, Json]


def mapping(value: Json) -> Object:
    """Return a value that is a mapping, or else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Object, key: str) -> list[Object]:
    """Return the mappings of a member that is a list."""
    found = value.get(key)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list | tuple) else []


def text(value: Object, key: str) -> str:
    """Return a member that is text, or else an empty one."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def texts(value: Json) -> dict[str, str]:
    """Return the members of a mapping that are text, such as labels."""
    return {name: member for name, member in mapping(value).items() if isinstance(member, str)}
