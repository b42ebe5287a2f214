"""Define which service processes a closed key was complete without, and when a recording's key ended."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from platform_assets.base import naming
from platform_assets.store.records.base import Record, RecordKind


class Attendance(Record, frozen=True, kw_only=True):
    """What the service's processes had sent when a key was measured for the first time.

    Attributes:
        case: `answers`; `no_answers` (processes sent heartbeats only); `silent` (a model was live, and no process
            sent anything); `unreleased` (no model was live, and no process sent anything).
        ended_at_utc: the key's end.
        processes: how many were alive in the key.
        unheard: those that had not sent everything when the patience was over.
        wrong_clocks (s): by how much the store's clock was ahead of a process's own, where that is above the limit.
    """

    case: Literal["answers", "no_answers", "silent", "unreleased"]
    ended_at_utc: str
    processes: int
    unheard: list[str] = field(default_factory=list)
    wrong_clocks: dict[str, float] = field(default_factory=dict)


class KeyEnd(Record, frozen=True, kw_only=True):
    """When a recording's caller had asked everything about a key, by the wall clock."""

    at_utc: str


ATTENDANCE = RecordKind(naming.ATTENDANCE, Attendance)
KEY_ENDS = RecordKind(naming.KEY_ENDS, KeyEnd)
