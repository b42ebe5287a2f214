"""Read a query from one snapshot of PostgreSQL or SQLite, without bind parameters and some rows at a time."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from platform_assets.base import clock, extras
from platform_assets.product.channel_sites import ChannelProblem

BATCH = 20_000
"""Rows in memory as Python objects at a time."""
CONNECT_S = 10
PART = 100
"""Columns of SQLite whose text is made at once."""


@dataclass(frozen=True, kw_only=True)
class Snapshot(ABC):
    """One state of a database: all that is read of it is of one transaction.

    Attributes:
        now: by the clock of the database.
        cursor: opens one, which fetches rows some at a time.
        query, by: of the channel; `by` is quoted.
    """

    now: datetime
    cursor: Callable[[], Any]
    query: str
    by: str

    @abstractmethod
    def range(self) -> tuple[datetime | None, datetime | None]:
        """Return the earliest and the latest moment of all rows, to the second; None without rows."""

    @abstractmethod
    def digests(self, first: datetime, end: datetime) -> Iterator[tuple[Any, int, int]]:
        """Yield of each row of a span the moment, in seconds since 1970, a hash, and its size as text."""

    @abstractmethod
    def within(self, first: datetime, end: datetime) -> str:
        """Return the condition that a row's moment is in a span."""

    def rows(self, first: datetime, end: datetime) -> pl.DataFrame:
        """Return the rows of a span, unsorted."""
        return self._frame(f"where {self.within(first, end)}")

    def first(self, most: int) -> pl.DataFrame:
        """Return at most so many rows, for a look at them."""
        return self._frame(f"limit {most}")

    def select(self, columns: str, which: str = "") -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
        """Yield the names of columns of the query, and some of its rows; the first may be none."""
        with closing(self.cursor()) as cursor:
            cursor.execute(f"select {columns} from ({self.query}\n) as d {which}")
            rows = cursor.fetchmany(BATCH)
            names = [item[0] for item in cursor.description]
            yield names, rows
            while rows := cursor.fetchmany(BATCH):
                yield names, rows

    def _frame(self, which: str) -> pl.DataFrame:
        frames = []
        for names, rows in self.select("d.*", which):
            columns = zip(*rows, strict=True) if rows else [()] * len(names)
            frames.append(pl.DataFrame([_series(name, cells) for name, cells in zip(names, columns, strict=True)]))
        return pl.concat(frames, how="vertical_relaxed")

    def _range(self, low: str, high: str) -> tuple[datetime | None, datetime | None]:
        ((_, (ends,)),) = self.select(f"{low}, {high}")
        first, last = (None if seconds is None else datetime.fromtimestamp(int(seconds), UTC) for seconds in ends)
        return first, last


class _Postgres(Snapshot):
    def range(self) -> tuple[datetime | None, datetime | None]:
        # Of the extremes, not the extreme of all seconds: that would use no index.
        return self._range(f"extract(epoch from min(d.{self.by}))", f"extract(epoch from max(d.{self.by}))")

    def digests(self, first: datetime, end: datetime) -> Iterator[tuple[Any, int, int]]:
        which = f"where {self.within(first, end)}"
        for _, rows in self.select(f"extract(epoch from d.{self.by}), d::text", which):
            for seconds, text in rows:
                # As PostgreSQL's own md5() computed it once, so marks on record stay equal.
                # OpenSSL in FIPS mode refuses MD5 unless told that it is not for security.
                digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
                yield seconds, int(digest[:15], 16), len(text.encode())

    def within(self, first: datetime, end: datetime) -> str:
        low, high = (f"timestamptz '{moment.isoformat()}'" for moment in (first, end))
        return f"d.{self.by} >= {low} and d.{self.by} < {high}"


class _Sqlite(Snapshot):
    def range(self) -> tuple[datetime | None, datetime | None]:
        return self._range(f"min({self._seconds})", f"max({self._seconds})")

    def digests(self, first: datetime, end: datetime) -> Iterator[tuple[Any, int, int]]:
        for names, rows in self.select(f"{self._seconds}, d.*", f"where {self.within(first, end)}"):
            for row in rows:
                # In parts, as marks were made that are on record.
                text = "".join(repr(row[at : at + PART]) for at in range(1, len(names), PART))
                digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
                yield row[0], int.from_bytes(digest, "big"), len(text)

    def within(self, first: datetime, end: datetime) -> str:
        low, high = int(first.timestamp()), int(end.timestamp())
        return f"{self._seconds} >= {low} and {self._seconds} < {high}"

    @property
    def _seconds(self) -> str:
        return f"cast(strftime('%s', d.{self.by}) as integer)"


@contextmanager
def postgresql(url: str, query: str, by: str, place: str, password: str | None) -> Iterator[Snapshot]:
    """Open a snapshot of PostgreSQL (repeatable read); rows come through a named cursor.

    Raises:
        ChannelProblem: it cannot be read.
    """
    try:
        import psycopg2
    except ModuleNotFoundError as problem:
        raise extras.named(problem) from None
    secret = {} if password is None else {"password": password}
    try:
        with closing(
            psycopg2.connect(url, connect_timeout=CONNECT_S, application_name="driftline", **secret)
        ) as opened:
            opened.set_session(isolation_level="REPEATABLE READ", readonly=True)

            with opened.cursor() as cursor:
                # A row's text, of which its hash is, must not depend on the server's or the user's settings.
                cursor.execute(
                    "set local timezone to 'UTC'; set local datestyle to 'ISO'; set local bytea_output to hex"
                )
                cursor.execute("set local extra_float_digits to 1; set local intervalstyle to 'postgres'")
                cursor.execute("select clock_timestamp()")
                now = cursor.fetchone()[0].astimezone(UTC)
            # A named cursor: another one would fetch all rows at once.
            # It takes 130 MB for 1.5 million rows; ADBC took 195, or 584 with bind parameters, for a third of the CPU.
            yield _Postgres(now=now, cursor=lambda: opened.cursor(name="driftline"), query=query, by=quoted(by))
    except psycopg2.Error as problem:
        raise _refused(place, problem, password) from None


@contextmanager
def sqlite(file: str, query: str, by: str, place: str) -> Iterator[Snapshot]:
    """Open a snapshot of an SQLite file.

    Raises:
        ChannelProblem: it cannot be read, or has a moment that is not text in ISO 8601.
    """
    if not Path(file).is_file():
        raise ChannelProblem(f"there is no SQLite file {file}.")
    try:
        with closing(sqlite3.connect(f"{Path(file).as_uri()}?mode=ro", uri=True, isolation_level=None)) as opened:
            # Python's sqlite3 begins transactions before writes alone.
            opened.execute("begin")
            snapshot = _Sqlite(now=clock.wall(), cursor=opened.cursor, query=query, by=quoted(by))
            moment = f"d.{snapshot.by}"
            is_strange = f"typeof({moment}) <> 'text' or strftime('%s', {moment}) is null"
            ((_, strange),) = snapshot.select(moment, f"where {moment} is not null and ({is_strange}) limit 1")
            if strange:
                raise ChannelProblem(
                    f"{place} has {strange[0][0]!r} in {by!r}; expected text such as 2024-03-01 05:00:00 throughout, "
                    "so none of its rows is taken. Write it in the query: strftime('%Y-%m-%dT%H:%M:%SZ', ...)."
                )
            yield snapshot
    except sqlite3.Error as problem:
        raise _refused(place, problem, None) from None


def quoted(name: str) -> str:
    """Return a column's name as SQL takes it."""
    return '"{}"'.format(name.replace('"', '""'))


def _refused(place: str, problem: Exception, password: str | None) -> ChannelProblem:
    text = f"{problem}".strip().partition("\n")[0].rstrip(".")
    return ChannelProblem(f"{place} cannot be read: {text.replace(password, '...') if password else text}.")


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    """Return a column in the type of its values; text where they are of several kinds."""
    plain = [_plain(value) for value in values]
    try:
        return pl.Series(name, plain, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        return pl.Series(name, [None if value is None else f"{value}" for value in plain], pl.String)


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    # psycopg2 gives bytea as memoryview, and parses columns of JSON.
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict) else value
