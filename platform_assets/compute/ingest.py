"""Read lines of the prediction log, and put them into rows of which every prediction id stands once.

Belongs here: decoding, naming what cannot be decoded, deduplicating, and whose key a row is. Does not belong here:
files, offsets and tables (`intake.prediction_log`), or what the rows say about a model (`compute.performance`).

The result does not depend on the order in which lines arrive, nor on how often: a repeated id keeps the answer that
was given first. So a reader that dies before it noted how far it came may simply read again.
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

from platform_assets.keys import EARLIEST, LATEST, Grain
from platform_assets.records.ingested import LeftOut as LeftOut

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task
    from platform_assets.specs.base import Field

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
"""What every logged prediction has; `LATE` and the task's answer follow, then a column per field, null when inputs were
not logged."""
LATE = "is_after_closing"
"""Whether the answer was given after its key was closed: null until the stage has looked, and in older tables."""

ORDER = ("asked_at", "entity", "prediction_id")
FIELD_TYPES: dict[str, pl.DataType] = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "bool": pl.Boolean(),
    "category": pl.String(),
    "image": pl.Binary(),
}
MOMENTS = ("service_time", "asked_at", "answered_at_utc")
UNFIT = (ArithmeticError, LookupError, TypeError, ValueError, pl.exceptions.PolarsError)
"""What a value that a stranger chose can raise on its way into a row or to its key."""
_PLAIN: dict[str, type] = {"float": float, "bool": bool, "category": str, "image": bytes}


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What lines of the log hold.

    Attributes:
        rows: one a decoded line, columns as `schema`, in the order of the lines.
        places: file and offset of each row.
        left_out: lines that could not be decoded, and logged inputs that do not fit the product's fields.
    """

    rows: pl.DataFrame
    places: tuple[tuple[str, int], ...]
    left_out: tuple[LeftOut, ...]


def schema(fields: Sequence[Field], task: Task) -> dict[str, pl.DataType]:
    """Return the columns of ingested predictions: what every one has, the answer, then the product's fields."""
    return {**ABOUT, LATE: pl.Boolean(), **task.said_types(), **{item.name: FIELD_TYPES[item.dtype] for item in fields}}


def whole_lines(data: bytes) -> int:
    """Return how many bytes of `data` are lines with their line end; what follows is still being written."""
    return data.rfind(b"\n") + 1


def parse(data: bytes, fields: Sequence[Field], task: Task, *, file: str, offset: int) -> Parsed:
    """Decode whole lines of one file of the log.

    A prediction whose logged inputs do not fit today's fields (another contract wrote them) keeps everything else;
    its fields stay null and it is named in `left_out` too.

    Args:
        data: lines, each with its line end.
        fields: of the product; logged inputs that are none of them are passed over.
        task: of the product: which columns an answer has.
        file: the file's name, for `left_out`.
        offset: where in the file `data` begins.
    """
    import msgspec

    whole, without_inputs = _decoders(tuple((item.name, item.dtype) for item in fields), task)
    records, places, left_out = [], [], []
    for line in data[: whole_lines(data)].split(b"\n")[:-1]:
        begins, offset = offset, offset + len(line) + 1
        try:
            record = whole.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            try:
                record = without_inputs.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                left_out.append(LeftOut(file=file, offset=begins, reason=f"no prediction: {problem}"))
                continue
            reason = f"the inputs of {record.prediction_id} do not fit the product's fields: {problem}"
            left_out.append(LeftOut(file=file, offset=begins, reason=reason))
        records.append(record)
        places.append((file, begins))
    reasons = [_strange_moment(record) for record in records]
    fit = [place for place, reason in enumerate(reasons) if reason is None]
    frames = _frames(records, fit, fields, task, reasons)
    left_out += [
        LeftOut(file=place[0], offset=place[1], reason=f"prediction {record.prediction_id} {reason}")
        for place, record, reason in zip(places, records, reasons, strict=True)
        if reason is not None
    ]
    return Parsed(
        rows=pl.concat(frames) if frames else _frame([], fields, task),
        places=tuple(place for place, reason in zip(places, reasons, strict=True) if reason is None),
        left_out=tuple(left_out),
    )


def key_of(key_of: Callable[[datetime], str], moment: datetime) -> str | None:
    """Return a moment's key, or None where there is none, for whatever reason."""
    try:
        return key_of(moment)
    except UNFIT:
        return None


def merge(known: pl.DataFrame, fresh: pl.DataFrame) -> pl.DataFrame:
    """Return both frames' rows, each prediction id once, in the order of asking.

    Of several answers under one id (a retry that reached another process) the one given first is kept, whichever
    frame it is in, so merging in any order and any number of times gives the same rows. An answer that was there
    before its key was closed is kept before one that came later.
    """
    rows = pl.concat([known, fresh.select(known.columns)])
    is_late = pl.col(LATE).fill_null(value=False)
    first = rows.sort("prediction_id", is_late, "answered_at_utc", "digest", "latency_us", maintain_order=True)
    return first.unique("prediction_id", keep="first", maintain_order=True).sort(ORDER)


def align(rows: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return rows with exactly these columns: missing ones null, others gone. For rows of an older product file."""
    return rows.select(
        pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in columns.items()
    )


def keys_by_arrival(grain: Grain, moments: Sequence[datetime], arrivals: Mapping[str, datetime]) -> list[str | None]:
    """Return the batch that was under way at each moment: the first one that had not wholly arrived before it.

    Args:
        grain: of numbered batches.
        moments: of service, in UTC.
        arrivals: when the last row of each batch at hand was known.

    Returns:
        A key each; after the newest batch at hand the one that follows it, None where the grain has no such key.
    """
    order = sorted(arrivals, key=grain.index)
    latest = list(accumulate((arrivals[key] for key in order), max))
    following = grain.index(order[-1]) + 1 if order else 0
    beyond = grain.key_at(following) if grain.size is None or following < grain.size else None
    places = [bisect_left(latest, moment) for moment in moments]
    return [order[place] if place < len(order) else beyond for place in places]


def _strange_moment(record: Any) -> str | None:
    """Return what is wrong with a record's moments: outside of these bounds not every zone has them."""
    for name in MOMENTS:
        moment = getattr(record, name)
        if not EARLIEST <= moment < LATEST:
            return f"has {name} {moment.isoformat()}; expected one from {EARLIEST.year} to {LATEST.year - 1}"
    return None


def _frames(
    records: Sequence[Any], chosen: list[int], fields: Sequence[Field], task: Task, reasons: list[str | None]
) -> list[pl.DataFrame]:
    """Return the chosen records as frames: a single one, unless a record does not fit the schema.

    A record that does not fit is found by halving; its reason is written into `reasons`.
    """
    if not chosen:
        return []
    try:
        return [_frame([records[place] for place in chosen], fields, task)]
    except UNFIT as problem:
        if len(chosen) == 1:
            reasons[chosen[0]] = f"is no row: {problem}"
            return []
    middle = len(chosen) // 2
    return [
        frame for half in (chosen[:middle], chosen[middle:]) for frame in _frames(records, half, fields, task, reasons)
    ]


def _frame(records: Sequence[Any], fields: Sequence[Field], task: Task) -> pl.DataFrame:
    names = (*ABOUT, *task.said_types())
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in names}
    for name, dtype in ABOUT.items():
        if dtype == MOMENT:
            columns[name] = [moment.astimezone(UTC) for moment in columns[name]]
    columns[LATE] = [None] * len(records)
    inputs = [getattr(record, "features", None) for record in records]
    for item in fields:
        columns[item.name] = [None if given is None else getattr(given, item.name) for given in inputs]
    return pl.DataFrame(columns, schema=schema(fields, task))


@lru_cache(maxsize=8)
def _decoders(fields: tuple[tuple[str, str], ...], task: Task) -> tuple[Any, Any]:
    """Return a decoder of whole records, and one that passes over their inputs."""
    from typing import Annotated

    import msgspec

    text = Annotated[str, msgspec.Meta(min_length=1)]
    moment = Annotated[datetime, msgspec.Meta(tz=True)]
    whole: Any = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what a column of Int64 holds
    about: list[Any] = [
        ("prediction_id", text),
        ("digest", text),
        ("entity", text),
        ("service_time", moment),
        ("asked_at", moment),
        *((each.name, each.type) for each in msgspec.structs.fields(task.logged())),
        ("answered_at_utc", moment),
        ("latency_us", whole),
        ("release", whole | None, None),
    ]
    without_inputs = msgspec.defstruct("WithoutInputs", about)
    kinds = [whole if dtype == "int" else _PLAIN[dtype] for _, dtype in fields]
    inputs = msgspec.defstruct(
        "Inputs", [(name, kind | None, None) for (name, _), kind in zip(fields, kinds, strict=True)]
    )
    all_of_it = msgspec.defstruct("Whole", [("features", inputs | None, None)], bases=(without_inputs,))
    return msgspec.json.Decoder(all_of_it), msgspec.json.Decoder(without_inputs)
