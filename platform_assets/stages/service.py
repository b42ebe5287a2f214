"""Build the Bento and prove that it serves this bundle: started for real, asked real rows, compared answer by answer.

A Bento is built once for the serving code and the contract; a new model with the same contract needs none. The
smoke starts `bentoml serve` on exactly this bundle and asks holdout rows: every answer must equal what the bundle
gives here. Without it there is no release.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import digests, naming
from platform_assets.engine import fields
from platform_assets.makers.evaluation import Evaluating
from platform_assets.makers.reading import require
from platform_assets.product.contract import request_of
from platform_assets.serving import answers, run
from platform_assets.serving import build as bento
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import process
from platform_assets.storage.adoption import is_made_from
from resources.store import StoreResource

if TYPE_CHECKING:
    import numpy as np

STAGE = "service"
SMOKE_ROWS = 64
MOST_APART = 1e-6
"""Batches of other sizes sum in another order: about one unit in the last place of a float32."""


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's service asset."""
    code = digests.of_modules("platform_assets.product.contract")

    @dg.asset(
        **fields.asset_args(
            spec,
            STAGE,
            system=naming.SERVING,
            kinds=("bentoml", "onnx"),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, "onnx")],
        ),
        **fields.by_cutoff(spec),
    )
    def service(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        cutoff = context.partition_key
        tables = store.tables(spec.name)
        sealed = require(tables, "onnx", [cutoff])[cutoff]
        started_s = process.cpu_s()
        built = bento.build(store.settings, store.artifacts, sealed.content_digest)
        context.log.info(f"Bento {built.tag} {'was built' if built.was_built else 'stands already'}.")
        inputs = {"bundle": sealed.content_digest, "bento": built.content_digest}
        known = tables.records(STAGE, [cutoff]).get(cutoff)
        if known is not None and is_made_from(tables, known, inputs, code):
            return _result(built, known.notes, is_memoised=True)
        notes = _smoke(spec, store, built.tag, sealed.content_digest)
        notes |= {"tag": built.tag, "cpu_s": round(process.cpu_s() - started_s, 3)}
        context.log.info(
            f"{notes['asked_rows']} rows answered as the bundle does, at most {notes['max_apart']:.1e} apart."
        )
        tables.record(STAGE, cutoff, content_digest=built.content_digest, inputs=inputs, code=code, notes=notes)
        return _result(built, notes, is_memoised=False)

    return [service]


def _smoke(spec: ProductSpec, store: StoreResource, tag: str, digest: str) -> dict[str, Any]:
    """Ask the started service some holdout rows; refuse an answer that is not the bundle's own."""
    evaluating = Evaluating.of(spec)
    holdout = evaluating.holdout(store.tables(spec.name), store.artifacts.bundle(digest))
    asked = holdout.frame.head(SMOKE_ROWS)
    first = replace(holdout, frame=asked, inputs=holdout.inputs[: asked.height])
    expected = evaluating.score(store.artifacts, digest, first)
    bodies = [request_of(spec, _now(spec, store, row)) for row in asked.iter_rows(named=True)]
    found = run.smoke(store.settings, tag, digest, bodies)
    task = spec.task.document()
    said = [answers.said(task, answer) for answer in found]
    wanted = [_numbers(row) for row in expected]
    apart = [_apart(mine, theirs) for mine, theirs in zip(said, wanted, strict=True)]
    if max(apart) > MOST_APART:
        worst = apart.index(max(apart))
        raise dg.Failure(
            f"{tag} answers {said[worst]} for {bodies[worst]['entity']} and bundle {digest} gives {wanted[worst]}; "
            f"expected at most {MOST_APART} between them. It is not released."
        )
    return {"asked_rows": len(found), "max_apart": max(apart), "request": bodies[0]}


def _now(spec: ProductSpec, store: StoreResource, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as a live product's service takes it, which is asked about its own time; no graph reads moments."""
    now = store.now(spec.name, is_live=True)
    return {**row, "service_time": now, "asked_at": now} if spec.is_live else row


def _numbers(row: "np.ndarray") -> list[float]:
    return [float(number) for number in row.reshape(-1)]


def _apart(mine: list[float], theirs: list[float]) -> float:
    """Return the largest difference of two answers' numbers; of those above 1, relative to their size."""
    return max(abs(one - other) / max(1.0, abs(other)) for one, other in zip(mine, theirs, strict=True))


def _result(built: bento.Built, notes: Mapping[str, Any], *, is_memoised: bool) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        data_version=dg.DataVersion(built.content_digest),
        metadata={
            "bento_tag": built.tag,
            "bento_content_digest": built.content_digest,
            "was_built": built.was_built,
            "is_memoised": is_memoised,
            "smoke_rows": notes["asked_rows"],
            "smoke_max_abs_difference": notes["max_apart"],
            "example_request": dg.MetadataValue.json(notes["request"]),
            "cpu_s": notes["cpu_s"],
        },
    )
