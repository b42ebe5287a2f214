"""Parse lines of the prediction log into rows, one per prediction id.

Decoding, naming lines that cannot be decoded, deduplicating, and assigning keys. Files, offsets and tables are
`prediction_log.prediction_log`.

The result does not depend on the order in which lines arrive, nor on how often: a repeated id keeps the answer given
first. So a reader that dies before recording its progress may simply read again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import polars as pl

from platform_assets.base.keys import EARLIEST, LATEST, Grain
from platform_assets.store.records.prediction_log import LeftOut as LeftOut

if TYPE_CHECKING:
    from platform_assets.product.spec import Field
    from platform_assets.product.tasks import Task

MOMENT = pl.Datetime("us", "UTC")
ABOUT: dict[str, pl.DataType] = {
    "prediction_id": pl.String(),
    "digest": pl.String(),
    "release": pl.Int64(),
    "entity": pl.String(),
    "service_time": MOMENT,
    "asked_at": MOMENT,
    "answered_at_utc": MOMENT,
    "latency_us": pl.Int64(),
}
"""Columns of every logged prediction. `LATE` and the task's answer follow, then one column per field, null when inputs
were not logged."""
# Marked when answers are ingested, so that no order of runs changes what was measured.
LATE = "is_after_closing"
"""Whether the answer was given after its key was closed. Null until the stage has marked it."""

ORDER = ("asked_at", "entity", "prediction_id")
DECISIVE = (*ORDER, LATE, "answered_at_utc", "digest", "latency_us")
"""The columns that decide which of several answers under one id counts, and where it stands."""
FIELD_TYPES: dict[str, pl.DataType] = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "bool": pl.Boolean(),
    "category": pl.String(),
    "image": pl.Binary(),
}
MOMENTS = ("service_time", "asked_at", "answered_at_utc")
UNFIT = (ArithmeticError, LookupError, TypeError, ValueError, pl.exceptions.PolarsError)
"""What a caller-chosen value can raise on its way into a row or to its key."""
_PLAIN: dict[str, type] = {"float": float, "bool": bool, "category": str, "image": bytes}


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """The content of some lines of the log.

    Attributes:
        rows: one per decoded line, columns as `schema`, in the order of the lines.
        locations: file and offset of each row.
        left_out: lines that could not be decoded, and logged inputs that do not fit the product's fields.
    """

    rows: pl.DataFrame
    locations: tuple[tuple[str, int], ...]
    left_out: tuple[LeftOut, ...]


def schema(fields: Sequence[Field], task: Task) -> dict[str, pl.DataType]:
    """Return the columns of ingested predictions: the common ones, the answer, then the product's fields."""
    return {
        **ABOUT,
        LATE: pl.Boolean(),
        **task.answer_types(),
        **{item.name: FIELD_TYPES[item.dtype] for item in fields},
    }


def whole_lines(data: bytes) -> int:
    """Count the bytes of `data` that are complete lines; the rest is still being written."""
    # On a file system in memory a reader has seen half a line.
    return data.rfind(b"\n") + 1


def parse(data: bytes, fields: Sequence[Field], task: Task, *, file: str, offset: int) -> Parsed:
    """Decode whole lines of one file of the log.

    A prediction whose logged inputs do not fit today's fields (it was written under another contract) keeps everything
    else; its fields stay null and it is listed in `left_out` too.

    Args:
        data: lines, each with its line end.
        fields: of the product; other logged inputs are ignored.
        task: of the product; determines the columns of an answer.
        file: the file's name, for `left_out`.
        offset: of `data` within the file.
    """
    import msgspec

    whole, without_inputs = _decoders(tuple((item.name, item.dtype) for item in fields), task)
    records, locations, left_out = [], [], []
    for line in data[: whole_lines(data)].split(b"\n")[:-1]:
        begins, offset = offset, offset + len(line) + 1
        try:
            record = whole.decode(line)
        # At bad UTF-8 and at deep nesting msgspec raises Python's own errors.
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            try:
                record = without_inputs.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                left_out.append(LeftOut(file=file, offset=begins, reason=f"not a prediction: {problem}"))
                continue
            reason = f"the inputs of {record.prediction_id} do not fit the product's fields: {problem}"
            left_out.append(LeftOut(file=file, offset=begins, reason=reason))
        records.append(record)
        locations.append((file, begins))
    reasons = [_strange_moment(record) for record in records]
    fit = [index for index, reason in enumerate(reasons) if reason is None]
    frames = _frames(records, fit, fields, task, reasons)
    left_out += [
        LeftOut(file=location[0], offset=location[1], reason=f"prediction {record.prediction_id} {reason}")
        for location, record, reason in zip(locations, records, reasons, strict=True)
        if reason is not None
    ]
    return Parsed(
        rows=pl.concat(frames) if frames else _frame([], fields, task),
        locations=tuple(location for location, reason in zip(locations, reasons, strict=True) if reason is None),
        left_out=tuple(left_out),
    )


def key_of(key_of: Callable[[datetime], str], moment: datetime) -> str | None:
    """Return a moment's key; None if it has none, for whatever reason."""
    try:
        return key_of(moment)
    except UNFIT:
        return None


def merge(stored: pl.DataFrame, fresh: pl.DataFrame) -> pl.DataFrame:
    """Merge both frames' rows, each prediction id once, in the order of asking.

    Of several answers under one id (a retry that reached another process) the first one given is kept, whichever frame
    it is in, so merging in any order and any number of times gives the same rows. An answer from before the closing of
    its key takes precedence over a later one.
    """
    return first_given(pl.concat([stored, fresh.select(stored.columns)]))


def first_given(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the answer that counts per prediction id, in the order of asking; see `merge`.

    Args:
        rows: answers with at least the columns `DECISIVE`.
    """
    is_late = pl.col(LATE).fill_null(value=False)
    first = rows.sort("prediction_id", is_late, "answered_at_utc", "digest", "latency_us", maintain_order=True)
    return first.unique("prediction_id", keep="first", maintain_order=True).sort(ORDER)


def align(rows: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return rows with exactly these columns: missing ones null, others dropped. For rows of an older product file."""
    return rows.select(
        pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in columns.items()
    )


def keys_by_arrival(grain: Grain, moments: Sequence[datetime], arrivals: Mapping[str, datetime]) -> list[str | None]:
    """Return per moment the batch that was current: the first one that had not completely arrived before it.

    Args:
        grain: of numbered batches.
        moments: of service, in UTC.
        arrivals: when the last row of each available batch was known.

    Returns:
        One key per moment. After the newest available batch it is the following one, or None if the grain has no such
            key.
    """
    order = sorted(arrivals, key=grain.index)
    latest = list(accumulate((arrivals[key] for key in order), max))
    following = grain.index(order[-1]) + 1 if order else 0
    next_key = grain.key_at(following) if grain.size is None or following < grain.size else None
    positions = [bisect_left(latest, moment) for moment in moments]
    return [order[position] if position < len(order) else next_key for position in positions]


def _strange_moment(record: Any) -> str | None:
    """Return what is wrong with a record's moments; outside these bounds they do not exist in every time zone."""
    for name in MOMENTS:
        moment = getattr(record, name)
        # A question about the year 1 would stop every later run: its moment has no local day.
        if not EARLIEST <= moment < LATEST:
            return f"has {name} {moment.isoformat()}; expected one from {EARLIEST.year} to {LATEST.year - 1}"
    return None


def _frames(
    records: Sequence[Any], chosen: list[int], fields: Sequence[Field], task: Task, reasons: list[str | None]
) -> list[pl.DataFrame]:
    """Build frames from the chosen records: a single one, unless a record does not fit the schema.

    A record that does not fit is found by bisection; its reason is written into `reasons`.
    """
    if not chosen:
        return []
    try:
        return [_frame([records[index] for index in chosen], fields, task)]
    except UNFIT as problem:
        if len(chosen) == 1:
            reasons[chosen[0]] = f"does not fit a row: {problem}"
            return []
    middle = len(chosen) // 2
    return [
        frame for half in (chosen[:middle], chosen[middle:]) for frame in _frames(records, half, fields, task, reasons)
    ]


def _frame(records: Sequence[Any], fields: Sequence[Field], task: Task) -> pl.DataFrame:
    names = (*ABOUT, *task.answer_types())
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in names}
    for name, dtype in ABOUT.items():
        if dtype == MOMENT:
            columns[name] = [moment.astimezone(UTC) for moment in columns[name]]
    columns[LATE] = [None] * len(records)
    inputs = [getattr(record, "features", None) for record in records]
    for item in fields:
        columns[item.name] = [None if features is None else getattr(features, item.name) for features in inputs]
    return pl.DataFrame(columns, schema=schema(fields, task))


@lru_cache(maxsize=8)
def _decoders(fields: tuple[tuple[str, str], ...], task: Task) -> tuple[Any, Any]:
    """Return a decoder of whole records, and one that ignores their inputs."""
    from typing import Annotated

    import msgspec

    text = Annotated[str, msgspec.Meta(min_length=1)]
    moment = Annotated[datetime, msgspec.Meta(tz=True)]
    int64: Any = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what a column of Int64 holds
    members: list[Any] = [
        *((name, text) for name in ("prediction_id", "digest", "entity")),
        *((name, moment) for name in MOMENTS),
        *((member.name, member.type) for member in msgspec.structs.fields(task.logged_type())),
        ("latency_us", int64),
        ("release", int64 | None, None),
    ]
    without_inputs = msgspec.defstruct("WithoutInputs", members)
    kinds = [int64 if dtype == "int" else _PLAIN[dtype] for _, dtype in fields]
    inputs = msgspec.defstruct(
        "Inputs", [(name, kind | None, None) for (name, _), kind in zip(fields, kinds, strict=True)]
    )
    all_of_it = msgspec.defstruct("Whole", [("features", inputs | None, None)], bases=(without_inputs,))
    return msgspec.json.Decoder(all_of_it), msgspec.json.Decoder(without_inputs)
