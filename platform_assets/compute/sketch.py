"""Sketch rows as counts, small enough to keep for ever: of a key's sources, its cross rules, and its features.

Belongs here: one pass over rows. Does not belong here: what a sketch holds (`records.sketches`), or comparing two of
them (`compute.faults` for sources and rules, `compute.drift` for features).

The bins are those of the training rows' quantiles, so that sketches of other rows with the same `learned` compare
bin by bin. Bin 0 holds values up to the first edge, bin i those above edge i-1 up to edge i, the last those above
the last edge: a training set has none of these. numpy loads when bins are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import polars as pl
from msgspec.structs import replace

from platform_assets.records import sketches

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.compute.learn import Learned
    from platform_assets.compute.tasks import Task
    from platform_assets.product.monitoring import CrossRule

MOST_CATEGORIES = 128
"""Of a text column the counts of its most frequent values; the rest is `other`."""
MOST_HASHES = 256
"""The smallest hashes of a key's distinct rows that are kept: a uniform sample of them (bottom-k, Cohen 1997)."""
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
        unique: the columns that name a row: they take no part in its content.
        quarantined: how many rows of the delivery are in quarantine, repeated ones among them.
        repeated: how many of these repeat another row of the delivery.
        content: the columns that make what a row says; all but `unique` and moments by default.
        statistics: numbers a row, of columns that are neither number nor text; None where the source has none.
    """
    names = [name for name in frame.columns if name not in BOOKKEEPING]
    said = [name for name in names if name not in unique] if content is None else list(content)
    return sketches.SourceSketch(
        rows=frame.height + quarantined,
        good=frame.height,
        quarantined=quarantined,
        repeated=repeated,
        columns=_columns(frame, names, set(unique) if len(unique) == 1 else set()),
        content=_content(frame, said),
        statistics={} if statistics is None else _moments(statistics),
    )


def of_rules(rules: Sequence[CrossRule], tables: Mapping[str, pl.DataFrame]) -> dict[str, sketches.RuleCount]:
    """Count the offending rows of each rule whose sources have all landed with rows, by the rule's name.

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


def histograms(frame: pl.DataFrame, learned: Learned) -> sketches.Histograms:
    """Count the rows in each learned bin, field by field.

    A numeric field has a count for each bin and last the nulls; a category one for each known value in order, then
    all others, and last the nulls; an image, in place of itself, counts as the fields `{image}_{statistic}`. The counts
    of a field add up to the rows, so histograms can be added.
    """
    return {
        **{item.name: _binned(frame.get_column(item.name), item.edges) for item in learned.numeric},
        **{item.name: _known(frame.get_column(item.name), item.vocabulary) for item in learned.categorical},
        **_of_image(frame, learned),
    }


def sketch(frame: pl.DataFrame, learned: Learned, task: Task, *, said: np.ndarray) -> sketches.TrainingSketch:
    """Sketch the rows that a model was trained on.

    Args:
        frame: the fields' columns as in the features table, and the column `label`.
        learned: the columns and the edges of their bins.
        task: of the product.
        said: the model's answers about the same rows.

    Raises:
        ValueError: no rows, or not one answer a row.
    """
    if frame.height == 0 or len(said) != frame.height:
        raise ValueError(f"got {frame.height} rows and {len(said)} answers; expected equally many, at least one.")
    counts = histograms(frame, learned)
    edges = task.mix_edges(said)
    return sketches.TrainingSketch(
        rows=frame.height,
        numeric={
            item.name: sketches.NumericCounts(
                edges=list(item.edges),
                counts=counts[item.name][:-1],
                nulls=counts[item.name][-1],
                **_range(frame.get_column(item.name)),
            )
            for item in learned.numeric
        },
        categorical={
            item.name: sketches.CategoryCounts(
                counts=dict(zip(_words(item.vocabulary), counts[item.name], strict=False)),
                other=counts[item.name][-2],
                nulls=counts[item.name][-1],
            )
            for item in learned.categorical
        },
        label={"nulls": frame["label"].null_count(), **task.summary(frame["label"].drop_nulls())},
        answers=sketches.Mix(edges=edges, counts=task.mix(said, edges)),
    )


def overlap(came: sketches.Content, before: sketches.Content) -> float | None:
    """Return the share of one key's distinct rows that the other key has too, None when either has none.

    Exact below `MOST_HASHES` distinct rows, else estimated from the rows whose hash is at most what both samples
    reach: these are all there, in both.
    """
    ceilings = [side.hashes[-1] for side in (came, before) if side.distinct > len(side.hashes)]
    mine, theirs = ({each for each in side.hashes if not ceilings or each <= min(ceilings)} for side in (came, before))
    return len(mine & theirs) / len(mine) if mine and before.distinct else None


def _columns(frame: pl.DataFrame, names: Sequence[str], ids: Collection[str]) -> dict[str, sketches.Column]:
    schema, wanted = frame.schema, list[pl.Expr]()
    for name in names:
        column, dtype = pl.col(name), schema[name]
        wanted += [
            column.null_count().alias(f"{name}.nulls"),
            (column.n_unique() - column.has_nulls().cast(pl.UInt32)).alias(f"{name}.distinct"),
        ]
        if dtype.is_numeric():
            wanted += [
                getattr(column.cast(pl.Float64), what)().alias(f"{name}.{what}") for what in ("min", "max", "mean")
            ]
    found = frame.select(wanted).row(0, named=True) if frame.height else {}
    columns: dict[str, sketches.Column] = {}
    for name in names:
        sketched = sketches.Column(nulls=found.get(f"{name}.nulls", 0), distinct=found.get(f"{name}.distinct", 0))
        if schema[name].is_numeric():
            low, high, mean = (found.get(f"{name}.{what}") for what in ("min", "max", "mean"))
            sketched = replace(sketched, low=low, high=high, mean=mean)
        elif schema[name] in (pl.String, pl.Boolean) and name not in ids:
            counts, other = _counts(frame.get_column(name))
            sketched = replace(sketched, counts=counts, other=other)
        columns[name] = sketched
    return columns


def _counts(column: pl.Series) -> tuple[dict[str, int], int]:
    """Return the rows of the most frequent values, and how many have another."""
    seen = column.drop_nulls().cast(pl.String).value_counts(name="_rows")
    most = seen.sort("_rows", column.name, descending=[True, False]).head(MOST_CATEGORIES)
    return dict(most.iter_rows()), int(seen["_rows"].sum()) - int(most["_rows"].sum())


def _moments(statistics: pl.DataFrame) -> dict[str, sketches.Moments]:
    """Return mean and spread of each; None where a row has no number, which no comparison forgives."""
    if statistics.is_empty():
        return {}
    found: dict[str, sketches.Moments] = {}
    for column in statistics.get_columns():
        exact = column.cast(pl.Float64)
        is_known = exact.null_count() == 0 and bool(exact.is_finite().all())
        mean, std = (exact.mean(), exact.std(ddof=0)) if is_known else (None, None)
        found[column.name] = sketches.Moments(mean=_number(mean), std=_number(std))
    return found


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _content(frame: pl.DataFrame, names: Sequence[str]) -> sketches.Content | None:
    """Hash the distinct rows by what they say: not when (moments) and not of whom; a row of nulls says nothing."""
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
    hashes = sorted(
        int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") for text in texts.to_series().to_list()
    )
    return sketches.Content(distinct=len(hashes), hashes=hashes[:MOST_HASHES])


def _of_image(frame: pl.DataFrame, learned: Learned) -> sketches.Histograms:
    if learned.image is None:
        return {}
    from platform_assets.compute import images

    item = learned.image
    pixels = images.stacked(frame.get_column(item.name), item.shape)
    measured = images.statistics(pixels)
    return {
        f"{item.name}_{each.name}": _binned(pl.Series(each.name, measured[each.name]), each.edges)
        for each in item.statistics
    }


def _binned(column: pl.Series, edges: Sequence[float]) -> list[int]:
    import numpy as np

    # A comparison a bin beats a search a value: 17 vectorised passes over 4 bytes against 5 unpredictable branches.
    values = column.cast(pl.Float32).to_numpy()
    nulls = int(np.count_nonzero(np.isnan(values)))
    upto = [int(np.count_nonzero(values <= np.float32(edge))) for edge in edges]
    return [high - low for low, high in zip([0, *upto], [*upto, len(values) - nulls], strict=True)] + [nulls]


def _known(column: pl.Series, vocabulary: Sequence[str]) -> list[int]:
    seen = dict(column.cast(pl.String).drop_nulls().value_counts(name="_rows").iter_rows())
    known = [seen.get(word, 0) for word in _words(vocabulary)]
    nulls = column.null_count()
    return [*known, column.len() - nulls - sum(known), nulls]


def _words(vocabulary: Sequence[str]) -> list[str]:
    return [word for word in vocabulary if word]


def _range(column: pl.Series) -> dict[str, float | None]:
    """Return the range and the mean as the model sees the values: rounded to float32, the nulls left out."""
    import numpy as np

    values = column.cast(pl.Float32).fill_nan(None).drop_nulls().to_numpy()
    if not len(values):
        return {"low": None, "high": None, "mean": None}
    mean = np.float32(values.mean(dtype=np.float64))
    return {"low": float(values.min()), "high": float(values.max()), "mean": float(mean)}
