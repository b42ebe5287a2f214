"""Ingest what the services logged: every prediction once, under the key at which its entity is served.

On a laptop the log is read from the offset in the last ledger record. A key's rows are replaced by old and new ones,
each prediction id once; only then is the new offset recorded. If a run is killed in between, the next one reads again
and counts nothing twice. One process at a time ingests a product's log.

On a cluster the log comes in segments through the store. A run claims the new ones on record, writes their answers as
a part of each key, and folds the parts into the key's rows, each prediction id once. A run that finds an unfinished
claim finishes it first. A segment that cannot be used is named and kept; one that only newer code reads is taken later.

An unfinished line waits; an invalid line is reported and skipped. Predictions for keys outside the run are ingested
too. A key without predictions has an empty record. An answer given after its key was closed is kept and marked, and
is left out of every measurement.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.data import answer_rows
from platform_assets.engine import metadata
from platform_assets.engine.metadata import Metadata
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import Advance, KeyedRun, Report
from platform_assets.engine.stage import Stage, dep
from platform_assets.prediction_log import prediction_log
from platform_assets.prediction_log.parsing import MOST_NAMED
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.product.spec import Product

STAGE = "predictions"
INGEST = {"local": prediction_log.ingest_local, "cluster": prediction_log.ingest_segments}
"""How the log comes, by environment."""
ABOUT_A_ROW = {
    "prediction_id": "the answer's id, unique over all keys",
    "digest": "the bundle that answered",
    "release": "number of the release it answered under; null for a service without a release",
    "entity": "what the prediction is about",
    "service_time": "when the entity is served; the key follows from it (UTC)",
    "asked_at": "the moment of the question (UTC)",
    "answered_at_utc": "when the answer left, by the service's wall clock",
    "latency_us": "from the request's arrival to the record's writing",
    answer_rows.LATE: "whether it was given after its key was closed",
}


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's predictions stage."""
    maker = Ingesting.for_product(spec)
    descriptions = ABOUT_A_ROW | spec.task.about() | {item.name: item.description for item in spec.fields}
    # The batch of an answer follows from when its rows arrived; a timed key follows from the moment alone.
    keyed = [] if maker.is_timed else [source.name for source in spec.feature_sources if not source.is_slow]
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=maker,
        run=_PredictionsRun,
        outside=outside,
        deps=[dep(spec, "release"), *(dep(spec, "validated", name) for name in keyed)],
        metadata=metadata.column_schema(maker.columns, descriptions),
    )


class _PredictionsRun(KeyedRun[Ingesting]):
    def work(self) -> Iterator[dg.MaterializeResult]:
        """Ingest the whole log, whatever its keys, and give each of the run's keys a record."""
        started, keys = time.perf_counter(), self.keys
        done, records = INGEST[self.product.settings.environment](self.product, self.code, keys)
        elsewhere = sorted(set(done.records) - set(keys))
        self.context.log.info(
            f"{STAGE}: {done.rows:,} new for {len(done.records)} keys"
            + (f", outside this run: {', '.join(elsewhere)}" if elsewhere else "")
            + "".join(f"\n{line.file} at byte {line.offset}: {line.reason}" for line in done.named)
            + "".join(f"\nskipped: {item.reason}" for item in done.skipped[:MOST_NAMED])
            + "".join(f"\nleft for newer code: {path}" for path in done.waiting[:MOST_NAMED])
        )
        about: Metadata = {
            "run_new_predictions": done.rows,
            "run_lines_left_out": done.left_out_lines,
            "run_keys_elsewhere": elsewhere,
        }
        named = {
            "left_out": [line.document() for line in done.named],
            "segments_skipped": [item.document() for item in done.skipped[:MOST_NAMED]],
            "segments_remarked": [item.document() for item in done.remarks[:MOST_NAMED]],
            "segments_for_newer_code": [{"segment": path} for path in done.waiting[:MOST_NAMED]],
        }
        about |= {name: metadata.table(rows) for name, rows in named.items() if rows}
        wall_s = time.perf_counter() - started
        advance = Advance(keys=keys, records={STAGE: records}, memoised=done.memoised, wall_s=wall_s)
        notes = {
            key: {**records[key].notes, "attendance": attendance.document()}
            for key, attendance in done.attendance.items()
        }
        yield self.result(advance, self.stage.tables[-1], Report(run=about, notes=notes))
