"""Define leases of fingerprints, and their heartbeats next to them."""

from __future__ import annotations

from platform_assets import naming
from platform_assets.records.base import Number, Record, RecordKind


class Lease(Record, frozen=True, kw_only=True):
    """A lease: its holder, how long it outlives its last heartbeat, and its start in seconds since the epoch."""

    holder: str
    ttl_s: Number
    acquired_at_s: Number


class Sign(Record, frozen=True, kw_only=True):
    """A heartbeat, or the release of the lease."""

    at_s: Number


LEASES = RecordKind(naming.LEASES, Lease)
SIGNS = RecordKind(naming.LEASES, Sign)
