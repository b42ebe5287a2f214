"""Order, parse and window partition keys.

A key is an opaque string everywhere else; only this module parses one. A grain is the ordered, bounded or open sequence
of a product's keys: days, hours or numbered batches. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo

from platform_assets.base.problems import Problem

Parsed = TypeVar("Parsed")
EARLIEST, LATEST = datetime(1800, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Moments in this range can be counted in nanoseconds, and shifted by any time zone and lookback."""


class KeyProblem(Problem, ValueError):
    """A partition key that is not one of its grain's."""


@dataclass(frozen=True, kw_only=True)
class Grain:
    """Base of the three grains: an order over keys, counted from 0 at the first one.

    `kind` is one word for messages. Training waits `patience` keys for labels that are due, unless the product says
    otherwise.
    """

    kind: ClassVar[str]
    patience: ClassVar[int]

    def index(self, key: str) -> int:
        """Return the key's position, 0 for the first; raise `KeyProblem` for an unknown key."""
        raise NotImplementedError

    def key_at(self, index: int) -> str:
        """Return the key at a position; raise `KeyProblem` outside the grain."""
        raise NotImplementedError

    def instant(self, key: str, arrival_of: Callable[[str], datetime | None] | None = None) -> datetime:
        """Return the key's start in UTC; for a batch, right after the one before has arrived, by `arrival_of`."""
        raise NotImplementedError

    def instant_after(self, key: str) -> datetime | None:
        """Return the end of the key's period in UTC; None for batches, which have no period."""
        return None

    @property
    def size(self) -> int | None:
        """The number of keys, or None when the grain has no end."""
        raise NotImplementedError

    @property
    def endless(self) -> Grain:
        """The grain without its end, which affects no key and no row."""
        raise NotImplementedError

    @property
    def first(self) -> str:
        """The first key."""
        return self.key_at(0)

    @property
    def last(self) -> str | None:
        """The last key, or None when the grain has no end."""
        return None if self.size is None else self.key_at(self.size - 1)

    def contains(self, key: str) -> bool:
        """Tell whether the key is one of this grain's."""
        try:
            self.index(key)
        except KeyProblem:
            return False
        return True

    def shift(self, key: str, count: int) -> str:
        """Return the key `count` positions later (earlier when negative)."""
        return self.key_at(self.index(key) + count)

    def span(self, first: str, last: str) -> tuple[str, ...]:
        """Return every key from `first` to `last`, both included."""
        start, stop = self.index(first), self.index(last)
        if stop < start:
            raise KeyProblem(f"the range {first!r}...{last!r} runs backwards.")
        return tuple(self.key_at(i) for i in range(start, stop + 1))

    def before(self, cutoff: str) -> tuple[str, ...]:
        """Return every key before the cutoff, oldest first."""
        return tuple(self.key_at(i) for i in range(self.index(cutoff)))

    def window(self, cutoff: str, *, width: int | None, label_delay: int) -> tuple[str, ...]:
        """Return the labelled keys that a cutoff's model may see: `[-width, -1-label_delay]`; None: from the first."""
        end = self.index(cutoff) - label_delay
        start = 0 if width is None else max(0, self.index(cutoff) - width)
        return tuple(self.key_at(i) for i in range(start, max(start, end)))

    def with_lookback(self, keys: tuple[str, ...], lookback: int) -> tuple[str, ...]:
        """Return the contiguous `keys` preceded by up to `lookback` earlier ones (fewer at the start)."""
        if not keys:
            return ()
        start = max(0, self.index(keys[0]) - lookback)
        return self.span(self.key_at(start), keys[-1])

    def _checked_index(self, index: int) -> int:
        if index < 0 or (self.size is not None and index >= self.size):
            raise KeyProblem(f"there is no key at position {index}: {self.describe()}.")
        return index

    def describe(self) -> str:
        """Describe the grain's keys in one clause, for messages."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _Timed(Grain):
    """Keys that are periods of wall time in a zone.

    Attributes:
        start: the first key.
        end: the last key, included; None for no end.
        time_zone: name of the zone in which a period begins and ends.
    """

    start: str
    end: str | None = None
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.time_zone)
        # An unknown name raises a KeyError, a path a ValueError, and the name of a folder, such as America, an OSError.
        except (KeyError, TypeError, ValueError, OSError):
            raise ValueError(
                f"{type(self).__name__}.time_zone is {self.time_zone!r}; expected a name such as 'America/New_York'."
            ) from None
        self.instant(self.start)
        if self.end is not None:
            self.index(self.end)

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which periods begin and end."""
        return ZoneInfo(self.time_zone)

    @property
    def size(self) -> int | None:
        return None if self.end is None else self._offset(self.end) + 1

    @property
    def endless(self) -> _Timed:
        return replace(self, end=None)

    def instant_after(self, key: str) -> datetime:
        # Not a fixed length: a day has 23 or 25 hours where clocks change.
        return self.endless.instant(self.endless.shift(key, 1))

    def _offset(self, key: str) -> int:
        raise NotImplementedError

    def key_of(self, moment: datetime) -> str:
        """Return the key of the period that contains a moment (in any zone; a naive one is refused)."""
        raise NotImplementedError

    def index(self, key: str) -> int:
        offset = self._offset(key)
        if offset < 0 or (self.end is not None and offset > self._offset(self.end)):
            raise KeyProblem(f"{key!r} is outside of {self.describe()}.")
        return offset

    def describe(self) -> str:
        return f"{self.kind} keys from {self.start} to {self.end or 'no end'} ({self.time_zone})"


@dataclass(frozen=True, kw_only=True)
class DailyGrain(_Timed):
    """One key per calendar day of the zone: `2013-03-01`."""

    kind: ClassVar[str] = "daily"
    patience: ClassVar[int] = 7

    def _offset(self, key: str) -> int:
        return (_day(key) - _day(self.start)).days

    def key_at(self, index: int) -> str:
        return (_day(self.start) + timedelta(days=self._checked_index(index))).isoformat()

    def instant(self, key: str, arrival_of: Callable[[str], datetime | None] | None = None) -> datetime:
        day = _day(key)
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC)

    def key_of(self, moment: datetime) -> str:
        return _aware(moment).astimezone(self.zone).date().isoformat()


@dataclass(frozen=True, kw_only=True)
class HourlyGrain(_Timed):
    """One key per hour, named by its start in UTC: `2013-03-01T05`. Hours of real time: none repeats."""

    kind: ClassVar[str] = "hourly"
    patience: ClassVar[int] = 48

    def _offset(self, key: str) -> int:
        return int((_hour(key) - _hour(self.start)) / timedelta(hours=1))

    def key_at(self, index: int) -> str:
        return _name_of(_hour(self.start) + timedelta(hours=self._checked_index(index)))

    def instant(self, key: str, arrival_of: Callable[[str], datetime | None] | None = None) -> datetime:
        return _hour(key)

    def key_of(self, moment: datetime) -> str:
        return _name_of(_aware(moment).astimezone(UTC))


@dataclass(frozen=True, kw_only=True)
class BatchGrain(Grain):
    """Numbered deliveries, zero-padded: `0001` ... `0700`.

    Attributes:
        count (batches): how many there are.
        width (digits): of a key.
    """

    kind: ClassVar[str] = "batch"
    patience: ClassVar[int] = 5
    count: int
    width: int = 4

    def __post_init__(self) -> None:
        for name in ("count", "width"):
            value: object = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"BatchGrain.{name} is {value!r}; expected a whole number.")
        if self.count < 1 or self.count >= 10**self.width:
            raise ValueError(f"count is {self.count}; expected 1 to {10**self.width - 1} for width {self.width}.")

    @property
    def endless(self) -> BatchGrain:
        return replace(self, count=10**self.width - 1)

    @property
    def size(self) -> int | None:
        return self.count

    def index(self, key: str) -> int:
        # isdecimal() and int() also take the digits of other scripts.
        if len(key) != self.width or not (key.isascii() and key.isdecimal()) or not 1 <= int(key) <= self.count:
            raise KeyProblem(f"{key!r} is not one of {self.describe()}.")
        return int(key) - 1

    def key_at(self, index: int) -> str:
        return f"{self._checked_index(index) + 1:0{self.width}d}"

    def instant(self, key: str, arrival_of: Callable[[str], datetime | None] | None = None) -> datetime:
        position = self.index(key)
        if position and arrival_of is None:
            raise KeyProblem(f"the instant of batch {key!r} is the arrival of the previous one; pass arrival_of.")
        while position and arrival_of is not None:
            position -= 1
            arrived = arrival_of(self.key_at(position))
            if arrived is not None:  # else the batch has no row
                # A microsecond later, because nothing known at or after an instant is used, and the previous batch
                # must be.
                return _aware(arrived).astimezone(UTC) + timedelta(microseconds=1)
        return datetime.min.replace(tzinfo=UTC)

    def describe(self) -> str:
        return f"batch keys from {self.key_at(0)} to {self.key_at(self.count - 1)}"


def _once_per_key(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """Parse each key once: a window consists of keys, and a run needs each of them thousands of times."""
    cached_parse = lru_cache(maxsize=65_536)(parse)

    def parsed(key: Any) -> Parsed:  # comes from a product's file, so it may have any type
        return cached_parse(key) if isinstance(key, str) else parse(key)

    return parsed


@_once_per_key
def _day(key: str) -> date:
    try:
        day = date.fromisoformat(key)
    except (TypeError, ValueError):
        day = None
    # fromisoformat() also takes 20130301 and 2013-W09-5, which would be second names of one key.
    if day is None or day.isoformat() != key:
        raise KeyProblem(f"{key!r} is not a daily key; expected a date such as '2013-03-01'.")
    return day


@_once_per_key
def _hour(key: str) -> datetime:
    try:
        moment = datetime.strptime(key, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    except (TypeError, ValueError):
        moment = None
    # strptime() also takes 2013-3-1T5, which would be a second name of the key.
    if moment is None or _name_of(moment) != key:
        raise KeyProblem(f"{key!r} is not an hourly key; expected an hour such as '2013-03-01T05'.")
    return moment


def _name_of(hour: datetime) -> str:
    return hour.isoformat()[:13]


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; pass an aware datetime.")
    return moment
