"""Guess a first product from what a table's columns hold: task, fields, history, grain, delay, and what to leave out.

Pure: a frame and the records of its columns in, one record out. Each guess that a person should judge is a question.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
import polars as pl

from platform_assets.base.naming import snake_case
from platform_assets.base.problems import Problem
from platform_assets.base.wording import counted
from platform_assets.product.fields import Field
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.scaffold import columns
from platform_assets.scaffold.columns import Column
from platform_assets.training import matrix, suspects

LEAST_ROWS, LEAST_KEYS = 20, 6
"""Rows and labelled keys without which a model can neither be trained nor judged."""
MOST_CLASSES = 20
MOST_CODES = 60
SPARSE = 3
"""Where only one day in so many has rows, each day with rows is a batch."""
MOST_BATCHES, LEAST_PER_BATCH, LEAST_HOURS = 30, 3, 48
POSITIVE = ("1", "true", "yes", "y", "t")
NO_FIELDS: dict[str, str] = {
    "moment": "moments",
    "id": "ids",
    "text": "text, or with too many values",
    "constant": "the same in all rows",
    "empty": "null in all rows",
}
"""Why columns of a kind are not fields."""
LATER = re.compile(
    r"(^|_)(outcome|result|reason|resolved|resolution|closed|refund\w*|chargeback\w*|cancel\w*|target|label|final|"
    r"predict\w*|prediction|prob\w*)(_|$)"
)
"""Names of what is usually known only after the label."""
WHO = re.compile(
    r"(^|_)(customer|client|user|player|account|member|patient|person|individual|subject|driver|seller|merchant|"
    r"vendor|supplier|shop|store|station|device|machine|sensor|symbol|ticker|team|firm|company|product|item|sku)(_|$)"
)


class NoGuess(Problem, ValueError):
    """The table cannot become a product; the sentence says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One field, and the column that it reads."""

    name: str
    column: Column
    dtype: Literal["float", "int", "bool", "category"]
    low: float | None = None
    high: float | None = None

    @property
    def is_nullable(self) -> bool:
        """Whether nulls were found."""
        return self.column.nulls > 0


@dataclass(frozen=True, kw_only=True)
class Past:
    """What earlier rows tell of a row.

    Attributes:
        by: the column whose value the earlier rows share; None for all earlier rows.
        days: how far back.
    """

    by: Column | None
    days: int


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A first product.

    Attributes:
        label: its column.
        task: the kind of answer.
        positive: the label's text that means yes, of a binary task whose label is not 0 or 1.
        classes: of a multi-class task.
        time: the column with a row's moment; None for none.
        grain: the kind of the keys.
        first: the first key with a label; empty for batches.
        keys: how many keys have labelled rows.
        label_delay: in keys.
        entity: the column that names a row, unique; None for none.
        past: what earlier rows tell; None for nothing.
        fields: the model's inputs.
        left_out: columns that are not fields, by the reason.
    """

    label: Column
    task: Literal["binary", "multi_class", "regression"]
    positive: str | None = None
    classes: tuple[str, ...] = ()
    time: Column | None
    grain: Literal["daily", "hourly", "batch"]
    first: str
    keys: int
    label_delay: int
    entity: Column | None
    past: Past | None
    fields: tuple[Chosen, ...]
    left_out: Mapping[str, tuple[str, ...]]


def guess(frame: pl.DataFrame, *, label: str, time: str | None) -> Guess:
    """Return the first product for a table.

    Raises:
        NoGuess: no product can be made of it.
    """
    for name, option in ((label, "--label"), (time, "--time")):
        if name is not None and name not in frame.columns:
            close = difflib.get_close_matches(name, frame.columns, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}? It has" if close else "it has"
            raise NoGuess(f"{option} is {name!r}, and the table has no such column; {hint} {listed(frame.columns)}.")
    if frame.height < LEAST_ROWS:
        raise NoGuess(
            f"the table has {counted(frame.height, 'row')}; expected at least {LEAST_ROWS}, because some train a model "
            "and others judge it. Give more rows."
        )
    held = columns.profile(frame, moments=[time] if time else [])
    moments = _moments(frame, held[time]) if time else None
    task = _task(held[label])
    is_labelled = columns.without_words(frame[label].cast(pl.String), held[label].null_words).is_not_null()
    delay, sign = _delay(frame, held, label, moments)
    left_out = dict[str, list[str]]()
    kept = list[Chosen]()
    for name, column in held.items():
        if name not in (label, time):
            if reason := _reason(column, held[label], sign):
                left_out.setdefault(reason, []).append(name)
            else:
                kept.append(_chosen(column, [one.name for one in kept]))
    telling = _telling(frame.filter(is_labelled), kept, held[label], task)
    if told := [one.column.name for one in kept if one.name in telling]:
        left_out["known only after the label, because it alone tells it"] = told
    kept = [one for one in kept if one.name not in telling]
    known = None if moments is None else moments.filter(is_labelled)
    grain, keys, first = _grain(known, int(is_labelled.sum()))
    # Batches come in the order of their text, in which not every format sorts.
    if time and grain == "batch" and not (held[time].format or "%Y").startswith("%Y"):
        grain, keys, first = _grain(None, int(is_labelled.sum()))
        left_out.setdefault("moments", []).append(time)
        time = None
    past = None if moments is None or grain == "batch" else _past(frame, held, label, moments)
    ids = [one for name, one in held.items() if one.kind == "id" and name not in (label, time)]
    names = [column for column in ids if column.distinct == column.rows]
    if not kept and past is None:
        reasons = "; ".join(f"{listed(names)}: {reason}" for reason, names in left_out.items())
        raise NoGuess(
            f"no column of the table can be a field: {reasons or 'there is no other column'}. Give the table columns "
            "that were known before the label."
        )
    return Guess(
        label=held[label],
        task=task,
        positive=_positive(frame[label], held[label]) if task == "binary" else None,
        classes=tuple(sorted(held[label].values)) if task == "multi_class" else (),
        time=held[time] if time else None,
        grain=grain,
        first=first,
        keys=keys,
        label_delay=0 if grain == "batch" else delay * (24 if grain == "hourly" else 1),
        entity=min(names, key=lambda column: not columns.is_id_name(column.name), default=None),
        past=past,
        fields=tuple(kept),
        left_out={reason: tuple(names) for reason, names in left_out.items()},
    )


def ends(column: Column) -> tuple[float, float]:
    """Return a range that holds all numbers of a column, with ends that a person would write.

    Codes such as months keep theirs. A range that is not negative begins at 0 unless it is far from it.
    """
    low, high = float(column.low or 0), float(column.high or 0)
    span = high - low
    if column.is_whole and span <= MOST_CODES and column.distinct > span / 2:
        return low, high
    step = 10.0 ** np.floor(np.log10(span)) / 2 if span > 0 else 1.0
    step = max(step, 1.0) if column.is_whole else step
    bottom = 0.0 if 0 <= low <= span else np.floor(low / step) * step
    top = 0.0 if -span <= high <= 0 else np.ceil(high / step) * step
    return round(float(bottom), 9), round(float(top), 9)


def _moments(frame: pl.DataFrame, time: Column) -> pl.Series:
    if time.kind != "moment":
        example = f", such as {time.values[0]!r}" if time.values else ""
        raise NoGuess(
            f"--time is {time.name!r}, which holds no moments{example}; expected dates or times of one format, such as "
            "2024-03-01 or 2024-03-01T05:00:00Z. Name another column, or leave --time out."
        )
    if time.other_format:
        raise NoGuess(
            f"--time is {time.name!r}, which has two formats of dates: {time.format} and {time.other_format}. "
            "Nobody can tell what they mean; write all of them as 2024-03-01T05:00:00Z."
        )
    return columns.as_moments(frame[time.name], time)


def _grain(moments: pl.Series | None, labelled: int) -> tuple[Literal["daily", "hourly", "batch"], int, str]:
    """Return the kind of the keys, how many have labels, and the first."""
    if moments is None:
        return "batch", min(MOST_BATCHES, labelled // LEAST_PER_BATCH), ""
    days = moments.drop_nulls().dt.strftime("%Y-%m-%d").unique().sort()
    length = (date.fromisoformat(days[-1]) - date.fromisoformat(days[0])).days + 1
    if LEAST_KEYS <= len(days) < length / SPARSE:
        return "batch", len(days), ""
    if len(days) >= LEAST_KEYS:
        return "daily", len(days), days[0]
    hours = moments.drop_nulls().dt.strftime("%Y-%m-%dT%H").unique().sort()
    if len(hours) >= LEAST_HOURS:
        return "hourly", len(hours), hours[0]
    raise NoGuess(
        f"the labelled rows are of {counted(len(days), 'day')}; expected at least {LEAST_KEYS}, because some train a "
        "model and later ones judge it. Leave --time out, or give rows of more days."
    )


def _task(label: Column) -> Literal["binary", "multi_class", "regression"]:
    name = label.name
    if label.kind != "moment" and label.distinct < 2:
        what = "is null in all rows" if label.kind == "empty" else f"is {label.values[0]!r} in all rows that have one"
        raise NoGuess(
            f"the label {name!r} {what}; expected at least two different values, because nothing can be learned from "
            "one. Name another column, or give rows with both outcomes."
        )
    if label.distinct == 2:
        return "binary"
    if label.kind == "number" or (label.kind == "id" and label.low is not None):
        is_code = label.is_whole and label.low in (0, 1) and label.distinct == label.high - label.low + 1
        return "multi_class" if is_code and label.distinct <= columns.FEW_CATEGORIES else "regression"
    if label.kind == "category" and label.distinct <= MOST_CLASSES:
        return "multi_class"
    raise NoGuess(
        f"the label {name!r} is {label.kind} with {counted(label.distinct, 'different value')}; expected a number, or "
        f"at most {MOST_CLASSES} classes. Name another column."
    )


def _positive(values: pl.Series, label: Column) -> str | None:
    """Return the text that means yes; None where the label is 0 or 1."""
    is_code = not label.is_text or set(values.cast(pl.String).drop_nulls()) <= {"0", "1"}
    if is_code and label.kind == "number" and (label.low, label.high) == (0, 1):
        return None
    texts = columns.without_words(values.cast(pl.String).str.strip_chars(), label.null_words).drop_nulls()
    counts = texts.value_counts(sort=True, name="n")
    known = [text for text in counts[values.name] if text.lower() in POSITIVE]
    return str(known[0] if known else counts[values.name][-1])


def _delay(
    frame: pl.DataFrame, held: Mapping[str, Column], label: str, moments: pl.Series | None
) -> tuple[int, frozenset[str]]:
    """Return after how many days the label is known, and the moments that come after the row's own."""
    if moments is None:
        return 0, frozenset()
    days, later = 1, set[str]()
    for name, column in held.items():
        if column.kind != "moment" or column.format in columns.BARE_FORMATS:
            continue
        gap = (columns.as_moments(frame[name], column) - moments).drop_nulls()
        if len(gap) and (gap > timedelta(0)).sum() > 0.01 * len(gap):
            later.add(name)
            if _shares_stem(name, label):
                days = max(days, int(columns.number(gap.dt.total_seconds().quantile(0.95, "higher")) / 86_400) + 1)
    return days, frozenset(later)


def _shares_stem(name: str, label: str) -> bool:
    """Tell whether two names share the beginning of a word, as `return_reason` and `returned` do."""
    stems = {word[:5] for word in snake_case(label).split("_") if len(word) >= 5}
    return any(word[:5] in stems for word in snake_case(name).split("_"))


def _reason(column: Column, label: Column, later: frozenset[str]) -> str:
    """Return why a column is not a field; empty for a field."""
    if column.name in later:
        return "later than the row"
    if column.kind in NO_FIELDS:
        return NO_FIELDS[column.kind]
    if LATER.search(snake_case(column.name)) or _shares_stem(column.name, label.name):
        return "known only after the label, by the name"
    return ""


def _chosen(column: Column, taken: Sequence[str]) -> Chosen:
    name = snake_case(column.name)
    while name in taken:
        name += "_2"
    if column.kind == "number":
        low, high = ends(column)
        whole = column.is_whole and column.decimals == 0  # 3.0 may be followed by 3.5
        return Chosen(name=name, column=column, dtype="int" if whole else "float", low=low, high=high)
    return Chosen(name=name, column=column, dtype="bool" if column.kind == "flag" else "category")


def _telling(frame: pl.DataFrame, chosen: Sequence[Chosen], label: Column, task: str) -> set[str]:
    """Return the names of the fields each of which alone tells the label of these rows."""
    if not chosen:
        return set()
    # A flag is compared as a category: its texts need not be those of a boolean.
    is_number = {one.name: one.dtype in ("int", "float") for one in chosen}
    fields = [Field(name=name, dtype="float" if number else "category") for name, number in is_number.items()]
    read = [
        columns.as_numbers(frame[one.column.name], one.column).alias(one.name)
        if is_number[one.name]
        else columns.without_words(frame[one.column.name].cast(pl.String), one.column.null_words).alias(one.name)
        for one in chosen
    ]
    inputs, labels = matrix.inputs_of(pl.DataFrame(read), fields), frame[label.name]
    if task == "regression":
        numbers = columns.as_numbers(labels, label).fill_null(0).to_numpy()
        return set(suspects.giving_away(inputs, numbers, fields, Regression(unit="-")))
    kind: Task = Binary() if task == "binary" else MultiClass(classes=("0", "1"))
    codes = labels.cast(pl.String).rank("dense").cast(pl.Int64).to_numpy() - 1
    return set(suspects.giving_away(inputs, codes, fields, kind))


def _past(frame: pl.DataFrame, held: Mapping[str, Column], label: str, moments: pl.Series) -> Past | None:
    """Return what earlier rows tell of a row; None where they are too few."""
    whole = [name for name, column in held.items() if column.kind in ("id", "category") or column.is_whole]
    names = [name for name in whole if name != label and (columns.is_id_name(name) or WHO.search(snake_case(name)))]
    days = moments.dt.date()
    found: list[tuple[int, str, float]] = []
    for name in names:
        rows = pl.DataFrame({"who": frame[name].cast(pl.String), "day": days}).drop_nulls().unique().sort("who", "day")
        gaps = rows.select(pl.col("day").diff().over("who").dt.total_days().alias("gap")).to_series().drop_nulls()
        if len(gaps) >= rows.height / 2 and rows["who"].n_unique() > 1:
            found.append((rows["who"].n_unique(), name, columns.number(gaps.median())))
    _, name, gap = max(found, default=(0, "", 0.0))
    if not found:
        ordered = days.drop_nulls().unique().sort()
        gap = columns.number(ordered.diff().dt.total_days().drop_nulls().median() or 1)
    first, last = (edge for edge in (days.min(), days.max()) if isinstance(edge, date))
    span = (last - first).days
    choices = [length for length in (7, 28, 90, 365) if length * 3 <= span]
    if not choices:
        return None
    days_back = next((length for length in choices if length >= 4 * gap), choices[-1])
    return Past(by=held[name] if found else None, days=days_back)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names for a sentence, the first ones and how many more."""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
