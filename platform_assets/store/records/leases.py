"""Define leases of fingerprints, and their heartbeats next to them."""

from __future__ import annotations

from platform_assets.base import naming
from platform_assets.store.records.base import Document, Number, Part, Record, RecordKind

TTL_S = 15.0
"""How long a training's lease outlives its holder's last heartbeat."""
BEAT_S = 3.0
"""How often a training sends one."""


class Result(Part, frozen=True, kw_only=True):
    """The result of the leased work: a record, and the ledger in which the fingerprint is its key."""

    ledger: str
    record: Document


class Lease(Record, frozen=True, kw_only=True):
    """A lease: its holder, how long it outlives its last heartbeat, and its start in seconds since the epoch.

    Attributes:
        result: of an earlier holder. Whoever holds the lease records it in its ledger, unless it is there.
    """

    holder: str
    ttl_s: Number
    acquired_at_s: Number
    result: Result | None = None


class Sign(Record, frozen=True, kw_only=True):
    """A heartbeat, or the release of the lease."""

    at_s: Number


LEASES = RecordKind(naming.LEASES, Lease)
SIGNS = RecordKind(naming.LEASES, Sign)
