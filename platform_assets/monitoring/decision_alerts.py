"""Find alerts in recorded decisions: faults, decay, drift, skew, labels given up, a stale model, slow answers.

An episode is a run of consecutive decided keys for which a condition holds; for decay and drift, under one live model.
Its alert is named after its first key. A key for which the condition is unknown (no answers yet, a later key decides)
neither begins nor ends an episode.
Decisions are folded in key order from the first one on, so a sensor that lost its cursor finds the same episodes.
Faults name their own episode, which `held_keys` ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from platform_assets.monitoring import ages, latency, policy
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.store.records.decisions import DecidedFault, Decision

MOST_NAMED = 5
"""How many keys an alert names."""
Text = str | Literal[False] | None
"""The text of an alert where its condition holds at a decision; False where it does not, None where that is unknown."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that goes on: its first key, the live model at that key, and whether an alert was raised."""

    first: str
    model: str | None
    is_alerted: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of folding decisions.

    Attributes:
        alerts: in key order.
        ended: ids of alerts whose episode is over.
        running: by kind, the episode that goes on after the last decision.
    """

    alerts: tuple[Alert, ...]
    ended: tuple[str, ...]
    running: dict[str, Episode]


def plan(product: str, decisions: Sequence[Decision], running: Mapping[str, Episode]) -> Outcome:
    """Return the alerts that decisions call for, and the episodes that go on.

    Args:
        decisions: in key order, from the one after those that led to `running`.
        running: of the previous outcome; empty when the decisions begin with the product's first.
    """
    alerts: list[Alert] = []
    ended: list[str] = []
    episodes = dict(running)
    for decision in decisions:
        if decision.action == policy.ALERT_FAULT:
            alerts.append(of_fault(decision))
        model = decision.numbers.live_digest or None
        for kind, text_of in _TEXTS.items():
            name, text, episode = kind.recorded, text_of(product, decision), episodes.pop(kind.recorded, None)
            is_other_model = kind in (Kind.DECAY, Kind.DRIFT) and episode is not None and episode.model != model
            if episode is not None and (text is False or is_other_model):
                ended += [episode_id(name, episode.first)] if episode.is_alerted else []
                episode = None
            if text:
                episode = episode or Episode(first=decision.key, model=model)
                # No alert about a stale model whose training was just decided.
                if not episode.is_alerted and not (kind is Kind.STALE_MODEL and decision.action == policy.RETRAIN):
                    episode = replace(episode, is_alerted=True)
                    alert_id, text = episode_id(name, episode.first), f"{product} at {decision.key}: {text}"
                    alerts.append(Alert(id=alert_id, kind=kind, text=text, details={"decision": decision.document()}))
            if episode is not None:
                episodes[name] = episode
    return Outcome(alerts=tuple(alerts), ended=tuple(ended), running=episodes)


def of_fault(decision: Decision) -> Alert:
    """Return the alert about the fault that a decision names; one id per episode."""
    fault = decision.fault or DecidedFault(episode=decision.key)
    parts = [part for part in (fault.source, fault.check) if part]
    named = fault.present(("source", "check")) if decision.fault else {}
    return Alert(
        id=episode_id("fault", fault.episode, *parts),
        kind=Kind.FAULT,
        text=" ".join(decision.reasons),
        details={**named, "decision": decision.document()},
    )


def _decay(product: str, decision: Decision) -> Text:
    performance = decision.numbers.performance
    if performance is None or not performance.failing:
        return None if performance is None else False
    return (
        f"the live model fails {', '.join(performance.failing)}; its log loss over {performance.keys} labelled keys is "
        f"{performance.log_loss:.4f}, expected {performance.expected:.4f}. {_then(decision)} See the asset performance "
        f"and `driftline report {product}`; `driftline rollback {product}` rolls back to the previous model."
    )


def _drift(product: str, decision: Decision) -> Text:
    numbers = decision.numbers
    percentiles = {"features": numbers.drift_percentile, "answers": numbers.answers_percentile}
    distances = [f"{name} at percentile {value:.3f}" for name, value in percentiles.items() if value is not None]
    if not distances or numbers.verdict != "drift":
        return False if distances and numbers.verdict == "fine" else None
    return (
        f"the newest keys have drifted from the live model's training rows: {' and '.join(distances)} of its training "
        "windows. "
        f"{_then(decision)} The asset drift lists the fields, largest drift first, and `driftline report {product}` "
        f"plots them. If the change is permanent, launch retrain__{product} for cutoff {decision.cutoff}."
    )


def _skew(product: str, decision: Decision) -> Text:
    skew = decision.numbers.skew
    if skew is None or skew.share is None:
        return None
    return skew.is_skewed and (
        f"only {skew.share:.2%} of {skew.rows:,} entities were served with the features that the platform computed; at "
        f"least {skew.limit:.2%} is expected. The check served_features_equal of the asset performance names the "
        f"fields that differ: correct the callers of {product} that send them."
    )


def _unlabelled(product: str, decision: Decision) -> Text:
    numbers, keys = decision.numbers, decision.numbers.given_up_now
    # While the newest labels are missing too, it is unknown, not over.
    if not numbers.is_newest or not keys:
        return False if numbers.is_newest and not numbers.lacks_newest else None
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return (
        f"the labels of {', '.join(keys[:MOST_NAMED])}{more} have not arrived; from cutoff {decision.cutoff} on, "
        "models are trained and evaluated without them. Deliver the files: later cutoffs use them. A file that is not "
        f"taken in automatically needs repair__{product} with its key."
    )


def _stale_model(product: str, decision: Decision) -> Text:
    numbers = decision.numbers
    if not numbers.is_newest or not numbers.overdue_keys:
        return False if numbers.is_newest else None
    reasons = ages.other_reasons(numbers, decision.reasons)
    return (
        f"{ages.overdue(numbers)}. {_then(decision, reasons)} See `driftline status`. Once the "
        "cause is fixed, the next decision trains. To "
        f"train now, launch retrain__{product} for cutoff {decision.cutoff}; beyond the budget it needs a reason."
    )


def _slow(product: str, decision: Decision) -> Text:
    measured = decision.measured.latency
    if measured is None or measured.p_value is None:
        return None
    return measured.is_slow and (
        f"{latency.describe(measured)} (p {measured.p_value:.1g}). Look at the metrics of the services of {product}: "
        "which processes answer, how busy they are, which requests take long. The objective is Service.latency_ms in "
        "its file."
    )


def _then(decision: Decision, reasons: Sequence[str] | None = None) -> str:
    if decision.action == policy.RETRAIN:
        return f"A training for cutoff {decision.cutoff} was decided."
    return f"No training was decided: {' '.join(decision.reasons if reasons is None else reasons)}"


_TEXTS: Mapping[Kind, Callable[[str, Decision], Text]] = {
    Kind.DECAY: _decay,
    Kind.DRIFT: _drift,
    Kind.SKEW: _skew,
    Kind.UNLABELLED: _unlabelled,
    Kind.STALE_MODEL: _stale_model,
    Kind.SLOW_ANSWERS: _slow,
}
"""What a kind's alert says of a decision."""
