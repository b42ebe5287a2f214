"""Track which attempts were announced and have not ended, from the ledger as it grows.

The state remembers what was read, so each record is read once. `orphaned_pods` settles such attempts.
"""

from collections.abc import Collection
from itertools import islice

from msgspec import field

from platform_assets.automation.sensors import ticks
from platform_assets.launch import records
from platform_assets.store.history.reader import History
from platform_assets.store.records.attempts import Launch

MOST_RECORDS = 400
"""How many records one tick reads at most; the rest follows in the next tick."""


class State(ticks.State, frozen=True, kw_only=True):
    """The number of the last record that was read, and by id the launches of attempts that are open."""

    read: int = 0
    open: dict[str, Launch] = field(default_factory=dict)

    def without_pod(self, with_pod: Collection[str]) -> list[Launch]:
        """Return the open attempts that have no pod.

        Args:
            with_pod: ids of attempts that have a pod. Pods must be listed before the ledger is read; an attempt is
                announced before it has a pod, so one whose run is under way may still get it.
        """
        return [launch for name, launch in self.open.items() if name not in with_pod]


def update(history: History, state: State) -> State:
    """Return the state after the records that were added since."""
    read, launches = state.read, dict(state.open)
    for number, record in islice(history.attempt_records(read), MOST_RECORDS):
        read = number
        if record.by == records.BY and record.id is not None:
            launches.pop(record.id, None)
            if record.reason == records.UNDER_WAY:
                launches[record.id] = record.launch()
    return State(read=read, open=launches)
