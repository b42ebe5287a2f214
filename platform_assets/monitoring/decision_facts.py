"""Collect the facts of a decision from records: the state of a product at a key.

Reads a bounded number of records per key; `monitoring.policy` draws the conclusions.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from platform_assets.data import unlabelled
from platform_assets.engine.outside import Budget
from platform_assets.monitoring import performance_policy, policy, skew
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.store.history.reader import History, judgement
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import DecidedFault, Decision
from platform_assets.store.records.faults import Fault, Hold
from platform_assets.store.records.notes import measured
from platform_assets.store.records.requests import DecisionRequest
from platform_assets.store.tables import PartitionRecord

REQUESTS_READ = 20


class DecisionFacts:
    """The records that the decisions of one run share, read once."""

    def __init__(self, product: ProductStore, keys: Sequence[str], budget: Budget, measuring: Measuring) -> None:
        """Read the records for a run's keys, in order.

        Args:
            measuring: of stage `performance`, whose code a decision does not count: its records are what it rests on.
        """
        spec, tables, history = product.spec, product.tables, product.history
        self._product, self._spec, self._tables, self._history = product, spec, tables, history
        self._first, self._last, self._budget, self._measuring = keys[0], keys[-1], budget, measuring
        self._live = history.live()
        self._trained = tuple(spec.grain.index(cutoff) for cutoff in tables.records("evaluation"))
        self._window = {cutoff: self._window_keys(cutoff) for key in keys if (cutoff := self._cutoff(key)) is not None}
        window = {key for window_keys in self._window.values() for key in window_keys}
        self._excluded = history.excluded(sorted(window))
        due = self._due(keys[-1])
        self._labelled = tables.records("outcomes", sorted(window | set(due)))
        self._given_up = unlabelled.notes(tables, sorted(window | set(due)))
        self._measured = tables.records("performance", keys)
        self._attempts = history.attempts()

    def at(self, key: str, judged: PartitionRecord, *, now: datetime) -> policy.Facts:
        """Return the facts of the decision on a key.

        Args:
            key: one of the run's.
            judged: the key's record of stage `drift`.
            now: the product's current moment.
        """
        spec, grain = self._spec, self._spec.grain
        index, cutoff = grain.index(key), self._cutoff(key)
        rules, history = spec.retraining, self._history
        # As far back as a decision may depend on earlier ones, the newest first.
        reach = max(rules.cooldown, 2 * rules.decide_every, rules.decide_every + spec.label_patience, 1)
        before = range(index - 1, max(-1, index - 1 - reach), -1)
        decisions = ((position, history.decision(grain.key_at(position))) for position in before)
        earlier = {at: record for at, record in takewhile(lambda item: item[1] is not None, decisions) if record}
        trained = [position for position in self._trained if position <= index + 1]
        judged_cutoffs = {grain.key_at(position) for position in trained}
        # Of recent decisions only: an older training without a verdict was given up.
        decided = (record.cutoff for record in earlier.values() if record.action == policy.RETRAIN)
        window = self._window.get(cutoff, ()) if cutoff is not None else ()
        notes = self._given_up
        given_up = [
            item for item in window if item in notes and cutoff and unlabelled.excludes(grain, notes[item], cutoff)
        ]
        # A nulled key that is not rebuilt yet counts, because the training waits for it. When it is rebuilt is chance.
        usable = [
            item
            for item in window
            if item not in given_up and not (item in self._excluded and self._excluded[item].is_excluded)
        ]
        is_newest = self._is_newest(key)
        return policy.Facts(
            key=key,
            index=index,
            cutoff=cutoff,
            superseded_at=None if cutoff is None else grain.instant_after(cutoff),
            has_newer=not is_newest,
            anchor=0 if rules.anchor is None else grain.index(rules.anchor),
            last_judged=next(
                (position for position, record in earlier.items() if record.is_free), min(earlier, default=None)
            ),
            live_cutoff=None if self._live is None else grain.index(self._live[1].cutoff),
            live_digest=None if self._live is None else self._live[1].digest,
            last_trained=max(trained, default=None),
            pending_cutoff=next((cutoff for cutoff in decided if cutoff not in judged_cutoffs), None),
            usable_keys=sum(item in self._labelled for item in usable),
            min_keys=spec.min_keys,
            unlabelled=tuple(item for item in usable if item not in self._labelled),
            given_up=tuple(given_up),
            given_up_now=tuple(item for item in given_up if notes[item]["from_cutoff"] == cutoff),
            lacks_newest=bool(window) and window[-1] not in self._labelled,
            waited_keys=_waited(earlier, index),
            label_delay=spec.label_delay,
            fresh_keys=self._fresh(usable, max(trained, default=None)),
            held=tuple(item for item in window if item in self._excluded and self._excluded[item].is_held),
            health=_health(judged, history.hold(key)),
            performance=self._performance(key) if is_newest else None,
            skew=skew.judge(
                measured(self._measured[key]).skew or None if key in self._measured else None,
                spec.monitors.min_equal_share,
            ),
            request=_request(history, earlier),
            balance=self._budget.balance(spec, self._attempts, f"{now:%Y-%m}"),
        )

    def overdue(self, key: str) -> tuple[str, ...]:
        """Return the keys whose labels are late by `label_patience` keys and not given up.

        Empty except for the newest key, which alone decides.
        """
        due = self._due(key) if self._is_newest(key) else ()
        missing = {item for item, note in self._given_up.items() if note["kind"] == unlabelled.GIVEN_UP}
        return tuple(item for item in due if item not in self._labelled and item not in missing)

    def give_up(self, key: str, keys: Sequence[str], reason: str, *, now: datetime) -> None:
        """Record that trainings decided at this key or later do without `keys`."""
        cutoff = self._cutoff(key)
        if cutoff is not None and keys:
            self._given_up |= unlabelled.give_up(self._tables, keys, cutoff=cutoff, why=reason, at=now)

    def _is_newest(self, key: str) -> bool:
        cutoff = self._cutoff(key)
        return key == self._last and (cutoff is None or not self._history.is_decided(cutoff))

    def _due(self, key: str) -> tuple[str, ...]:
        """Return the keys whose labels were due at least `label_patience` keys before this key.

        Starts at the window's first key, or, for a shorter window, at the first key that the run's first key had to
        consider.
        """
        spec, grain, cutoff = self._spec, self._spec.grain, self._cutoff(key)
        if cutoff is None:
            return ()
        back = spec.label_delay + spec.label_patience
        window = self._window[cutoff]
        start = min(grain.index(window[0]) if window else 0, max(0, grain.index(self._first) - back))
        return tuple(grain.key_at(index) for index in range(start, grain.index(key) - back + 1))

    def _fresh(self, usable: Sequence[str], last_trained: int | None) -> int | None:
        """Count labelled keys that the newest training cannot have seen: later ones, and those with late labels."""
        if last_trained is None:
            return None
        grain = self._spec.grain
        until = {key: grain.index(note["until_cutoff"]) for key, note in self._given_up.items() if note["until_cutoff"]}
        first_unseen = last_trained - self._spec.label_delay
        return sum(
            key in self._labelled and (grain.index(key) >= first_unseen or until.get(key, -1) > last_trained)
            for key in usable
        )

    def _cutoff(self, key: str) -> str | None:
        """Return the cutoff of a model trained after a key: the next key, or None at the end of the grain."""
        grain, index = self._spec.grain, self._spec.grain.index(key)
        return None if grain.size is not None and index + 1 >= grain.size else grain.key_at(index + 1)

    def _window_keys(self, cutoff: str) -> tuple[str, ...]:
        return self._spec.grain.window(cutoff, width=self._spec.window, label_delay=self._spec.label_delay)

    def _performance(self, key: str) -> policy.Performance | None:
        """Return the live model's loss against what its predictions promise, over the labelled keys up to this one."""
        digest = None if self._live is None else self._live[1].digest
        if digest is None:
            return None
        promised = self._measuring.of_model(self._tables, key, digest)
        return None if promised is None else performance_policy.judge(promised, self._spec.retraining)


def _waited(earlier: Mapping[int, Decision], index: int) -> int:
    """Return for how many keys a training has been waiting for labels, without a free decision in between."""
    waiting = takewhile(lambda item: not item[1].is_free, earlier.items())
    return index - min((at for at, record in waiting if record.numbers.awaits_labels), default=index)


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


def _request(history: History, earlier: Mapping[int, Decision]) -> int | None:
    """Return the number of the newest request for a decision that no recorded decision has answered."""
    answered = max((record.request or 0 for record in earlier.values()), default=0)
    for number, record in history.newest_requests(REQUESTS_READ):
        if number <= answered:
            return None
        if isinstance(record, DecisionRequest):
            return number
    return None
