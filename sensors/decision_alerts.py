"""Find what a person must be told in recorded decisions: decay, drift, skew, labels given up, a stale model, slowness.

Belongs here: when an episode begins and ends, and the words. Does not belong here: faults and suspicions, which name
their own episode (`retrain`), or sending.

An episode is a run of decided keys with the condition, for decay and drift under one live model. Its alert is named
after its first key. A key of which the condition is not known (no answers yet, a later key decides, a record of older
code) neither begins nor ends one.
Decisions are folded in key order from the first one on, so whoever lost the cursor finds the same episodes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import UnsetType
from msgspec.structs import replace

from platform_assets.compute import latency, policy
from platform_assets.records.decisions import Decision, Numbers
from resources.alerts import episode_id
from sensors import ticks

DECAY, DRIFT, SKEW, UNLABELLED, STALE_MODEL = "decay", "drift", "skew", "unlabelled", "stale_model"
SLOW = "slow_answers"
_OF_A_MODEL = (DECAY, DRIFT)
MOST_NAMED = 5
"""How many keys a text names."""


class Episode(ticks.State, frozen=True, kw_only=True):
    """An episode that goes on: its first key, the live model then, and whether it was told."""

    first: str
    model: str | None
    is_told: bool = False


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What a person is told, once per episode.

    Attributes:
        alert_id: names the kind and the episode's first key.
        kind: one of the six above, or `fault` and `suspect` (`retrain`).
        text: what, the numbers, what to do next.
        decision: the record that it is about.
    """

    alert_id: str
    kind: str
    text: str
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Told:
    """What decisions led to.

    Attributes:
        alerts: in key order.
        running: by kind, the episode that goes on after the last decision.
    """

    alerts: tuple[Alert, ...]
    running: dict[str, Episode]


def plan(product: str, decisions: Sequence[Decision], running: Mapping[str, Episode]) -> Told:
    """Say what decisions tell.

    Args:
        product: whose.
        decisions: in key order, from the one after those that led to `running`.
        running: of the plan before; empty when the decisions begin with the product's first.
    """
    alerts: list[Alert] = []
    episodes = dict(running)
    for decision in decisions:
        model = decision.numbers.live_digest or None
        for kind, (holds, words) in _KINDS.items():
            is_so, episode = holds(decision), episodes.pop(kind, None)
            if episode is not None and (is_so is False or (kind in _OF_A_MODEL and episode.model != model)):
                episode = None
            if is_so:
                episode = episode or Episode(first=decision.key, model=model)
                # A stale model that is being trained needs nobody.
                if not episode.is_told and not (kind == STALE_MODEL and decision.action == policy.RETRAIN):
                    episode = replace(episode, is_told=True)
                    text = f"{product} at {decision.key}: {words(product, decision)}"
                    alert_id = episode_id(kind, episode.first)
                    alerts.append(Alert(alert_id=alert_id, kind=kind, text=text, decision=decision))
            if episode is not None:
                episodes[kind] = episode
    return Told(alerts=tuple(alerts), running=episodes)


def _is_decaying(decision: Decision) -> bool | None:
    seen = decision.numbers.performance
    return None if seen is None or isinstance(seen.failing, UnsetType) else bool(seen.failing)


def _percentiles(numbers: Numbers) -> dict[str, float]:
    """Return those that are known."""
    found = {"features": numbers.drift_percentile, "answers": numbers.answers_percentile}
    return {name: value for name, value in found.items() if value is not None and not isinstance(value, UnsetType)}


def _is_drifting(decision: Decision) -> bool | None:
    if not _percentiles(decision.numbers):
        return None
    verdict = decision.numbers.verdict
    return None if verdict not in ("fine", "drift") else verdict == "drift"


def _is_skewed(decision: Decision) -> bool | None:
    skew = decision.numbers.skew
    return None if not skew or skew.share is None else skew.is_skewed


def _gives_up_labels(decision: Decision) -> bool | None:
    """Tell whether labels were given up; not known to be over while the newest labels are missing too."""
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
    seen = decision.numbers.performance
    assert seen is not None and seen.failing  # it is decaying
    loss = f"log loss over {seen.keys} labelled keys is {seen.log_loss:.4f}, and {seen.expected:.4f} expected"
    return (
        f"the live model fails {', '.join(seen.failing)}; {loss}. {_then(decision)} Look at the asset performance "
        f"and `driftline report {product}`; `driftline rollback {product}` releases the model before."
    )


def _drift(product: str, decision: Decision) -> str:
    told = " and ".join(f"{name} at percentile {value:.3f}" for name, value in _percentiles(decision.numbers).items())
    return (
        f"the newest keys have drifted from the live model's training rows, {told} of its windows. {_then(decision)} "
        f"The asset drift names the fields, the farthest first, and `driftline report {product}` draws them. "
        f"If the world has changed for good, launch retrain__{product} for cutoff {decision.cutoff}."
    )


def _skew(product: str, decision: Decision) -> str:
    skew = decision.numbers.skew
    assert skew and skew.share is not None  # it is skewed
    return (
        f"{skew.share:.2%} of {skew.rows:,} entities were served with the features that the platform has; "
        f"{skew.limit:.2%} is the least. The check served_features_equal of the asset performance names the fields "
        f"that differ: correct the callers of {product} that send them."
    )


def _unlabelled(product: str, decision: Decision) -> str:
    keys = decision.numbers.given_up_now or ()
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return (
        f"the labels of {', '.join(keys[:MOST_NAMED])}{more} have not come, and from cutoff {decision.cutoff} on "
        "models are trained and judged without. Deliver the files: later cutoffs see them. A file that is not taken in "
        f"by itself is by repair__{product} with its key."
    )


def _stale_model(product: str, decision: Decision) -> str:
    numbers = decision.numbers
    trained, live = numbers.training_age_keys, numbers.model_age_keys
    ages = "no model was ever trained" if trained is None else f"the newest training is {trained} keys old"
    serving = "" if live is None or live == trained else f", the live model {live}"
    return (
        f"{ages}{serving}, {numbers.overdue_keys} keys beyond max_age {numbers.max_age_keys} and one more "
        f"decision. {_then(decision)} See `driftline status`. Once that is settled a decision trains by itself; to "
        f"train at once, launch retrain__{product} for cutoff {decision.cutoff}, beyond the budget with a reason."
    )


def _slow(product: str, decision: Decision) -> str:
    found = decision.measured.latency
    assert found and found.p_value is not None  # it is slow
    return (
        f"{latency.words(found)} (p {found.p_value:.1g}). Look at the metrics of the services of {product}: what "
        "answers, how busy they are, and which requests are long. The objective is Service.latency_ms in its file."
    )


def _then(decision: Decision) -> str:
    if decision.action == policy.RETRAIN:
        return f"A training for cutoff {decision.cutoff} was decided."
    return f"It is not trained again now: {' '.join(decision.reasons)}"


_KINDS: Mapping[str, tuple[Callable[[Decision], bool | None], Callable[[str, Decision], str]]] = {
    DECAY: (_is_decaying, _decay),
    DRIFT: (_is_drifting, _drift),
    SKEW: (_is_skewed, _skew),
    UNLABELLED: (_gives_up_labels, _unlabelled),
    STALE_MODEL: (_is_stale, _stale_model),
    SLOW: (_is_slow, _slow),
}
"""By kind, whether its condition holds at a decision (None where that is not known), and the words."""
