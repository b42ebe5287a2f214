"""Read what a key's performance follows from: its own digests, those of its window, and what was held.

Belongs here: records and holds, and which keys a window may take. Does not belong here: rows, or measuring them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.history.holds import Hold
from platform_assets.records.faults import Fault, Nulled, Repair, Repaired
from platform_assets.storage.artifacts import canonical, sha256

if TYPE_CHECKING:
    from platform_assets.history.faults import Faults
    from platform_assets.makers.performance import Measuring
    from platform_assets.storage.tables import PartitionRecord, TableStore

PERFORMANCE = "performance"
OWN = ("predictions", "outcomes", "features")
"""The stages whose rows of a key it is measured from."""
RECORDS_READ = 20
"""How far back in a key's ledger its fault is looked for."""
REACH_WINDOWS = 3
"""The window's keys are looked for among so many windows of keys: older quality says nothing about now."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """The records that some keys are measured from.

    Attributes:
        spec: the product.
        run: the keys of the run, all brought up to date by it.
        records: by stage, then by key: of the run's chunk and of what its windows reach back to.
        out: keys that count in no window: held, dropped, or answered from sources that turned out to be broken.
        changed: keys whose sources are not what they were when predictions were served, with the reason.
    """

    spec: Measuring
    run: frozenset[str]
    records: Mapping[str, Mapping[str, PartitionRecord]]
    out: frozenset[str]
    changed: Mapping[str, str]

    @staticmethod
    def read(spec: Measuring, tables: TableStore, history: Faults, chunk: tuple[str, ...], run: Iterable[str]) -> Known:
        """Read the records for one chunk of a run's keys."""
        reach = spec.grain.with_lookback(chunk, max(_reach(spec), spec.lookback))
        found = history.holds(reach)
        reasons = {key: _change(spec, history, key, hold) for key, hold in found.items()}
        changed = {key: reason for key, reason in reasons.items() if reason is not None}
        return Known(
            spec=spec,
            run=frozenset(run),
            records={stage: tables.records(stage, reach) for stage in (*OWN, PERFORMANCE)},
            out=frozenset(key for key, hold in found.items() if hold.is_excluded or key in changed),
            changed=changed,
        )

    def own(self, key: str) -> dict[str, str] | None:
        """Return the digests that a key itself is measured from; None before its predictions were taken in."""
        if key not in self.records["predictions"]:
            return None
        return {stage: self.records[stage][key].content_digest for stage in OWN if key in self.records[stage]}

    def inputs(self, key: str) -> dict[str, str] | None:
        """Return all that a key's numbers follow from: its own digests, its window's, and what was held."""
        own = self.own(key)
        if own is None:
            return None
        before = keys_before(self.spec, key)
        window = [[each, self._standing(each), each in self.out] for each in before]
        why = self.not_compared(key)
        return {**own, "window": sha256(canonical([window, key in self.out])), "compared": sha256(canonical(why))}

    def not_compared(self, key: str) -> str | None:
        """Return why a key's served features cannot be compared with ours; None when they can."""
        if key not in self.records["features"]:
            return f"the features of {key} have not been built."
        back = self.spec.grain.with_lookback((key,), self.spec.lookback)
        return next((self.changed[each] for each in back if each in self.changed), None)

    def _standing(self, key: str) -> dict[str, str] | None:
        """Return the digests of a window's key: as this run makes it, or as it was made."""
        if key in self.run:
            return self.own(key)
        record = self.records[PERFORMANCE].get(key)
        return None if record is None else {name: record.inputs[name] for name in OWN if name in record.inputs}


def keys_before(spec: Measuring, key: str) -> tuple[str, ...]:
    """Return the keys among which the window of a key is looked for, the key itself left out."""
    return spec.grain.with_lookback((key,), _reach(spec))[:-1]


def _reach(spec: Measuring) -> int:
    return REACH_WINDOWS * spec.window - 1


def _change(spec: Measuring, history: Faults, key: str, hold: Hold) -> str | None:
    """Return why our features of a key are not those that could be served; None when they are.

    The newest record need not name a source, so the fault that it answers is looked for. Labels feed no feature.
    """
    if not isinstance(hold.record, Nulled | Repair | Repaired):
        return None
    earlier = (record for _, record in history.newest_faults(key, RECORDS_READ))
    source = next((record.source for record in earlier if isinstance(record, Fault)), None)
    if source == spec.label:
        return None
    if hold.nulled_source is not None:
        return f"{hold.nulled_source} of {key} is left out of our features since a fault, and was not when it served."
    return f"{source or 'a source'} of {key} was faulty and delivered again after it had served."
