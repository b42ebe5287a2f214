"""Record for which keys a training no longer waits: labels that did not come in time, and those that came after all.

Belongs here: the partition records of stage `unlabelled`, and which cutoffs do without a key. Does not belong here:
when labels are given up (`standing`), or taking them in (`outcomes`).

A record names the first cutoff that does without the key and, once its labels came, the first one that sees them. So
the keys of a model follow from its cutoff and the records, whenever it is trained.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

import msgspec

from platform_assets.history.reader import History
from platform_assets.keys import Grain
from platform_assets.storage.artifacts import canonical, sha256
from platform_assets.storage.tables import TableStore

STAGE = "unlabelled"
FORMAT = 1
GIVEN_UP, ARRIVED = "given_up", "arrived"


class Note(TypedDict):
    """What a record says; without `until_cutoff` no cutoff sees the key."""

    format: int
    kind: str
    from_cutoff: str
    until_cutoff: str | None
    why: str
    by: str
    at_utc: str | None


def notes(tables: TableStore, keys: Iterable[str] | None = None) -> dict[str, Note]:
    """Return what is on record, by key. Costs one read of partition records."""
    return {key: msgspec.convert(record.notes, Note) for key, record in tables.records(STAGE, keys).items()}


def excludes(grain: Grain, note: Note, cutoff: str) -> bool:
    """Tell whether a cutoff does without the key."""
    place, until = grain.index(cutoff), note["until_cutoff"]
    return grain.index(note["from_cutoff"]) <= place and (until is None or place < grain.index(until))


def excluded(tables: TableStore, grain: Grain, keys: Iterable[str], cutoff: str) -> dict[str, Note]:
    """Return those of the keys that a cutoff does without."""
    return {key: note for key, note in notes(tables, keys).items() if excludes(grain, note, cutoff)}


def missing(tables: TableStore, keys: Iterable[str]) -> dict[str, Note]:
    """Return those of the keys whose labels were given up and have not come since."""
    return {key: note for key, note in notes(tables, keys).items() if note["kind"] == GIVEN_UP}


def give_up(tables: TableStore, keys: Iterable[str], *, cutoff: str, why: str, at: datetime) -> dict[str, Note]:
    """Record that trainings from this cutoff on do without keys, and return what was recorded."""
    keys = tuple(keys)
    before = notes(tables, keys) if keys else {}
    found = {}
    for key in keys:
        first = before[key]["from_cutoff"] if key in before else cutoff
        found[key] = _record(tables, key, GIVEN_UP, first, None, why=why, by="decision", at_utc=at.isoformat())
    return found


def record_arrivals(
    tables: TableStore, history: History, grain: Grain, keys: Iterable[str], at_utc: str | None
) -> dict[str, Note]:
    """Record for those of the keys that were given up that their labels came, and return what was recorded.

    Call it before the labels are stored. Cutoffs that were decided without the key go on without it.
    """
    given_up = missing(tables, keys)
    until = _first_undecided(tables, history, grain) if given_up else None
    why = f"labels came after all; cutoffs before {until} go on without them." if until else "labels came at the end."
    return {
        key: _record(tables, key, ARRIVED, note["from_cutoff"], until, why=why, by="outcomes", at_utc=at_utc)
        for key, note in given_up.items()
    }


def _first_undecided(tables: TableStore, history: History, grain: Grain) -> str | None:
    """Return the first cutoff of which no decision is on record; None at the end of the grain."""
    place = max((grain.index(key) for key in tables.records("decision")), default=-1) + 1
    # A decision is made in its ledger first; a run may have been killed before it noted that.
    while grain.size is None or place + 1 < grain.size:
        if not history.is_decided(grain.key_at(place)):
            return grain.key_at(place + 1)
        place += 1
    return None


def _record(
    tables: TableStore, key: str, kind: str, first: str, until: str | None, *, why: str, by: str, at_utc: str | None
) -> Note:
    note = Note(format=FORMAT, kind=kind, from_cutoff=first, until_cutoff=until, why=why, by=by, at_utc=at_utc)
    tables.record(STAGE, key, content_digest=sha256(canonical(note)), inputs={}, code="", notes=note)
    return note
