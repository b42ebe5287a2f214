"""Gather the facts of a decision from records: how a product stands at a key.

Belongs here: reading ledgers and partition records, a bounded number for a key. Does not belong here: concluding
anything (`compute.policy`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from platform_assets.compute import performance_policy, policy, skew
from platform_assets.facts import budget, unlabelled
from platform_assets.handle import Product
from platform_assets.history.faults import judgement
from platform_assets.history.holds import Hold
from platform_assets.history.performance import measured
from platform_assets.history.reader import History
from platform_assets.makers.performance import Measuring
from platform_assets.records.decisions import DecidedFault, Decision, Skew
from platform_assets.records.faults import Fault
from platform_assets.records.requests import DecisionRequest
from platform_assets.specs import money
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import PartitionRecord

REQUESTS_READ = 20


class DecisionFacts:
    """How a product stands: records that the decisions of one run share, read once."""

    def __init__(self, product: Product, keys: Sequence[str]) -> None:
        """Read what concerns a run's keys, in order."""
        spec, tables, history = product.spec, product.tables, product.history
        self._product, self._spec, self._tables, self._history = product, spec, tables, history
        self._first, self._last = keys[0], keys[-1]
        self._live = history.live()
        self._trained = tuple(spec.grain.index(cutoff) for cutoff in tables.records("evaluation"))
        self._window = {cutoff: self._seen(cutoff) for key in keys if (cutoff := self._cutoff(key)) is not None}
        window = {key for seen in self._window.values() for key in seen}
        self._out = history.excluded(sorted(window))
        due = self._due(keys[-1])
        self._labelled = tables.records("outcomes", sorted(window | set(due)))
        self._given_up = unlabelled.notes(tables, sorted(window | set(due)))
        self._measured = tables.records("performance", keys)
        self._attempts = history.attempts()

    def at(self, key: str, judged: PartitionRecord, *, now: datetime) -> policy.Facts:
        """Return the facts of the decision for a key.

        Args:
            key: one of the run's.
            judged: the key's record of stage `drift`.
            now: the product's moment.
        """
        spec, grain = self._spec, self._spec.grain
        place, cutoff = grain.index(key), self._cutoff(key)
        earlier = _earlier(self._product, place)
        trained = [at for at in self._trained if at <= place + 1]
        window = self._window.get(cutoff, ()) if cutoff is not None else ()
        given_up = [each for each in window if each in self._given_up and self._is_given_up(each, cutoff)]
        # A nulled key that is yet to be built again counts: the training waits for it. When it is built is chance.
        usable = [
            each for each in window if each not in given_up and not (each in self._out and self._out[each].is_excluded)
        ]
        is_newest = self._is_newest(key)
        return policy.Facts(
            key=key,
            index=place,
            cutoff=cutoff,
            superseded_at=None if cutoff is None else grain.instant_after(cutoff),
            has_newer=not is_newest,
            anchor=0 if spec.retraining.anchor is None else grain.index(spec.retraining.anchor),
            last_judged=next((at for at, record in earlier.items() if record.is_free), min(earlier, default=None)),
            live_cutoff=None if self._live is None else grain.index(self._live[1].cutoff),
            live_digest=None if self._live is None else self._live[1].digest,
            last_trained=max(trained, default=None),
            pending_cutoff=_pending(earlier, {grain.key_at(at) for at in trained}),
            usable_keys=sum(each in self._labelled for each in usable),
            min_keys=spec.min_keys,
            unlabelled=tuple(each for each in usable if each not in self._labelled),
            given_up=tuple(given_up),
            given_up_now=tuple(each for each in given_up if self._given_up[each]["from_cutoff"] == cutoff),
            lacks_newest=bool(window) and window[-1] not in self._labelled,
            waited_keys=_waited(earlier, place),
            label_delay=spec.label_delay,
            fresh_keys=self._fresh(usable, max(trained, default=None)),
            held=tuple(each for each in window if each in self._out and self._out[each].is_held),
            health=_health(judged, self._history.hold(key)),
            performance=self._performance(key) if is_newest else None,
            skew=_skew(spec, self._measured.get(key)),
            request=_request(self._history, earlier),
            spent_usd=budget.spent_usd(spec, self._attempts, f"{now:%Y-%m}"),
            following=money.following(spec, self._attempts),
        )

    def overdue(self, key: str) -> tuple[str, ...]:
        """Return the keys whose labels are late by `label_patience` keys and are still waited for.

        Empty but for the newest key, which alone decides.
        """
        due = self._due(key) if self._is_newest(key) else ()
        return tuple(each for each in due if each not in self._labelled and not self._is_missing(each))

    def give_up(self, key: str, keys: Sequence[str], why: str, *, now: datetime) -> None:
        """Record that trainings decided at a key or later do without `keys`."""
        cutoff = self._cutoff(key)
        if cutoff is not None and keys:
            self._given_up |= unlabelled.give_up(self._tables, keys, cutoff=cutoff, why=why, at=now)

    def _is_newest(self, key: str) -> bool:
        cutoff = self._cutoff(key)
        return key == self._last and (cutoff is None or not self._history.is_decided(cutoff))

    def _due(self, key: str) -> tuple[str, ...]:
        """Return the keys whose labels were due `label_patience` keys before a key or earlier.

        From the first of the window on, or of a shorter window from what the first key of the run had to look at.
        """
        spec, grain, cutoff = self._spec, self._spec.grain, self._cutoff(key)
        if cutoff is None:
            return ()
        back = spec.label_delay + spec.label_patience
        window = self._window[cutoff]
        start = min(grain.index(window[0]) if window else 0, max(0, grain.index(self._first) - back))
        return tuple(grain.key_at(place) for place in range(start, grain.index(key) - back + 1))

    def _is_missing(self, key: str) -> bool:
        return key in self._given_up and self._given_up[key]["kind"] == unlabelled.GIVEN_UP

    def _is_given_up(self, key: str, cutoff: str | None) -> bool:
        return cutoff is not None and unlabelled.excludes(self._spec.grain, self._given_up[key], cutoff)

    def _fresh(self, usable: Sequence[str], last_trained: int | None) -> int | None:
        """Return how many labelled keys the newest training cannot have seen: later ones, and labels that came late."""
        if last_trained is None:
            return None
        grain = self._spec.grain
        until = {key: grain.index(note["until_cutoff"]) for key, note in self._given_up.items() if note["until_cutoff"]}
        seen = last_trained - self._spec.label_delay
        return sum(
            each in self._labelled and (grain.index(each) >= seen or until.get(each, -1) > last_trained)
            for each in usable
        )

    def _cutoff(self, key: str) -> str | None:
        """Return the cutoff of a model trained after a key: the next key, or None at the end of the grain."""
        grain, place = self._spec.grain, self._spec.grain.index(key)
        return None if grain.size is not None and place + 1 >= grain.size else grain.key_at(place + 1)

    def _seen(self, cutoff: str) -> tuple[str, ...]:
        return self._spec.grain.window(cutoff, width=self._spec.window, label_delay=self._spec.label_delay)

    def _performance(self, key: str) -> policy.Performance | None:
        """Return how the live model does against what its answers promise, over the labelled keys up to this one."""
        digest = None if self._live is None else self._live[1].digest
        seen = None if digest is None else Measuring.of(self._spec).of_model(self._tables, key, digest)
        return None if seen is None else performance_policy.judge(seen, self._spec.retraining)


def _earlier(product: Product, place: int) -> dict[int, Decision]:
    """Return the decisions of the keys before, the newest first, as far back as a decision may depend on them."""
    spec = product.spec
    policy = spec.retraining
    reach = max(policy.cooldown, 2 * policy.decide_every, policy.decide_every + spec.label_patience, 1)
    places = range(place - 1, max(-1, place - 1 - reach), -1)
    read = ((at, product.history.decision(spec.grain.key_at(at))) for at in places)
    return {at: record for at, record in takewhile(lambda item: item[1] is not None, read) if record is not None}


def _pending(earlier: Mapping[int, Decision], trained: set[str]) -> str | None:
    """Return the cutoff of a training that was decided lately and has no verdict; older ones were given up."""
    decided = (record.cutoff for record in earlier.values() if record.action == policy.RETRAIN)
    return next((cutoff for cutoff in decided if cutoff not in trained), None)


def _waited(earlier: Mapping[int, Decision], place: int) -> int:
    """Return for how many keys a training has been waiting for labels, without a free decision in between."""
    held = takewhile(lambda item: not item[1].is_free, earlier.items())
    return place - min((at for at, record in held if record.numbers.awaits_labels), default=place)


def _health(judged: PartitionRecord, hold: Hold | None) -> policy.Health:
    notes = judgement(judged)
    assert notes.verdict, f"{judged.key} was not judged; materialise drift for it"
    index, mix = notes.index or None, notes.mix or None
    fault = None
    if notes.verdict == policy.ALERT_FAULT:
        episode = hold.record.episode if hold and isinstance(hold.record, Fault) else judged.key
        fault = DecidedFault(**(notes.primary.document() if notes.primary else {}), episode=episode)
    verdict = notes.verdict if hold is None or hold.is_held or not notes.is_faulty else "fine"
    return policy.Health(
        verdict=verdict,
        fault=fault,
        index=None if index is None else index.mean_psi,
        percentile=None if index is None else index.percentile,
        answers_percentile=None if mix is None else mix.percentile,
    )


def _skew(spec: ProductSpec, record: PartitionRecord | None) -> Skew:
    """Return what a decision keeps of a key's comparison (`skew.judge`); `record` is the key's, if there is one."""
    return skew.judge(None if record is None else measured(record).skew or None, spec.monitors.min_equal_share)


def _request(history: History, earlier: Mapping[int, Decision]) -> int | None:
    """Return the number of the newest request for a decision that no recorded decision has answered."""
    answered = max((record.request or 0 for record in earlier.values()), default=0)
    for number, record in history.newest_requests(REQUESTS_READ):
        if number <= answered:
            return None
        if isinstance(record, DecisionRequest):
            return number
    return None
