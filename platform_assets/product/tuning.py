"""Declare what `driftline tune` varies: `Range` and `Choice`, by the names of `--set`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from platform_assets.base import kinds

EDGE = 0.05
"""Outer share of a range that counts as its edge: a best value there says that a better one may lie outside."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Base class of what is varied.

    Attributes:
        name: as in `driftline train --set`: a field of `Training`, such as `epochs` or `learning_rate`, or of the
            learner: `learner.rounds`, `learner.settings.num_leaves`.
    """

    name: str

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values that a product must accept: the ends of a range, or every choice."""
        raise NotImplementedError

    def has(self, value: Any) -> bool:
        """Whether a value is one that a search may try."""
        raise NotImplementedError

    def edge(self, value: Any) -> str | None:
        """Say at which edge a value lies; None for one inside, or where choices have no order."""
        raise NotImplementedError

    def document(self) -> dict[str, Any]:
        """Return the declaration as a record holds it."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Range(Setting):
    """Numbers from `low` to `high`, both included; whole ones if both ends are whole.

    Attributes:
        low (that of the setting): the lowest.
        high (that of the setting): the highest.
        is_log: whether to sample on a logarithmic scale, as for learning rates and penalties.
    """

    low: int | float
    high: int | float
    is_log: bool = False

    def __post_init__(self) -> None:
        kinds.check(self, "Range.")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"Range {self.name!r} is {self.low} to {self.high}; expected a low end below the high one."
            )
        if self.is_log and self.low <= 0:
            raise ValueError(f"Range {self.name!r} has is_log=True and begins at {self.low}; expected more than 0.")

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def samples(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    def has(self, value: Any) -> bool:
        # To Python True is a whole number.
        is_number = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def edge(self, value: Any) -> str | None:
        low, high, at = (math.log(number) if self.is_log else number for number in (self.low, self.high, value))
        share = (at - low) / (high - low)
        if EDGE < share < 1 - EDGE:
            return None
        end, number = ("lower", self.low) if share <= EDGE else ("upper", self.high)
        return f"{self.name} is {value:.4g}, at the {end} end of its range ({number:g}); move that end and tune again"

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "low": self.low, "high": self.high, "is_log": self.is_log}


@dataclass(frozen=True, kw_only=True)
class Choice(Setting):
    """One of several values.

    Attributes:
        values: at least two different ones; a value is whatever the setting takes, such as text or a tuple of widths.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        kinds.check(self, "Choice.")
        # By their text: True, 1 and 1.0 are equal to Python.
        if len({repr(value) for value in self.values}) != len(self.values) or len(self.values) < 2:
            raise ValueError(
                f"Choice {self.name!r} has the values {self.values!r}; expected two or more different ones."
            )

    @property
    def samples(self) -> tuple[Any, ...]:
        return self.values

    def has(self, value: Any) -> bool:
        return value in self.values

    def edge(self, value: Any) -> str | None:
        is_ordered = len(self.values) > 2 and all(
            isinstance(item, int | float) and not isinstance(item, bool) for item in self.values
        )
        if not is_ordered or value not in (min(self.values), max(self.values)):
            return None
        end = "smallest" if value == min(self.values) else "largest"
        return f"{self.name} is {value:g}, the {end} of its values; add one beyond it and tune again"

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "values": list(self.values)}
