"""Hold a training's lease and leave one record per attempt, however it ended.

An attempt that vanished (killed, its node lost) cannot record its end: the next one to take the lease does that, from
the progress record that the vanished one left. Times here are wall-clock times: they are about processes, not data.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from platform_assets.base import clock
from platform_assets.base.failures import CODE, KILLED, PREEMPTED
from platform_assets.base.problems import RecordExists
from platform_assets.base.settings import Settings
from platform_assets.store.leases import Lease, LeaseHeld
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records import attempts
from platform_assets.store.records.base import R, RecordKind
from platform_assets.store.records.leases import BEAT_S, SIGNS, TTL_S, Result
from platform_assets.training.steps import process


class Attempt:
    """One try at a training, as a context: acquires the lease, renews it while it works, records how it ended.

    Args:
        fingerprint: what is leased.
        profile_name, usd_per_hour: the step's size and its price, for the record of a try that no launcher made.
        ttl_s: how long the lease outlives its holder's last sign of life, and so how long a restart may wait.
        launch: the launcher's facts of the attempt: id, run, actual profile and price. The launcher writes a record
            under the same id, because it knows why the attempt ended.
    """

    def __init__(
        self,
        settings: Settings,
        ledgers: Ledgers,
        *,
        fingerprint: str,
        cutoff: str,
        profile_name: str,
        usd_per_hour: float = 0.0,
        ttl_s: float = TTL_S,
        launch: attempts.Launch | None = None,
    ) -> None:
        self._settings = settings
        self._ledgers = ledgers
        self._lease = Lease(ledgers, fingerprint)
        self._progress = ledgers.of(attempts.PROGRESS.of(fingerprint))
        self._signs = ledgers.of(SIGNS.of(fingerprint))
        self._ttl_s = ttl_s
        self._beat_at_s = 0.0
        self.fence = 0
        # Elsewhere the network is the machine's, and what others receive would count.
        is_pod = launch is not None and launch.data_zone is not None and launch.launcher == "kubernetes"
        self._received_before = process.received_bytes() if is_pod else None
        alone = {"id": uuid.uuid4().hex, "profile": profile_name, "usd_per_hour": usd_per_hour}
        members = {**(launch.document() if launch else alone), "fingerprint": fingerprint, "cutoff": cutoff}
        self.facts = attempts.Attempt(
            **members,
            by=attempts.STEP,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at_utc="",
            ended_at_utc="",
            reason="",
            said="",
            resumed_from_step=0,
            steps_done=0,
            steps_saved=0,
            wall_s=0.0,
            cpu_s=0.0,
            peak_memory_mb=0.0,
        )

    def note(self, **members: float | str) -> None:
        """Change members of its record, such as how far it got."""
        self.facts = replace(self.facts, **members)

    def acquire(self, *, wait: Callable[[], bool]) -> bool:
        """Take the lease; wait while another live process holds it.

        Args:
            wait: called before each further try; False gives up, for example because the work is done.

        Returns:
            Whether this attempt holds the lease now.

        Raises:
            Preempted: this attempt has been started before: whoever restarts its pods by itself (a queue that lets a
                Job in again, while no launcher lives to delete it) gets no second one. The next launcher starts anew.
        """
        holder = f"{self.facts.host}:{self.facts.pid}"
        while True:
            try:
                self.fence = self._lease.acquire(self._ttl_s, holder)
            except LeaseHeld:
                if not wait():
                    return False
                time.sleep(min(1.0, self._ttl_s / 4))
            else:
                self._started_s = time.perf_counter()
                self.note(started_at_utc=self._now())
                if self._lease.left:
                    self._record(self._lease.left)
                if self._is_second_start():
                    raise process.Preempted
                self.beat(is_due=True)
                return True

    def beat(self, *, is_due: bool = False) -> None:
        """Renew the lease and record the progress; cheap when called too often.

        Raises:
            LeaseLost: another process has taken the lease: stop.
        """
        now_s = time.perf_counter()
        if is_due or now_s - self._beat_at_s >= min(BEAT_S, self._ttl_s / 4):
            self._lease.heartbeat()
            self._progress.overwrite(f"{self.fence}.progress", self._measured())
            self._beat_at_s = now_s

    @property
    def wall_s(self) -> float:
        """How long it has held the lease."""
        return time.perf_counter() - self._started_s

    def conclude(self, kind: RecordKind[R], record: R) -> bool:
        """Record the result of the work under its fingerprint, and return False if there is one already.

        A process that is suspended at any point of this and wakes up late cannot add a result: the next holder of the
        lease either takes the number that this needs, or finds the result there and records it itself.

        Raises:
            LeaseLost: another process has taken the lease.
        """
        result = Result(ledger=kind.ledger, record=record.document())
        self._lease.conclude(result)
        return self._record(result)

    def _record(self, result: Result) -> bool:
        try:
            self._ledgers.create(result.ledger, self._lease.fingerprint, result.record)
        except RecordExists:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.fence == 0:
            return
        # A record stays small, however much an error prints.
        if error is None:
            self.note(reason="finished")
        elif isinstance(error, process.Preempted):
            self.note(reason=PREEMPTED.name)
        elif isinstance(error, process.PeerLost):
            self.note(reason=KILLED.name, said=str(error)[:500])
        else:
            self.note(reason=CODE.name, said=f"{type(error).__name__}: {error}"[:500])
        measured = self._measured()
        self._ledgers.of(attempts.ATTEMPTS).append(measured)
        self._progress.overwrite(f"{self.fence}.progress", measured)
        self._lease.release()

    def _measured(self) -> attempts.Attempt:
        received = process.received_bytes() if self._received_before is not None else None
        if received is not None and self._received_before is not None:
            self.note(received_bytes=received - self._received_before)
        return replace(
            self.facts,
            fence=self.fence,
            ended_at_utc=self._now(),
            wall_s=round(self.wall_s, 3),
            cpu_s=round(process.cpu_s(), 3),
            peak_memory_mb=round(process.peak_memory_mb(), 1),
        )

    def _is_second_start(self) -> bool:
        """Record the end of the attempt before, if it vanished; return whether it was this one."""
        is_released = False
        # An attempt that recorded its result took a second number, without progress.
        for before in range(self.fence - 1, max(0, self.fence - 3), -1):
            is_released = is_released or self._signs.read(f"{before}.released") is not None
            if (progress := self._progress.read(f"{before}.progress")) is not None:
                if not is_released:
                    self._ledgers.of(attempts.ATTEMPTS).append(replace(progress, reason=attempts.VANISHED))
                return progress.id == self.facts.id
        return False

    def _now(self) -> str:
        return clock.now(self._settings, self._ledgers.product, is_live=True).isoformat()
