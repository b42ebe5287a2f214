"""Define `SqlWindow`: the rows of a query of PostgreSQL or SQLite, cut by the moment in one column."""

from __future__ import annotations

import re
import time
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from platform_assets.base import clock, kinds
from platform_assets.base.wording import counted
from platform_assets.product.channel_sites import ChannelProblem, SitedChannel
from platform_assets.product.channels import Landed
from platform_assets.store import objects

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.data.channels.databases import Snapshot
    from platform_assets.data.channels.lags import Read, Schema

PAUSE_S, SHARE = 10.0, 0.05
"""Ticks ask a database this often at most, and take this share of its time at most."""
MOST_APART = timedelta(minutes=5)
"""How far the clocks of a database and of this machine may be apart."""
PARSED = 8
"""Bytes of memory that rows take while they are read and checked, per byte of their text; measured."""
_SCHEMES = ("postgresql", "postgres", "sqlite")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASKED: dict[tuple[object, ...], tuple[float, float, Mapping[str, str | None]]] = {}
"""Answers to ticks, with when they were given and how long they took, in seconds."""


@dataclass(frozen=True)
class SqlWindow(SitedChannel):
    """The rows of a query, one delivery per key: those whose moment is in the key.

    Mark and rows come from one snapshot of the database (repeatable read). A key's mark is its latest moment, its
    number of rows and a hash of them, so a row that changed, came or went moves that key's mark alone. A key without
    rows between others is an empty delivery; one after the last row has none yet.

    Attributes:
        url: `postgresql://USER@HOST:PORT/DATABASE` or `sqlite:///FILE`, without a password. A relative file starts in
            the project's folder, as in `OneFile`.
        query: a `select` whose columns have the names of the schema; without parameters.
        by: the column with the moment that gives a row's key: of PostgreSQL a timestamp or a date, of SQLite text in
            ISO 8601. Without an offset it is UTC.
        order_by: columns by which a key's rows are sorted; the last one makes it unique, such as the primary key.
        lag: how long after the end of a key its rows may still be written; it is taken in after that.
        password_env: the name of the environment's variable with the password; None where none is needed.
        most_memory_mb (MB): of one key's rows; more are refused with an estimate.
    """

    PLACES: ClassVar[tuple[str, ...]] = ("url", "lag", "password_env", "most_memory_mb")

    url: str
    query: str
    _: KW_ONLY
    by: str
    order_by: tuple[str, ...]
    lag: timedelta = timedelta(0)
    password_env: str | None = None
    most_memory_mb: int = 4_000

    def __post_init__(self) -> None:
        """Refuse what no query has, and a password, which a message never repeats."""
        parts = urlsplit(str(self.url))
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError(
                "SqlWindow.url contains a password, which would be in code, logs and records; leave it out, and name "
                "the environment's variable that holds it: password_env='SHOP_PASSWORD'."
            )
        if self.password_env is not None and not _VARIABLE.fullmatch(str(self.password_env)):
            raise ValueError(
                "SqlWindow.password_env is not the name of a variable; expected one such as 'SHOP_PASSWORD', which "
                "holds the password."
            )
        kinds.check(self, "SqlWindow.")
        if parts.scheme not in _SCHEMES:
            raise ValueError(
                f"SqlWindow.url is {self.url!r}; expected postgresql://USER@HOST/DATABASE or sqlite:///FILE."
            )
        if not self.order_by:
            raise ValueError(
                "SqlWindow.order_by is empty, and digests depend on the order of rows; expected columns down to a "
                "unique one, such as ('ordered_at', 'id')."
            )
        object.__setattr__(self, "order_by", tuple(self.order_by))
        object.__setattr__(self, "query", self.query.strip().rstrip(";"))

    def reader(self, read: Read | None, schema: Schema, multiline: tuple[str, ...]) -> Read | None:
        """Return the source's own `read`, or one for Parquet."""
        from platform_assets.data.channels.timed_rows import TimedRows

        is_own = read is not None and not isinstance(read, TimedRows)
        return read if is_own else TimedRows(schema=schema, by=self.by)

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a key's rows. Costs one query."""
        return self.marks([key])[key]

    def marks(self, keys: Sequence[str], companion: str = "") -> Mapping[str, str | None]:
        """Return the marks of several keys' rows. Costs one query for all of them."""
        question = (self, self.site.folder, repr(self.site.grain), *keys)
        at_s, took_s, answer = _ASKED.get(question, (0.0, 0.0, {}))
        now_s = time.perf_counter()
        if self.site.is_tick and answer and now_s - at_s < max(PAUSE_S, took_s / SHARE):
            return answer
        over = [key for key in keys if self._is_due(key)]
        answer = dict.fromkeys(keys)
        if over:
            with self._snapshot() as snapshot:
                answer |= {key: mark for key, (mark, _, _) in self._look(snapshot, over).items()}
        if self.site.is_tick:
            _ASKED[question] = (time.perf_counter(), time.perf_counter() - now_s, answer)
            while len(_ASKED) > 100:
                del _ASKED[next(iter(_ASKED))]
        return answer

    def keys(self) -> list[str]:
        """Return the keys with rows, and the empty ones between them. Costs one pass over the query."""
        grain = self.site.grain
        with self._snapshot() as snapshot:
            first, last = snapshot.range()
        if first is None or last is None:
            return []
        places = [grain.index(key) for key in (grain.key_of(first), grain.key_of(last)) if grain.contains(key)]  # type: ignore[attr-defined]
        low = 0 if first < grain.instant(grain.first) else min(places, default=0)
        high = max(places, default=-1 if grain.last is None else grain.index(grain.last))
        return [key for place in range(low, high + 1) if self._is_due(key := grain.key_at(place))]

    def cite(self, key: str | None = None) -> str:
        """Return the database's address without secrets, and the key."""
        return self._place if key is None else f"{self._place}, {key}"

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a key's rows as Parquet, sorted by `order_by`.

        Raises:
            FileNotFoundError: neither the key nor a later one has rows.
            ChannelProblem: the database cannot be asked, the rows have no unique order, or are too many.
        """
        with self._snapshot() as snapshot:
            mark, rows, size = self._look(snapshot, [key])[key] if self._is_due(key) else (None, 0, 0)
            if mark is None:
                raise FileNotFoundError(f"{self.cite()} has no row of {key} or a later key.")
            if (needed := size * PARSED / 1e6) > self.most_memory_mb:
                raise ChannelProblem(
                    f"{self.cite()} has {rows:,} rows of {key}, which take some {needed:,.0f} MB of memory; "
                    f"most_memory_mb is {self.most_memory_mb:,}. Choose a finer grain, fewer columns, or raise it."
                )
            frame = snapshot.rows(*self._bounds(key))
        if missing := [name for name in self.order_by if name not in frame.columns]:
            raise ChannelProblem(
                f"the query of {self._place} has no column {missing[0]!r}, by which its rows are sorted; it has "
                f"{', '.join(frame.columns)}. Fix the query or order_by in the product's file."
            )
        if twice := int(frame.select(self.order_by).is_duplicated().sum()):
            raise ChannelProblem(
                f"{counted(twice, 'row')} of {self._place} of {key} are equal in order_by={self.order_by}, so their "
                "order is the database's choice, and digests depend on it; add a unique column, such as the primary "
                "key."
            )
        data = BytesIO()
        frame.sort(self.order_by, nulls_last=True).write_parquet(data, statistics=False)
        return Landed(uri=self.cite(key), data=data.getvalue(), arrived_at_utc=snapshot.now, mark=mark)

    @cached_property
    def _place(self) -> str:
        parts = urlsplit(self.url)
        if parts.scheme == "sqlite":
            return str(self._file)
        user = f"{parts.username}@" if parts.username else ""
        return f"postgresql://{user}{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"

    def first(self, most: int) -> pl.DataFrame:
        """Return at most so many rows of the query, for a look at them; `by` may be empty.

        Raises:
            ChannelProblem: the database cannot be asked.
        """
        with self._snapshot() as snapshot:
            return snapshot.first(most)

    @cached_property
    def _file(self) -> Path:
        path = self.url.removeprefix("sqlite:///").partition("?")[0]
        return (self.site.folder / Path(path).expanduser()).absolute()

    def _is_due(self, key: str) -> bool:
        """Tell whether a key has ended, and its lag: until then rows come, and each would move its mark."""
        return clock.wall() >= self._bounds(key)[1] + self.lag

    def _bounds(self, key: str) -> tuple[datetime, datetime]:
        over = self.site.grain.instant_after(key)
        assert over is not None  # batches are refused
        return self.site.grain.instant(key), over

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        """Open a transaction that reads one state of the database.

        Raises:
            ChannelProblem: the database cannot be asked, or its clock is wrong.
        """
        from platform_assets.data.channels import databases

        password = None
        if self.password_env is not None and not (password := objects.variable(self.password_env)):
            raise ChannelProblem(
                f"the password of {self._place} is expected in the environment's variable {self.password_env}, which "
                "is not set."
            )
        with (
            databases.sqlite(str(self._file), self.query, self.by, self._place)
            if urlsplit(self.url).scheme == "sqlite"
            else databases.postgresql(self.url, self.query, self.by, self._place, password)
        ) as snapshot:
            apart = abs(snapshot.now - clock.wall())
            if apart > max(MOST_APART, self.lag):
                raise ChannelProblem(
                    f"the clock of {self._place} says {snapshot.now:%Y-%m-%d %H:%M} UTC, which is "
                    f"{apart.total_seconds() / 3600:.1f} hours from this machine's, so rows would be in the wrong keys "
                    "and none is taken; set the clocks, or a lag longer than that."
                )
            yield snapshot

    def _look(self, snapshot: Snapshot, keys: Sequence[str]) -> dict[str, tuple[str | None, int, int]]:
        """Return mark, number of rows and their size as text of each key; keys are in order."""
        bounds = [self._bounds(key) for key in keys]
        starts, ends = ([moment.timestamp() for moment in moments] for moments in zip(*bounds, strict=True))
        rows, sizes, hashes, latest = Counter[int](), Counter[int](), Counter[int](), dict[int, Any]()
        for seconds, digest, size in snapshot.digests(bounds[0][0], bounds[-1][1]):
            place = bisect(starts, seconds) - 1
            if seconds < ends[place]:
                rows[place] += 1
                sizes[place] += size
                hashes[place] += digest  # a sum: the database returns rows in any order
                latest[place] = max(seconds, latest.get(place, seconds))
        first, last = snapshot.range() if len(rows) < len(keys) else (None, None)
        answer: dict[str, tuple[str | None, int, int]] = {}
        for place, (key, (start, over)) in enumerate(zip(keys, bounds, strict=True)):
            is_between = first is not None and last is not None and first < start and last >= over
            mark = f"{latest[place]} {rows[place]} {hashes[place] % 2**64:016x}" if place in rows else None
            answer[key] = mark or ("0" if is_between else None), rows[place], sizes[place]
        return answer
