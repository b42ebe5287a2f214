"""Say what attempts cost: their time at the price of their profile.

Belongs here: pure sums over records of the attempts ledger. Does not belong here: reading it, or plots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Attempt = Mapping[str, Any]
"""A record of the ledger: `wall_s`, `usd_per_hour`, `cutoff`, `reason`, `started_at_utc` (wall clock)."""

FINISHED = "finished"


def cost_usd(attempt: Attempt) -> float:
    """Return the price of one attempt in US dollars: hours of wall time at its profile's price."""
    return float(attempt["wall_s"]) / 3600 * float(attempt["usd_per_hour"])


def total_usd(attempts: Iterable[Attempt]) -> float:
    """Return what attempts cost together."""
    return sum(cost_usd(attempt) for attempt in attempts)


def next_usd(attempts: Iterable[Attempt]) -> float | None:
    """Return what the next training may cost: as much as the newest finished one; None when none has finished.

    Args:
        attempts: the newest first.
    """
    finished = (attempt for attempt in attempts if attempt["reason"] == FINISHED)
    newest = next(finished, None)
    return None if newest is None else cost_usd(newest)
