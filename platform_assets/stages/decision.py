"""Decide what follows from a key: train again, wait, or call a person; one create-only record a key.

The decision is made from records alone, by `compute.policy.decide`, with every number that was looked at, also when
the answer is "wait". A decision is never made twice: materialising a key again returns the recorded one. Sensors carry
it out.
"""

# Annotations are not postponed in stages: Dagster compares that of `context` as an object.

from datetime import datetime
from typing import Any

import dagster as dg
from msgspec import UnsetType

from platform_assets import digests, naming
from platform_assets.compute import policy
from platform_assets.engine import fields, ranges
from platform_assets.facts import latency, standing
from platform_assets.history.reader import History
from platform_assets.makers.reading import require
from platform_assets.problems import RecordExists
from platform_assets.records.decisions import DECISIONS, Decision, Measured
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.tables import PartitionRecord, TableStore
from resources.store import StoreResource

STAGE = "decision"
NEWEST_SHOWN = 14


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's decisions."""
    code = digests.of_modules("platform_assets.compute.policy")
    shared = fields.asset_args(
        spec,
        STAGE,
        system=naming.MONITORING,
        kinds=("python",),
        doc=__doc__,
        code=code,
        deps=[fields.dep(spec, "drift"), fields.dep(spec, "performance")],
    )

    @dg.asset(**shared, **fields.keyed(spec))
    def decision(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult[Any]:
        tables, history = store.tables(spec.name), store.history(spec.name)
        keys = ranges.keys_of(context)
        judged = require(tables, "drift", keys)
        known = tables.records(STAGE, keys)
        made, stands = {}, standing.Standing(spec, tables, history, keys)
        for key in keys:
            made[key] = _decided(spec, store, history, stands, key, judged[key])
            if key not in known:
                _record(tables, key, made[key], code)
            context.add_asset_metadata(_told(made[key]), asset_key=shared["key"], partition_key=key)
        newest = made[keys[-1]]
        context.log.info(f"{keys[-1]}: {newest.action}. {' '.join(newest.reasons)}")
        return dg.MaterializeResult(
            asset_key=shared["key"],
            metadata={
                "newest_key": keys[-1],
                "newest_action": newest.action,
                "decisions": values.table(
                    [
                        {"key": key, "action": made[key].action, "why": " ".join(made[key].reasons)}
                        for key in reversed(keys[-NEWEST_SHOWN:])
                    ]
                ),
            },
        )

    return [decision]


def _decided(
    spec: ProductSpec,
    store: StoreResource,
    history: History,
    stands: standing.Standing,
    key: str,
    judged: PartitionRecord,
) -> Decision:
    """Return the recorded decision of a key, or make and record it."""
    found = history.decision(key)
    if found is not None:
        return found
    now = store.now(spec.name, is_live=spec.is_live)
    facts, made = _made(spec, stands, key, judged, now)
    record = Decision(
        product=spec.name,
        key=key,
        action=made.action,
        cutoff=facts.cutoff,
        reasons=made.reasons,
        numbers=made.numbers,
        is_free=made.is_free,
        fault=facts.health.fault,
        request=facts.request if made.is_free else None,
        at_utc=now.isoformat(),
        measured=Measured(
            spent_usd=round(facts.spent_usd, 6),
            next_usd=round(facts.following.usd, 6),
            latency=latency.up_to(spec, store.tables(spec.name), key),
        ),
    )
    try:
        store.ledgers(spec.name).of(DECISIONS).create(key, record)
    except RecordExists:
        found = history.decision(key)
        assert found is not None  # records are never removed
        return found
    return record


def _made(
    spec: ProductSpec, stands: standing.Standing, key: str, judged: PartitionRecord, now: datetime
) -> tuple[policy.Facts, policy.Decision]:
    """Decide, after recording which labels are no longer waited for.

    Those are labels that are late by `label_patience` keys, and all that a training has waited for as long: where some
    label is always late, no training would begin otherwise.
    """
    patience = spec.label_patience
    stands.give_up(key, stands.overdue(key), f"its labels were due {patience} keys ago or earlier.", now=now)
    facts = stands.at(key, judged, now=now)
    made = policy.decide(facts, spec.retraining, now)
    if made.numbers.awaits_labels and facts.waited_keys >= patience:
        why = f"a training has waited for labels for {facts.waited_keys} keys."
        stands.give_up(key, facts.unlabelled, why, now=now)
        facts = stands.at(key, judged, now=now)
        made = policy.decide(facts, spec.retraining, now)
    return facts, made


def _record(tables: TableStore, key: str, decided: Decision, code: str) -> None:
    """Note the decision among the partition records: what is fresh is read from them."""
    digest = sha256(canonical(decided.document()))
    tables.record(STAGE, key, content_digest=digest, inputs={}, code=code, notes={"action": decided.action})


def _told(decided: Decision) -> dict[str, Any]:
    numbers = decided.numbers
    seen, skew, fast = numbers.performance, numbers.skew or None, decided.measured.latency or None
    plotted = {
        "model_age_keys": numbers.model_age_keys,
        "training_age_keys": numbers.training_age_keys,
        "drift_percentile": numbers.drift_percentile,
        "answers_percentile": None if isinstance(numbers.answers_percentile, UnsetType) else numbers.answers_percentile,
        "excess_log_loss": None if seen is None else seen.excess,
        "excess_p_value": None if seen is None else seen.p_value,
        "served_equal_share": None if skew is None else skew.share,
        "held_keys": len(numbers.held),
        "given_up_keys": len(numbers.given_up or ()),
        "slow_requests_share": None if fast is None else fast.share,
    }
    failing = () if seen is None else seen.failing or ()
    return {
        "action": decided.action,
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decided.reasons)),
        "cutoff": decided.cutoff or "none",
        "failing_tests": ", ".join(failing) or "none",
        **{name: value for name, value in plotted.items() if value is not None},
    }
