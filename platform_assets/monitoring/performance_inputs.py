"""Read the inputs of a key's performance: its own digests, those of its window, and which keys were held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.records.faults import Fault, Hold, Nulled, Repair, Repaired

if TYPE_CHECKING:
    from platform_assets.monitoring.measured_product import MeasuredProduct
    from platform_assets.store.history.reader import Faults
    from platform_assets.store.tables import PartitionRecord, TableStore

PERFORMANCE = "performance"
INPUT_STAGES = ("predictions", "outcomes", "features")
"""The stages whose rows a key is measured from."""
RECORDS_READ = 20
"""How many of the newest fault records of a key are searched for its fault."""


@dataclass(frozen=True, kw_only=True)
class KeyRecords:
    """The records that some keys are measured from.

    Attributes:
        run: the keys of the run, all of which it brings up to date.
        records: by stage, then by key: of the run's chunk and of what its windows reach back to.
        out: keys that count in no window: held, dropped, or answered from sources that turned out to be broken.
        changed: key -> the reason its sources differ from those at serving time.
    """

    spec: MeasuredProduct
    run: frozenset[str]
    records: Mapping[str, Mapping[str, PartitionRecord]]
    out: frozenset[str]
    changed: Mapping[str, str]

    @staticmethod
    def read(
        spec: MeasuredProduct, tables: TableStore, history: Faults, chunk: tuple[str, ...], run: Iterable[str]
    ) -> KeyRecords:
        """Read the records for one chunk of a run's keys."""
        reach = spec.grain.with_lookback(chunk, max(spec.reach, spec.lookback))
        holds = history.holds(reach)
        reasons = {key: _change(spec, history, key, hold) for key, hold in holds.items()}
        changed = {key: reason for key, reason in reasons.items() if reason is not None}
        return KeyRecords(
            spec=spec,
            run=frozenset(run),
            records={stage: tables.records(stage, reach) for stage in (*INPUT_STAGES, PERFORMANCE)},
            out=frozenset(key for key, hold in holds.items() if hold.is_excluded or key in changed),
            changed=changed,
        )

    def digests(self, key: str) -> dict[str, str] | None:
        """Return the digests of a key's own inputs; None before its predictions were ingested."""
        if key not in self.records["predictions"]:
            return None
        return {stage: self.records[stage][key].content_digest for stage in INPUT_STAGES if key in self.records[stage]}

    def inputs(self, key: str) -> dict[str, str] | None:
        """Return everything a key's numbers depend on: its own digests, its window's, and which keys were held."""
        digests = self.digests(key)
        if digests is None:
            return None
        window = list[list[object]]()
        for name in self.spec.keys_before(key):
            # What this run recomputes, from the run itself; the others as they were measured.
            standing = self.digests(name) if name in self.run else None
            if name not in self.run and (record := self.records[PERFORMANCE].get(name)) is not None:
                standing = {stage: record.inputs[stage] for stage in INPUT_STAGES if stage in record.inputs}
            window.append([name, standing, name in self.out])
        compared = sha256(canonical(self.not_compared(key)))
        return {**digests, "window": sha256(canonical([window, key in self.out])), "compared": compared}

    def not_compared(self, key: str) -> str | None:
        """Return the reason a key's served features cannot be compared with ours; None when they can."""
        if key not in self.records["features"]:
            return f"the features of {key} have not been built."
        back = self.spec.grain.with_lookback((key,), self.spec.lookback)
        return next((self.changed[name] for name in back if name in self.changed), None)


def _change(spec: MeasuredProduct, history: Faults, key: str, hold: Hold) -> str | None:
    """Return the reason our features of a key differ from those available at serving time; None if they do not.

    The newest record need not name a source, so the fault it answers is looked up. Labels feed no feature.
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
