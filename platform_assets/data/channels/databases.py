"""Read a query from one snapshot of PostgreSQL or SQLite, without bind parameters and some rows at a time."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from platform_assets.base import clock, extras
from platform_assets.product.sited import ChannelProblem
from platform_assets.store import rows_by_key

BATCH = 20_000
"""Rows in memory as Python objects at a time."""
CONNECT_S = 10
MOST_ARGUMENTS = 100
"""Of a function of SQLite, which takes 127."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The rows of a quarter of an hour.

    Attributes:
        start: of it, in UTC.
        latest: the latest moment of a row, in seconds since 1970.
        rows: how many.
        hash: a sum over the rows, whatever their order.
        size (bytes): of the rows as text.
    """

    start: datetime
    latest: str
    rows: int
    hash: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One state of a database.

    Attributes:
        now: by the clock of the database.
        ask: runs a statement and returns its rows.
        stream: runs a statement and returns its columns, and its rows some at a time.
        query, by: of the channel; `by` is quoted.
    """

    now: datetime
    ask: Callable[[str], list[tuple[Any, ...]]]
    stream: Callable[[str], tuple[list[str], Iterator[list[tuple[Any, ...]]]]]
    query: str
    by: str

    def seconds(self, moment: str) -> str:
        """Return the expression of a column's seconds since 1970."""
        raise NotImplementedError

    def quarter(self) -> str:
        """Return the expression of the number of a row's quarter of an hour since 1970."""
        raise NotImplementedError

    def ends(self) -> str:
        """Return the statement of the earliest and the latest moment, in seconds since 1970."""
        raise NotImplementedError

    def within(self, first: datetime, end: datetime) -> str:
        """Return the condition that a row's moment is in a span."""
        raise NotImplementedError

    def hashed(self) -> tuple[str, str]:
        """Return the expressions of the sum of the rows' hashes and of their size."""
        raise NotImplementedError

    def bins(self, first: datetime, end: datetime) -> list[Bin]:
        """Return the rows of a span in brief."""
        hashed, size = self.hashed()
        text = (
            f"select {self.quarter()}, max({self.seconds(f'd.{self.by}')}), count(*), {hashed}, {size} "
            f"from ({self.query}\n) as d where {self.within(first, end)} group by 1 order by 1"
        )
        return [
            Bin(
                start=datetime.fromtimestamp(int(start) * rows_by_key.STEP_S, UTC),
                latest=f"{latest}",
                rows=int(rows),
                hash=int(hash_),
                size=int(size_),
            )
            for start, latest, rows, hash_, size_ in self.ask(text)
        ]

    def range(self) -> tuple[datetime | None, datetime | None]:
        """Return the earliest and the latest moment of all rows, to the second; None without rows."""
        low, high = self.ask(self.ends())[0]
        return _moment(low), _moment(high)

    def rows(self, first: datetime, end: datetime) -> pl.DataFrame:
        """Return the rows of a span, unsorted."""
        return self._frame(f"where {self.within(first, end)}")

    def first(self, most: int) -> pl.DataFrame:
        """Return at most so many rows, for a look at them."""
        return self._frame(f"limit {most}")

    def _frame(self, which: str) -> pl.DataFrame:
        names, batches = self.stream(f"select d.* from ({self.query}\n) as d {which}")
        frames = [
            pl.DataFrame([_series(name, values) for name, values in zip(names, zip(*rows, strict=True), strict=True)])
            for rows in batches
        ]
        if not frames:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.Null))
        return pl.concat(frames, how="vertical_relaxed")


class _Postgres(Snapshot):
    def seconds(self, moment: str) -> str:
        return f"extract(epoch from {moment})"

    def quarter(self) -> str:
        return f"floor({self.seconds(f'd.{self.by}')} / {rows_by_key.STEP_S})"

    def ends(self) -> str:
        text = f"select min(d.{self.by}) as a, max(d.{self.by}) as b from ({self.query}\n) as d"
        return f"select {self.seconds('m.a')}, {self.seconds('m.b')} from ({text}) as m"

    def within(self, first: datetime, end: datetime) -> str:
        low, high = (f"timestamptz '{moment.isoformat()}'" for moment in (first, end))
        return f"d.{self.by} >= {low} and d.{self.by} < {high}"

    def hashed(self) -> tuple[str, str]:
        return "sum(('x' || left(md5(d::text), 15))::bit(60)::bigint)", "sum(octet_length(d::text))"


class _Sqlite(Snapshot):
    def seconds(self, moment: str) -> str:
        return f"cast(strftime('%s', {moment}) as integer)"

    def quarter(self) -> str:
        return f"{self.seconds(f'd.{self.by}')} / {rows_by_key.STEP_S}"

    def ends(self) -> str:
        seconds = self.seconds(f"d.{self.by}")
        return f"select min({seconds}), max({seconds}) from ({self.query}\n) as d"

    def within(self, first: datetime, end: datetime) -> str:
        low, high = int(first.timestamp()), int(end.timestamp())
        return f"{self.seconds(f'd.{self.by}')} >= {low} and {self.seconds(f'd.{self.by}')} < {high}"

    def hashed(self) -> tuple[str, str]:
        names, _ = self.stream(f"select * from ({self.query}\n) as d limit 0")
        columns = [f"d.{quoted(name)}" for name in names]
        packed = [
            f"packed({', '.join(columns[at : at + MOST_ARGUMENTS])})" for at in range(0, len(names), MOST_ARGUMENTS)
        ]
        text = " || ".join(packed)
        return f"rows_hash({text})", f"sum(length({text}))"


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

            def ask(text: str) -> list[tuple[Any, ...]]:
                with opened.cursor() as cursor:
                    cursor.execute(text)
                    return list(cursor.fetchall())

            def stream(text: str) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
                cursor = opened.cursor(name="driftline")
                cursor.execute(text)
                first = cursor.fetchmany(BATCH)
                return [item.name for item in cursor.description], _batches(cursor, first)

            with opened.cursor() as cursor:
                # A row's text, of which its hash is, must not depend on the server's or the user's settings.
                cursor.execute(
                    "set local timezone to 'UTC'; set local datestyle to 'ISO'; set local bytea_output to hex"
                )
                cursor.execute("set local extra_float_digits to 1; set local intervalstyle to 'postgres'")
            now = ask("select clock_timestamp()")[0][0].astimezone(UTC)
            yield _Postgres(now=now, ask=ask, stream=stream, query=query, by=quoted(by))
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
            opened.execute("begin")
            opened.create_function("packed", -1, _packed, deterministic=True)
            opened.create_aggregate("rows_hash", 1, _RowsHash)  # type: ignore[arg-type]  # typeshed wants an int

            def ask(text: str) -> list[tuple[Any, ...]]:
                return opened.execute(text).fetchall()

            def stream(text: str) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
                cursor = opened.execute(text)
                return [item[0] for item in cursor.description], _batches(cursor, cursor.fetchmany(BATCH))

            snapshot = _Sqlite(now=clock.wall(), ask=ask, stream=stream, query=query, by=quoted(by))
            moment = f"d.{snapshot.by}"
            strange = ask(
                f"select {moment} from ({query}\n) as d where {moment} is not null and (typeof({moment}) <> 'text' or "
                f"strftime('%s', {moment}) is null) limit 1"
            )
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


def _batches(cursor: Any, first: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while first:
        yield first
        first = cursor.fetchmany(BATCH)


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
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict) else value


class _RowsHash:
    """An aggregate of SQLite: a sum of hashes of rows."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, row: Any, /) -> None:
        digest = hashlib.blake2b(row.encode(), digest_size=8).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % 2**64

    def finalize(self) -> str:
        return f"{self._sum}"


def _packed(*values: Any) -> str:
    return repr(values)


def _moment(seconds: Any) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
