"""List, sort and compare trainings on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute.rare import AVERAGE_PRECISION
from platform_assets.handle import Product
from platform_assets.records.base import Number
from platform_assets.records.trainings import Training

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

    from platform_assets.compute.tasks import Task

MOST = 200
"""Trainings read, the newest first."""
MOST_COMPARED = 4
"""As many as there are colours that a colour-blind reader tells apart."""

HEADINGS = {AVERAGE_PRECISION: "avg prec", "judged_loss": "valid", "cpu_s": "CPU s", "usd": "USD"}
"""What a column is called on a terminal, if not by its name."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training and what is known of it elsewhere.

    Attributes:
        number: of its record, by which it is named.
        usd: of all its attempts, those that were lost included; None where none of its attempts is on record.
    """

    number: int
    training: Training
    usd: float | None
    attempts: int

    def value(self, name: str) -> Number | str | None:
        """Return what a column shows: a measure of the holdout, or a member of the record."""
        if name in self.training.quality:
            return self.training.quality[name]
        last = self.training.curve[-1] if self.training.curve else {}
        if name in ("train_loss", "judged_loss"):
            return last.get(name)
        if name == "usd":
            return self.usd
        member: Number | str | None = getattr(self.training, name, None)
        return member


def of(product: Product) -> list[Run]:
    """Return the newest trainings of a product, the newest first, each once."""
    newest: dict[str, tuple[int, Training]] = {}
    for number, record in product.history.trainings_newest_first():
        newest.setdefault(record.fingerprint, (number, record))
        if len(newest) == MOST:
            break
    costs = dict(
        product.history.attempts()
        .group_by("fingerprint")
        .agg(pl.struct(pl.col("usd").sum(), pl.len().alias("attempts")).alias("cost"))
        .iter_rows()
    )
    return [
        Run(
            number=number,
            training=record,
            usd=costs.get(fingerprint, {}).get("usd"),
            attempts=costs.get(fingerprint, {}).get("attempts", 0),
        )
        for fingerprint, (number, record) in newest.items()
    ]


def columns(task: Task, runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the columns of the list: the task's compared measures, the loss on validation rows, cost.

    Average precision heads them if a training was judged on a rare class.
    """
    first = [AVERAGE_PRECISION] if any(AVERAGE_PRECISION in run.training.quality for run in runs) else []
    return (*first, *(measure.name for measure in task.compared), "judged_loss", "cpu_s", "usd")


def sorted_by(runs: Sequence[Run], name: str, task: Task) -> list[Run]:
    """Return trainings by a column, the best first; those without a value last.

    Raises:
        ValueError: the column is unknown.
    """
    names = (*columns(task, runs), "train_loss", "cutoff", "at_utc", "rows")
    if name not in names:
        raise ValueError(f"--sort is {name!r}; expected one of {', '.join(names)}.")
    with_value = [run for run in runs if run.value(name) is not None]
    is_descending = name in ("cutoff", "at_utc", "rows", AVERAGE_PRECISION, task.headline.name)
    ordered = sorted(with_value, key=lambda run: (str(type(run.value(name))), run.value(name)), reverse=is_descending)
    return [*ordered, *(run for run in runs if run.value(name) is None)]


def chosen(runs: Sequence[Run], numbers: Sequence[int]) -> list[Run]:
    """Return trainings by number.

    Raises:
        ValueError: too many, or one that is not on record.
    """
    by_number = {run.number: run for run in runs}
    if not 2 <= len(numbers) <= MOST_COMPARED:
        raise ValueError(f"--compare names {len(numbers)} trainings; expected 2 to {MOST_COMPARED}.")
    if unknown := [number for number in numbers if number not in by_number]:
        if not by_number:
            raise ValueError(f"training {unknown[0]} is not on record: nothing has been trained yet.")
        newest = ", ".join(map(str, [*by_number][:10]))
        raise ValueError(f"training {unknown[0]} is not among the newest {len(by_number)} on record: {newest}.")
    return [by_number[number] for number in numbers]


def differences(runs: Sequence[Run]) -> dict[str, list[object]]:
    """Return parameters, code, data and keys in which trainings differ, by name; None where one has no such name."""
    parts: list[dict[str, object]] = [
        {
            "learner": run.training.learner,
            **run.training.parameters,
            "cutoff": run.training.cutoff,
            "training keys": run.training.training_keys,
            "rows": run.training.rows,
            "code": run.training.code.rpartition(".")[2][:12],
            "data": run.training.data[:12],
        }
        for run in runs
    ]
    names = list(dict.fromkeys(name for part in parts for name in part))
    values = {name: [part.get(name) for part in parts] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def as_table(product: str, runs: Sequence[Run], task: Task) -> TerminalTable:
    """Return a terminal's table of trainings."""
    from rich import box
    from rich.table import Table as TerminalTable

    listed = columns(task, runs)
    names = [HEADINGS.get(name, name) for name in listed]
    table = TerminalTable(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title=f"Trainings of {product}")
    for name in ("run", "cutoff", "for", "learner", *names):
        table.add_column(name, no_wrap=True, justify="right" if name in names else "left")
    for run in runs:
        record = run.training
        shown = [number(run.value(name)) for name in listed]
        table.add_row(str(run.number), record.cutoff, record.purpose, record.learner, *shown)
    return table


def as_comparison(runs: Sequence[Run]) -> TerminalTable:
    """Return a terminal's table of what differs between trainings, and of what came of it."""
    from rich.table import Table as TerminalTable

    table = TerminalTable("", *(f"run {run.number}" for run in runs), title="Only what differs")
    for name, values in differences(runs).items():
        table.add_row(name, *("–" if value is None else str(value) for value in values))
    table.add_section()
    for name in (*runs[0].training.quality, "train_loss", "judged_loss", "cpu_s", "usd"):
        table.add_row(name, *(number(run.value(name)) for run in runs))
    return table


def number(value: Number | str | None) -> str:
    """Return a value as it is shown."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"
