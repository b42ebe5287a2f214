"""Find alerts in recorded decisions: decay, drift, skew, labels given up, a stale model, slow answers.

An episode is a run of consecutive decided keys for which a condition holds; for decay and drift, under one live model.
Its alert is named after its first key. A key for which the condition is unknown (no answers yet, a later key decides)
neither begins nor ends an episode.
Decisions are folded in key order from the first one on, so a sensor that lost its cursor finds the same episodes.
Faults name their own episode; `retrain` raises those.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import ticks
from platform_assets.monitoring import ages, latency, policy
from platform_assets.store.records.decisions import Decision, Numbers

DECAY, DRIFT, SKEW, UNLABELLED, STALE_MODEL = "decay", "drift", "skew", "unlabelled", "stale_model"
SLOW = "slow_answers"
_OF_A_MODEL = (DECAY, DRIFT)
MOST_NAMED = 5
"""How many keys an alert names."""


class Episode(ticks.State, frozen=True, kw_only=True):
    """An episode that goes on: its first key, the live model at that key, and whether an alert was raised."""

    first: str
    model: str | None
    is_alerted: bool = False


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert to raise, once per episode.

    Attributes:
        alert_id: names the kind and the episode's first key.
        kind: one of the six above, or `fault` (`retrain`).
        text: what happened, the numbers, what to do next.
        decision: the record that it is about.
    """

    alert_id: str
    kind: str
    text: str
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of folding decisions.

    Attributes:
        alerts: in key order.
        running: by kind, the episode that goes on after the last decision.
    """

    alerts: tuple[Alert, ...]
    running: dict[str, Episode]


def plan(product: str, decisions: Sequence[Decision], running: Mapping[str, Episode]) -> Outcome:
    """Return the alerts that decisions call for, and the episodes that go on.

    Args:
        decisions: in key order, from the one after those that led to `running`.
        running: of the previous outcome; empty when the decisions begin with the product's first.
    """
    alerts: list[Alert] = []
    episodes = dict(running)
    for decision in decisions:
        model = decision.numbers.live_digest or None
        for kind, (condition, text_of) in _KINDS.items():
            holds, episode = condition(decision), episodes.pop(kind, None)
            if episode is not None and (holds is False or (kind in _OF_A_MODEL and episode.model != model)):
                episode = None
            if holds:
                episode = episode or Episode(first=decision.key, model=model)
                # No alert about a stale model whose training was just decided.
                if not episode.is_alerted and not (kind == STALE_MODEL and decision.action == policy.RETRAIN):
                    episode = replace(episode, is_alerted=True)
                    text = f"{product} at {decision.key}: {text_of(product, decision)}"
                    alert_id = episode_id(kind, episode.first)
                    alerts.append(Alert(alert_id=alert_id, kind=kind, text=text, decision=decision))
            if episode is not None:
                episodes[kind] = episode
    return Outcome(alerts=tuple(alerts), running=episodes)


def _is_decaying(decision: Decision) -> bool | None:
    performance = decision.numbers.performance
    return None if performance is None else bool(performance.failing)


def _percentiles(numbers: Numbers) -> dict[str, float]:
    """Return the percentiles on record, by name."""
    values = {"features": numbers.drift_percentile, "answers": numbers.answers_percentile}
    return {name: value for name, value in values.items() if value is not None}


def _is_drifting(decision: Decision) -> bool | None:
    if not _percentiles(decision.numbers):
        return None
    verdict = decision.numbers.verdict
    return None if verdict not in ("fine", "drift") else verdict == "drift"


def _is_skewed(decision: Decision) -> bool | None:
    skew = decision.numbers.skew
    return None if not skew or skew.share is None else skew.is_skewed


def _gives_up_labels(decision: Decision) -> bool | None:
    """Return whether labels were given up; unknown, not over, while the newest labels are missing too."""
    numbers = decision.numbers
    if not numbers.is_newest:
        return None
    return True if numbers.given_up_now else (None if numbers.lacks_newest else False)


def _is_stale(decision: Decision) -> bool | None:
    numbers = decision.numbers
    return bool(numbers.overdue_keys) if numbers.is_newest else None


def _is_slow(decision: Decision) -> bool | None:
    fast = decision.measured.latency
    return fast.is_slow if fast else None


def _decay(product: str, decision: Decision) -> str:
    performance = decision.numbers.performance
    assert performance is not None and performance.failing  # it is decaying
    return (
        f"the live model fails {', '.join(performance.failing)}; its log loss over {performance.keys} labelled keys is "
        f"{performance.log_loss:.4f}, expected {performance.expected:.4f}. {_then(decision)} See the asset performance "
        f"and `driftline report {product}`; `driftline rollback {product}` rolls back to the previous model."
    )


def _drift(product: str, decision: Decision) -> str:
    percentiles = _percentiles(decision.numbers)
    distances = " and ".join(f"{name} at percentile {value:.3f}" for name, value in percentiles.items())
    return (
        f"the newest keys have drifted from the live model's training rows: {distances} of its training windows. "
        f"{_then(decision)} The asset drift lists the fields, largest drift first, and `driftline report {product}` "
        f"plots them. If the change is permanent, launch retrain__{product} for cutoff {decision.cutoff}."
    )


def _skew(product: str, decision: Decision) -> str:
    skew = decision.numbers.skew
    assert skew and skew.share is not None  # it is skewed
    return (
        f"only {skew.share:.2%} of {skew.rows:,} entities were served with the features that the platform computed; at "
        f"least {skew.limit:.2%} is expected. The check served_features_equal of the asset performance names the "
        f"fields that differ: correct the callers of {product} that send them."
    )


def _unlabelled(product: str, decision: Decision) -> str:
    keys = decision.numbers.given_up_now
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return (
        f"the labels of {', '.join(keys[:MOST_NAMED])}{more} have not arrived; from cutoff {decision.cutoff} on, "
        "models are trained and evaluated without them. Deliver the files: later cutoffs use them. A file that is not "
        f"taken in automatically needs repair__{product} with its key."
    )


def _stale_model(product: str, decision: Decision) -> str:
    why = ages.other_reasons(decision.numbers, decision.reasons)
    return (
        f"{ages.overdue(decision.numbers)}. {_then(decision, why)} See `driftline status`. Once the "
        "cause is fixed, the next decision trains. To "
        f"train now, launch retrain__{product} for cutoff {decision.cutoff}; beyond the budget it needs a reason."
    )


def _slow(product: str, decision: Decision) -> str:
    measured = decision.measured.latency
    assert measured and measured.p_value is not None  # it is slow
    return (
        f"{latency.describe(measured)} (p {measured.p_value:.1g}). Look at the metrics of the services of {product}: "
        "which processes answer, how busy they are, which requests take long. The objective is Service.latency_ms in "
        "its file."
    )


def _then(decision: Decision, reasons: Sequence[str] | None = None) -> str:
    if decision.action == policy.RETRAIN:
        return f"A training for cutoff {decision.cutoff} was decided."
    return f"No training was decided: {' '.join(decision.reasons if reasons is None else reasons)}"


_KINDS: Mapping[str, tuple[Callable[[Decision], bool | None], Callable[[str, Decision], str]]] = {
    DECAY: (_is_decaying, _decay),
    DRIFT: (_is_drifting, _drift),
    SKEW: (_is_skewed, _skew),
    UNLABELLED: (_gives_up_labels, _unlabelled),
    STALE_MODEL: (_is_stale, _stale_model),
    SLOW: (_is_slow, _slow),
}
"""By kind: whether its condition holds at a decision (None where unknown), and the text of its alert."""
