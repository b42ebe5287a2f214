"""Change a product's configuration for one training: `--set epochs=20 --set learner.settings.num_leaves=15`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from platform_assets.specs.base import ProductSpec

LEARNER, TRAINING = "learner", "training"


def changed(spec: ProductSpec, settings: Sequence[str]) -> ProductSpec:
    """Return a product with changes.

    Args:
        settings: `name=value`; a name is a field of `Training`, or `learner.` and a field of the learner. A dot leads
            into a mapping or a tuple. A value is TOML, or plain text.

    Raises:
        ValueError: a name that is not there, or a value that is refused.
    """
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign or not name:
            raise ValueError(f"--set is {setting!r}; expected name=value, such as epochs=20.")
        first, *rest = name.split(".")
        path = rest if first in (LEARNER, TRAINING) else [first, *rest]
        if first == LEARNER:
            spec = replace(spec, model=_changed(spec.learner, path, _value(text), name))
        else:
            spec = replace(spec, training=_changed(spec.training, path, _value(text), name))
    return spec


def _changed(part: Any, path: Sequence[str], value: Any, name: str) -> Any:
    """Return a dataclass, a mapping or a tuple with another value at a path."""
    if not path:
        return tuple(value) if isinstance(part, tuple) and isinstance(value, list) else value
    first, *rest = path
    if is_dataclass(part) and not isinstance(part, type):
        names = [field.name for field in fields(part)]
        if first not in names:
            raise ValueError(
                f"--set names {name!r}, and {type(part).__name__} has no {first!r}; expected one of {', '.join(names)}."
            )
        return replace(part, **{first: _changed(getattr(part, first), rest, value, name)})
    if isinstance(part, Mapping):
        return {**part, first: _changed(part.get(first), rest, value, name)}
    if isinstance(part, tuple) and first.isdigit() and int(first) < len(part):
        number = int(first)
        return (*part[:number], _changed(part[number], rest, value, name), *part[number + 1 :])
    raise ValueError(f"--set names {name!r}, and there is nothing below {first!r}; expected a name that exists.")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
