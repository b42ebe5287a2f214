"""Export the checkpoint to one ONNX file, from raw columns and strings to a probability, and seal the bundle.

The step proves that the graph answers as the network does on every holdout row; without parity there is no bundle.
The bundle's digest is the model's name everywhere: verdicts, releases, predictions.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from collections.abc import Mapping
from typing import Any

import dagster as dg

from platform_assets import digests, naming
from platform_assets.engine import fields
from platform_assets.makers.onnx import Exporting
from platform_assets.makers.reading import require
from platform_assets.profiles import profile
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions
from platform_assets.storage.adoption import is_made_from
from platform_assets.storage.artifacts import ArtifactProblem, canonical, sha256
from resources.launchers import StepLauncher, Work
from resources.store import StoreResource

STAGE = "onnx"
STEP = "platform_assets.steps.export"


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's onnx asset."""
    maker = Exporting.of(spec)
    code = digests.of(maker)

    @dg.asset(
        **fields.asset_args(
            spec,
            STAGE,
            system=naming.TRAINING,
            kinds=("onnx", "torch"),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, "checkpoint")],
        ),
        **fields.by_cutoff(spec),
        pool=naming.pool(spec.training.profile),
    )
    def onnx(
        context: dg.AssetExecutionContext, store: StoreResource, launcher: dg.ResourceParam[StepLauncher]
    ) -> dg.MaterializeResult:
        cutoff = context.partition_key
        tables = store.tables(spec.name)
        checkpoint = require(tables, "checkpoint", [cutoff])[cutoff]
        inputs = {"checkpoint": checkpoint.content_digest}
        known = tables.records(STAGE, [cutoff]).get(cutoff)
        if known is not None and is_made_from(tables, known, inputs, code) and _is_whole(store, known.content_digest):
            context.log.info(f"bundle of {cutoff} stands already: same checkpoint and code.")
            return _result(known.notes, is_memoised=True)
        notes = launcher.run(
            context=context,
            module=STEP,
            extras={"product": spec.name, "checkpoint": checkpoint.content_digest, **instructions.of_maker(maker)},
            profile=profile(spec.training.profile),
            work=Work(product=spec.name, step="export", cutoff=cutoff, fingerprint=sha256(canonical([code, inputs]))),
        )
        tables.record(STAGE, cutoff, content_digest=notes["bundle"], inputs=inputs, code=code, notes=notes)
        return _result(notes, is_memoised=False)

    return [onnx]


def _is_whole(store: StoreResource, digest: str) -> bool:
    """Tell whether a bundle can be read; one that cannot is exported again."""
    try:
        return store.artifacts.bundle(digest).is_whole
    except ArtifactProblem:
        return False


def _result(notes: Mapping[str, Any], *, is_memoised: bool) -> dg.MaterializeResult:
    parity = notes["parity"]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(notes["bundle"]),
        metadata={
            "bundle_sha256": notes["bundle"],
            "is_memoised": is_memoised,
            "parity_rows": parity["rows"],
            "parity_max_abs_difference": parity["max_abs_difference"],
            "parity_batch_sizes": str(list(parity["batches"])),
            "onnx_bytes": notes["onnx_bytes"],
            "cpu_s": notes["cpu_s"],
            "peak_memory_mb": notes["peak_memory_mb"],
        },
    )
