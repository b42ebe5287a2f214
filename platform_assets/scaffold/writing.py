"""Write a first product's file: what was guessed, with a question wherever somebody should judge.

Many fields are grouped by their type and have no ranges.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from platform_assets.base.naming import snake_case
from platform_assets.base.wording import counted
from platform_assets.scaffold import columns, layout
from platform_assets.scaffold.guess import Guess, listed
from platform_assets.scaffold.layout import Call

MOST_SINGLE, MOST_NEXT_TO_FEATURES = 20, 10
"""More fields than so many share lines; fewer where the file is longer by the function that computes others."""
CLASS = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")
"""What a class may be called."""
MOST_NAMES = 6
"""Of columns that are left out for one reason, a comment names so many."""
PUBLIC = {
    *("ABOUT", "BatchGrain", "DailyGrain", "DealtFile", "Field", "HourlyGrain", "LightGbm", "MultiClass", "OneFile"),
    *("Product", "Regression", "Source", "SqlWindow", "Timeline", "asked", "read_csv", "snake_case"),
}
"""What a file may import from driftline."""
FEW_FIELDS = 3
"""With fewer fields of its own, a table's time is worth some."""
FEWEST_KEYS = {"daily": 28, "hourly": 672, "batch": 12}
"""Keys with which the defaults of holdout and min_keys work."""


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
    file = _File(name, guess, origin)
    parts = [file.head(), file.read, file.features(), file.spec()]
    text = "\n\n\n".join("\n".join(part) for part in parts if part) + "\n"
    used = PUBLIC & {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = textwrap.wrap(", ".join(sorted(used)), layout.WIDTH - len("from driftline import "))
    imports = "\n".join(f"from driftline import {line.removesuffix(',')}" for line in lines)
    return text.replace("{imports}", imports, 1)


class _File:
    """The parts of one file, each as its lines."""

    def __init__(self, name: str, guess: Guess, origin: Origin) -> None:
        self.name, self.guess, self.origin = name, guess, origin
        stem = snake_case(origin.name.partition(".")[0])
        self.source = name if origin.query is not None or stem == "labels" else stem
        self.moment = None if guess.grain == "batch" else guess.time
        self.time = "" if self.moment is None else snake_case(self.moment.name)
        self.label = snake_case(guess.label.name)
        self.entity = [f"entity={layout.text(snake_case(guess.entity.name))}"] if guess.entity else []
        self.by = snake_case(guess.past.by.name) if guess.past and guess.past.by else None
        self.is_derived = guess.past is not None or not guess.fields
        decimals = columns.MOST_DECIMALS if guess.label.decimals is None else guess.label.decimals
        self.scale = 10**decimals if guess.task == "regression" else 0
        is_plain = all(CLASS.fullmatch(name) for name in guess.classes)
        self.classes = guess.classes if is_plain else tuple(map(snake_case, guess.classes))
        self.read = self._read()
        self.computed = self._computed()

    def head(self) -> list[str]:
        """Return imports, names and fields."""
        guess = self.guess
        lines = [f'"""Predict {guess.label.name} of {self.origin.name}: a first guess by `driftline new`."""', ""]
        lines += ["from datetime import timedelta", ""] if guess.past else []
        lines += ["import polars as pl"] if self.is_derived or any("pl." in line for line in self.read) else []
        lines += ["{imports}", ""]
        if self.origin.query is not None:
            lines += _assigned("QUERY", self.origin.query)
            lines += self._channel("ROWS = ").lines()
        if guess.past is not None:
            of = f" of one {self.by}" if self.by else ""
            known = f"{self.label} is known {counted(guess.label_delay, 'day')} after its row's: is this right?"
            lines += layout.noted(f"DELAY = timedelta(days={guess.label_delay + 1})", known)
            told = f"{'earlier ' * (not of)}rows{of} count for so long: is this right?"
            lines += layout.noted(f"PAST = timedelta(days={guess.past.days})", told)
        lines += layout.comment("Types, nulls and ranges as found, rounded outward: are they right?") * bool(
            guess.fields
        )
        lost = [f"{listed(names, MOST_NAMES)} ({reason})" for reason, names in guess.left_out.items() if names]
        lines += layout.comment(f"Left out: {'; '.join(lost)}. Is this right?") if lost else []
        return [*lines, *self._fields()]

    def _fields(self) -> list[str]:
        fields, groups, grouped = list[Call](), dict[str, list[str]](), list[str]()
        for one in self.guess.fields:
            ends = [] if one.low is None else [f"low={layout.number(one.low)}"]
            ends += [] if one.high is None else [f"high={layout.number(one.high)}"]
            null = ["is_nullable=True"] if one.is_nullable else []
            kind = [f'dtype="{one.dtype}"', *ends, *null]
            fields.append(Call("Field", [f"name={layout.text(one.name)}", *kind]))
            groups.setdefault(", ".join([kind[0], *null]), []).append(one.name)
        if not fields:
            return []
        if len(fields) <= (MOST_NEXT_TO_FEATURES if self.is_derived else MOST_SINGLE):
            return ["FIELDS = (", *(line for field in fields for line in field.lines(4, ",")), ")"]
        for about, names in groups.items():
            if len(names) == 1:
                grouped += Call("Field", [f"name={layout.text(names[0])}", about]).lines(4, ",")
                continue
            grouped += ["    *(", f"        Field(name=name, {about})", '        for name in """']
            grouped += [f"        {line}" for line in textwrap.wrap(" ".join(names), layout.WIDTH - 8)]
            grouped += ['        """.split()', "    ),"]
        return ["FIELDS = (", *grouped, ")"]

    def features(self) -> list[str]:
        """Return the function that makes the features; none where the file's own columns are all of them."""
        if not self.is_derived:
            return []
        guess, time, label = self.guess, layout.text(self.time), layout.text(self.label)
        lines = [
            "def features(tables, window):  # one row per row of the file, as known at its time",
            f"    rows = tables[{layout.text(self.source)}]",
            *Call("asks = asked", ["rows", "window", f"time={time}", *self.entity]).lines(4),
        ]
        if guess.past is not None:
            # Sums are of whole numbers, to be exact.
            whole = f"(pl.col({label}) * {self.scale:_}).round().cast(pl.Int64)"
            facts = f"facts = rows.drop_nulls({label})"
            lines += Call(f"{facts}.with_columns", [whole]).lines(4) if self.scale else [f"    {facts}"]
            by = layout.text(self.by) if self.by else ""
            lines += ['    earlier = asks.with_columns(pl.col("asked_at") - DELAY)']
            lines += Call("known = Timeline", ["earlier", "facts", f"by=[{by}]", f"fact_at={time}"]).lines(4)
        names = ["*(field.name for field in FIELDS)"] if guess.fields else []
        return [*lines, *Call("return asks.select", ["*ABOUT", *names, *self.computed]).lines(4)]

    def _computed(self) -> dict[str, str]:
        """Return the fields that are computed, by what computes them."""
        guess, label, computed = self.guess, layout.text(self.label), dict[str, str]()
        if len(guess.fields) < FEW_FIELDS and self.moment is not None:
            at = 'pl.col("asked_at").dt'
            if self.moment.has_hours:
                computed[f"hour={at}.hour().cast(pl.Int64)"] = 'Field(name="hour", dtype="int", low=0, high=23)'
            computed[f"weekday={at}.weekday().cast(pl.Int64)"] = 'Field(name="weekday", dtype="int", low=1, high=7)'
        if guess.past is not None:
            kind, value = "float", f"known.mean({label}, PAST)" + (f" / {self.scale:_}" if self.scale else "")
            if guess.task == "multi_class":
                kind, value = "category", f"known.latest([{label}], PAST)[{label}]"
            field = f'Field(name="{self.label}_before", dtype="{kind}", is_nullable=True)'
            computed[f"{self.label}_before={value}"] = field
        return computed

    def _read(self) -> list[str]:
        """Return the function that reads what only this file writes so; empty where none is needed."""
        guess, label, steps, changes = self.guess, layout.text(self.label), list[str](), list[str]()
        named = [None if guess.grain == "batch" else guess.time, guess.entity, guess.past.by if guess.past else None]
        used = [*(one.column for one in guess.fields), *filter(None, named), guess.label]
        if any(snake_case(column.name) != column.name for column in used):
            steps += [".rename(snake_case)"]
        if words := sorted({word for column in used for word in column.null_words}):
            nulls = f"pl.col(pl.String).replace([{', '.join(map(layout.text, words))}], None)"
            steps += [f".with_columns({nulls})"]
        if self.classes != guess.classes:
            changes += [f"pl.col({label}).map_elements(snake_case, pl.String)"]
        if guess.positive is not None and not columns.is_truth(guess.label.values):
            changes += [f"pl.col({label}) == {layout.text(guess.positive)}"]
        if not steps and not changes:
            return []
        if self.moment is not None and self.moment.format not in (None, *columns.ISO_FORMATS):
            changes += [_parsed(self.time, self.moment.format or "")]
        # A rename fits behind the first call, and nothing else surely does.
        first = steps.pop(0) if steps and (len(steps) > 1 or "rename" in steps[0]) else ""
        values = [f"{'pl.read_parquet' if self.origin.is_parquet else 'read_csv'}(data){first}"]
        values += [f"rows{step}" for step in steps]
        lines = [f"    rows = {value}" for value in values]
        last = [f"    return {values[-1]}"]
        if changes:
            last = [lines[-1], *Call("return rows.with_columns", changes).lines(4)]
        return ["def read(data):  # as only this file writes it: is this right?", *lines[:-1], *last]

    def spec(self) -> list[str]:
        """Return the product."""
        guess = self.guess
        lines = ["SPEC = Product(", f"    name={layout.text(self.name)},", *self._grain(), *self._sources()]
        if guess.past is not None:
            lines += [f"    lookback={guess.past.days + guess.label_delay + 1},"]
        fields = ["    fields=FIELDS,"]
        if self.is_derived:
            own = ["*FIELDS"] if guess.fields else []
            fields = Call("fields=", [*own, *self.computed.values()], is_tuple=True).lines(4, ",")
            lines += ["    features=features,"]
        lines += [*fields, f"    label={layout.text(self.label)},"]
        if guess.task == "regression":
            lines += ['    task=Regression(unit="unit"),  # which unit has it?']
        if guess.task == "multi_class":
            classes = Call("classes=", [layout.text(name) for name in self.classes], is_tuple=True)
            lines += Call("task=MultiClass", [classes]).lines(4, ",")
        line = f"    label_delay={guess.label_delay},"
        if guess.past is None and guess.grain != "batch":
            what = "days" if guess.grain == "daily" else "hours"
            lines += layout.noted(line, f"{what} until {self.label} is known: is this right?")
        elif guess.label_delay != {"daily": 1, "hourly": 24, "batch": 0}[guess.grain]:
            lines += [line]
        keys = guess.keys - guess.label_delay
        if keys < FEWEST_KEYS[guess.grain]:
            holdout = max(2, keys // 4)
            lines += ["    model=LightGbm(validation_keys=1),"] if guess.task == "regression" else []
            lines += [f"    holdout={holdout},  # keys that judge a model: is this right?"]
            lines += [f"    min_keys={max(keys * 3 // 4, holdout + 1)},"]
        return [*lines, ")"]

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
        guess, is_query = self.guess, self.origin.query is not None
        arguments: list[str | Call] = [f"name={layout.text(self.source)}"]
        arguments += ["channel=ROWS" if is_query else self._channel("channel=")]
        arguments += ["read=read"] if self.read else []
        if guess.grain == "batch":
            arguments += ['known_at="known_at_utc"']
        elif self.moment is not None and self.moment.name != self.time:
            arguments += [f"{name}={layout.text(self.time)}" for name in ("known_at", "partition_by")]
        arguments += self.entity
        if self.is_derived:
            # Fields are computed from the source's columns, among them the one that earlier rows share.
            own = ["*FIELDS"] if guess.fields else []
            if guess.past and guess.past.by and self.by not in [one.name for one in guess.fields]:
                null = ", is_nullable=True" if guess.past.by.nulls else ""
                own += [f'Field(name="{self.by}", dtype="category"{null})']
            arguments += ["fields=FIELDS"] if own == ["*FIELDS"] else [Call("fields=", own, is_tuple=True)]
        if guess.past is not None:
            arguments += [f"known_at_of={{{layout.text(self.label)}: DELAY}}"]
        if len(arguments) == 2:
            return ["    sources=ROWS,"] if is_query else self._channel("sources=").lines(4, ",")
        return Call("sources=", [Call("Source", arguments)], is_tuple=True).lines(4, ",")

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


def _assigned(name: str, value: str) -> list[str]:
    """Return the lines that name a text, on as many lines as it has and needs."""
    one = f"{name} = {layout.text(value)}"
    if "\n" not in value and len(one) <= layout.WIDTH:
        return [one]
    lines = [part for line in value.strip().splitlines() for part in textwrap.wrap(line, layout.WIDTH - 4) or [""]]
    return [f'{name} = """', *(f"    {line}" if line else "" for line in lines), '"""']


def _parsed(name: str, form: str) -> str:
    """Return the expression that parses a moment."""
    column = f"pl.col({layout.text(name)})"
    if form == "%Y":
        return f'({column} + "-01-01").str.to_datetime(time_zone="UTC")'
    if "%H" not in form:
        return f'{column}.str.to_date({layout.text(form)}).cast(pl.Datetime("us", "UTC"))'
    return f'{column}.str.to_datetime({layout.text(form)}, time_zone="UTC")'
