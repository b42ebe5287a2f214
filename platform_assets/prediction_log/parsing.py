"""Read the new lines of the prediction log, and when batches arrived; the maker names this code in its digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.base import naming
from platform_assets.data import answer_rows

if TYPE_CHECKING:
    from platform_assets.store.product_store import ProductStore

STAGE = "predictions"
SUFFIX = ".jsonl"
BATCH_BYTES = 64 * 1024 * 1024
"""How much of the log is held in memory and committed together."""

MOST_NAMED = 20
"""How many skipped lines one record or one table names; all are counted."""


def arrivals(product: ProductStore) -> Mapping[str, datetime]:
    """Return when the last row of each batch was known, over the sources that the model reads."""
    latest: dict[str, datetime] = {}
    for source in product.spec.feature_sources:
        stage, known_at = naming.stage("validated", source.name), source.known_at
        if known_at is not None and (keys := list(product.tables.records(stage))):
            moments = product.tables.read(stage, keys, columns=[known_at]).drop_nulls()
            rows = moments.group_by("key").agg(pl.col(known_at).max())
            latest |= {key: max(moment, latest.get(key, moment)) for key, moment in rows.iter_rows()}
    return latest


def new_lines(folder: Path, offsets: Mapping[str, int]) -> Iterator[list[tuple[str, int, bytes]]]:
    """Yield new lines of a folder's logs in batches of (file, start offset, whole lines), in the order of files."""
    batch: list[tuple[str, int, bytes]] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        offset = offsets.get(path.name, 0)
        if path.stat().st_size == offset:
            continue
        with path.open("rb") as file:
            if offset:
                file.seek(offset - 1)
                # On a full disk a service truncates a half-written request: a file may be shorter than what was read of
                # it, or have continued from there. Then the last byte read is not a line end, and it is read again.
                if file.read(1) != b"\n":
                    offset = 0
                    file.seek(0)
            content = file.read()
        data = content[: answer_rows.whole_lines(content)]
        if not data:
            continue
        batch.append((path.name, offset, data))
        if sum(len(data) for _, _, data in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
