"""Join answers with outcomes as labels arrive: quality per key, per model, and over the last keys.

A key is measured when its answers are ingested and again when its labels arrive, including late ones. Its quality is
that of the bundle that gave most answers. The window is the last labelled keys up to this one, with intervals clustered
by key; it leaves out keys that are held or dropped, and keys answered from a source that turned out to be broken.
The model is tested against what its answers promise (`evaluation.promises`). Excess is log loss minus the model's own
expectation: above zero, the model is worse than promised.

One answer counts per entity and moment of the platform's rows: the first one given before the key was closed whose
features equal the platform's. So neither repeated requests nor late ones or ones about other moments change a number.

The served features are compared with the platform's for the same entity and moment, by distinct entity. A key whose
share of equal ones is below `Monitors.min_equal_share` is skewed: the check fails as an error and blocks nothing, and
the key's rows are its bundles' answers to the platform's own features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from platform_assets.base import naming
from platform_assets.engine import metadata
from platform_assets.engine.key_checks import KeyCheck
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Report
from platform_assets.engine.stage import Stage, dep
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring.performance_inputs import INPUT_STAGES, KeyRecords
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.product.spec import Product
from platform_assets.store.records.notes import measured
from platform_assets.store.records.performance import Measured

STAGE = "performance"
CHECK = "served_features_equal"
LEAST_EQUAL = 0.999
"""Share of equal entities below which the check warns; below `Monitors.min_equal_share` of a key it is an error."""


@dataclass(frozen=True, kw_only=True)
class Newest:
    """What surrounds the newest key that was measured.

    Attributes:
        before: numbers by key, up to this one, the oldest first.
        by_key: joined rows of its window.
    """

    before: Mapping[str, Measured]
    by_key: Mapping[str, pl.DataFrame]


ABOUT_A_ROW = {
    "prediction_id": "id of the answer; null for an answer to the platform's own features, which was never served",
    "entity": "what it was about",
    "digest": "the bundle that gave it",
}


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's performance stage."""
    maker = Measuring.for_product(spec, measures_of(spec.task))
    sliced = {item.name: item.description for item in spec.fields if item.name in spec.slices}
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("polars", "numpy"),
        doc=__doc__,
        maker=maker,
        run=_PerformanceRun,
        outside=outside,
        deps=[dep(spec, stage) for stage in INPUT_STAGES],
        metadata=metadata.column_schema(maker.columns, ABOUT_A_ROW | spec.task.about() | sliced),
        checks={
            CHECK: f"At least {LEAST_EQUAL:.1%} of the entities were served with the features that the platform has "
            f"for the same moment. An error below {spec.monitors.min_equal_share:.1%} of a key."
        },
    )


class _PerformanceRun(KeyedRun[Measuring]):
    def __init__(self, stage: Stage[Measuring], context: dg.AssetExecutionContext) -> None:
        """Prepare the run without reading anything."""
        super().__init__(stage, context)
        self._scorer = self.maker.own_answers(self.product.artifacts)
        # Data of the newest recomputed key, kept for its charts.
        self._newest: str | None = None
        self._by_key: dict[str, pl.DataFrame] = {}

    def plan(self, chunk: Keys) -> Plan:
        key_records = KeyRecords.read(self.maker, self.tables, self.product.history, chunk, self.keys)

        def make(stale: Keys) -> dict[str, StageOutput]:
            output, self._by_key = self.maker.make(self.tables, key_records, stale, self._scorer)
            self._newest = stale[-1]
            return {STAGE: output}

        return Plan(inputs={key: inputs for key in chunk if (inputs := key_records.inputs(key)) is not None}, make=make)

    def describe(self, done: Advance) -> Report:
        """Return what surrounds the newest recomputed key, with a check of each key."""
        facts, newest = dict[str, Newest](), self._newest
        if newest is not None:
            before = self.tables.records(STAGE, (*self.maker.keys_before(newest), newest))
            numbers = {key: measured(record) for key, record in before.items()}
            facts[newest] = Newest(before=numbers, by_key=self._by_key)
        checks = {}
        for key, record in done.records[STAGE].items():
            if compared := measured(record).skew:
                share, is_skewed = compared.share, compared.is_skewed
                equal = f"{compared.rows_equal:,} of {compared.rows:,} entities of {key}"
                checks[key] = KeyCheck(
                    passed=share is None or (share >= LEAST_EQUAL and not is_skewed),
                    is_warning=not is_skewed,
                    description=f"No entity of {key} could be compared; nothing was judged."
                    if share is None
                    else f"{equal} were served with the platform's own features ({share:.2%})"
                    + ("; the key is measured by answers to those." if is_skewed else "."),
                    metadata={
                        **compared.members(("rows", "rows_equal", "rows_unknown")),
                        **({} if share is None else {"share": round(share, 6)}),
                        "differing": metadata.table([item.document() for item in compared.fields]),
                        **({"not_compared": compared.not_compared} if compared.not_compared else {}),
                    },
                )
        return Report(facts=facts, checks={CHECK: checks})
