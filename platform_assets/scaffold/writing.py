"""Write a first product's file: what was guessed, with a question wherever somebody should judge.

At most `MOST_LINES` lines, as `ruff format` leaves them at 88 columns. Fields that do not fit are grouped by their
range, and where that is not enough, those that tell least of the label are left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from platform_assets.base.naming import snake_case
from platform_assets.base.wording import counted
from platform_assets.scaffold import columns, layout
from platform_assets.scaffold.columns import Column
from platform_assets.scaffold.guess import Chosen, Guess
from platform_assets.scaffold.layout import Call

MOST_LINES = 60
CLASS = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")
"""What a class may be called."""
MOST_NAMES = 6
"""Of columns that are left out for one reason, a comment names so many."""
_CALLED = (
    *("BatchGrain", "DailyGrain", "DealtFile", "Field", "HourlyGrain", "LightGbm", "MultiClass", "OneFile", "Product"),
    *("Regression", "Source", "SqlWindow", "Timeline", "asked", "read_csv", "snake_case"),
)
"""What a file may call of driftline."""
FEW_FIELDS = 3
"""With fewer fields of its own, a table's time is worth some."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the table comes from.

    Attributes:
        name: as a person calls it: `orders.csv`.
        place: path of the file, or the database's URL.
        query: the SELECT; None for a file.
        order_by: columns that sort the query's rows down to one.
        password_env: the name of the environment's variable with the database's password.
        is_parquet: whether its deliveries are Parquet.
    """

    name: str
    place: str
    query: str | None = None
    order_by: tuple[str, ...] = ()
    password_env: str | None = None
    is_parquet: bool = False


def file_of(name: str, guess: Guess, origin: Origin) -> str:
    """Return the text of a product's file."""
    for style in ({}, {"is_packed": True}, {"is_packed": True, "is_bare": True}):
        text = _File(name, guess, origin, **style).text()
        if text.count("\n") <= MOST_LINES:
            return text
    most = len(guess.fields)
    while text.count("\n") > MOST_LINES and most > 1:
        most = max(1, most - 1 - (text.count("\n") - MOST_LINES) // 3)
        text = _File(name, _with_fewer(guess, most), origin, is_packed=True, is_bare=True).text()
    if text.count("\n") > MOST_LINES and guess.past is not None and guess.fields:
        return file_of(name, replace(guess, past=None), origin)
    return text


def _with_fewer(guess: Guess, most: int) -> Guess:
    """Return the guess with the fields that tell most of the label."""
    kept = set(guess.ranking[:most])
    lost = tuple(one.column.name for one in guess.fields if one.name not in kept)
    fields = tuple(one for one in guess.fields if one.name in kept)
    return replace(guess, fields=fields, left_out={**guess.left_out, "telling least of the label": lost})


class _File:
    """The text of one file, part by part.

    Args:
        is_packed: whether fields are grouped by their range.
        is_bare: whether the time gives no fields.
    """

    def __init__(
        self, name: str, guess: Guess, origin: Origin, *, is_packed: bool = False, is_bare: bool = False
    ) -> None:
        self.name, self.guess, self.origin, self.is_packed = name, guess, origin, is_packed
        stem = snake_case(origin.name.partition(".")[0])
        self.source = name if origin.query is not None or stem == "labels" else stem
        self.moment = None if guess.grain == "batch" else guess.time
        self.time = "" if self.moment is None else snake_case(self.moment.name)
        self.label = snake_case(guess.label.name)
        self.entity = None if guess.entity is None else snake_case(guess.entity.name)
        self.is_derived = guess.past is not None or not guess.fields
        self.has_hours = guess.time is not None and guess.time.has_hours
        self.is_timed = len(guess.ranking) < FEW_FIELDS and self.moment is not None and not (is_bare and guess.fields)
        self.scale = 0
        if guess.task == "regression":
            self.scale = 10 ** (columns.MOST_DECIMALS if guess.label.decimals is None else guess.label.decimals)
        is_plain = all(CLASS.fullmatch(name) for name in guess.classes)
        self.classes = guess.classes if is_plain else tuple(map(snake_case, guess.classes))
        self.read = self._read()

    def text(self) -> str:
        """Return the whole text."""
        parts = [self._head()]
        if self.read:
            parts.append(self.read)
        if self.is_derived:
            parts.append(self._features())
        parts.append(self._spec())
        text = "\n\n\n".join("\n".join(part) for part in parts) + "\n"
        return text.replace("{imports}", "\n".join(_imports(text)), 1)

    # Parts -----------------------------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        title = f'"""Predict {guessed(self.guess)} of {self.origin.name}: a first guess by `driftline new`."""'
        imports = ["import polars as pl"] if self.is_derived or any("pl." in line for line in self.read) else []
        imports += ["{imports}"]
        first = ["from datetime import timedelta"] if self.guess.past else []
        lines = [title, "", *first, *([""] if first else []), *imports, ""]
        if self.origin.query is not None:
            lines += _assigned("QUERY", self.origin.query)
            lines += self._channel("ROWS = ").lines()
        if (past := self.guess.past) is not None:
            days, of = counted(self.guess.label_delay, "day"), f" of one {snake_case(past.by.name)}" if past.by else ""
            known = f"{self.label} is known {days} after its row's: is this right?"
            lines += layout.noted(f"DELAY = timedelta(days={self.guess.label_delay + 1})", known)
            told = f"earlier rows{of} tell something for so long: is this right?"
            lines += layout.noted(f"PAST = timedelta(days={past.days})", told)
        return [*lines, *self._fields()]

    def _fields(self) -> list[str]:
        asked = "Types, nulls and ranges as found, rounded outward: are they right?"
        lines = layout.comment(asked) if self.guess.fields else []
        lost = [f"{_listed(names)} ({reason})" for reason, names in self.guess.left_out.items() if names]
        lines += layout.comment(f"Left out: {'; '.join(lost)}. Is this right?") if lost else []
        groups = self._groups()
        constants, fields = [], []
        for number, (arguments, names) in enumerate(groups):
            if len(names) == 1:
                fields += Call("Field", [f"name={layout.text(names[0])}", *arguments]).lines(4, ",")
                continue
            field, words = f"Field({', '.join(['name=name', *arguments])})", f"NAMES_{number + 1}"
            if len(one := f'    *({field} for name in "{" ".join(names)}".split()),') <= layout.WIDTH:
                fields += [one]
                continue
            wrapped = textwrap.wrap(" ".join(names), layout.WIDTH - 4)
            constants += [f'{words} = """', *(f"    {line}" for line in wrapped), '""".split()']
            one = f"    *({field} for name in {words}),"
            loop = ["    *(", f"        {field}", f"        for name in {words}", "    ),"]
            fields += [one] if len(one) <= layout.WIDTH else loop
        if len(fields) == 1:
            return [*lines, *constants, *Call("FIELDS = ", [fields[0].strip().rstrip(",")], is_tuple=True).lines()]
        return [*lines, *constants, "FIELDS = (", *fields, ")"] if fields else lines

    def _groups(self) -> list[tuple[list[str], list[str]]]:
        """Return the arguments of fields, each with the names of the fields that have them."""
        if not self.is_packed:
            return [(_arguments(one), [one.name]) for one in self.guess.fields]
        groups = dict[tuple[str, ...], list[str]]()
        for one in self.guess.fields:
            groups.setdefault(tuple(_arguments(_coarse(one))), []).append(one.name)
        return [(list(arguments), names) for arguments, names in groups.items()]

    def _features(self) -> list[str]:
        guess, past, time, label = self.guess, self.guess.past, layout.text(self.time), layout.text(self.label)
        entity = [f"entity={layout.text(self.entity)}"] if self.entity else []
        lines = [
            "def features(tables, window):  # one row per row of the file, as known at its time",
            f"    rows = tables[{layout.text(self.source)}]",
            *Call("asks = asked", ["rows", "window", f"time={time}", *entity]).lines(4),
        ]
        if past is not None:
            # Sums are of whole numbers, to be exact.
            whole = f"(pl.col({label}) * {self.scale:_}).round().cast(pl.Int64)"
            facts = f"facts = rows.drop_nulls({label})"
            lines += Call(f"{facts}.with_columns", [whole]).lines(4) if self.scale else [f"    {facts}"]
            by = layout.text(snake_case(past.by.name)) if past.by else ""
            lines += ['    earlier = asks.with_columns(pl.col("asked_at") - DELAY)']
            lines += Call("known = Timeline", ["earlier", "facts", f"by=[{by}]", f"fact_at={time}"]).lines(4)
        lines += ["    names = [field.name for field in FIELDS]"] if guess.fields else []
        lines += ['    at = pl.col("asked_at")'] if self.is_timed else []
        about = ["*ABOUT", *(["*names"] if guess.fields else []), *self._told()]
        return [*lines, *Call("return asks.select", about).lines(4)]

    def _told(self) -> list[str]:
        """Return the arguments that make the computed fields."""
        told = ["hour=at.dt.hour().cast(pl.Int64)"] if self.is_timed and self.has_hours else []
        told += ["weekday=at.dt.weekday().cast(pl.Int64)"] if self.is_timed else []
        if self.guess.past is None:
            return told
        label = layout.text(self.label)
        if self.guess.task == "multi_class":
            return [*told, f"{self.label}_before=known.latest([{label}], PAST)[{label}]"]
        return [*told, f"{self.label}_before=known.mean({label}, PAST)" + (f" / {self.scale:_}" if self.scale else "")]

    def _computed(self) -> list[str]:
        """Return the computed fields."""
        fields = ['Field(name="hour", dtype="int", low=0, high=23)'] if self.is_timed and self.has_hours else []
        fields += ['Field(name="weekday", dtype="int", low=1, high=7)'] if self.is_timed else []
        if self.guess.past is not None:
            kind = "category" if self.guess.task == "multi_class" else "float"
            fields += [f'Field(name="{self.label}_before", dtype="{kind}", is_nullable=True)']
        return fields

    def _read(self) -> list[str]:
        """Return the function that reads what only this file writes so; empty where none is needed."""
        used = self._used()
        words = sorted({word for column in used for word in column.null_words})
        steps = []
        if any(snake_case(column.name) != column.name for column in used):
            steps += ["rename(snake_case)"]
        if words:
            steps += [f"with_columns(pl.col(pl.String).replace([{', '.join(map(layout.text, words))}], None))"]
        changes = []
        if self.classes != self.guess.classes:
            changes += [f"pl.col({layout.text(self.label)}).map_elements(snake_case, pl.String)"]
        if self.guess.positive is not None and not columns.is_truth(self.guess.label.values):
            changes += [f"pl.col({layout.text(self.label)}) == {layout.text(self.guess.positive)}"]
        own = (None, *columns.ISO_FORMATS)
        if (steps or changes) and self.moment is not None and self.moment.format not in own:
            changes += [_parsed(self.time, self.moment.format or "")]
        return [] if not steps and not changes else self._reading(steps, changes)

    def _reading(self, steps: list[str], changes: list[str]) -> list[str]:
        rows = "pl.read_parquet(data)" if self.origin.is_parquet else "read_csv(data)"
        head = "def read(data):  # as only this file writes it: is this right?"
        if len(steps) > 1:  # a rename fits behind the first
            rows, steps = f"{rows}.{steps[0]}", steps[1:]
        lines = [f"    rows = {rows}", *(f"    rows = rows.{step}" for step in steps)]
        if changes:
            return [head, *lines, *Call("return rows.with_columns", changes).lines(4)]
        return [head, *lines[:-1], lines[-1].replace("rows = ", "return ", 1)]

    def _used(self) -> list[Column]:
        guess = self.guess
        others = [
            None if guess.grain == "batch" else guess.time,
            guess.entity,
            guess.past.by if guess.past else None,
            guess.label,
        ]
        return [*(one.column for one in guess.fields), *filter(None, others)]

    def _spec(self) -> list[str]:
        guess = self.guess
        lines = ["SPEC = Product(", f"    name={layout.text(self.name)},", *self._grain(), *self._sources()]
        if guess.past is not None:
            lines += [f"    lookback={guess.past.days + guess.label_delay + 1},"]
        if self.is_derived:
            lines += ["    features=features,"]
            fields = [*(["*FIELDS"] if guess.fields else []), *self._computed()]
            lines += Call("fields=", fields, is_tuple=True).lines(4, ",")
        else:
            lines += ["    fields=FIELDS,"]
        lines += [f"    label={layout.text(self.label)},", *self._task(), *self._delay(), *self._few(), ")"]
        return lines

    def _grain(self) -> list[str]:
        guess = self.guess
        if guess.grain == "batch":
            how = "Rows have no time" if guess.time is None else f"{guess.time.name} has few values"
            what = "are dealt into batches" if guess.time is None else "each of them is a batch"
            line = f"    grain=BatchGrain(count={guess.keys}),"
            return layout.noted(line, f"{how} and {what}, all known long ago: is this right?")
        kind, what = ("DailyGrain", "days") if guess.grain == "daily" else ("HourlyGrain", "hours")
        return layout.noted(f'    grain={kind}(start="{guess.first}"),', f"keys are {what} in UTC: is this right?")

    def _sources(self) -> list[str]:
        guess = self.guess
        channel = "channel=ROWS" if self.origin.query is not None else self._channel("channel=")
        arguments: list[str | Call] = [f"name={layout.text(self.source)}", channel]
        arguments += ["read=read"] if self.read else []
        if guess.grain == "batch":
            arguments += ['known_at="known_at_utc"']
        elif self.moment is not None and self.moment.name != self.time:
            arguments += [f"{name}={layout.text(self.time)}" for name in ("known_at", "partition_by")]
        arguments += [f"entity={layout.text(self.entity)}"] if self.entity else []
        if self.is_derived:
            own = self._columns()
            arguments += ["fields=FIELDS"] if own == ["*FIELDS"] else [Call("fields=", own, is_tuple=True)]
        if guess.past is not None:
            arguments += [f"known_at_of={{{layout.text(self.label)}: DELAY}}"]
        if len(arguments) == 2:
            return ["    sources=ROWS,"] if self.origin.query is not None else self._channel("sources=").lines(4, ",")
        return Call("sources=", [Call("Source", arguments)], is_tuple=True).lines(4, ",")

    def _columns(self) -> list[str]:
        """Return the columns of the source, where fields are computed from them."""
        by = self.guess.past.by if self.guess.past else None
        own = ["*FIELDS"] if self.guess.fields else []
        if by is None or snake_case(by.name) in [one.name for one in self.guess.fields]:
            return own
        null = ", is_nullable=True" if by.nulls else ""
        return [*own, f'Field(name="{snake_case(by.name)}", dtype="category"{null})']

    def _channel(self, head: str) -> Call:
        guess, place = self.guess, layout.text(self.origin.place)
        by = [] if guess.time is None else [f"by={layout.text(guess.time.name)}"]
        if guess.past is not None:  # features read the label, so a key is taken in when it is known
            is_above = self.origin.query is not None  # DELAY
            by += [f"lag=timedelta(days={guess.label_delay + 1})" if is_above else "lag=DELAY"]
        if guess.grain == "batch":
            batch = [] if guess.time is None else [f"batch={layout.text(guess.time.name)}"]
            return Call(f"{head}DealtFile", [place, *batch])
        if self.origin.query is not None:
            order = Call("order_by=", [layout.text(name) for name in self.origin.order_by], is_tuple=True)
            password = self.origin.password_env
            secret = [f"password_env={layout.text(password)}"] if password else []
            return Call(f"{head}SqlWindow", [place, "QUERY", *by, order, *secret])
        if guess.time is not None and guess.time.format not in (None, *columns.ISO_FORMATS):
            by += [f"time_format={layout.text(str(guess.time.format))}"]
        return Call(f"{head}OneFile", [place, *by])

    def _task(self) -> list[str]:
        if self.guess.task == "binary":
            return []
        if self.guess.task == "regression":
            return ['    task=Regression(unit="unit"),  # which unit has it?']
        classes = Call("classes=", [layout.text(name) for name in self.classes], is_tuple=True)
        return Call("task=MultiClass", [classes]).lines(4, ",")

    def _delay(self) -> list[str]:
        delay, usual = self.guess.label_delay, {"daily": 1, "hourly": 24, "batch": 0}[self.guess.grain]
        if self.guess.past is not None or self.guess.grain == "batch":
            return [f"    label_delay={delay},"] if delay != usual else []
        what = "days" if self.guess.grain == "daily" else "hours"
        return layout.noted(f"    label_delay={delay},", f"{what} until {self.label} is known: is this right?")

    def _few(self) -> list[str]:
        """Return holdout and min_keys where the table has fewer keys than the defaults need."""
        keys = self.guess.keys - self.guess.label_delay
        if keys >= {"daily": 28, "hourly": 672, "batch": 12}[self.guess.grain]:
            return []
        holdout = max(2, keys // 4)
        return [
            *(["    model=LightGbm(validation_keys=1),"] if self.guess.task == "regression" else []),
            f"    holdout={holdout},  # keys that judge a model: is this right?",
            f"    min_keys={max(keys * 3 // 4, holdout + 1)},",
        ]


def _assigned(name: str, value: str) -> list[str]:
    """Return the lines that name a text, on as many lines as it has and needs."""
    one = f"{name} = {layout.text(value)}"
    if "\n" not in value and len(one) <= layout.WIDTH:
        return [one]
    lines = [part for line in value.strip().splitlines() for part in textwrap.wrap(line, layout.WIDTH - 4) or [""]]
    return [f'{name} = """', *(f"    {line}" if line else "" for line in lines), '"""']


def _imports(text: str) -> list[str]:
    """Return the imports of what a file uses, as many names per line as fit."""
    lines = [""]
    for name in ("ABOUT", *_CALLED):
        if not re.search(rf"(?<![\w.]){name}\(|\*{name}\b|\({name}[,)]", text):
            continue
        longer = f"{lines[-1]}, {name}" if lines[-1] else f"from driftline import {name}"
        lines = [*lines[:-1], longer] if len(longer) <= layout.WIDTH else [*lines, f"from driftline import {name}"]
    return lines


def _parsed(name: str, form: str) -> str:
    """Return the expression that parses a moment."""
    column = f"pl.col({layout.text(name)})"
    if form == "%Y":
        return f'({column} + "-01-01").str.to_datetime(time_zone="UTC")'
    if "%H" not in form:
        return f'{column}.str.to_date({layout.text(form)}).cast(pl.Datetime("us", "UTC"))'
    return f'{column}.str.to_datetime({layout.text(form)}, time_zone="UTC")'


def guessed(guess: Guess) -> str:
    """Return what is predicted, for a sentence."""
    return f"{guess.label.name}"


def _arguments(one: Chosen) -> list[str]:
    """Return the arguments of a field besides its name."""
    ends = [(name, end) for name, end in (("low", one.low), ("high", one.high)) if end is not None]
    return [
        f'dtype="{one.dtype}"',
        *(f"{name}={layout.number(end)}" for name, end in ends),
        *(["is_nullable=True"] if one.is_nullable else []),
    ]


def _coarse(one: Chosen) -> Chosen:
    """Return the field with a range that many share: from 0, or as far below it, to 9, 99, 999 ..."""
    if one.low is None or one.high is None:
        return one
    most = 9.0
    while most < max(abs(one.low), abs(one.high)):
        most = most * 10 + 9
    return replace(one, low=0.0 if one.low >= 0 else -most, high=most)


def _listed(names: Sequence[str]) -> str:
    return (
        ", ".join(names)
        if len(names) <= MOST_NAMES
        else f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES} more"
    )
