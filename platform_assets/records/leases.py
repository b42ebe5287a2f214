"""Who works at a fingerprint: leases, and their signs of life next to them."""

from __future__ import annotations

from platform_assets import naming
from platform_assets.records.base import Number, Record, RecordKind


class Lease(Record, frozen=True, kw_only=True):
    """A lease: who took it, for how long it outlives its last sign of life, and when, in seconds since the epoch."""

    holder: str
    ttl_s: Number
    acquired_at_s: Number


class Sign(Record, frozen=True, kw_only=True):
    """A heartbeat, or that the lease was given back."""

    at_s: Number


LEASES = RecordKind(naming.LEASES, Lease)
SIGNS = RecordKind(naming.LEASES, Sign)
