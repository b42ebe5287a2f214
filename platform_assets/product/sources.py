"""Say what an upstream system delivers: `Source`.

Belongs here: where and when files come, and what a row of them is. Does not belong here: reading or judging them
(`compute.landed`, `compute.validate`), or what follows from them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, get_args

from platform_assets import kinds, naming
from platform_assets.product.channels import Channel

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

Arrives = Literal["rename", "marker", "manifest", "settled"]
"""How one tells that a landed file is whole.

`rename`: a file that is there is whole, by its upstream's promise to write it under another name first. `marker`: a
file `NAME.done` next to it says so. `manifest`: its `NAME.manifest.json` says how many rows and which sha256 it has.
`settled`: its size and time are the same in two looks that are `Source.settle` apart; on S3, where a file appears
whole, it is taken at sight.
"""

_FOLDER = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One upstream delivery: a file a key, or one file of a slow table.

    Attributes:
        name: as in asset keys: `weather` gives `raw_weather`.
        description: the catalog page: what, from whom, cadence, licence, known holes.
        schema: builds the pandera schema of typed rows, cross-column rules included.
        schema_version: raised by whoever changes `schema`; stands on every quarantined row.
        known_at: the column with the UTC moment from which a row was known; None for a slow source.
        partition_by: the UTC column whose moment in the grain's zone names the row's key;
            None when the file's own key does (batches, slow sources).
        unique: columns that no two rows of a key may share.
        content: columns that make what a row says, by which a delivery that repeats an earlier one is told; by default
            all but `unique` and moments.
        statistics: `(good rows) -> numbers a row`, for columns that are neither number nor text, such as images: a key
            whose mean of one has moved is faulty (`Monitors.max_statistic_shift`).
        channel: how deliveries are found and read; None for files below `landing/`, which the next two describe.
        landing: the folder below `landing/` into which the upstream delivers; by default `{product}/{source}`.
        arrives: how one tells that a landed file is whole, see `Arrives`; by default `rename` for a recording, whose
            replay does so, and `settled` for a live product.
        settle: how long a file of which nobody says that it is whole must stay as it is.
        deadline: how long after a key's end its file may take before the key is closed without it.
        is_label: labels, late by nature; their absence never holds a key open.
        is_slow: one unpartitioned table, versioned by digest, instead of a file a key.
        suffix: of the landed file.
        read: turns the file's bytes into rows of text or values; None reads CSV as text. A value that the schema's type
            cannot hold exactly quarantines its row, so a reader gives moments their time zone.
    """

    name: str
    description: str
    schema: Callable[[], pa.DataFrameSchema]
    schema_version: int = 1
    known_at: str | None = None
    partition_by: str | None = None
    unique: tuple[str, ...] = ()
    content: tuple[str, ...] | None = None
    statistics: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    channel: Channel | None = None
    landing: str | None = None
    arrives: Arrives | None = None
    settle: timedelta = timedelta(seconds=30)
    deadline: timedelta = timedelta(hours=24)
    is_label: bool = False
    is_slow: bool = False
    suffix: str = ".csv"
    read: Callable[[bytes], pl.DataFrame] | None = None

    def __post_init__(self) -> None:
        naming.check_name(self.name, "Source.name")
        kinds.check(self, f"source {self.name!r}: ", Channel=Channel)
        if not self.is_slow and self.known_at is None:
            raise ValueError(f"source {self.name!r} has no known_at; every row of it must say when it was known.")
        if self.is_slow and (self.is_label or self.partition_by):
            raise ValueError(f"source {self.name!r} is slow; it can neither hold labels nor be partitioned.")
        if self.landing is not None and not _FOLDER.fullmatch(self.landing):
            raise ValueError(
                f"source {self.name!r} has landing={self.landing!r}; expected a folder below landing/, such as "
                "'partner_feed/weather': lower-case letters, digits, underscores, dashes and slashes."
            )
        if self.channel is not None and (self.landing is not None or self.arrives is not None):
            other = "arrives" if self.landing is None else "landing"
            raise ValueError(
                f"source {self.name!r} has a channel and {other}, which only landed files have; drop one of the two."
            )
        if self.arrives is not None and self.arrives not in get_args(Arrives):
            raise ValueError(
                f"source {self.name!r} has arrives={self.arrives!r}; expected one of {', '.join(get_args(Arrives))}."
            )
        if not timedelta(0) < self.settle <= timedelta(days=1):
            raise ValueError(f"source {self.name!r} has settle={self.settle}; expected more than 0 and at most a day.")

    @property
    def bare(self) -> Source:
        """The source without what no row depends on: its description, and when and where its files come."""
        bare = copy.copy(self)  # what was checked once need not be checked again
        object.__setattr__(bare, "description", "")
        for name in ("channel", "landing", "arrives", "settle", "deadline", "suffix", "read"):
            object.__setattr__(bare, name, getattr(Source, name))
        return bare

    def columns(self) -> pa.DataFrameSchema:
        """Return the schema, or raise `ValueError` when it lacks a column that this source names."""
        schema = self.schema()
        named = {
            "known_at": () if self.known_at is None else (self.known_at,),
            "partition_by": () if self.partition_by is None else (self.partition_by,),
            "unique": self.unique,
            "content": self.content or (),
        }
        for what, columns in named.items():
            if missing := [column for column in columns if column not in schema.columns]:
                raise ValueError(
                    f"source {self.name!r} has {what}={missing[0]!r}, and its schema has no such column; it has "
                    f"{', '.join(schema.columns)}. Add the column to {self.schema.__name__}() in the product's file, "
                    f"or mend {what}."
                )
        self._check_bytes(schema)
        return schema

    def _check_bytes(self, schema: pa.DataFrameSchema) -> None:
        """Refuse what pandera cannot judge beside bytes: of a row that fails it writes JSON, which bytes cannot be."""
        import polars as pl

        for name, column in schema.columns.items():
            if column.dtype is not None and column.dtype.type == pl.Binary and (column.checks or schema.unique):
                what = "has checks" if column.checks else f"stands beside unique={schema.unique}"
                raise ValueError(
                    f"source {self.name!r}: column {name!r} holds bytes and {what}; give numbers made of the bytes a "
                    "column of their own to check, and name `unique` in the Source."
                )
