"""Decide for one product at one key: retrain, wait or alert, each with its numbers.

`decide` is pure; the facts are gathered by `monitoring.decision`, and decisions are carried out by
`platform_assets.sensors.retrain`.

The order: a fault first, because nothing can be concluded from broken data; then whether there is a model at all; then
whether this is the moment (newest key, no training under way, decision key, cooldown); then the reasons to train,
starting with the calendar, because a model's age costs the most; then whether the labels are there, and last whether
there is money.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from platform_assets.engine.balance import NOTHING, Balance
from platform_assets.monitoring.ages import too_old
from platform_assets.monitoring.performance_policy import describe
from platform_assets.store.records.decisions import Action, DecidedFault, Numbers, Performance, Skew

if TYPE_CHECKING:
    from platform_assets.product.monitoring import Retraining

RETRAIN: Action = "retrain"
WAIT: Action = "wait"
ALERT_FAULT: Action = "alert_fault"


@dataclass(frozen=True, kw_only=True)
class Health:
    """The key's judgement (`drift`).

    Attributes:
        verdict: `fine`, `drift` or `alert_fault`.
        fault: the newest fault record's source, check, observed and expected value, and episode.
        index: mean PSI of the newest window of keys; None if there is nothing to compare with.
        percentile: of that index among contiguous windows of the training keys, 0 to 1.
        answers_percentile: the same for the mix of served answers.
    """

    verdict: str
    fault: DecidedFault | None = None
    index: float | None = None
    percentile: float | None = None
    answers_percentile: float | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The inputs of a decision. Indexes count keys from the grain's first.

    Attributes:
        key: the key the decision is for.
        index: of the key.
        cutoff: of a model trained now: the next key; None at the end of the grain.
        superseded_at: when the next key is over and this one is no longer the newest; None for grains whose keys have
            no period.
        has_newer: whether a later key was closed already.
        anchor: index of a decision key.
        last_judged: index of the newest earlier key that was free to decide (no fault, not superseded).
        live_cutoff: index of the live model's cutoff; None when nothing is released.
        live_digest: of the live model.
        last_trained: index of the newest cutoff that was trained and judged, released or not.
        pending_cutoff: a cutoff that was decided and has no verdict yet.
        usable_keys: number of labelled keys a model of this cutoff could use.
        min_keys: how many the product requires.
        unlabelled: keys of the training window whose labels have not landed and are still awaited.
        given_up: keys of the training window whose labels are no longer awaited.
        given_up_now: those given up at this key.
        lacks_newest: whether the newest key of the training window has no labels.
        waited_keys: for how many keys a training has been waiting for labels.
        label_delay: how many keys later labels are known.
        fresh_keys: usable keys whose labels the last training cannot have seen; None before the first training.
        held: keys of the training window that are held.
        performance: of the live model; None without labelled answers.
        skew: comparison of the key's served features with ours (`skew.judge`); None if unknown.
        request: number of an open request for a decision, by a person or a sensor.
        balance: of the month's budget before another training.
    """

    key: str
    index: int
    cutoff: str | None
    superseded_at: datetime | None
    has_newer: bool
    anchor: int
    last_judged: int | None
    live_cutoff: int | None
    last_trained: int | None
    pending_cutoff: str | None
    live_digest: str | None = None
    usable_keys: int
    min_keys: int
    unlabelled: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    given_up_now: tuple[str, ...] = ()
    lacks_newest: bool = False
    waited_keys: int = 0
    label_delay: int = 0
    fresh_keys: int | None = None
    held: tuple[str, ...] = ()
    health: Health
    performance: Performance | None = None
    skew: Skew | None = None
    request: int | None = None
    balance: Balance = NOTHING


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The action, its reasons, and the numbers that led to it.

    Attributes:
        action: what is to be done.
        reasons: sentences, most telling first.
        numbers: everything that was considered, also for "wait".
        is_free: whether the key was free to decide. False for faults, superseded keys, and while labels are awaited:
            the next key decides in its place.
    """

    action: Action
    reasons: tuple[str, ...]
    numbers: Numbers
    is_free: bool


def decide(facts: Facts, policy: Retraining, clock: datetime) -> Decision:
    """Decide for a key.

    Args:
        facts: known at the key.
        policy: the product's.
        clock: the product's current moment, aware.
    """
    is_newest = not facts.has_newer and (facts.superseded_at is None or clock < facts.superseded_at)
    overdue = overdue_keys(facts, policy) if is_newest else None
    numbers = _numbers(facts, policy, is_newest=is_newest, overdue_keys=overdue)

    def decided(action: Action, *reasons: str, is_free: bool = True, awaits_labels: bool = False) -> Decision:
        return Decision(
            action=action, reasons=reasons, numbers=replace(numbers, awaits_labels=awaits_labels), is_free=is_free
        )

    if facts.health.verdict == ALERT_FAULT:
        fault = facts.health.fault or DecidedFault(episode=facts.key)
        return decided(
            ALERT_FAULT,
            f"{fault.source or 'a source'} of {facts.key} is faulty ({fault.check or 'unknown check'}): "
            f"{fault.came or 'unknown'}; expected {fault.expected or 'unknown'}.",
            is_free=False,
        )
    if not is_newest:
        return decided(WAIT, f"{facts.key} is not the newest key: a later one decides.", is_free=False)
    if facts.cutoff is None:
        return decided(WAIT, f"{facts.key} is the last key, so there is no cutoff after it.")
    if facts.pending_cutoff is not None:
        return decided(WAIT, f"the training of cutoff {facts.pending_cutoff} was decided and is not judged yet.")
    if facts.usable_keys < facts.min_keys:
        return decided(
            WAIT, f"{facts.usable_keys} labelled keys are usable, {len(facts.held)} are held; {facts.min_keys} needed."
        )
    age_keys = age(facts)
    if age_keys is not None and facts.live_cutoff is not None:
        if not is_decision_key(facts, policy) and facts.request is None:
            return decided(WAIT, f"{facts.key} is not a decision key (one key in {policy.decide_every} is).")
        if age_keys < policy.cooldown:
            return decided(WAIT, f"the last training is {age_keys} keys old; cooldown is {policy.cooldown}.")
    reasons = _reasons(facts, policy)
    if not reasons:
        return decided(WAIT, _all_well(facts, policy))
    if facts.fresh_keys == 0:
        return decided(
            WAIT, "no usable labels have landed since the last training: deliver them.", *reasons, is_free=False
        )
    if facts.unlabelled:
        awaited = (
            f"labels of {len(facts.unlabelled)} keys have not landed, the first is {facts.unlabelled[0]}: deliver "
            "them, or drop the key."
        )
        return decided(WAIT, awaited, *reasons, is_free=False, awaits_labels=True)
    # Before the launch, because a limit that is checked afterwards limits nothing.
    if facts.balance.over is not None:
        return decided(WAIT, facts.balance.over, *reasons)
    return decided(RETRAIN, *reasons)


def age(facts: Facts) -> int | None:
    """Return how many keys ago the newest training saw its last key; None before the first training."""
    return None if facts.last_trained is None else facts.index + 1 - facts.last_trained


def overdue_keys(facts: Facts, policy: Retraining) -> int | None:
    """Return by how many keys the newest training exceeds `max_age` plus one decision interval; None if it does not.

    Before the first training, age counts from the first key at which one was possible. At the grain's last key nothing
    is overdue, because there is no cutoff after it.
    """
    age_keys = age(facts)
    if age_keys is None:
        age_keys = facts.index + 1 - facts.min_keys - facts.label_delay
    excess = age_keys - policy.max_age - policy.decide_every
    return excess if excess > 0 and facts.cutoff is not None else None


def is_decision_key(facts: Facts, policy: Retraining) -> bool:
    """Whether a decision key lies after the last key that was free to decide, up to this one.

    So a decision that fell on a faulty key is made at the next sound one.
    """
    turn = (facts.index - facts.anchor) // policy.decide_every
    if facts.last_judged is None:
        return (facts.index - facts.anchor) % policy.decide_every == 0
    return turn > (facts.last_judged - facts.anchor) // policy.decide_every


def _reasons(facts: Facts, policy: Retraining) -> list[str]:
    age_keys = age(facts)
    if facts.live_cutoff is None:
        if age_keys is not None and age_keys < policy.cooldown:
            return []
        return [f"no model is live and {facts.usable_keys} labelled keys are available."]
    assert age_keys is not None  # a live model was trained
    sentences = []
    if age_keys >= policy.max_age:
        sentences.append(too_old(age_keys, policy.max_age))
    performance = facts.performance
    if performance is not None and performance.failing:
        sentences.append(f"over {performance.keys} keys {describe(performance.tests or {}, policy)}.")
    # Not by default: in row Q2 drift lost to an even calendar of as many trainings.
    if policy.is_drift_enough and facts.health.verdict == "drift":
        percentiles = {"features": facts.health.percentile, "answers": facts.health.answers_percentile}
        parts = [f"{name} at percentile {value:.3f}" for name, value in percentiles.items() if value is not None]
        sentences.append(f"drift: {' and '.join(parts)} of the training windows.")
    return sentences


def _all_well(facts: Facts, policy: Retraining) -> str:
    parts = [f"the last training is {age(facts)} keys old (the limit is {policy.max_age})"]
    if facts.performance is not None:
        parts.append(f"log loss minus the model's own expectation is {facts.performance.excess:+.4f}")
        if tested := describe(facts.performance.tests or {}, policy):
            parts.append(tested)
    if facts.health.percentile is not None:
        parts.append(f"drift is at percentile {facts.health.percentile:.2f}")
    return f"{', '.join(parts)}: no reason to train."


def _numbers(facts: Facts, policy: Retraining, *, is_newest: bool, overdue_keys: int | None) -> Numbers:
    # What the facts have under the same name; a number that neither gives is an error.
    shared = {name: getattr(facts, name) for name in Numbers.__struct_fields__ if hasattr(facts, name)}
    return Numbers(
        **shared,
        is_decision_key=is_decision_key(facts, policy),
        decide_every=policy.decide_every,
        model_age_keys=None if facts.live_cutoff is None else facts.index + 1 - facts.live_cutoff,
        training_age_keys=age(facts),
        max_age_keys=policy.max_age,
        cooldown_keys=policy.cooldown,
        min_excess_loss=policy.min_excess_loss,
        confidence=policy.confidence,
        verdict=facts.health.verdict,
        drift_index=facts.health.index,
        drift_percentile=facts.health.percentile,
        answers_percentile=facts.health.answers_percentile,
        is_drift_enough=policy.is_drift_enough,
        budget_usd=policy.monthly_budget_usd,
        is_newest=is_newest,
        overdue_keys=overdue_keys,
        awaits_labels=False,
    )
