"""Compare served inputs with the platform's own features for the same entity and moment.

Which answers count is `answers`; which keys can be compared at all is `monitoring.performance`.

Callers build their inputs elsewhere: in another language, from another copy of the data, at another moment. Any
difference shows here first: a unit, a time zone, an observation that is an hour old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.data.rows import Rows, groups
from platform_assets.store.records.decisions import Skew
from platform_assets.store.records.performance import Compared, Differing, Value

if TYPE_CHECKING:
    from platform_assets.product.spec import Field

WHO = ("entity", "asked_at")
MOST_FIELDS = 20
"""How many fields are listed; those with the most differing rows first."""
_OURS = "_ours"
_PLACE = "_place"
"""Cannot be a field's name: those begin with a letter."""
NOTHING = Compared(rows=0, rows_equal=0, rows_unknown=0, share=None, fields=[])


@dataclass(frozen=True)
class _Joined:
    """Served rows next to ours, one entry per served row.

    Attributes:
        who: entity and moment.
        places: of the row of ours for the same entity and moment; null if there is none.
        is_logged: whether some input was logged.
        differs: per field, whether it differs.
    """

    who: pl.DataFrame
    places: pl.Series
    is_logged: pl.Series
    differs: pl.DataFrame

    @property
    def is_known(self) -> pl.Series:
        """Whether entity and moment are among ours."""
        return self.places.is_not_null()

    @property
    def is_equal(self) -> pl.Series:
        """Whether the features are equal too."""
        return self.is_known & ~self.differs.select(pl.any_horizontal(pl.all())).to_series()

    def entities(self, mask: pl.Series) -> int:
        """Count the entities of some rows."""
        return self.who["entity"].filter(mask).n_unique()


def classify(served: Rows, ours: Rows, fields: Sequence[Field]) -> pl.DataFrame:
    """Return three booleans per served row, in order.

    Args:
        served: with `entity`, `asked_at` and one column per field.
        ours: the same columns, one row per entity and moment.

    Returns:
        `is_logged`: some input was logged; `is_known`: entity and moment are among ours; `is_equal`: the features are
        equal too.

    Raises:
        ValueError: ours has two rows for one entity and moment, or either side lacks a field.
    """
    rows = _joined(served, ours, fields)
    is_equal = rows.is_equal & rows.is_logged
    return pl.DataFrame({"is_logged": rows.is_logged, "is_known": rows.is_known, "is_equal": is_equal})


def compare(served: Rows, ours: Rows, fields: Sequence[Field]) -> Compared:
    """Compare served rows with our own, counting each entity once, however often it was asked about.

    Equal means equal to the model: numbers and booleans as float32, categories as text, images by their grey levels,
    null equal to null. A served row whose entity and moment we have no row for is not equal: a caller with a shifted
    clock asks about moments we never built. An entity is equal when all of its rows are.

    Args:
        served: as `classify` takes it; rows without any input (not logged) are left out.
        ours, fields: as `classify` takes them.

    Raises:
        ValueError: as `classify`.
    """
    rows = _joined(served, ours, fields)
    is_compared = rows.is_logged & rows.is_known
    counts = {column.name: rows.entities(column & is_compared) for column in rows.differs.get_columns()}
    known, differing = rows.entities(is_compared), list[Differing]()
    for name in sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))[:MOST_FIELDS]:
        place = (rows.differs[name] & is_compared).arg_max()
        assert place is not None
        entity, asked_at = rows.who.row(place)
        differing.append(
            Differing(
                field=name,
                rows=counts[name],
                share=counts[name] / known,
                entity=entity,
                asked_at=asked_at.isoformat(),
                served=_plain(served.get_column(name)[place]),
                ours=_plain(ours.get_column(name)[rows.places[place]]),
            )
        )
    entities = rows.entities(rows.is_logged)
    equal = entities - rows.entities(rows.is_logged & ~rows.is_equal)
    return Compared(
        rows=entities,
        rows_equal=equal,
        rows_unknown=rows.entities(rows.is_logged & ~rows.is_known),
        share=equal / entities if entities else None,
        fields=differing,
    )


def judge(comparison: Compared | None, limit: float) -> Skew:
    """Return the part of a comparison that decisions record.

    Args:
        comparison: from `compare`; None if nothing was compared.
        limit: below this share of equal entities a key is skewed.
    """
    rows, share = (0, None) if comparison is None else (comparison.rows, comparison.share)
    return Skew(rows=rows, share=share, limit=limit, is_skewed=share is not None and share < limit)


def _joined(served: Rows, ours: Rows, fields: Sequence[Field]) -> _Joined:
    """Join served rows with ours, some fields at a time, so that a large key need not be held."""
    names = [item.name for item in fields]
    for side, rows in (("served rows", served), ("our rows", ours)):
        if missing := [name for name in (*WHO, *names) if name not in rows.columns]:
            raise ValueError(f"the {side} lack {', '.join(missing)}; pass `entity`, `asked_at` and every field.")
    who, our_who = served.select(list(WHO)), ours.select(list(WHO))
    if our_who.select(pl.struct(WHO).is_duplicated().any()).item():
        raise ValueError("our rows hold one entity and moment twice; fix `features` in the product's file.")
    places = who.join(our_who.with_row_index(_PLACE), on=list(WHO), how="left", maintain_order="left")[_PLACE]
    is_logged, differs = pl.repeat(False, who.height, eager=True), list[pl.Series]()
    for group in groups(names, max(served.height, ours.height)):
        mine = served.select(group)
        is_logged |= mine.select(~pl.all_horizontal(pl.all().is_null())).to_series()
        theirs = ours.select(group).select(pl.all().gather(places).name.suffix(_OURS))
        both = mine.hstack(theirs)
        differs += both.select(
            _as_seen(item, item.name).ne_missing(_as_seen(item, f"{item.name}{_OURS}")).alias(item.name)
            for item in fields
            if item.name in group
        ).get_columns()
    return _Joined(who=who, places=places, is_logged=is_logged, differs=pl.DataFrame(differs))


def _as_seen(item: Field, name: str) -> pl.Expr:
    """Return a column as the model sees it (`training.matrix`): NaN is null, and empty text equals null."""
    if item.dtype == "image":
        return pl.col(name)
    if item.dtype == "category":
        text = pl.col(name).cast(pl.String)
        return pl.when(text != "").then(text)
    return pl.col(name).cast(pl.Float32).fill_nan(None)


def _plain(value: bytes | Value) -> Value:
    """Return a value for a record; for an image its digest, by which it can be found."""
    return f"{len(value)} bytes, sha256 {sha256(value).hexdigest()}" if isinstance(value, bytes) else value
