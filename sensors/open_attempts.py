"""Know which attempts were announced and never ended, from the ledgers as they grow.

Belongs here: what a sensor remembers between ticks, so that each record is read once. Does not belong here: what is
done about such an attempt (`orphaned_pods`), or writing records (`resources.launchers.records`).
"""

from collections.abc import Collection
from itertools import islice

from msgspec import field

from platform_assets.history.reader import History
from platform_assets.records.attempts import ATTEMPTS, BACKTEST_ATTEMPTS, Launch
from resources.launchers import records
from sensors import ticks

LEDGERS = (ATTEMPTS, BACKTEST_ATTEMPTS)
MOST_RECORDS = 400
"""How many records of a ledger one tick reads at most; the others follow in the next."""


class State(ticks.State, frozen=True, kw_only=True):
    """The number of the record read last, by ledger, and the facts of attempts that are open, by id."""

    read: dict[str, int] = field(default_factory=dict)
    open: dict[str, Launch] = field(default_factory=dict)

    def without_pod(self, there: Collection[str]) -> list[Launch]:
        """Return the open attempts that have no pod.

        Args:
            there: attempts that have one; they were looked for before the state was read, and an attempt is announced
                before it has a pod: one whose run is under way may get it yet.
        """
        return [launch for name, launch in self.open.items() if name not in there]


def seen(history: History, state: State) -> State:
    """Return what is known after the records that came since."""
    read, found = dict(state.read), dict(state.open)
    for kind in LEDGERS:
        for number, record in islice(history.attempt_records(kind, read.get(kind.ledger, 0)), MOST_RECORDS):
            read[kind.ledger] = number
            if record.by == records.BY and record.id is not None:
                found.pop(record.id, None)
                if record.reason == records.UNDER_WAY:
                    found[record.id] = record.launch()
    return State(read=read, open=found)
