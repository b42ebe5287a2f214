"""Count from one thread: a number in a file that workers share then costs a tenth of prometheus-client's `inc`.

That takes a lock, asks for the process id by a system call and checks its arguments, five times per request. The file
is written at once, as there: what a killed worker has counted stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.values import MutexValue


class Tally:
    """A number of prometheus-client that only one thread changes, and only through this object."""

    __slots__ = ("_file", "_key", "_total", "_value")

    def __init__(self, value: MutexValue) -> None:
        """Go on from the number's value.

        Args:
            value: of a counter or a histogram; its own class where workers share files.
        """
        self._value, self._total = value, value.get()
        self._file, self._key = getattr(value, "_file", None), getattr(value, "_key", "")

    @classmethod
    def of(cls, counter: Counter) -> Tally:
        """Return the tally of a counter that has all of its labels."""
        return cls(counter._value)

    def add(self, amount: float = 1) -> None:
        """Count."""
        self._total += amount
        if self._file is None:
            self._value.set(self._total)
        else:
            self._file.write_value(self._key, self._total, 0.0)


class Distribution:
    """A histogram without labels that only one thread changes, and only through this object."""

    def __init__(self, histogram: Histogram) -> None:
        self._bounds: Sequence[float] = histogram._upper_bounds
        self._buckets = [Tally(value) for value in histogram._buckets]
        self._sum = Tally(histogram._sum)

    def observe(self, value: float) -> None:
        """Count a value, as `Histogram.observe` does."""
        self._buckets[bisect_left(self._bounds, value)].add()
        self._sum.add(value)
