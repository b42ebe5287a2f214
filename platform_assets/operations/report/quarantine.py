"""The section of the report about rows put aside, with what it reads."""

from __future__ import annotations

from collections import Counter

from platform_assets.base import naming
from platform_assets.data import declared
from platform_assets.operations.report.blocks import Bar, Block, Section, Table, paragraph
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records import notes

MOST_LANDED, MOST_REASONS = 400, 12
"""The newest landed keys that are read, and the reasons that are shown."""


def section(product: ProductStore) -> Section:
    """Return the rows that no schema let in, by source and reason."""
    aside, rows_of = count(product)
    landed = sum(rows for source, rows in rows_of.items() if source != declared.THE_FEATURES)
    if not aside:
        return Section(title="Quarantine", blocks=[paragraph(f"None of {landed:,} landed rows was put aside.")])
    most = max(aside.values())
    by_count = sorted(aside.items(), key=lambda item: -item[1])
    rows = [
        (source, f"{number:,}", f"{number / rows_of[source]:.2%}", Bar(number / most, longest_px=120), reason)
        for (source, reason), number in by_count[:MOST_REASONS]
    ]
    rest = len(by_count) - MOST_REASONS
    columns = ("source", "rows", "of its rows", "", "reason")
    numbers = ("rows", "of its rows")
    blocks: list[Block] = [
        Table(about="rows put aside", columns=columns, rows=rows, numbers=numbers, is_stacked=True),
        paragraph(
            f"Of {landed:,} landed rows, including those before the first answer."
            + (f" Rarer reasons that are not shown: {rest}." if rest > 0 else ""),
            kind="muted small",
        ),
    ]
    return Section(title="Quarantine by reason", blocks=blocks)


def count(product: ProductStore) -> tuple[Counter[tuple[str, str]], dict[str, int]]:
    """Count rows put aside by source and reason, and landed ones by source, over the newest `MOST_LANDED` keys.

    Keys before the first answer count too. Rows that `features` put aside count under `declared.THE_FEATURES`, of the
    rows built.
    """
    spec = product.spec
    aside, landed = Counter[tuple[str, str]](), dict[str, int]()
    for source in spec.sources:
        raw = product.tables.records(naming.stage("raw", source.name))
        newest = list(raw) if source.is_slow else sorted(raw, key=spec.grain.index)[-MOST_LANDED:]
        landed[source.name] = sum(raw[key].rows for key in newest)
        stage = naming.stage("quarantine", source.name)
        for record in product.tables.records(stage, newest).values():
            for kind, number in notes.Validated.of(record).quarantined_by_kind.items():
                aside[source.name, kind] += number
    built = product.tables.records("features")
    records = [built[key] for key in sorted(built, key=spec.grain.index)[-MOST_LANDED:]]
    put_aside = [notes.Features.of(record) for record in records]
    if any(note.put_aside_by_reason for note in put_aside):
        rows = sum(record.rows for record in records) + sum(note.rows_put_aside for note in put_aside)
        landed[declared.THE_FEATURES] = rows
        for note in put_aside:
            for reason, number in note.put_aside_by_reason.items():
                aside[declared.THE_FEATURES, reason] += number
    return aside, landed
