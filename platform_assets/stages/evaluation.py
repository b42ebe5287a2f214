"""Judge the challenger, the champion and the baselines on the same holdout rows, and write the verdict.

The comparison is paired and clustered by key. The verdict is one create-only record under the bundle's digest: what
was judged once stays judged, and the same digest is never judged twice. A failed verdict is a successful asset.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

import json
from typing import Any

import dagster as dg

from platform_assets import digests, naming
from platform_assets.engine import fields
from platform_assets.makers.evaluation import Evaluating
from platform_assets.makers.reading import require
from platform_assets.problems import RecordExists
from platform_assets.product.contract import COMPARABLE
from platform_assets.records.verdicts import VERDICTS, Verdict
from platform_assets.show import performance as performance_metadata
from platform_assets.show import plots, values
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import process
from platform_assets.storage.adoption import is_made_from
from platform_assets.storage.artifacts import Bundle
from resources.store import StoreResource

STAGE = "evaluation"
CHECK = "verdict"


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's evaluation asset."""
    code = digests.of(Evaluating.of(spec))
    check = dg.AssetCheckSpec(
        CHECK,
        asset=dg.AssetKey(naming.asset_key(spec.name, STAGE)),
        description="The bundle may be released. Blocks nothing: a release asks the verdict itself.",
    )

    @dg.asset(
        **fields.asset_args(
            spec,
            STAGE,
            system=naming.TRAINING,
            kinds=("onnx", "numpy"),
            doc=__doc__,
            code=code,
            deps=[fields.dep(spec, "onnx")],
        ),
        **fields.by_cutoff(spec),
        check_specs=[check],
    )
    def evaluation(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        cutoff = context.partition_key
        started_s = process.cpu_s()
        tables, history = store.tables(spec.name), store.history(spec.name)
        sealed = require(tables, "onnx", [cutoff])[cutoff]
        digest = sealed.content_digest
        found = history.verdict(digest)
        if found is None:
            try:
                found = judge(spec, store, digest)
                store.ledgers(spec.name).of(VERDICTS).create(digest, found)
            except RecordExists:
                found = history.verdict(digest)
                assert found is not None
        else:
            context.log.info(f"{digest} was judged before; its verdict stands.")
        notes = {"passed": found.passed, "cpu_s": round(process.cpu_s() - started_s, 3)}
        inputs = {"bundle": digest}
        known = tables.records(STAGE, [cutoff]).get(cutoff)
        if known is None or not is_made_from(tables, known, inputs, code):
            tables.record(STAGE, cutoff, content_digest=digest, inputs=inputs, code=code, notes=notes)
        context.log.info(" ".join(found.reasons))
        return _result(spec, found, notes)

    return [evaluation]


def judge(spec: ProductSpec, store: StoreResource, digest: str) -> Verdict:
    """Return the verdict on a bundle: its holdout scored by itself, its baselines and the live champion."""
    bundle = store.artifacts.bundle(digest)
    champion, unlike = _champion(spec, store, digest)
    if champion:
        _check_unseen(store, champion, bundle)
    judged = Evaluating.of(spec).judge(store.artifacts, store.tables(spec.name), digest, champion)
    document = {
        "product": spec.name,
        "digest": digest,
        "cutoff": bundle.manifest["cutoff"],
        "champion_digest": champion,
        **judged,
        "notes": [*judged["notes"], *unlike],
    }
    return VERDICTS.read(document, f"the verdict on {digest}")


def _champion(spec: ProductSpec, store: StoreResource, digest: str) -> tuple[str | None, list[str]]:
    """Return the live model as a rival, or None; and why a live model is none, as sentences.

    A model that answers another kind of question, or in a format of older code, cannot be compared: were it a rival,
    nothing could ever follow it.
    """
    latest = store.history(spec.name).live()
    live = latest[1].digest if latest else None
    if live is None or live == digest:
        return None, []
    contract = json.loads(store.artifacts.bundle(live).read("contract.json"))
    task = contract.get("task")
    if contract.get("format") in COMPARABLE and isinstance(task, dict) and spec.task.is_like(task):
        return live, []
    return None, [f"The live model {live} answers another kind of question ({task!r}); it was no rival."]


def _check_unseen(store: StoreResource, champion: str, challenger: Bundle) -> None:
    """Refuse to compare with a champion that was trained on rows of this holdout: its numbers would flatter it."""
    seen = set(store.artifacts.bundle(champion).manifest["training_keys"]) & set(challenger.manifest["holdout_keys"])
    if seen:
        raise dg.Failure(
            f"the live model {champion} was trained on {len(seen)} keys of this holdout ({min(seen)} to {max(seen)}), "
            f"so cutoff {challenger.manifest['cutoff']} cannot be judged against it. Choose a later cutoff."
        )


def _result(spec: ProductSpec, found: Verdict, notes: dict[str, Any]) -> dg.MaterializeResult:
    gates, task = found.gates, spec.task
    chart = plots.difference_chart(found.comparisons, task, gates.max_drop, confidence=gates.confidence)
    errors = {name: found.models[name]["ece"] for name in found.calibration}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(found.digest),
        metadata={
            "passed": found.passed,
            "digest": found.digest,
            "champion_digest": found.champion_digest or "none",
            "reasons": dg.MetadataValue.md("\n".join(f"- {line}" for line in [*found.reasons, *found.notes])),
            "quality": values.table([{"model": name, **numbers} for name, numbers in found.models.items()]),
            "differences": values.image(chart, "Challenger minus the others, with intervals"),
            "calibration": values.image(plots.calibration_plot(found.calibration, task, errors), "Calibration"),
            **_slices(spec, found),
            **performance_metadata.decided(task, found.decided),
            **{each.name: found.challenger[each.name] for each in task.measures[:2]},
            "cpu_s": notes["cpu_s"],
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=CHECK,
                passed=found.passed,
                severity=dg.AssetCheckSeverity.WARN,
                description=" ".join(found.reasons),
                metadata={"digest": found.digest, "cutoff": found.cutoff},
            )
        ],
    )


def _slices(spec: ProductSpec, found: Verdict) -> dict[str, Any]:
    """Return the slice table and its chart, as far as the product has slices and they have the headline."""
    headline, rows = spec.task.headline, found.slices["challenger"]
    shown: dict[str, Any] = {"slices": values.table(rows)} if rows else {}
    if any(row[headline.name] is not None for row in rows):
        chart = plots.slice_chart(found.slices, headline, overall=found.challenger[headline.name])
        shown["slice_chart"] = values.image(chart, f"{headline.words} by slice")
    return shown
