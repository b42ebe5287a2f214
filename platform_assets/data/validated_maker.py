"""Split the landed rows of a source into good and quarantined rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, TypedDict

from platform_assets.base.keys import DailyGrain, HourlyGrain
from platform_assets.data import validation
from platform_assets.data.stage_inputs import read_each
from platform_assets.engine.outputs import RowMaker, StageOutput

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

    from platform_assets.product.sources import Source
    from platform_assets.product.spec import Product


MOST_KINDS = 10


class Notes(TypedDict):
    """A key's counts of delivered, quarantined and repeated rows, and the ten most frequent quarantine reasons."""

    rows_in: int
    rows_quarantined: int
    rows_repeated: int
    quarantined_by_reason: NotRequired[dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class Validation(RowMaker):
    """Validates the rows of one source; see `Source`.

    Attributes:
        grain: the product's, if the source's `partition_by` assigns a row's key; otherwise None.
    """

    NUMBER: ClassVar[int] = 1
    CARRIERS: ClassVar[tuple[object, ...]] = (read_each,)

    schema: Callable[[], pa.DataFrameSchema]
    schema_version: int
    unique: tuple[str, ...]
    partition_by: str | None
    grain: DailyGrain | HourlyGrain | None

    @staticmethod
    def for_source(spec: Product, source: Source) -> Validation:
        """Return the maker for a source."""
        grain = spec.grain if isinstance(spec.grain, DailyGrain | HourlyGrain) else None
        return Validation(
            schema=source.schema,
            schema_version=source.schema_version,
            unique=source.unique,
            partition_by=source.partition_by,
            grain=grain if source.partition_by is not None else None,
        )

    def own(self) -> dict[str, Any]:
        """Return the members; when the product's keys end affects no row."""
        return {**super().own(), "grain": None if self.grain is None else self.grain.endless}

    def make(self, rows: Mapping[str, pl.DataFrame]) -> tuple[StageOutput, StageOutput]:
        """Return the good rows by key, typed, and the quarantined ones; both with their key's counts."""
        key_of = None
        if self.partition_by is not None and self.grain is not None:
            key_of = validation.key_column(self.partition_by, self.grain.key_of)
        splits = validation.split_keys(
            rows, self.schema(), schema_version=self.schema_version, unique=self.unique, key_of=key_of
        )
        notes, by_kind = dict[str, Notes](), dict[str, Mapping[str, object]]()
        for key, split in splits.items():
            bad = split.quarantined.height
            notes[key] = Notes(rows_in=split.good.height + bad, rows_quarantined=bad, rows_repeated=split.repeated)
            if bad:
                reasons = split.quarantined["reason"].value_counts(sort=True).head(MOST_KINDS)
                notes[key]["quarantined_by_reason"] = dict(reasons.iter_rows())
            kinds = dict(split.kinds.value_counts(sort=True).head(MOST_KINDS).iter_rows())
            by_kind[key] = {**notes[key], **({"quarantined_by_kind": kinds} if kinds else {})}
        return (
            StageOutput(frames={key: split.good for key, split in splits.items()}, notes=notes),
            StageOutput(frames={key: split.quarantined for key, split in splits.items()}, notes=by_kind),
        )
