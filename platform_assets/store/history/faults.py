"""Read which keys are held, dropped, or usable without one source, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from platform_assets.store.history.base import Reader
from platform_assets.store.history.holds import REQUEST_INPUT, Hold
from platform_assets.store.records.faults import FAULTS, FaultRecord
from platform_assets.store.records.judgements import JUDGEMENTS, Judgement
from platform_assets.store.records.requests import INTERVENTIONS

if TYPE_CHECKING:
    from platform_assets.store.partition_records import PartitionRecord

STAGE = "drift"
INTERVENTIONS_READ = 100
"""How many of the newest interventions are read."""


def judgement(record: PartitionRecord) -> Judgement:
    """Parse the judgement in a key's record of `drift`."""
    return JUDGEMENTS.read(record.notes, f"the judgement of {record.key}")


class Faults(Reader):
    """The fault ledgers, one per key."""

    def hold(self, key: str) -> Hold | None:
        """Return a key's hold: its newest fault record, or None. Three small reads."""
        latest = self._ledgers.of(FAULTS.of(key)).latest()
        return None if latest is None else Hold(number=latest[0], record=latest[1])

    def holds(self, keys: Iterable[str] | None = None) -> dict[str, Hold]:
        """Return the holds of these keys (all judged keys by default) that have a fault on record, by key.

        Looks up only keys whose judgement has or had a fault, and those that a person settled: a year costs one read of
        partition records, one per newest intervention, and three per such key.
        """
        judged = self._tables.records(STAGE, None if keys is None else set(keys))
        requested = set(judged) if keys is None else set(keys)
        faulty = {key for key, record in judged.items() if judgement(record).was_ever_faulty}
        settled = {record.key for _, record in self._ledgers.of(INTERVENTIONS).newest(INTERVENTIONS_READ)}
        holds = {key: self.hold(key) for key in sorted(faulty | (settled & requested))}
        return {key: hold for key, hold in holds.items() if hold is not None}

    def excluded(self, keys: Iterable[str]) -> dict[str, Hold]:
        """Return the holds that exclude keys from reference and training, by key. Costs as `holds`, and one more read.

        A key with a nulled source stays excluded until it has been built and judged without that source.
        """
        holds = self.holds(tuple(keys))
        nulled = [key for key, hold in holds.items() if hold.nulled_source is not None]
        judged = self._tables.records(STAGE, nulled) if nulled else {}
        waiting = {key for key in nulled if judged[key].inputs.get(REQUEST_INPUT) != str(holds[key].number)}
        return {key: hold for key, hold in holds.items() if hold.is_excluded or key in waiting}

    def faults(self, key: str) -> Iterator[tuple[int, FaultRecord]]:
        """Yield the fault records of a key, oldest first. One read per record, and one more."""
        return self._ledgers.of(FAULTS.of(key)).records()

    def newest_faults(self, key: str, count: int) -> list[tuple[int, FaultRecord]]:
        """Return up to `count` fault records of a key, the newest first. One read per record, and two more."""
        return self._ledgers.of(FAULTS.of(key)).newest(count)
