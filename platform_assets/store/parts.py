"""Store rows that arrive in parts: a Delta table whose rows are replaced by key and part.

A part holds what one ingestion took in. Writing a part again replaces it, so an ingestion that was killed is repeated.
Parts are internal: a stage's readers see its table, into which the parts of a key are folded (`streamed.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import polars as pl

from platform_assets.base import naming
from platform_assets.store import delta

# Parts, because replacing a key for each batch of answers needs the whole key in memory and is quadratic, and appending
# needs a look for ids that are there.
KEY, PART = "key", "part"
SUFFIX = "_parts"
"""Ends the name of the table, after that of the stage."""


class Parts:
    """The parts of one stage's rows."""

    def __init__(self, root: str, product: str, stage: str) -> None:
        """Name the table without opening it."""
        self.location = naming.table_location(root, product, f"{stage}{SUFFIX}")

    def replace(self, part: int, frames: Mapping[str, pl.DataFrame]) -> None:
        """Replace a part of each key in one commit. The same frames may be written again, by several processes at once.

        Args:
            part: its number.
            frames: the rows per key, all with one schema.

        Raises:
            TableProblem: storage failed; nothing changed.
        """
        if not frames:
            return
        rows = pl.concat(
            frame.drop(KEY, strict=False).select(
                pl.lit(key).alias(KEY), pl.lit(part, dtype=pl.Int64).alias(PART), pl.all()
            )
            for key, frame in sorted(frames.items())
        )
        named = ", ".join(f"'{key}'" for key in sorted(frames))
        predicate = f"{PART} = {part} AND {KEY} IN ({named})"
        commit = partial(delta.commit, files=len(frames), mode="overwrite", predicate=predicate, schema_mode="merge")
        with delta.writing(self.location, rows.clear(), [KEY, PART]) as table:
            delta.retry(self.location, lambda: commit(self.location, table, rows), table)

    def files(self, key: str, *, after: int, until: int) -> list[str]:
        """Return the locations of the files of a key's parts with `after < part <= until`, in the order of parts."""
        table = delta.open_table(self.location)
        if table is None:
            return []
        added = pl.DataFrame(table.get_add_actions(flatten=True))
        chosen = (
            added.select("path", key=pl.col(f"partition.{KEY}"), part=pl.col(f"partition.{PART}"))
            .filter((pl.col("key") == key) & (pl.col("part") > after) & (pl.col("part") <= until))
            .sort("part", "path")
        )
        return [naming.join(self.location, path) for path in chosen["path"]]

    def remove(self, until: int) -> None:
        """Remove the parts up to one from the table; their files go with `upkeep.tidy`."""
        table = delta.open_table(self.location)
        if table is None:
            return
        delta.retry(self.location, lambda: table.delete(f"{PART} <= {until}"), table)
