"""Know which attempts were announced and never ended, from the ledgers as they grow.

Belongs here: what a sensor remembers between ticks, so that each record is read once. Does not belong here: what is
done about such an attempt (`orphaned_pods`), or writing records (`resources.launchers.records`).
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from platform_assets.history.reader import History
from platform_assets.records.attempts import ATTEMPTS, BACKTEST_ATTEMPTS
from resources.launchers import records
from sensors.ticks import State

LEDGERS = (ATTEMPTS, BACKTEST_ATTEMPTS)
MOST_RECORDS = 400
"""How many records of a ledger one tick reads at most; the others follow in the next."""


def seen(history: History, state: State) -> State:
    """Return what is known after the records that came since: `read` by ledger, and the facts of `open` attempts."""
    read, found = dict(state.get("read", {})), dict(state.get("open", {}))
    for kind in LEDGERS:
        for number, record in islice(history.attempt_records(kind, read.get(kind.ledger, 0)), MOST_RECORDS):
            read[kind.ledger] = number
            if record.by == records.BY:
                found.pop(record.id, None)
                if record.reason == records.UNDER_WAY:
                    found[record.id] = record.members(records.BEGUN)
    return {"read": read, "open": found}


def without_pod(state: State, there: set[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the facts of open attempts that have no pod.

    Args:
        state: from `seen`.
        there: attempts that have one; they were looked for before the state was read, and an attempt is announced
            before it has a pod: one whose run is under way may get it yet.
    """
    yield from (facts for name, facts in state["open"].items() if name not in there)
