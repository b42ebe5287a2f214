"""Read a table that `driftline new` looks at: CSV as text, Parquet, or the rows of a query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from platform_assets.base.keys import DailyGrain
from platform_assets.data.channels.dealt_file import is_parquet, rows_of_file
from platform_assets.data.channels.sql_window import SqlWindow
from platform_assets.product.channel_sites import ChannelProblem, Site
from platform_assets.scaffold.guess import NoGuess
from platform_assets.scaffold.writing import Origin

MOST_ROWS = 200_000
"""Rows that are looked at: of a larger file so many at equal distances, of a query the first."""
ANY = DailyGrain(start="1970-01-01")


@dataclass(frozen=True, kw_only=True)
class Given:
    """Where the table is.

    Attributes:
        place: the path of a file, or the URL of a database.
        query: a SELECT; None for a file.
        password_env: the name of the environment's variable with the database's password.
        time: the column of the rows' moments.
    """

    place: str
    query: str | None = None
    password_env: str | None = None
    time: str | None = None

    def rows(self, folder: Path) -> pl.DataFrame:
        """Return the rows.

        Args:
            folder: in which relative paths of a database's file begin.

        Raises:
            ValueError: they cannot be read.
        """
        if self.query is not None:
            if self.time is None:
                raise NoGuess(
                    "a query needs --time, the column with the moment of a row, by which it is cut into days."
                )
            window = SqlWindow(
                self.place, self.query, by=self.time, order_by=(self.time,), password_env=self.password_env
            )
            opened = window.at(Site(grain=ANY, source="rows", folder=folder))
            assert isinstance(opened, SqlWindow)
            rows = opened.first(MOST_ROWS)
            if rows.is_empty():
                raise ChannelProblem("the query has no rows; expected some to look at.")
            return rows
        path = Path(self.place)
        if "://" in self.place:
            raise NoGuess("--from is the address of a database, and --query is missing; give the SELECT of the rows.")
        if not path.is_file():
            raise NoGuess(f"--from is {self.place!r}, and there is no such file; give a .csv or .parquet file.")
        if not is_parquet(path) and path.stat().st_size and path.read_bytes()[-1:] not in (b"\n", b"\r"):
            raise NoGuess(
                f"the last line of {self.place} has no end, as that of a file has which is still being written; if the "
                "file is whole, add one: `echo >> FILE`."
            )
        rows = rows_of_file(path)
        if rows.is_empty():
            raise NoGuess(f"{self.place} has no rows; expected some to look at.")
        return rows if rows.height <= MOST_ROWS else rows.gather_every(-(-rows.height // MOST_ROWS))

    def origin(self, folder: Path, rows: pl.DataFrame) -> Origin:
        """Return the table's origin as a product's file names it.

        Raises:
            NoGuess: nothing tells two rows of a query apart.
        """
        if self.query is not None:
            order, password = _order(rows, str(self.time)), self.password_env
            return Origin(name="a query", place=self.place, query=self.query, order_by=order, password_env=password)
        path = Path(self.place).absolute()
        shown = path.relative_to(folder) if path.is_relative_to(folder) else path
        return Origin(name=path.name, place=str(shown), is_parquet=is_parquet(path))


def _order(rows: pl.DataFrame, time: str) -> tuple[str, ...]:
    """Return columns that sort a query's rows down to one: the moment, and the fewest others."""
    others = [name for name in rows.columns if name != time]
    for names in ([], *([name] for name in others), others):
        if not rows.select(time, *names).is_duplicated().any():
            return (time, *names)
    raise NoGuess(
        "the query has rows that are equal in all columns, so nothing sorts them; add the table's primary key to it."
    )
