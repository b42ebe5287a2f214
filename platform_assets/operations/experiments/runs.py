"""List and sort trainings on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.base import Number
from platform_assets.store.records.trainings import Training
from platform_assets.training.rare_classes import AVERAGE_PRECISION

if TYPE_CHECKING:
    from rich.table import Table

    from platform_assets.product.tasks import Task

MOST = 200
"""Trainings read, the newest first."""

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


def on_record(product: ProductStore) -> list[Run]:
    """Return the newest trainings of a product, the newest first, each once."""
    newest: dict[str, tuple[int, Training]] = {}
    for number, record in product.history.trainings_newest_first():
        newest.setdefault(record.fingerprint, (number, record))
        if len(newest) == MOST:
            break
    costs = dict(product.history.attempts().group_by("fingerprint").agg(pl.col("usd").sum()).iter_rows())
    return [
        Run(number=number, training=record, usd=costs.get(fingerprint))
        for fingerprint, (number, record) in newest.items()
    ]


def columns(task: Task, runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the columns of the list: the task's compared measures, the loss on validation rows, cost.

    Average precision heads them if a training was judged on a rare class.
    """
    first = [AVERAGE_PRECISION] if any(AVERAGE_PRECISION in run.training.quality for run in runs) else []
    return (*first, *(measure.name for measure in measures_of(task).compared), "judged_loss", "cpu_s", "usd")


def sorted_by(runs: Sequence[Run], name: str, task: Task) -> list[Run]:
    """Return trainings by a column, the best first; those without a value last.

    Raises:
        ValueError: the column is unknown.
    """
    names = (*columns(task, runs), "train_loss", "cutoff", "at_utc", "rows")
    if name not in names:
        raise ValueError(f"--sort is {name!r}; expected one of {', '.join(names)}.")
    with_value = [run for run in runs if run.value(name) is not None]
    is_descending = name in ("cutoff", "at_utc", "rows", AVERAGE_PRECISION, measures_of(task).headline.name)
    ordered = sorted(with_value, key=lambda run: (str(type(run.value(name))), run.value(name)), reverse=is_descending)
    return [*ordered, *(run for run in runs if run.value(name) is None)]


def as_table(product: str, runs: Sequence[Run], task: Task) -> Table:
    """Return a terminal's table of trainings."""
    from platform_assets.operations.experiments import terminal

    listed = columns(task, runs)
    names = [HEADINGS.get(name, name) for name in listed]
    table = terminal.table(f"Trainings of {product}", ("run", "cutoff", "for", "learner"), names)
    for run in runs:
        record = run.training
        values = [number(run.value(name)) for name in listed]
        table.add_row(str(run.number), record.cutoff, record.purpose, record.learner, *values)
    return table


def number(value: Number | str | None) -> str:
    """Return a value as it is shown."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"
