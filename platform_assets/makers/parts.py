"""Split and hand on the rows of several keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.keys import Grain


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a stage stores for some keys in one of its tables."""

    frames: Mapping[str, pl.DataFrame]
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def by_key(frame: pl.DataFrame, keys: Sequence[str], made_by: str) -> dict[str, pl.DataFrame]:
    """Return each key's rows, none for a key without any.

    Raises:
        ValueError: rows of a key that was not asked for.
    """
    parts = {str(name): part for (name,), part in frame.partition_by("key", as_dict=True, maintain_order=True).items()}
    if strangers := sorted(set(parts) - set(keys)):
        raise ValueError(f"{made_by} returned rows of keys {strangers}; expected only {keys[0]} to {keys[-1]}.")
    return {key: parts.get(key, frame.clear()) for key in keys}


def contiguous(grain: Grain, keys: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the keys as runs without a gap, in order."""
    runs: list[list[str]] = []
    for key in keys:
        if runs and grain.index(key) == grain.index(runs[-1][-1]) + 1:
            runs[-1].append(key)
        else:
            runs.append([key])
    return [tuple(run) for run in runs]
