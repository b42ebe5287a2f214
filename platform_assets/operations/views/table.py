"""Name what Dagster shows of each table, cutoff and release: notes and facts of a stage become metadata and charts."""

from __future__ import annotations

from platform_assets.engine.outside import View
from platform_assets.operations.views import data, decision, drift, performance, serving, training, verdict

VIEWS: dict[str, View] = {
    "raw": data.raw,
    "validated": data.validated,
    "quarantine": data.quarantine,
    "features": data.features,
    "outcomes": data.outcomes,
    "checkpoint": training.view_checkpoint,
    "onnx": training.view_onnx,
    "evaluation": verdict.view,
    "service": serving.view_service,
    "release": serving.view_release,
    "predictions": data.predictions,
    "performance": performance.view,
    "drift": drift.view,
    "decision": decision.view,
}
"""By table."""
