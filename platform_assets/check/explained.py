"""Explain a product: every value, those that its file left out with the reason of the default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import Any

from platform_assets.base.wording import in_words
from platform_assets.engine.digests import modules
from platform_assets.product import defaults
from platform_assets.product.derived import LabelColumn, LenientCells, RowsAsDelivered, SomeColumns, TypedColumns
from platform_assets.product.fields import Field as Input
from platform_assets.product.spec import Product, Source

WIDTH = 80
NAMES = 16
"""Letters of the column with names, indentation included."""


def as_text(spec: Product) -> str:
    """Return the values, at most 80 letters wide: those of the file, those that it left out, and each source's."""
    given, left_out = list[str](), list[str]()
    for item in fields(spec):
        reason, value = defaults.reason(spec, item.name), _value(getattr(spec, item.name))
        (given if reason is None else left_out).extend(_lines(item.name, value, reason))
    path = modules.path_of(spec.module)
    parts = [
        [f"{spec.name}: {spec.module if path is None else path.name}", "", "Given:", *given],
        ["Left out, with the default's reason:", *left_out],
    ]
    for source in spec.sources:
        is_derived = isinstance(spec.label, LabelColumn) and source.name == defaults.LABELS
        about = ", which reads the label from the same deliveries" if is_derived else ""
        parts.append([f"Source {source.name}{about}:", *_lines_of(source)])
    return "\n\n".join("\n".join(part) for part in parts)


def _lines_of(source: Source) -> Iterator[str]:
    """Yield what a source's members are, and why where the file did not state it, as far as the value shows that."""
    by = getattr(source.channel, "by", None)
    for item in fields(source):
        value = getattr(source, item.name)
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if value == default and item.name not in ("entity", "channel"):
            continue
        is_derived = {
            "description": value == in_words(source.name),
            "schema": isinstance(value, TypedColumns),
            "read": isinstance(value, LenientCells),
            "known_at": by is not None and value == by,
            "partition_by": by is not None and value == by,
            "entity": value is None,
            "channel": value is None,
        }
        reason = defaults.REASONS_OF_SOURCES[item.name] if is_derived.get(item.name) else None
        yield from _lines(item.name, _value(value), reason)


def _lines(name: str, value: str, reason: str | None) -> Iterator[str]:
    text = value if reason is None else f"{value} ({reason})"
    first, *more = textwrap.wrap(text, WIDTH - NAMES, break_on_hyphens=False) or [""]
    yield f"  {name:{NAMES - 2}}{first}"
    for line in more:
        yield f"{'':{NAMES}}{line}"


def _value(value: Any) -> str:
    """Return a value in few words."""
    if isinstance(value, LabelColumn):
        known = "in the row" if value.grain.kind == "batch" else f"at the end of the key {value.delay} later"
        return f"the column {value.column}, known {known}"
    if isinstance(value, RowsAsDelivered):
        return f"key, id and moment ({value.time}) of each row of {value.source}, and the fields"
    if isinstance(value, TypedColumns):
        return ", ".join(f"{name} {kind}{' or null' if null else ''}" for name, kind, null in value.columns)
    if isinstance(value, SomeColumns):
        return f"{value.__name__}()" + (f" without {', '.join(value.without)}" if value.without else "")
    if isinstance(value, LenientCells):
        return "CSV" if isinstance(value.read, partial) else _value(value.read)
    if isinstance(value, Source):
        return value.name
    if isinstance(value, Input):
        return f"{value.name} {value.dtype}"
    if isinstance(value, tuple) and value:
        return ", ".join(map(_value, value))
    if callable(value) and hasattr(value, "__name__"):
        return f"{value.__name__}()"
    if is_dataclass(value) and not isinstance(value, type):
        members = ", ".join(f"{item.name}={_value(getattr(value, item.name))}" for item in fields(value) if item.repr)
        return f"{type(value).__name__}({members})"
    return value if isinstance(value, str) else "none" if value in (None, (), {}) else str(value)
