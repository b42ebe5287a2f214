"""Write down a key's fault, its repair, and what follows when nobody came: null the source, or drop the key.

Belongs here: the platform's own records in the fault ledger. Does not belong here: finding faults (`compute.faults`),
what a person writes (`intervention.py`), or what a record means (`history.faults`).

Every write compares with what the ledger holds first, so that a run that was killed and comes again adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import polars as pl
from msgspec.structs import asdict, replace

from platform_assets import naming
from platform_assets.compute import declared
from platform_assets.compute.declared import THE_FEATURES
from platform_assets.compute.faults import Check
from platform_assets.compute.windows import Window
from platform_assets.history.holds import Hold
from platform_assets.records.faults import (
    FAULTS,
    Accepted,
    Dropped,
    FailedCheck,
    Fault,
    FaultRecord,
    Nulled,
    Repair,
    Repaired,
)
from platform_assets.records.requests import REQUESTS, AdvanceRequest

if TYPE_CHECKING:
    from platform_assets.handle import Product
    from platform_assets.makers.drift import Judging

BY = "drift"
RECORDS_READ = 20
"""How far back in a ledger a fault, or a request made before, is looked for."""


class _Signed(TypedDict):
    product: str
    key: str
    by: str
    at_utc: str | None


class FaultRecords:
    """The fault ledgers of the keys around one chunk of a run."""

    def __init__(self, spec: Judging, product: Product, keys: Sequence[str]) -> None:
        """Read the holds of `keys`: the chunk's, and those that they are compared with."""
        self._spec, self._product = spec, product
        self._ledgers, self._history = product.ledgers, product.history
        self.holds: dict[str, Hold] = self._history.holds(keys)

    def is_excluded(self, key: str) -> bool:
        """Tell whether a key is held or dropped."""
        return key in self.holds and self.holds[key].is_excluded

    def asked(self, key: str) -> int:
        """Return the number of the newest record that asks for a new judgement: a repair or a null; 0 for none."""
        if key not in self.holds:
            return 0
        found = (number for number, record in self._newest(key) if isinstance(record, Repair | Nulled))
        return next(found, 0)

    def judge(self, key: str, failing: Sequence[Check], digests: Mapping[str, str], *, newest: str) -> None:
        """Write the fault that was found, or that a key at fault is sound now; nothing when the ledger says so.

        What a person accepted, or the platform settled, stands while no other check fails on other data.

        Args:
            key: that was judged.
            failing: the most telling first; empty when it is sound.
            digests: of the validated rows by source: what was judged.
            newest: the newest judged key, from which on a person is waited for.
        """
        hold = self.holds.get(key) or self._history.hold(key)
        if hold is not None:
            self.holds[key] = hold
        if hold is not None and isinstance(hold.record, Dropped):
            return
        if not failing:
            if hold is not None and not isinstance(hold.record, Accepted | Repaired):
                why = "the key was judged again and no check fails."
                self._append(key, Repaired(why=why, **self._signed(key)))
        else:
            self._fault(key, hold, failing, digests, newest)

    def settle(self, key: str, before: Sequence[str], *, newest: str) -> None:
        """Give up waiting for a person on faults found `repair_within` keys before `key` or earlier.

        Args:
            key: that was judged.
            before: the keys that may be held.
            newest: the newest judged key.
        """
        grain, patience = self._spec.grain, self._spec.monitors.repair_within
        for held in before:
            hold = self.holds.get(held)
            if hold is None or not isinstance(hold.record, Fault):
                continue
            if grain.index(key) - grain.index(hold.record.since) >= patience:
                self._give_up(held, hold.number, hold.record.checks, newest)

    def ask(self, key: str, *, newest: str) -> None:
        """Ask for the keys that look back on a nulled key to be advanced again, once."""
        hold = self.holds[key]
        grain = self._spec.grain
        last = min(grain.index(key) + self._spec.lookback, max(grain.index(newest), grain.index(key)))
        request = AdvanceRequest(
            first=key,
            last=grain.key_at(last),
            why=f"{hold.nulled_source} of {key} is left out since record {hold.number} of its faults.",
            by=BY,
            at_utc=self._now(),
        )
        if not any(
            isinstance(before, AdvanceRequest)
            and (before.first, before.why, before.by) == (request.first, request.why, request.by)
            for _, before in self._history.newest_requests(RECORDS_READ)
        ):
            self._ledgers.of(REQUESTS).append(request)

    def _fault(
        self, key: str, hold: Hold | None, failing: Sequence[Check], digests: Mapping[str, str], newest: str
    ) -> None:
        label, first = self._spec.label_source.name, failing[0]
        fault = Fault(
            **asdict(first.told()),
            checks=tuple(FailedCheck(**asdict(check.told()), digest=digests[check.source]) for check in failing),
            labels_are_broken=any(check.source == label for check in failing),
            why=f"{first.check} of {first.source}: came {first.came}; expected {first.expected}.",
            episode=self._episode(key, first),
            since=newest,
            **self._signed(key),
        )
        if hold is not None:
            written = self._written(key)
            if isinstance(hold.record, Fault) and _lasting(hold.record) == _lasting(fault):
                return
            if isinstance(hold.record, Accepted | Nulled) and written and _facts(fault) <= _facts(written):
                return
        self._append(key, fault)

    def _episode(self, key: str, primary: Check) -> str:
        """Return the first key of the contiguous ones with the same fault."""
        place = self._spec.grain.index(key)
        before = self._spec.grain.key_at(place - 1) if place else None
        written = self._written(before) if before in self.holds and before is not None else None
        if written and (written.source, written.check) == (primary.source, primary.check):
            return written.episode
        return key

    def _give_up(self, key: str, fault: int, checks: Sequence[FailedCheck], newest: str) -> None:
        source, reason = self._choice(key, checks)
        told = f"nobody came in {self._spec.monitors.repair_within} keys, and {reason}"
        if source is None:
            self._append(key, Dropped(fault=fault, why=f"{told}: the key stays out for good.", **self._signed(key)))
        else:
            why = f"{told}: {source} is left out and the rows stay."
            self._append(key, Nulled(fault=fault, source=source, why=why, **self._signed(key)))
            self.ask(key, newest=newest)

    def _choice(self, key: str, checks: Sequence[FailedCheck]) -> tuple[str | None, str]:
        """Return the source to be left out, None to drop the key, and the reason."""
        faulty = sorted({check.source for check in checks})
        if self._spec.label_source.name in faulty:
            return None, "its labels are broken"
        if THE_FEATURES in faulty:
            return None, "no source is known to be the cause"
        if len(faulty) > 1:
            return None, f"{' and '.join(faulty)} are faulty, where one can be left out"
        if not self._rows_without(key, faulty[0]):
            return None, f"without {faulty[0]} there are no rows"
        return faulty[0], "its labels are not known to be broken"

    def _rows_without(self, key: str, source: str) -> int:
        """Return how many rows of features a key has when one source's rows of it are left out."""
        spec = self._spec
        read = {each.name: self._validated(each.name, each.is_slow, key) for each in spec.feature_sources}
        read[source] = read[source].filter(pl.col("key") != key)
        built = spec.features(read, Window(grain=spec.grain, keys=(key,)))
        return declared.split(built, spec.fields)[0].height

    def _written(self, key: str) -> Fault | None:
        """Return the newest fault on record."""
        return next((record for _, record in self._newest(key) if isinstance(record, Fault)), None)

    def _newest(self, key: str) -> list[tuple[int, FaultRecord]]:
        return self._history.newest_faults(key, RECORDS_READ)

    def _append(self, key: str, record: FaultRecord) -> None:
        self.holds[key] = Hold(number=self._ledgers.of(FAULTS.of(key)).append(record), record=record)

    def _signed(self, key: str) -> _Signed:
        """Return what every record of a key says."""
        return {"product": self._spec.name, "key": key, "by": BY, "at_utc": self._now()}

    def _now(self) -> str | None:
        """Return the product's moment; None for a recording whose clock nobody has set."""
        try:
            return self._product.now.isoformat()
        except LookupError:
            return None

    def _validated(self, source: str, is_slow: bool, key: str) -> pl.DataFrame:
        keys = (naming.UNPARTITIONED,) if is_slow else self._spec.grain.with_lookback((key,), self._spec.lookback)
        return self._product.tables.read(naming.stage("validated", source), keys)


def _lasting(fault: Fault) -> Fault:
    """Return a fault without what is of the moment."""
    return replace(fault, at_utc=None, since="", episode="")


def _facts(fault: Fault) -> set[tuple[str | None, ...]]:
    """Return what identifies each failing check: which, on which data; a rule by its sentence."""
    return {
        (
            check.source,
            check.check,
            check.column,
            check.digest,
            check.expected if check.check == "cross_rule" else None,
        )
        for check in fault.checks
    }
