"""Say at the end what the main job did: rows, quality, answers and cost, read from what was recorded.

Belongs here: reading records and verdicts, and drawing tables. Does not belong here: measuring, except percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from platform_assets import naming, status
from platform_assets.replay import Answer
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import PartitionRecord, TableStore

MODEL_STAGES = ("checkpoint", "onnx", "evaluation", "service")
QUALITY = {"auc": "AUC", "log_loss": "log loss", "brier": "Brier", "ece": "ECE"}


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
        return sum(
            float(record.notes.get("cpu_s", 0.0)) for source in sources for record in self.of(stage, source).values()
        )


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


def show_quality(console: Console, verdict: Mapping[str, Any]) -> None:
    """Print the model beside its baselines on the same held-out rows."""
    rows, outcome = verdict["rows"], "passed" if verdict["passed"] else "failed"
    title = f"Quality on {rows['labelled']:,} held-out rows, {rows['first_key']} to {rows['last_key']}: {outcome}"
    table = _table("", *QUALITY.values())
    for name, numbers in status.contestants(verdict).items():
        table.add_row(name, *(f"{numbers[measure]:.4f}" for measure in QUALITY))
    _print(console, title, table)


def show_answers(console: Console, key: str, answers: Sequence[Answer]) -> None:
    """Print what the service said, and how fast."""
    latency_ms = [answer.latency_s * 1000 for answer in answers]
    good = [answer.body for answer in answers if answer.status == 200]
    positive = sum(body["is_positive"] for body in good)
    table = _table("asked", "answered", "positive", "p50", "p99", "slowest")
    table.add_row(
        f"{len(answers):,}",
        f"{len(good):,}",
        f"{positive:,}",
        *(f"{value:.1f} ms" for value in (percentile(latency_ms, 0.5), percentile(latency_ms, 0.99), max(latency_ms))),
    )
    _print(console, f"Answers for {key}", table)


def show_cost(console: Console, spec: ProductSpec, records: Records, asking_cpu_s: float) -> None:
    """Print CPU seconds by stage, as recorded when each was made."""
    each = [source.name for source in spec.sources]
    seconds = {stage: records.cpu_s(stage, each) for stage in ("raw", "validated")}
    seconds |= {stage: records.cpu_s(stage) for stage in ("features", "outcomes", *MODEL_STAGES)}
    seconds["asking"] = asking_cpu_s
    table = _table("stage", "CPU seconds")
    for stage, value in seconds.items():
        table.add_row(stage, f"{value:.1f}")
    _print(console, "CPU seconds by stage", table)


def verdict_of(settings: Settings, product: str, digest: str) -> dict[str, Any]:
    """Return the verdict of a bundle; a released one always has one."""
    verdict = Ledgers(settings.root, product).read(naming.VERDICTS, digest)
    if verdict is None:
        raise LookupError(f"{product}: no verdict is recorded for bundle {digest}.")
    return verdict


def _print(console: Console, title: str, table: Table) -> None:
    console.print(title, style="bold", highlight=False)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        is_text = place == 0 and column in ("source", "stage", "")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    return table
