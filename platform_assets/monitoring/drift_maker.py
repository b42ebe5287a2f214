"""Judge keys for faults and drift, and lay a judgement out as table rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from platform_assets.engine.outputs import StageOutput
from platform_assets.monitoring.judged_product import JudgedProduct
from platform_assets.monitoring.judgement import Judge
from platform_assets.store.history.reader import Faults, Releases, Requests

if TYPE_CHECKING:
    from platform_assets.product.spec import Product
    from platform_assets.store.product_store import ProductStore

PSI = "psi"
COLUMNS = {
    "check": "name of the check; psi for a field's part in the drift index",
    "source": "the source the check blames, or features, or answers",
    "column": "column of the source; empty when the check covers the whole delivery",
    "is_failing": "whether this check alone makes the key faulty",
    "came": "observed value",
    "expected": "value of a sound delivery",
    "psi": "population stability index of a field, or of the answers, of the newest keys against the training rows",
}
TYPES = pl.Schema({name: pl.String() for name in COLUMNS} | {"is_failing": pl.Boolean(), "psi": pl.Float64()})


@dataclass(frozen=True, kw_only=True)
class Judging(JudgedProduct):
    """Judges a product's keys."""

    CARRIERS: ClassVar[tuple[object, ...]] = (Faults, Releases, Requests)

    @staticmethod
    def for_product(spec: Product) -> Judging:
        """Return the maker for a product."""
        return Judging(
            name=spec.name,
            is_live=spec.is_live,
            grain=spec.grain,
            sources=tuple(source.bare for source in spec.sources),
            lookback=spec.lookback,
            features=spec.features,
            fields=spec.bare_fields,
            task=spec.task,
            monitors=spec.monitors,
        )

    def judge(self, product: ProductStore, keys: tuple[str, ...]) -> Judge:
        """Return the judge of a contiguous, ordered run of keys."""
        return Judge(self, product, keys)

    def make(self, judge: Judge, keys: tuple[str, ...]) -> StageOutput:
        """Judge keys and return their notes and rows: failing checks first, then the fields of each index by PSI."""
        judgements = judge.judge(keys)
        frames = {}
        for key, (judgement, _) in judgements.items():
            rows: list[tuple[str | bool | float | None, ...]] = [
                (check.check, check.source, check.column, check.is_failing, check.came, check.expected, None)
                for check in judgement.checks
            ]
            for source, index in (("answers", judgement.mix), ("features", judgement.index)):
                if index is not None:
                    farthest = sorted(index.fields.items(), key=lambda item: (-item[1], item[0]))
                    rows += [(PSI, source, field, False, None, None, value) for field, value in farthest]
            frames[key] = pl.DataFrame(rows, schema=TYPES, orient="row")
        return StageOutput(frames=frames, notes={key: notes.document() for key, (_, notes) in judgements.items()})
