"""Say at the end what the demo did: rows, quality, keys, faults, answers and cost, read from what was recorded.

Belongs here: reading records and verdicts, and drawing tables. Does not belong here: measuring, except percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from platform_assets import naming
from platform_assets.compute import releases
from platform_assets.demo.journal import Journal
from platform_assets.demo.results import Results
from platform_assets.history.reader import History
from platform_assets.records.notes import Notes
from platform_assets.records.verdicts import Verdict, contestants
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import PartitionRecord, TableStore

KEYED_STAGES = ("features", "outcomes", "performance", "drift")
IN_SHORT = {"requests": "asked", "drift_percentile": "drift", "answers_percentile": "answers drift"}
"""Columns of keys as a table has room for them: percentiles among windows of training."""
MODEL_STAGES = ("checkpoint", "onnx", "evaluation", "service")
TEXTS = ("", "source", "stage", "key", "verdict", "decision", "outcome", "why", "record", "check", "by", "model")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    if not values:
        raise ValueError("there are no values, so there is no percentile.")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Records:
    """A product's newest partition records by stage, each stage read once."""

    def __init__(self, settings: Settings, product: str) -> None:
        self._tables = TableStore(settings.root, product)
        self._read: dict[str, dict[str, PartitionRecord]] = {}

    def of(self, stage: str, source: str | None = None) -> dict[str, PartitionRecord]:
        """Return the records of a stage by key."""
        name = naming.stage(stage, source)
        if name not in self._read:
            self._read[name] = self._tables.records(name)
        return self._read[name]

    def rows(self, stage: str, source: str | None = None) -> int:
        """Return the rows of all keys of a stage."""
        return sum(record.rows for record in self.of(stage, source).values())

    def cpu_s(self, stage: str, sources: Iterable[str | None] = (None,)) -> float:
        """Return the CPU seconds that making all keys of a stage took, as their records say."""
        return sum(float(Notes.of(record).cpu_s) for source in sources for record in self.of(stage, source).values())


def show_data(console: Console, spec: ProductSpec, records: Records) -> None:
    """Print rows by source, and what became of them."""
    table = _table("source", "keys", "landed rows", "good", "quarantined")
    for source in spec.sources:
        keys = len(records.of("raw", source.name))
        rows = [records.rows(stage, source.name) for stage in ("raw", "validated", "quarantine")]
        table.add_row(source.name, f"{keys:,}", *(f"{count:,}" for count in rows))
    table.add_section()
    made = {f"features ({len(spec.fields)} columns)": "features", "labels": "outcomes"}
    for words, stage in made.items():
        table.add_row(words, f"{len(records.of(stage)):,}", "", f"{records.rows(stage):,}", "")
    _print(console, "Data", table)


def show_quality(console: Console, spec: ProductSpec, verdict: Verdict) -> None:
    """Print the model beside its baselines on the same held-out rows."""
    rows, outcome = verdict.rows, "passed" if verdict.passed else "failed"
    title = f"Quality on {rows.labelled:,} held-out rows, {rows.first_key} to {rows.last_key}: {outcome}"
    table = _table("", *(each.title for each in spec.task.measures))
    for name, numbers in contestants(verdict.models).items():
        table.add_row(name, *(_cell(numbers.get(each.name)) for each in spec.task.measures))
    _print(console, title, table)


def show_results(console: Console, results: Results) -> None:
    """Print what two demos must agree in: keys, releases, faults, and whether the injected one was named."""
    table = _table(*(IN_SHORT.get(name, name.replace("_", " ")) for name in results.columns))
    for row in results.keys:
        table.add_row(*(_cell(row[name]) for name in results.columns))
    _print(console, "Equal in every demo with this seed: keys", table)
    table = _table("release", "cutoff", "model", "outcome", "why")
    for one in results.releases:
        short = one["digest"][: releases.SHORT_DIGEST]
        table.add_row(str(one["number"]), one["cutoff"], short, one["outcome"], one["why"])
    _print(console, "Equal in every demo with this seed: releases", table)
    table = _table("key", "record", "source", "check", "by")
    for fault in results.faults:
        table.add_row(*(_cell(fault[name]) for name in ("key", "kind", "source", "check", "by")))
    _print(console, "Equal in every demo with this seed: faults on record", table)
    show_injected(console, results)


def show_injected(console: Console, results: Results) -> None:
    """Say which fault the upstream delivered, and on which of its keys the platform named it."""
    injected = results.injected
    if injected is None:
        console.print("No fault was delivered: too few keys are replayed, or the recording knows none.\n")
        return
    console.print(
        f"Delivered without telling the platform: [bold]{injected.kind}[/] ({injected.description}), "
        f"{injected.source} of {', '.join(injected.keys)}.",
        highlight=False,
    )
    for key, check in results.caught().items():
        if check is None:
            console.print(f"  {key}: [bold red]not named[/]; expected {injected.check}", highlight=False)
        else:
            console.print(f"  {key}: named by {check} of {injected.source}", highlight=False)
    console.print()


def show_answers(console: Console, journal: Journal, keys: Sequence[str]) -> None:
    """Print how fast the service answered."""
    latency_ms = journal.latency_ms(keys)
    table = _table("asked", "p50", "p99", "slowest")
    if latency_ms:
        values = (percentile(latency_ms, 0.5), percentile(latency_ms, 0.99), max(latency_ms))
        table.add_row(f"{len(latency_ms):,}", *(f"{value:.1f} ms" for value in values))
    _print(console, "Measured: latency as the caller saw it", table)


def show_cost(console: Console, spec: ProductSpec, records: Records, others: Mapping[str, float]) -> None:
    """Print CPU seconds by stage, as recorded when each was made, and those of what is no stage."""
    each = [source.name for source in spec.sources]
    seconds = {stage: records.cpu_s(stage, each) for stage in ("raw", "validated")}
    seconds |= {stage: records.cpu_s(stage) for stage in (*KEYED_STAGES, *MODEL_STAGES)}
    table = _table("stage", "CPU seconds")
    for stage, value in (seconds | dict(others)).items():
        table.add_row(stage, f"{value:.1f}")
    _print(console, "Measured: CPU seconds by stage", table)


def verdict_of(settings: Settings, product: str, digest: str) -> Verdict:
    """Return the verdict of a bundle; a released one always has one."""
    verdict = History(settings.root, product).verdict(digest)
    if verdict is None:
        raise LookupError(f"{product}: no verdict is recorded for bundle {digest}.")
    return verdict


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _print(console: Console, title: str, table: Table) -> None:
    console.print(title, style="bold", highlight=False)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        is_text = column in TEXTS
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    return table
