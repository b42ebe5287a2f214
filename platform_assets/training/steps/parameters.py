"""Describe what a training was configured with, as names and plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from platform_assets.store.records.base import Number
from platform_assets.store.records.trainings import Parameters
from platform_assets.training.checkpoint_maker import Learning


def describe(maker: Learning) -> Parameters:
    """Return the parameters of a training and its learner by dotted name: `learner.settings.num_leaves`."""
    return {**dict(_flat("training", maker.training)), **dict(_flat("learner", maker.learner))}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Number | str | bool | None]]:
    if is_dataclass(value) and not isinstance(value, type):
        for member in fields(value):
            yield from _flat(f"{name}.{member.name}", getattr(value, member.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif isinstance(value, tuple | list) and any(is_dataclass(item) for item in value):
        for number, item in enumerate(value):
            yield f"{name}.{number}", type(item).__name__
            yield from _flat(f"{name}.{number}", item)
    elif value is None or isinstance(value, bool | int | float | str):
        yield name, value
    else:
        yield name, getattr(value, "__name__", None) or str(value)
