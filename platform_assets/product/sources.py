"""Define `Source`, a delivery of an upstream system."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, get_args

from platform_assets.base import kinds, naming, wording
from platform_assets.product.channel_sites import SitedChannel
from platform_assets.product.channels import Channel
from platform_assets.product.fields import Field
from platform_assets.product.host_assets import HostAsset, asset_of, rows_of
from platform_assets.product.left_out import LATER

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

    from platform_assets.base.keys import Grain

Arrives = Literal["rename", "marker", "manifest", "settled"]
"""How a landed file is known to be complete.

`rename`: any existing file is complete, because its upstream writes it under another name first. `marker`: a file
`NAME.done` exists next to it. `manifest`: its `NAME.manifest.json` states its number of rows and sha256. `settled`: its
size and time are the same in two looks `Source.settle` apart; on S3, where files appear complete, it is taken
immediately.
"""

_FOLDER = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that some deliveries of a source lack; its rows are null there.

    A delivery without a column that is not declared so cannot be read; where one has the column, it counts.

    Attributes:
        name: of a column that the source's schema has with `nullable=True`.
        since: the first key whose delivery has it; None for all.
        until: the last key whose delivery has it; None for all.
        optional: whether every delivery may lack it.
    """

    name: str
    since: str | None = None
    until: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        kinds.check(self, f"column {self.name!r}: ")
        if self.optional == (self.since is not None or self.until is not None):
            raise ValueError(
                f"column {self.name!r} has since={self.since!r}, until={self.until!r} and optional={self.optional}; "
                "expected the keys that have it, or optional=True."
            )

    def may_lack(self, grain: Grain | None, key: str) -> bool:
        """Tell whether the delivery of a key may lack the column; the grain matters only with `since` or `until`."""
        if self.optional or grain is None:
            return self.optional
        place = grain.index(key)
        is_before = self.since is not None and place < grain.index(self.since)
        return is_before or (self.until is not None and place > grain.index(self.until))


@dataclass(frozen=True, kw_only=True)
class Source:
    """One upstream delivery: one file per key, or one file for a slow table.

    Attributes:
        name: as in asset keys: `weather` gives `raw_weather`.
        description: the page in Dagster's catalog: what it is, who delivers it, how often, its licence, known gaps. By
            default the name, in words.
        schema: returns the pandera schema of typed rows, with rules across columns. By default the types of the
            product's fields, of the label if it is a column, of `entity` and of the moments.
        entity: column with the id of what a row is about, for `features` and `label` that are columns; None for the
            row's place in its key's delivery, which later deliveries may not move.
        fields: its columns, where the product's fields are computed from them; only for a source without a schema.
        schema_version (number): raise it with every change of `schema`; every quarantined row carries it.
        known_at: column with the UTC moment from which a row was known; None for a slow source, unless its rows have
            one. By default the column by which a channel of one table finds the rows of a key.
        known_at_of: columns that were known later than their row, each with the column of its moment (UTC), or with how
            long after its row; a moment that is known when it comes names itself. None for a moment after `known_at`
            that was known with its row, as a plan is; that of `partition_by` is taken for one. Only `driftline check`
            reads it.
        partition_by: UTC column whose moment, in the grain's time zone, gives the row's key; None where the file's own
            key does (batches, slow sources). By default as for `known_at`.
        unique: columns that no two rows of a key may share.
        content: columns that carry what a row says; a delivery that repeats an earlier one is detected by them. None
            takes all columns except `unique` and moments.
        statistics: `(valid rows) -> numbers per row`, for columns that are neither numbers nor text, such as images. A
            key whose mean of one of them has moved is faulty (`Monitors.max_statistic_shift`).
        asset: an asset of the same Dagster deployment whose rows are delivered: its key, or a `HostAsset`. Where each
            of its partitions is a key, each is a delivery; with `partition_by` a key's rows are filtered from the
            newest whole table.
        channel: how deliveries are found and read; None for files below `landing/`.
        landing: folder below `landing/` into which the upstream delivers; None for `{product}/{source}`.
        arrives: how to tell that a landed file is complete (`rename`, `marker`, `manifest` or `settled`). None is
            `rename` for a recording, whose replay renames, and `settled` for a live product.
        settle: how long a file must stay unchanged before `settled` takes it in.
        deadline: how long after the end of a key its file may still come; then the key is closed without it.
        is_label: whether it brings the labels. Labels are late by nature, so their absence never holds a key open.
        is_early: whether a key's delivery is complete before the key's period ends, as a timetable is. Any other
            delivery of a day or an hour is taken in after its end, because until then rows may still be added.
        is_slow: whether it is one table without keys instead of one file per key. A key keeps the snapshot that its
            features were built with, until a person launches `rebuild__product`.
        suffix: of the landed file's name.
        read: `(bytes) -> rows`, of text or typed values; None reads CSV as text. A value that the schema's type cannot
            hold exactly quarantines its row, so a reader gives moments their time zone. The rows of an asset come as
            Parquet.
        multiline: text columns of CSV whose quoted values may have line breaks; elsewhere one quarantines its row.
        partial_columns: the columns that some deliveries lack, each with the keys that have it. A column that the
            schema does not name is left out of every delivery.
        unreadable: what features do that look back on a delivery that cannot be read (an empty, cut or other file, a
            missing column, a reader that fails). Its key is held, and other keys go on. `gap` builds them as if the
            delivery had no rows, as for one that never came; `wait` leaves their keys without rows, held too, until it
            is delivered again, or its key is settled.
    """

    name: str
    description: str = LATER
    # What a row is.
    schema: Callable[[], pa.DataFrameSchema] = LATER
    entity: str | None = None
    fields: tuple[Field, ...] | None = None
    schema_version: int = 1
    # When it was known, and which key it belongs to.
    known_at: str | None = None
    # Not hashed, because a mapping has no hash.
    known_at_of: Mapping[str, str | timedelta | None] | None = field(default=None, hash=False)
    partition_by: str | None = None
    # Which rows repeat others, and what else of a row is watched.
    unique: tuple[str, ...] = ()
    content: tuple[str, ...] | None = None
    statistics: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    # Where deliveries are: at most one of these.
    asset: HostAsset | None = None
    channel: Channel | None = None
    landing: str | None = None
    # When one is complete, and how long it is waited for.
    arrives: Arrives | None = None
    settle: timedelta = timedelta(seconds=30)
    deadline: timedelta = timedelta(hours=24)
    # What kind of delivery it is.
    is_label: bool = False
    is_early: bool = False
    is_slow: bool = False
    # How one is read.
    suffix: str = ".csv"
    read: Callable[[bytes], pl.DataFrame] | None = None
    multiline: tuple[str, ...] = ()
    partial_columns: tuple[Column, ...] = ()
    unreadable: Literal["gap", "wait"] = "gap"

    def __post_init__(self) -> None:
        naming.check_name(self.name, "Source.name")
        self._take_asset()
        if self.description is LATER:
            object.__setattr__(self, "description", wording.in_words(self.name))
        if self.known_at is None and (by := getattr(self.channel, "by", None)) is not None:
            object.__setattr__(self, "known_at", by)
            object.__setattr__(self, "partition_by", self.partition_by or by)
        kinds.check(self, f"source {self.name!r}: ", Channel=Channel, Column=Column, Field=Field, HostAsset=HostAsset)
        if not self.is_slow and self.known_at is None:
            raise ValueError(f"source {self.name!r} has no known_at; every row must state when it was known.")
        if self.is_slow and (self.is_label or self.partition_by):
            raise ValueError(f"source {self.name!r} is slow; it can neither hold labels nor be partitioned.")
        self._check_moments()
        self._check_delivery()

    def _check_moments(self) -> None:
        pairs: Mapping[object, object] = self.known_at_of or {}  # type: ignore[assignment]  # as a person wrote it
        for column, at in pairs.items():
            if not (isinstance(column, str) and isinstance(at, str | timedelta | None)):
                raise ValueError(
                    f"source {self.name!r} has known_at_of={{{column!r}: {at!r}}}; expected the name of a column, with "
                    "that of the column of its moment, how long after its row it was known, or None where it was "
                    "known with its row."
                )
            if isinstance(at, timedelta) and self.known_at is None:
                raise ValueError(
                    f"source {self.name!r} has known_at_of={{{column!r}: {at!r}}} and no known_at, after which that "
                    "is; expected the name of the column of its moment."
                )
            if column == self.known_at:
                raise ValueError(
                    f"source {self.name!r} has {column!r} in known_at_of, which is its known_at: its rows are known "
                    "from then. Leave it out."
                )
        if self.is_label and self.known_at_of:
            raise ValueError(
                f"source {self.name!r} brings labels and has known_at_of; no feature reads it, so leave it out."
            )

    def _check_delivery(self) -> None:
        if self.deadline < timedelta(0) and not self.is_early:
            raise ValueError(
                f"source {self.name!r} has deadline={self.deadline}, before the end of the key, and its deliveries are "
                "taken in after it; expected at least 0, or is_early=True where deliveries are complete before."
            )
        names = [column.name for column in self.partial_columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"source {self.name!r}: partial_columns name {twice!r} twice; expected each column once.")
        if self.is_slow and (keyed := next((column for column in self.partial_columns if not column.optional), None)):
            raise ValueError(
                f"source {self.name!r} is slow and has no keys; its column {keyed.name!r} can only be optional=True."
            )
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
        if isinstance(self.channel, SitedChannel):
            object.__setattr__(self, "read", self.channel.reader(self.read, self.schema, self.multiline))
            if self.channel.lag < timedelta(0):
                raise ValueError(
                    f"source {self.name!r} has a channel with lag={self.channel.lag}; expected at least 0."
                )
        if self.arrives is not None and self.arrives not in get_args(Arrives):
            raise ValueError(
                f"source {self.name!r} has arrives={self.arrives!r}; expected one of {', '.join(get_args(Arrives))}."
            )
        if self.multiline and self.read is not None and not isinstance(self.channel, SitedChannel):
            raise ValueError(
                f"source {self.name!r} has multiline and a read of its own, which alone decides what a line is; drop "
                "multiline, or pass it on in read: `read_csv(data, multiline=...)`."
            )
        if not timedelta(0) < self.settle <= timedelta(days=1):
            raise ValueError(f"source {self.name!r} has settle={self.settle}; expected more than 0 and at most a day.")

    def _take_asset(self) -> None:
        """Take an asset's key as its `HostAsset`, whose channel delivers Parquet."""
        if self.asset is None:
            return
        try:
            object.__setattr__(self, "asset", asset_of(self.asset))
        except ValueError as problem:
            raise ValueError(f"source {self.name!r}: {problem}") from None
        others = ("channel", "landing", "arrives")
        if given := [name for name in others if getattr(self, name) is not None]:
            raise ValueError(
                f"source {self.name!r} has an asset and {given[0]}, which an asset's rows do not have; drop one of the "
                "two."
            )
        object.__setattr__(self, "read", self.read or rows_of)

    @property
    def patience(self) -> timedelta:
        """How long after the end of a key its delivery may still come: the deadline runs after a channel's lag."""
        return self.deadline + (self.channel.lag if isinstance(self.channel, SitedChannel) else timedelta(0))

    @property
    def is_landed(self) -> bool:
        """Whether its deliveries are files below `landing/`."""
        return self.asset is None and self.channel is None

    @property
    def bare(self) -> Source:
        """The source without what affects no row: its description, and when and where its files come."""
        bare = copy.copy(self)  # already validated, so skip __post_init__
        object.__setattr__(bare, "description", "")
        loading = (
            "asset",
            "channel",
            "landing",
            "arrives",
            "settle",
            "deadline",
            "is_early",
            "suffix",
            "read",
            "multiline",
        )
        for name in (*loading, "entity", "fields", "known_at_of", "partial_columns", "unreadable"):
            object.__setattr__(bare, name, getattr(Source, name))
        return bare

    def columns(self) -> pa.DataFrameSchema:
        """Return the schema, or raise `ValueError` when it lacks a column that this source names."""
        schema = self.schema()
        named = {
            "known_at": () if self.known_at is None else (self.known_at,),
            "known_at_of": tuple(
                name for pair in (self.known_at_of or {}).items() for name in pair if isinstance(name, str)
            ),
            "partition_by": () if self.partition_by is None else (self.partition_by,),
            "entity": () if self.entity is None else (self.entity,),
            "unique": self.unique,
            "content": self.content or (),
            "multiline": self.multiline,
            "partial_columns": tuple(column.name for column in self.partial_columns),
        }
        for setting, columns in named.items():
            if missing := [column for column in columns if column not in schema.columns]:
                raise ValueError(
                    f"source {self.name!r} has {setting}={missing[0]!r}, and its schema has no such column; it has "
                    f"{', '.join(schema.columns)}. Add the column to {self.schema.__name__}() in the product's file, "
                    f"or fix {setting}."
                )
        self._check_multiline(schema)
        self._check_partial(schema)
        self._check_bytes(schema)
        return schema

    def _check_multiline(self, schema: pa.DataFrameSchema) -> None:
        import polars as pl

        for name in self.multiline:
            dtype = schema.columns[name].dtype
            if dtype is None or dtype.type != pl.String:
                raise ValueError(
                    f"source {self.name!r} has multiline={name!r}, and its schema has {dtype} there; only text has "
                    "several lines. Fix multiline, or the schema in the product's file."
                )

    def may_lack(self, grain: Grain, key: str) -> frozenset[str]:
        """Return the columns that the delivery of a key may lack."""
        return frozenset(column.name for column in self.partial_columns if column.may_lack(grain, key))

    def _check_partial(self, schema: pa.DataFrameSchema) -> None:
        """Refuse partial columns that cannot be null: every row of a delivery without them would be quarantined."""
        named = {self.known_at, self.partition_by, *self.unique}
        for column in self.partial_columns:
            needed = "names it as known_at, partition_by or unique" if column.name in named else None
            if not schema.columns[column.name].nullable:
                needed = f"has it without nullable=True in {self.schema.__name__}()"
            if needed:
                raise ValueError(
                    f"source {self.name!r}: some deliveries lack column {column.name!r}, and the source {needed}; it "
                    "is null there. Fix partial_columns, or the schema in the product's file."
                )

    def _check_bytes(self, schema: pa.DataFrameSchema) -> None:
        """Refuse checks that pandera cannot report in a table with bytes: it writes failing rows as JSON."""
        import polars as pl

        for name, column in schema.columns.items():
            if column.dtype is not None and column.dtype.type == pl.Binary and (column.checks or schema.unique):
                conflict = "has checks" if column.checks else f"is in a schema with unique={schema.unique}"
                raise ValueError(
                    f"source {self.name!r}: column {name!r} holds bytes and {conflict}; put numbers computed from "
                    "the bytes into a column of their own to check them, and state `unique` in the Source."
                )
