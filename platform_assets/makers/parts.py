"""Split rows by key, and hold what a stage stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.keys import Grain


@dataclass(frozen=True, kw_only=True)
class StageOutput:
    """The rows and notes a stage stores in one of its tables, by key."""

    frames: Mapping[str, pl.DataFrame]
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def by_key(frame: pl.DataFrame, keys: Sequence[str], producer: str) -> dict[str, pl.DataFrame]:
    """Split rows by key; a key without rows gets an empty frame.

    Args:
        producer: what returned the rows, for the message.

    Raises:
        ValueError: rows of an unexpected key.
    """
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
