"""Fold the parts of a key's answers into its rows, each answer once, without holding all of them in memory.

Which answers count, and their order, follow from a few columns of all rows (`answer_rows.DECISIVE`). The others are
read twice: some columns at a time for the digest, then some rows at a time for writing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from platform_assets.base import naming
from platform_assets.data import answer_rows
from platform_assets.prediction_log.parsing import STAGE
from platform_assets.store import delta
from platform_assets.store.content import digest_of_groups
from platform_assets.store.parts import Parts
from platform_assets.store.problems import TableProblem
from platform_assets.store.records.notes import Predictions
from platform_assets.store.streamed import Rewrite, Stream

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.prediction_log.answered_product import AnsweredProduct, Notes
    from platform_assets.store.history.reader import History
    from platform_assets.store.partition_records import PartitionRecord
    from platform_assets.store.product_store import ProductStore

Positions: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int64]]"
ROWS_PER_BATCH = 8_192
"""The rows that are held when they are written: 6 MB with 89 numbers per row. More than `delta.FEW_ROWS`."""
COLUMNS_PER_GROUP = 8
"""The columns that are held for the digest: 64 MB with a million rows."""
NOTED = ("digest", answer_rows.LATE, "answered_at_utc", "latency_us")


@dataclass(frozen=True)
class Answers:
    """The answers in some files, each answer once and in the order of asking.

    Attributes:
        files: locations; they may repeat answers.
    """

    maker: AnsweredProduct
    files: Sequence[str]

    def stream(self) -> Stream:
        """Return the rows for writing."""
        names = sorted(self.maker.columns)
        groups = [names[at : at + COLUMNS_PER_GROUP] for at in range(0, len(names), COLUMNS_PER_GROUP)]
        digest = digest_of_groups(len(self._chosen), (self._columns(group) for group in groups))
        return Stream(rows=len(self._chosen), content_digest=digest, batches=self._batches)

    def notes(self) -> Notes:
        """Return the notes of the key's record."""
        return self.maker.notes(self._columns(NOTED))

    @cached_property
    def _scans(self) -> list[pl.LazyFrame]:
        """One per file, with exactly the product's columns."""
        scans = []
        for file in self.files:
            # polars would take brackets in a folder's name for a pattern, and find no file.
            rows = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            present = rows.collect_schema()
            columns = [  # as `answer_rows.align` does
                pl.col(name).cast(dtype) if name in present else pl.lit(None, dtype=dtype).alias(name)
                for name, dtype in self.maker.columns.items()
            ]
            scans.append(rows.select(columns))
        return scans

    @cached_property
    def _layout(self) -> tuple[Positions, Positions]:
        """The positions of the rows that count, over all files, in their order; and where each file starts."""
        import numpy as np

        if not self.files:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        parts = self._read(answer_rows.DECISIVE)
        heights = [part.height for part in parts]
        starts = np.concatenate([[0], np.cumsum(heights)[:-1]]).astype(np.int64)
        numbered = pl.concat(parts).with_row_index("_at")
        is_repeated = numbered["prediction_id"].is_duplicated()
        if is_repeated.any():  # the order of `answer_rows.first_given`, with fewer copies
            first = answer_rows.first_given(numbered.filter(is_repeated))
            numbered = pl.concat([numbered.filter(~is_repeated), first])
        # Positions instead of sorted rows, which would be another copy of them.
        order = numbered.select(pl.arg_sort_by(*answer_rows.ORDER)).to_series()
        return numbered["_at"].gather(order).to_numpy().astype(np.int64), starts

    @property
    def _chosen(self) -> Positions:
        return self._layout[0]

    def _columns(self, names: Sequence[str]) -> pl.DataFrame:
        """Return some columns of all rows that count."""
        if not self.files:
            return self.maker.empty().select(names)
        return pl.concat(self._read(names))[self._chosen]

    def _read(self, names: Sequence[str]) -> list[pl.DataFrame]:
        """Return some columns of each file; one file at a time, because a reader of a bucket holds more of a file."""
        return [scan.select(names).collect() for scan in self._scans]

    def _batches(self) -> Iterator[pl.DataFrame]:
        """Yield the rows that count, some at a time; reads the part of each file between a batch's first and last."""
        import numpy as np

        if not len(self._chosen):
            yield self.maker.empty()
        chosen, starts = self._layout
        for start in range(0, len(chosen), ROWS_PER_BATCH):
            positions = chosen[start : start + ROWS_PER_BATCH]
            files = np.searchsorted(starts, positions, side="right") - 1
            by_file = np.argsort(files, kind="stable")
            parts = []
            for number in np.unique(files):
                within = positions[by_file[files[by_file] == number]] - starts[number]
                first, last = int(within.min()), int(within.max())
                parts.append(self._scans[number].slice(first, last - first + 1).collect()[within - first])
            # The argsort of a permutation is its inverse: from the order of files back to that of asking.
            yield pl.concat(parts)[np.argsort(by_file)]


class Folder:
    """Folds the keys of one product."""

    def __init__(self, product: ProductStore, maker: AnsweredProduct, code: str) -> None:
        """Prepare without reading anything."""
        self._product, self._maker, self._code = product, maker, code
        self._parts = Parts(product.settings.root, product.name, STAGE)

    def fold(self, key: str, claim: int) -> PartitionRecord:
        """Bring a key's rows up to date with its parts; a key without any gets an empty record.

        Another process may fold the same key at the same time: whoever commits later has seen the other's rows.

        Args:
            claim: number of a finished claim that the rows must contain.

        Raises:
            TableProblem: storage failed, or others kept writing the key.
        """
        for attempt in range(delta.COMMIT_ATTEMPTS):
            # Random, or two runs that fold one key would collide again.
            time.sleep(random.uniform(0, 1) * min(delta.LONGEST_WAIT_S, 0.01 * 2**attempt) if attempt else 0)
            record = self._record(key)
            if record is not None and Predictions.of(record).folded >= claim:
                return record
            # The order matters: a commit after this is noticed, and one before it contains what is read next.
            rewrite = Rewrite(self._product.tables, STAGE, key, self._maker.empty())
            record, until = self._record(key), finished(self._product.history)
            after = 0 if record is None else Predictions.of(record).folded
            files = self._parts.files(key, after=after, until=until)
            if record is not None and not files:
                return record
            stored = [] if record is None else [naming.join(rewrite.location, file) for file in record.files]
            answers = Answers(self._maker, [*stored, *files])
            notes = {**answers.notes(), "folded": until}
            if (replaced := rewrite.replace(answers.stream(), code=self._code, notes=notes)) is not None:
                return replaced
        raise TableProblem(f"{self._product.name}/{STAGE}: others kept writing the key {key}; materialise it again.")

    def _record(self, key: str) -> PartitionRecord | None:
        return self._product.tables.records(STAGE, [key]).get(key)


def finished(history: History) -> int:
    """Return the number of the newest claim whose rows are all stored, 0 for none."""
    newest = history.ingested()
    return 0 if newest is None else newest[1].claim
