"""Split rows by key, and hold what a stage stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.base.keys import Grain


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """The rows and notes a stage stores in one of its tables, by key."""

    frames: Mapping[str, pl.DataFrame]
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """A maker of rows that a training reads, or of those they are made from.

    Attributes:
        NUMBER: raise it when the maker changes so that it makes other rows of the same input: keys that it made before
            are then older, and do not train together with those that it makes now.
    """

    NUMBER: ClassVar[int]

    def own(self) -> dict[str, Any]:
        """Return the product's functions and values that its rows depend on: all members, unless a maker knows better.

        What a product does not use is left out, so that a new member changes no version.
        """
        members = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in members.items() if not _is_unused(value)}


def _is_unused(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, tuple | Mapping) and not value)


def by_key(frame: pl.DataFrame, keys: Sequence[str], producer: str) -> dict[str, pl.DataFrame]:
    """Split rows by key; a key without rows gets an empty frame.

    Args:
        producer: what returned the rows, for the message.

    Raises:
        ValueError: rows of an unexpected key.
    """
    # polars' names of parts are tuples, of one column too.
    parts = {str(name): part for (name,), part in frame.partition_by("key", as_dict=True, maintain_order=True).items()}
    if strangers := sorted(set(parts) - set(keys)):
        raise ValueError(f"{producer} returned rows of keys {strangers}; expected only {keys[0]} to {keys[-1]}.")
    return {key: parts.get(key, frame.clear()) for key in keys}


def contiguous(grain: Grain, keys: Iterable[str]) -> list[tuple[str, ...]]:
    """Group ordered keys into runs without gaps."""
    runs: list[list[str]] = []
    for key in keys:
        if runs and grain.index(key) == grain.index(runs[-1][-1]) + 1:
            runs[-1].append(key)
        else:
            runs.append([key])
    return [tuple(run) for run in runs]
