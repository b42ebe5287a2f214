"""Sketch rows as counts small enough to keep forever: a key's sources and its cross rules.

One pass over rows. What a sketch holds is `store.records.sketches`; sketches are compared in `monitoring.faults`.
Features are counted by the bins of a model's training rows: `training.histograms`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING

import polars as pl
from msgspec.structs import replace

from platform_assets.store.records import sketches

if TYPE_CHECKING:
    from platform_assets.product.monitoring import CrossRule

MOST_CATEGORIES = 128
"""A text column keeps the counts of this many most frequent values; the rest is `other`."""
MOST_HASHES = 256
"""How many of the smallest hashes of a key's distinct rows are kept, a uniform sample (bottom-k, Cohen 1997)."""
BOOKKEEPING = ("key", "source_offset")
_SEPARATOR = "\x1f"


def of_source(
    frame: pl.DataFrame,
    *,
    unique: Sequence[str],
    quarantined: int,
    repeated: int,
    content: Sequence[str] | None = None,
    statistics: pl.DataFrame | None = None,
) -> sketches.SourceSketch:
    """Sketch the good rows of one source's key.

    Args:
        frame: validated rows; may be empty.
        unique: the columns that identify a row; they are not part of its content.
        quarantined: number of the delivery's rows in quarantine, repeated ones included.
        repeated: number of those that repeat another row of the delivery.
        content: the columns that make up a row's content; by default all except `unique` and moments.
        statistics: per row, numbers of columns that are neither number nor text; None if the source has none.
    """
    names = [name for name in frame.columns if name not in BOOKKEEPING]
    schema, expressions = frame.schema, list[pl.Expr]()
    for name in names:
        column = pl.col(name)
        expressions += [
            column.null_count().alias(f"{name}.nulls"),
            # n_unique() counts null as a value.
            (column.n_unique() - column.has_nulls().cast(pl.UInt32)).alias(f"{name}.distinct"),
        ]
        if schema[name].is_numeric():
            exact = column.cast(pl.Float64)
            expressions += [getattr(exact, number)().alias(f"{name}.{number}") for number in ("min", "max", "mean")]
    values = frame.select(expressions).row(0, named=True) if frame.height else {}
    columns: dict[str, sketches.Column] = {}
    for name in names:
        sketched = sketches.Column(nulls=values.get(f"{name}.nulls", 0), distinct=values.get(f"{name}.distinct", 0))
        if schema[name].is_numeric():
            low, high, mean = (values.get(f"{name}.{number}") for number in ("min", "max", "mean"))
            sketched = replace(sketched, low=low, high=high, mean=mean)
        elif schema[name] in (pl.String, pl.Boolean) and (name not in unique or len(unique) > 1):
            counts, other = _counts(frame.get_column(name))
            sketched = replace(sketched, counts=counts, other=other)
        columns[name] = sketched
    content_columns = [name for name in names if name not in unique] if content is None else list(content)
    return sketches.SourceSketch(
        rows=frame.height + quarantined,
        good=frame.height,
        quarantined=quarantined,
        repeated=repeated,
        columns=columns,
        content=_content(frame, content_columns),
        statistics={} if statistics is None else _moments(statistics),
    )


def of_rules(rules: Sequence[CrossRule], tables: Mapping[str, pl.DataFrame]) -> dict[str, sketches.RuleCount]:
    """Count the offending rows per rule, for rules whose sources have all landed with rows.

    Args:
        rules: of the product's monitors.
        tables: validated rows of one key by source; a source that has not landed is absent.
    """
    return {
        rule.name: sketches.RuleCount(
            rows=max(tables[name].height for name in rule.sources),
            broken=rule.broken({name: tables[name] for name in rule.sources}).height,
        )
        for rule in rules
        if all(name in tables and tables[name].height for name in rule.sources)
    }


@dataclass(frozen=True)
class Sample:
    """A sample of a key's distinct rows, prepared once for comparisons with hundreds of keys."""

    content: sketches.Content

    @cached_property
    def hashes(self) -> frozenset[int]:
        """The hashes of its rows."""
        return frozenset(self.content.hashes)

    @property
    def largest(self) -> float:
        """The hash up to which the sample is complete."""
        content = self.content
        return content.hashes[-1] if content.distinct > len(content.hashes) else inf

    def rows(self, largest: float) -> int:
        """Return how many rows have a hash of at most `largest`. The hashes are sorted."""
        return bisect_right(self.content.hashes, largest)


def overlap(current: Sample, before: Sample) -> float | None:
    """Return the share of one key's distinct rows that the other key also has; None when either has none.

    Exact below `MOST_HASHES` distinct rows. Otherwise estimated from the rows whose hash is at most the largest hash
    that both samples reach, because up to there both are complete. Rows of both samples are among those.
    """
    rows = current.rows(min(current.largest, before.largest))
    return len(current.hashes & before.hashes) / rows if rows and before.content.distinct else None


def _counts(column: pl.Series) -> tuple[dict[str, int], int]:
    """Return the rows of the most frequent values, and how many rows have another value."""
    counts = column.drop_nulls().cast(pl.String).value_counts(name="_rows")
    most = counts.sort("_rows", column.name, descending=[True, False]).head(MOST_CATEGORIES)
    return dict(most.iter_rows()), int(counts["_rows"].sum()) - int(most["_rows"].sum())


def _moments(statistics: pl.DataFrame) -> dict[str, sketches.Moments]:
    """Return mean and spread per statistic; None if a row has no number, which fails every comparison."""
    if statistics.is_empty():
        return {}
    moments: dict[str, sketches.Moments] = {}
    for column in statistics.get_columns():
        exact = column.cast(pl.Float64)
        is_known = exact.null_count() == 0 and bool(exact.is_finite().all())
        mean, std = (exact.mean(), exact.std(ddof=0)) if is_known else (None, None)
        moments[column.name] = sketches.Moments(mean=_number(mean), std=_number(std))
    return moments


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _content(frame: pl.DataFrame, names: Sequence[str]) -> sketches.Content | None:
    """Hash the distinct rows by their content, without moments and identifiers; all-null rows are skipped."""
    schema = frame.schema
    names = [name for name in names if not schema[name].is_temporal()]
    if not names:
        return None
    cells = [
        (pl.col(name).bin.encode("hex") if schema[name] == pl.Binary else pl.col(name).cast(pl.String)).fill_null("")
        for name in names
    ]
    texts = frame.filter(pl.any_horizontal(pl.col(names).is_not_null())).select(
        pl.concat_str(cells, separator=_SEPARATOR).unique()
    )
    # Not polars' hash_rows(), which differs between its versions: these are compared with those of earlier keys.
    hashes = sorted(
        int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") for text in texts.to_series().to_list()
    )
    return sketches.Content(distinct=len(hashes), hashes=hashes[:MOST_HASHES])
