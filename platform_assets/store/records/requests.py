"""Define requests to other parts of the platform, and which of them are settled."""

from __future__ import annotations

from typing import Literal

from platform_assets.base import naming
from platform_assets.store.records.base import Record, RecordKind


class AdvanceRequest(Record, frozen=True, kw_only=True, tag_field="kind", tag="advance"):
    """A request to advance a range of keys again; without `last` up to the newest."""

    first: str
    last: str | None = None
    why: str
    by: str
    at_utc: str | None


class DecisionRequest(Record, frozen=True, kw_only=True, tag_field="kind", tag="decision"):
    """A request for a decision; `release` is the number of the release that has become too old."""

    key: str
    why: str
    by: str
    release: int | None = None
    at_utc: str | None


class Answered(Record, frozen=True, kw_only=True):
    """All requests up to `request` are settled."""

    request: int
    outcome: Literal["advanced", "given_up"]
    at_utc: str | None


class Intervention(Record, frozen=True, kw_only=True):
    """A person settled a key; the key's fault ledger has the details."""

    key: str
    kind: Literal["accept", "drop"]


REQUESTS: RecordKind[AdvanceRequest | DecisionRequest] = RecordKind(naming.REQUESTS, AdvanceRequest | DecisionRequest)
ANSWERED = RecordKind(naming.ANSWERED, Answered)
INTERVENTIONS = RecordKind(naming.INTERVENTIONS, Intervention)
