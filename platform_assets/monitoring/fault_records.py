"""Write the platform's own fault records: a fault, its repair, and the fallback when nobody reacts (null or drop).

People's records are written by `intervention.py`; what a record means is `store.records.faults.Hold`.
Every write first compares with the ledger, so a run that was killed and restarted adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import polars as pl
from msgspec.structs import asdict, replace

from platform_assets.base import naming
from platform_assets.data import declared
from platform_assets.data.declared import THE_FEATURES
from platform_assets.monitoring.faults import AWAITED, UNREADABLE, Check
from platform_assets.product.windows import Window
from platform_assets.store.history import snapshots
from platform_assets.store.records.faults import (
    FAULTS,
    Accepted,
    Dropped,
    FailedCheck,
    Fault,
    FaultRecord,
    Hold,
    Nulled,
    Repair,
    Repaired,
)
from platform_assets.store.records.requests import REQUESTS, AdvanceRequest

if TYPE_CHECKING:
    from platform_assets.monitoring.judged_product import JudgedProduct
    from platform_assets.store.product_store import ProductStore

BY = "drift"
RECORDS_READ = 20
"""How many of a ledger's newest records are searched for a fault or an earlier request."""


class _Signed(TypedDict):
    product: str
    key: str
    by: str
    at_utc: str | None


class FaultRecords:
    """The fault ledgers of the keys around one chunk of a run."""

    def __init__(self, spec: JudgedProduct, product: ProductStore, keys: Sequence[str]) -> None:
        """Read the holds of `keys`: the chunk's, and those they are compared with."""
        self._spec, self._product = spec, product
        self._ledgers, self._history = product.ledgers, product.history
        self.holds: dict[str, Hold] = self._history.holds(keys)

    def is_excluded(self, key: str) -> bool:
        """Tell whether a key is held or dropped."""
        return key in self.holds and self.holds[key].is_excluded

    def newest_request(self, key: str) -> int:
        """Return the number of the newest record that requests a new judgement (a repair or a null); 0 for none."""
        if key not in self.holds:
            return 0
        numbers = (number for number, record in self._newest(key) if isinstance(record, Repair | Nulled))
        return next(numbers, 0)

    def judge(self, key: str, failing: Sequence[Check], digests: Mapping[str, str], *, newest: str) -> None:
        """Record a fault, or that a faulty key is sound again. Writes nothing if the ledger already says so.

        What a person accepted or the platform settled stands until another check fails, or the same one on other data.

        Args:
            key: the judged key.
            failing: most telling check first; empty when the key is sound.
            digests: content digests of the judged rows, per source.
            newest: the newest judged key; `repair_within` counts from it.
        """
        hold = self.holds.get(key) or self._history.hold(key)
        if hold is not None:
            self.holds[key] = hold
        if hold is not None and isinstance(hold.record, Dropped):
            return
        if not failing:
            if hold is not None and not isinstance(hold.record, Accepted | Repaired):
                reason = "the key was judged again and no check fails."
                self._append(key, Repaired(why=reason, **self._signature(key)))
            return
        label, first, index = self._spec.label_source.name, failing[0], self._spec.grain.index(key)
        before = self._spec.grain.key_at(index - 1) if index else None
        earlier = self._written(before) if before in self.holds and before is not None else None
        # An episode is the contiguous keys with the same fault, or those that wait for an unreadable delivery.
        waits = first.check == AWAITED and earlier and earlier.check == UNREADABLE
        goes_on = earlier and earlier.source == first.source and (earlier.check == first.check or waits)
        fault = Fault(
            **asdict(first.to_record()),
            checks=tuple(FailedCheck(**asdict(check.to_record()), digest=digests[check.source]) for check in failing),
            labels_are_broken=any(check.source == label for check in failing),
            why=f"{first.check} of {first.source}: {first.came}; expected {first.expected}.",
            episode=earlier.episode if earlier and goes_on else key,
            since=newest,
            **self._signature(key),
        )
        if hold is not None:
            written = self._written(key)
            if isinstance(hold.record, Fault) and _lasting(hold.record) == _lasting(fault):
                return
            if isinstance(hold.record, Accepted | Nulled) and written and _facts(fault) <= _facts(written):
                return
        self._append(key, fault)

    def settle(self, key: str, before: Sequence[str], *, newest: str) -> None:
        """Stop waiting for a person on faults that are `repair_within` keys older than `key`.

        Args:
            key: the judged key.
            before: earlier keys that may be held.
            newest: the newest judged key.
        """
        grain, patience = self._spec.grain, self._spec.monitors.repair_within
        for earlier in before:
            hold = self.holds.get(earlier)
            if hold is None or not isinstance(hold.record, Fault):
                continue
            if all(check.check == AWAITED for check in hold.record.checks):
                continue  # settled with the key that it waits for
            if grain.index(key) - grain.index(hold.record.since) < patience:
                continue
            source, reason = self._choice(earlier, hold.record.checks)
            opening = f"nobody reacted within {patience} keys, and {reason}"
            about = self._signature(earlier)
            if source is None:
                sentence = f"{opening}: the key is dropped permanently."
                self._append(earlier, Dropped(fault=hold.number, why=sentence, **about))
            else:
                sentence = f"{opening}: {source} is left out and the rows stay."
                self._append(earlier, Nulled(fault=hold.number, source=source, why=sentence, **about))
            if source is not None or any(check.check == UNREADABLE for check in hold.record.checks):
                self.request_advance(earlier, newest=newest)

    def request_advance(self, key: str, *, newest: str) -> None:
        """Request one new advance of the keys that look back on a key that was given up."""
        hold = self.holds[key]
        outcome = f"{hold.nulled_source} of {key} is left out" if hold.nulled_source else f"{key} is dropped"
        grain = self._spec.grain
        last = min(grain.index(key) + self._spec.lookback, max(grain.index(newest), grain.index(key)))
        request = AdvanceRequest(
            first=key,
            last=grain.key_at(last),
            why=f"{outcome} since record {hold.number} of its faults.",
            by=BY,
            at_utc=self._now(),
        )
        if not any(
            isinstance(earlier, AdvanceRequest)
            and (earlier.first, earlier.why, earlier.by) == (request.first, request.why, request.by)
            for _, earlier in self._history.newest_requests(RECORDS_READ)
        ):
            self._ledgers.of(REQUESTS).append(request)

    def _choice(self, key: str, checks: Sequence[FailedCheck]) -> tuple[str | None, str]:
        """Return the source to leave out (None to drop the key), and the reason."""
        faulty = sorted({check.source for check in checks if check.check != AWAITED})
        if self._spec.label_source.name in faulty:
            return None, "its labels are broken"
        if THE_FEATURES in faulty:
            return None, "no source is known to be the cause"
        if len(faulty) > 1:
            return None, f"{' and '.join(faulty)} are faulty, but only one can be left out"
        spec, validated = self._spec, self._validated
        tables = {source.name: validated(source.name, source.is_slow, key) for source in spec.feature_sources}
        tables[faulty[0]] = tables[faulty[0]].filter(pl.col("key") != key)
        built = spec.features(tables, Window(grain=spec.grain, keys=(key,)))
        if not declared.split(built, spec.fields)[0].height:
            return None, f"without {faulty[0]} there are no rows"
        return faulty[0], "its labels are not known to be broken"

    def _written(self, key: str) -> Fault | None:
        """Return the newest fault on record."""
        return next((record for _, record in self._newest(key) if isinstance(record, Fault)), None)

    def _newest(self, key: str) -> list[tuple[int, FaultRecord]]:
        return self._history.newest_faults(key, RECORDS_READ)

    def _append(self, key: str, record: FaultRecord) -> None:
        self.holds[key] = Hold(number=self._ledgers.of(FAULTS.of(key)).append(record), record=record)

    def _signature(self, key: str) -> _Signed:
        """Return the members that every record of a key has."""
        return {"product": self._spec.name, "key": key, "by": BY, "at_utc": self._now()}

    def _now(self) -> str | None:
        """Return the product's moment; None for a recording whose clock is not set."""
        try:
            return self._product.now.isoformat()
        except LookupError:
            return None

    def _validated(self, source: str, is_slow: bool, key: str) -> pl.DataFrame:
        tables, stage = self._product.tables, naming.stage("validated", source)
        if is_slow:
            return self._product.snapshots.rows(stage, snapshots.of_key(tables, stage, key), (key,))
        return tables.read(stage, self._spec.grain.with_lookback((key,), self._spec.lookback))


def _lasting(fault: Fault) -> Fault:
    """Return a fault without its time-dependent members."""
    return replace(fault, at_utc=None, since="", episode="")


def _facts(fault: Fault) -> set[tuple[str | None, ...]]:
    """Identify each failing check by source, check, column and data; a cross rule also by its sentence."""
    return {
        (item.source, item.check, item.column, item.digest, item.expected if item.check == "cross_rule" else None)
        for item in fault.checks
    }
