"""Look at what fields are called and how often their values repeat: ids, and what was known with the label."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from platform_assets.product.derived import LabelColumn
from platform_assets.product.spec import Product

LEAST_ROWS, DISTINCT = 50, 0.95
"""Rows, and share of distinct values, from which a field is taken for an id."""
STEM = 5
"""Letters that a field's name shares with the label's where they have one root: `returned`, `return_date`."""
AFTERWARDS = {"actual", "cancelled", "closed", "final", "label", "outcome", "refund", "resolved", "result", "target"}
"""Words for what is known afterwards."""


def notes(spec: Product, built: Sequence[pl.DataFrame]) -> str:
    """Return which fields look like ids or like the label, in a sentence; empty for none.

    Args:
        built: rows of `features`, without images.
    """
    ids = [item.name for item in spec.fields if item.dtype in ("category", "int")]
    rows = pl.concat([part.select(ids) for part in built]) if ids and built else pl.DataFrame()
    sentences = [
        f"{name} is another in nearly every row: an id teaches nothing, leave it out"
        for name in ids
        if rows.height >= LEAST_ROWS and rows[name].n_unique() >= DISTINCT * rows.height
    ]
    label, stems = "a label", set[str]()
    if isinstance(spec.label, LabelColumn):
        label = f"the label {spec.label.column}"
        stems = {word[:STEM] for word in _words(spec.label.column)}
    sentences += [
        f"{item.name} sounds like {label}: make sure that its value was known at `asked_at`"
        for item in spec.fields
        if any(word in AFTERWARDS or (len(word) >= STEM and word[:STEM] in stems) for word in _words(item.name))
    ]
    return "; ".join(sentences)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())
