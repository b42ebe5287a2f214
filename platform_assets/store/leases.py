"""Lease a fingerprint to one worker at a time, with a fencing number against workers that wake up late.

Whoever writes under a lease stores its number with the data and refuses a lower one. The result of the work is recorded
with the next number, which is only free while nobody else has taken the lease. Ages compare the wall clocks of two
hosts: choose a time to live well above their difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from platform_assets.base.problems import Problem, RecordExists
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records import leases as records
from platform_assets.store.records.leases import LEASES, SIGNS


class LeaseHeld(Problem):
    """Somebody else holds the lease and sent a heartbeat recently."""


# Whoever lost its lease can still write its own record, blobs named by digest, and tensors that no index names. The
# index of saves and the lease's ledger of results refuse it.
class LeaseLost(Problem):
    """The lease went to somebody else, or was never acquired; stop writing."""


class Lease:
    """The lease of one fingerprint: `leases/{fingerprint}`, numbered; the number is the fencing token.

    Attributes:
        number: the newest that this holder took; None while it does not hold the lease.
        left: the result of an earlier holder, which may have ended before it had recorded it elsewhere too.
    """

    def __init__(self, ledgers: Ledgers, fingerprint: str, clock: Callable[[], float] = time.time) -> None:
        """Name the lease without acquiring it.

        Args:
            clock: seconds since the epoch, for the ages of heartbeats.
        """
        self._records = ledgers.of(LEASES.of(fingerprint))
        self._signs = ledgers.of(SIGNS.of(fingerprint))
        self._clock = clock
        self.fingerprint = fingerprint
        self.number: int | None = None
        self.left: records.Result | None = None
        self._taken: records.Lease | None = None

    def acquire(self, ttl_s: float, holder: str = "") -> int:
        """Take the lease and return its fencing number, higher than any before.

        Args:
            ttl_s: how long the lease outlives its last heartbeat.
            holder: shown in other workers' messages.

        Raises:
            LeaseHeld: names the holder and the age of its heartbeat.
        """
        latest = self._records.latest()
        left = self._left_by(*latest) if latest else None
        number = latest[0] + 1 if latest else 1
        record = records.Lease(holder=holder, ttl_s=ttl_s, acquired_at_s=self._clock(), result=left)
        try:
            self._records.create_number(number, record)
        except RecordExists:
            raise LeaseHeld(
                f"lease {self.fingerprint} was taken by somebody else just now (number {number})."
            ) from None
        self._taken, self.number, self.left = record, number, left
        return number

    def conclude(self, result: records.Result) -> None:
        """Record the result of the work with the next number, and hold the lease under that number.

        Raises:
            LeaseLost: that number was given to another holder, or this lease was not acquired or was released.
        """
        if self.number is None or self._taken is None:
            raise LeaseLost(f"lease {self.fingerprint} is not held: record nothing.")
        # Not a look at the lease and then a record: a worker that is suspended in between would record a second result.
        number = self.number + 1  # free only while nobody else has taken the lease
        record = replace(self._taken, acquired_at_s=self._clock(), result=result)
        try:
            self._records.create_number(number, record)
        except RecordExists:
            raise LeaseLost(f"lease {self.fingerprint} was taken by somebody else (number {number}).") from None
        self.number = number

    def heartbeat(self) -> None:
        """Record a sign of life.

        Raises:
            LeaseLost: a higher number was given out, or this lease was not acquired or was released.
        """
        newest = self._records.newest_number()
        if self.number is None or newest != self.number:
            raise LeaseLost(f"lease {self.fingerprint} is at number {newest}, ours is {self.number}: stop writing.")
        self._signs.overwrite(f"{self.number}.heartbeat", records.Sign(at_s=self._clock()))

    def release(self) -> None:
        """Release the lease, so that the next worker need not wait; does nothing when it is not held."""
        if self.number is None:
            return
        self._signs.overwrite(f"{self.number}.released", records.Sign(at_s=self._clock()))
        self.number = None

    def _left_by(self, number: int, record: records.Lease) -> records.Result | None:
        """Return the result that a holder left; raise if it is alive."""
        if self._signs.read(f"{number}.released") is not None:
            return None
        beat = self._signs.read(f"{number}.heartbeat")
        age_s = self._clock() - (beat.at_s if beat else record.acquired_at_s)
        if age_s < record.ttl_s:
            raise LeaseHeld(
                f"lease {self.fingerprint} is held by {record.holder or 'somebody'} (number {number}, last heard of "
                f"{age_s:.0f} s ago); it lapses {record.ttl_s:.0f} s after its last heartbeat."
            )
        return record.result
