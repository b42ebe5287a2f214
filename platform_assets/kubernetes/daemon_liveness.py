"""Tell the kubelet whether Dagster's daemon is alive, by the age of its heartbeats: a probe of its container.

`dagster-daemon liveness-check` allows half an hour, counts the heartbeats of the process before this one, fails while
PostgreSQL is away, and imports Dagster: ten times the CPU of this. PostgreSQL's address is in the variables of
`deploy/kubernetes/base/dagster.yaml`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil
import psycopg2

from platform_assets.base.settings import postgres_options

FROZEN_S = 120.0
"""Each thread writes every 30 s: when none has for so long, the process stands still."""
STUCK_S = 900.0
"""A thread does not write while it launches a run, or counts a large backfill: minutes, where an API is slow."""
DATABASE_S = 5
"""For connecting, and for the query."""
QUERY = "SELECT daemon_type, daemon_id, timestamp FROM daemon_heartbeats"
DAEMON_PID = 1
"""The container's command is the daemon."""


@dataclass(frozen=True)
class Heartbeat:
    """The newest heartbeat of one thread.

    Attributes:
        process: Dagster's name for the process that wrote it.
        age_s: how long ago.
    """

    thread: str
    process: str
    age_s: float


def problem(heartbeats: Iterable[Heartbeat], running_s: float) -> str | None:
    """Return what is wrong with the daemon; None while it is alive.

    Args:
        heartbeats: one per thread; those of an earlier process do not count.
        running_s: since when this process runs.
    """
    own = sorted((beat for beat in heartbeats if beat.age_s < running_s), key=lambda beat: beat.age_s)
    if not own:
        return f"The daemon has written no heartbeat in the {running_s:.0f} s since it started."
    newest = own[0]
    if newest.age_s > FROZEN_S:
        return f"The daemon's newest heartbeat is {newest.age_s:.0f} s old; expected at most {FROZEN_S:.0f} s."
    oldest = [beat for beat in own if beat.process == newest.process][-1]
    if oldest.age_s > STUCK_S:
        return (
            f"The daemon's thread {oldest.thread} wrote its last heartbeat {oldest.age_s:.0f} s ago; expected at most "
            f"{STUCK_S:.0f} s. It hangs."
        )
    return None


def read() -> list[Heartbeat] | str:
    """Return the heartbeats in PostgreSQL, or why they cannot be read: it does not answer, or has no tables yet."""
    try:
        connection = psycopg2.connect(**postgres_options(), connect_timeout=DATABASE_S)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(QUERY)
            # Dagster stores UTC without a time zone, by this container's clock.
            now = datetime.now(UTC).replace(tzinfo=None)
            return [Heartbeat(thread, process, (now - at).total_seconds()) for thread, process, at in cursor]
    except psycopg2.Error as error:
        return str(error).strip()


def main(arguments: Sequence[str]) -> int:
    """Print what is wrong and return 1, or return 0.

    Args:
        arguments: the daemon's process id; none where it is the container's command.
    """
    # A server that hangs, or is away, says nothing about the daemon, and a restart would repair neither.
    results: list[list[Heartbeat] | str] = []
    asking = threading.Thread(target=lambda: results.append(read()), daemon=True)
    asking.start()
    asking.join(2 * DATABASE_S)
    result = results[0] if results else f"no answer after {2 * DATABASE_S} s"
    if isinstance(result, str):
        print(f"PostgreSQL was not asked about heartbeats: {result}")
        return 0
    daemon = psutil.Process(int(arguments[0]) if arguments else DAEMON_PID)
    sentence = problem(result, time.time() - daemon.create_time())
    if sentence is not None:
        print(sentence)
    return 0 if sentence is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
