"""Building blocks for point-in-time features: what was known when a row was asked about, and nothing later.

Last known fact, trailing counts and means, open spans, calendar and cyclic encodings, and a filter that shows a table
as it stood at a moment. Which features a product has is in its file.

Contract of every block:
- a fact is visible if its moment is at or before the ask's;
- moments are compared in whole seconds, a fact's rounded up and an ask's rounded down;
- facts of one moment keep their table's order and the last one wins, so sort facts by a unique column first;
- sums are of integers, hence exact: a key built alone equals the same key built with others;
- where nothing is visible the result is null; nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KNOWN_AT = "known_at_utc"

_Codes: TypeAlias = "NDArray[np.int64]"

_LAST_S = 2**40
_MOST_GROUPS = 2**31
"""Group and second share one 64-bit number: 2^31 groups leave 2^32 seconds, 136 years."""


class Timeline:
    """Facts in time order within each group, and the asks that look back along them.

    Construction sorts the facts once (about 0.1 s for 300,000); every later look-up is one binary search per ask.

    Args:
        asks: the rows that look back, with the columns of `by` and `asked_at`.
        facts: the rows they may see, with the columns of `by` and `fact_at`. A fact whose moment or group is null never
            happened; an ask whose group is null sees nothing.
        by: the columns that form a group (text, categories or integers from 0); none for a single group.
        fact_at: the facts' column with the UTC moment from which they are visible.
        asked_at: the asks' column with the UTC moment up to which they see.
    """

    def __init__(
        self,
        asks: pl.DataFrame,
        facts: pl.DataFrame,
        *,
        by: Sequence[str] = (),
        fact_at: str = KNOWN_AT,
        asked_at: str = "asked_at",
    ) -> None:
        import numpy as np

        self._facts = facts
        fact_group, self._group = _groups(facts, asks, by)
        fact_s, self._asked_s = _seconds(facts[fact_at], is_up=True), _seconds(asks[asked_at], is_up=False)
        is_fact = (fact_group >= 0) & facts[fact_at].is_not_null().to_numpy()
        self._rows = np.flatnonzero(is_fact)
        fact_group, fact_s = fact_group[is_fact], fact_s[is_fact]
        self._zero_s = int(fact_s.min(initial=_LAST_S))
        self._span_s = max(int(fact_s.max(initial=-_LAST_S)) - self._zero_s, 0) + 2
        position = fact_group * self._span_s + (fact_s - self._zero_s)
        # Stable, for the order of facts of one moment: that of polars' join_asof differs between its engines.
        order = np.argsort(position, kind="stable")
        self._place, self._rows = position[order], self._rows[order]
        self._totals: dict[str, _Codes] = {}
        self._starts: dict[timedelta, _Codes] = {}
        self._by_place = np.argsort(self._group * self._span_s + self._offset(self._asked_s), kind="stable")

    def count(self, within: timedelta) -> pl.Series:
        """Count the facts in the last `within`: moments in (asked - within, asked]. Null without a group."""
        return self._hidden(self._end - self._start(within))

    def ahead(self, within: timedelta) -> pl.Series:
        """Count the facts in the next `within`: (asked, asked + within]. For plans, which are known in full."""
        return self._hidden(self._search(self._asked_s + _whole_seconds(within)) - self._end)

    def total(self, column: str, within: timedelta) -> pl.Series:
        """Sum an integer or boolean column over the last `within`; 0 when there are no facts."""
        import numpy as np

        if column not in self._totals:
            values = self._facts[column]
            if not (values.dtype.is_integer() or values.dtype == pl.Boolean):
                raise ValueError(f"column {column!r} is {values.dtype}; sums take integers or booleans, to be exact.")
            picked = values.cast(pl.Int64).gather(self._rows)
            if picked.null_count():
                raise ValueError(f"column {column!r} has nulls in {picked.null_count()} facts; filter them out first.")
            self._totals[column] = np.concatenate([np.zeros(1, np.int64), np.cumsum(picked.to_numpy())])
        total = self._totals[column]
        return self._hidden(total[self._end] - total[self._start(within)])

    def mean(self, column: str, within: timedelta, *, least: int = 1) -> pl.Series:
        """Average an integer or boolean column over the last `within`; null below `least` facts."""
        count, total = self.count(within), self.total(column, within)
        mean = pl.select(pl.when(count >= least).then(total.cast(pl.Float64) / count.cast(pl.Float64)))
        return mean.to_series().alias(column)

    def latest(self, columns: Sequence[str], within: timedelta, *, is_strict: bool = False) -> pl.DataFrame:
        """Return columns of the last fact that is at most `within` old, null where there is none.

        Args:
            within: the greatest age, inclusive.
            is_strict: whether facts at the ask's own moment are skipped, as for "the fact before this one".
        """
        import numpy as np

        end = self._search(self._asked_s - 1) if is_strict else self._end
        start = self._search(self._asked_s - _whole_seconds(within) - 1)
        is_found = (end > start) & (self._group >= 0)
        rows = np.full(len(end), -1, dtype=np.int64)
        rows[is_found] = self._rows[end[is_found] - 1]
        index = pl.Series(rows).replace(-1, None)
        return self._facts.select(pl.col(name).gather(index) for name in columns)

    @cached_property
    def _end(self) -> _Codes:
        return self._search(self._asked_s)

    def _start(self, within: timedelta) -> _Codes:
        if within not in self._starts:
            self._starts[within] = self._search(self._asked_s - _whole_seconds(within))
        return self._starts[within]

    def _search(self, moments_s: _Codes) -> _Codes:
        """Return per ask the position after the last fact of its group at or before a moment."""
        import numpy as np

        positions = (self._group * self._span_s + self._offset(moments_s))[self._by_place]
        result = np.empty(len(positions), dtype=np.int64)
        result[self._by_place] = np.searchsorted(self._place, positions, side="right")
        return result

    def _offset(self, moments_s: _Codes) -> _Codes:
        import numpy as np

        return np.clip(moments_s - self._zero_s, -1, self._span_s - 2)

    def _hidden(self, counts: _Codes) -> pl.Series:
        """Return counts, null where the ask has no group."""
        return pl.select(pl.when(pl.Series(self._group >= 0)).then(pl.Series(counts))).to_series()


def open_spans(
    asks: pl.DataFrame,
    spans: pl.DataFrame,
    *,
    by: Sequence[str] = (),
    start: str,
    end: str,
    longest: timedelta,
    asked_at: str = "asked_at",
) -> pl.DataFrame:
    """Count the spans open at each ask (`count`), and average their age in minutes (`age_min`, null for none).

    A span is open from `start` until its end is known (`end`), or until `longest` after its start, whichever is first.
    Without an end it is open for `longest`.

    Args:
        asks: rows with `by` and `asked_at`.
        spans: rows with `by`, `start` and `end`, UTC moments; `end` is null if it never came.
        by: the columns that form a group.
        start: the column of the starts, known beforehand.
        end: the column of the moments at which ends became known.
        longest: after this a span is forgotten; must be within the facts' lookback.
        asked_at: the asks' column.
    """
    limit = pl.col(start) + longest
    closed = (
        spans.with_columns(pl.min_horizontal(pl.col(end).fill_null(limit), limit).alias(end))
        .filter(pl.col(end) > pl.col(start))
        .with_columns((pl.col(start).dt.epoch("s") // 60).alias("start_min"))
    )
    always = timedelta(days=36_500)
    begun = Timeline(asks, closed, by=by, fact_at=start, asked_at=asked_at)
    ended = Timeline(asks, closed, by=by, fact_at=end, asked_at=asked_at)
    count = begun.count(always) - ended.count(always)
    starts_min = begun.total("start_min", always) - ended.total("start_min", always)
    age_min = count * (asks[asked_at].dt.epoch("s") // 60) - starts_min
    return pl.select(
        count=count,
        age_min=pl.when(count > 0).then(age_min.cast(pl.Float64) / count.cast(pl.Float64)),
    )


def if_known(fact: pl.Expr, known_at: str, asked_at: str = "asked_at") -> pl.Expr:
    """Return the expression of a fact if it was known when asked, otherwise null."""
    return pl.when(pl.col(known_at) <= pl.col(asked_at)).then(fact)


def minutes_between(earlier: str, later: str) -> pl.Expr:
    """Return the expression of the whole minutes from one moment to the other, negative when reversed."""
    return (pl.col(later) - pl.col(earlier)).dt.total_minutes()


def cycle(value: pl.Expr, period: float, name: str) -> tuple[pl.Expr, pl.Expr]:
    """Encode a value that repeats after `period` as its sine and cosine, named `name_sin` and `name_cos`."""
    angle = value.cast(pl.Float64) * (2 * math.pi / period)
    return angle.sin().alias(f"{name}_sin"), angle.cos().alias(f"{name}_cos")


def minute_of_day(moment: str, zone: str) -> pl.Expr:
    """Return the expression of a UTC moment's minute of the local day, 0 to 1439."""
    local = pl.col(moment).dt.convert_time_zone(zone)
    return local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute().cast(pl.Int64)


def _whole_seconds(length: timedelta) -> int:
    return int(length.total_seconds())


def _seconds(moments: pl.Series, *, is_up: bool) -> _Codes:
    micros = moments.dt.epoch("us").fill_null(0).to_numpy()
    return -(-micros // 1_000_000) if is_up else micros // 1_000_000


def _groups(facts: pl.DataFrame, asks: pl.DataFrame, by: Sequence[str]) -> tuple[_Codes, _Codes]:
    """Number the groups from 0, equally in both frames; -1 where a group column is null."""
    import numpy as np

    split = facts.height
    group = np.zeros(split + asks.height, dtype=np.int64)
    is_null = np.zeros(len(group), dtype=bool)
    most = 1
    for name in by:
        column = pl.concat([_as_code(facts[name]), _as_code(asks[name])]).to_physical()
        is_null |= column.is_null().to_numpy()
        codes = column.cast(pl.Int64).fill_null(0).to_numpy()
        width = int(codes.max(initial=0)) + 1
        group, most = group * width + codes, most * width
        if most > _MOST_GROUPS:
            group = np.unique(group, return_inverse=True)[1]
            most = int(group.max(initial=0)) + 1
    group[is_null] = -1
    return group[:split], group[split:]


def _as_code(column: pl.Series) -> pl.Series:
    """Return integers; text becomes categories, whose numbers agree only while both columns live: concatenate first."""
    return column.cast(pl.Categorical if column.dtype in (pl.String, pl.Categorical) else pl.Int64)
