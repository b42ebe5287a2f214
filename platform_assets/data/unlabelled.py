"""Record which keys trainings no longer wait for: labels that did not come in time, and labels that came after all.

These are the partition records of stage `unlabelled`. A record names the first cutoff that does without the key and,
once its labels have come, the first one that uses them. So the keys of a model follow from its cutoff and the records,
whenever it is trained. `decision_facts` decides when labels are given up.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

import msgspec

from platform_assets.base.keys import Grain
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.history.reader import History
from platform_assets.store.tables import TableStore

STAGE = "unlabelled"
FORMAT = 1
GIVEN_UP, ARRIVED = "given_up", "arrived"


class Note(TypedDict):
    """The notes of a record; without `until_cutoff` no cutoff uses the key."""

    format: int
    kind: str
    from_cutoff: str
    until_cutoff: str | None
    why: str
    by: str
    at_utc: str | None


def notes(tables: TableStore, keys: Iterable[str] | None = None) -> dict[str, Note]:
    """Return the notes on record, by key. Costs one read of partition records."""
    return {key: msgspec.convert(record.notes, Note) for key, record in tables.records(STAGE, keys).items()}


def excludes(grain: Grain, note: Note, cutoff: str) -> bool:
    """Tell whether a cutoff does without the key."""
    index, until = grain.index(cutoff), note["until_cutoff"]
    return grain.index(note["from_cutoff"]) <= index and (until is None or index < grain.index(until))


def excluded(tables: TableStore, grain: Grain, keys: Iterable[str], cutoff: str) -> dict[str, Note]:
    """Return the keys that a cutoff does without."""
    return {key: note for key, note in notes(tables, keys).items() if excludes(grain, note, cutoff)}


def missing(tables: TableStore, keys: Iterable[str]) -> dict[str, Note]:
    """Return the keys whose labels were given up and have not come since."""
    return {key: note for key, note in notes(tables, keys).items() if note["kind"] == GIVEN_UP}


def give_up(tables: TableStore, keys: Iterable[str], *, cutoff: str, why: str, at: datetime) -> dict[str, Note]:
    """Record that trainings from this cutoff on do without `keys`; return the new notes."""
    keys = tuple(keys)
    before = notes(tables, keys) if keys else {}
    records = {}
    for key in keys:
        first = before[key]["from_cutoff"] if key in before else cutoff
        records[key] = _record(tables, key, GIVEN_UP, first, None, why=why, by="decision", at_utc=at.isoformat())
    return records


def record_arrivals(
    tables: TableStore, history: History, grain: Grain, keys: Iterable[str], at_utc: str | None
) -> dict[str, Note]:
    """Record that labels of given-up keys have come; return the new notes.

    Call it before the labels are stored. Cutoffs decided without a key stay without it.
    """
    given_up = missing(tables, keys)
    until = _first_undecided(tables, history, grain) if given_up else None
    why = f"labels came after all; cutoffs before {until} go on without them." if until else "labels came at the end."
    return {
        key: _record(tables, key, ARRIVED, note["from_cutoff"], until, why=why, by="outcomes", at_utc=at_utc)
        for key, note in given_up.items()
    }


def _first_undecided(tables: TableStore, history: History, grain: Grain) -> str | None:
    """Return the first cutoff without a recorded decision; None at the end of the grain."""
    index = max((grain.index(key) for key in tables.records("decision")), default=-1) + 1
    # A decision is written to its ledger first; a run may have been killed before it recorded that.
    while grain.size is None or index + 1 < grain.size:
        if not history.is_decided(grain.key_at(index)):
            return grain.key_at(index + 1)
        index += 1
    return None


def _record(
    tables: TableStore, key: str, kind: str, first: str, until: str | None, *, why: str, by: str, at_utc: str | None
) -> Note:
    note = Note(format=FORMAT, kind=kind, from_cutoff=first, until_cutoff=until, why=why, by=by, at_utc=at_utc)
    tables.record(STAGE, key, content_digest=sha256(canonical(note)), inputs={}, code="", notes=note)
    return note
