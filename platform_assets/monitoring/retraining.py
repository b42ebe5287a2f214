"""Decide which trainings recorded decisions ask for, and say what became of one; the sensor `retrain` launches them."""

from collections.abc import Sequence

import msgspec

from platform_assets.base.keys import Grain
from platform_assets.evaluation import releases
from platform_assets.monitoring import policy
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import Decision


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A cutoff to train for, and the key of its decision."""

    key: str
    cutoff: str


def plan(grain: Grain, decisions: Sequence[Decision], *, live_cutoff: str | None) -> tuple[Training, ...]:
    """Return the trainings that decisions ask for, oldest first.

    A training whose cutoff is not after the live model's is out of date: a sensor that lost its cursor reads it again.

    Args:
        decisions: in key order.
        live_cutoff: of the live release; None when there is none.
    """
    live = -1 if live_cutoff is None else grain.index(live_cutoff)
    return tuple(
        Training(key=decision.key, cutoff=decision.cutoff)
        for decision in decisions
        if decision.action == policy.RETRAIN and decision.cutoff is not None and grain.index(decision.cutoff) > live
    )


def describe_result(product: ProductStore, cutoff: str) -> str:
    """Return the result of a training that succeeded, from the records: released, or the champion kept and why."""
    history = product.history
    for number, record in history.newest_releases(3):  # a person may have released or rolled back since
        if record.cutoff == cutoff and record.outcome == releases.RELEASED:
            return f"released as number {number}"
    sealed = product.tables.records("onnx", [cutoff]).get(cutoff)
    verdict = history.verdict(sealed.content_digest) if sealed else None
    if verdict is None:
        return "trained; no verdict is on record"
    refusal = history.refusal()
    if refusal is not None and refusal.digest == verdict.digest:
        return f"champion kept: {refusal.reason}"
    return "was already live" if verdict.passed else f"champion kept: {' '.join(verdict.reasons)}"
