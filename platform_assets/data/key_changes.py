"""Find what changed about closed keys: labels that landed late, and requests to advance keys again.

Reading is bounded however long the history is. `landings` decides which run follows.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from platform_assets.base import naming
from platform_assets.product.spec import Source
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.requests import ANSWERED, REQUESTS, AdvanceRequest, Answered
from platform_assets.store.tables import TableStore
from platform_assets.store.writing import LedgerWriters

LATE_KEYS = 31
"""Labels are looked for at this many of the last closed keys, and at as many keys after their labels were given up.
Older labels need a request."""
MOST_REQUESTS = 50

Mark = Callable[..., str | None]
"""`(source, key, suffix="") -> mark` of a landed file, which changes when another file replaces it; None when there is
no file. `suffix` is added to the file's name."""


class Incomplete(NamedTuple):
    """Why a landed file is not known to be complete.

    Attributes:
        reason: a clause that follows the file's name.
        is_open: whether the check goes on; the key then stays open, even after its deadline.
    """

    reason: str
    is_open: bool = False


OpenRequests = tuple[tuple[int, AdvanceRequest], ...]
"""Open requests to advance, with their numbers, oldest first."""
Check = Callable[[Source, str, str], Incomplete | None]
"""`(source, key, mark) -> why a landed file is not known to be complete`, None when it is."""


def late_labels(
    product: ProductStore, newest: str | None, labelled: Iterable[str], mark: Mark, check: Check
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the marks of complete labels that landed and were not taken in, and the keys whose labels were.

    Tables of records are opened only when there is a label file of a key that is not in `labelled`.

    Args:
        newest: the newest closed key.
        labelled: keys whose labels an earlier call reported as taken in.
        mark: looks for a landed file.
        check: checks whether a file is complete.
    """
    spec = product.spec
    if newest is None:
        return {}, ()
    label, reach = spec.label_source, LATE_KEYS + spec.label_delay + spec.label_patience
    keys = spec.grain.with_lookback((newest,), reach - 1)
    done = set(labelled) & set(keys)
    landed = {
        key: value
        for key in keys
        if key not in done and (value := mark(label, key)) is not None and product.awaited_until(label, key) is None
    }
    if landed:
        done |= taken_in(product.tables, label.name, list(landed))
    late = {key: value for key, value in landed.items() if key not in done}
    return {key: value for key, value in late.items() if check(label, key, value) is None}, tuple(sorted(done))


def taken_in(tables: TableStore, label: str, keys: Sequence[str]) -> set[str]:
    """Return the keys whose labels reached the last stage: a run may have been killed between any two stages."""
    outcomes, measured, judged = (tables.records(stage, keys) for stage in ("outcomes", "performance", "drift"))
    validated = naming.stage("validated", label)
    return {
        key
        for key in keys
        if key in outcomes
        and key in measured
        and measured[key].inputs.get("outcomes") == outcomes[key].content_digest
        and key in judged
        and validated in judged[key].inputs
    }


def open_requests(history: History, consumed: int = 0) -> tuple[OpenRequests, int]:
    """Return the requests to advance that no run has answered, and the number up to which all are settled."""
    consumed = max(consumed, history.newest_settled_request())
    requests: list[tuple[int, AdvanceRequest]] = []
    for number, record in history.requests(consumed):
        if isinstance(record, AdvanceRequest):
            requests.append((number, record))
        elif not requests:
            consumed = number
        if len(requests) == MOST_REQUESTS:
            break
    return tuple(requests), consumed


def request(ledgers: LedgerWriters, first: str, reason: str, at: datetime) -> None:
    """Record a request to advance the keys from `first` on."""
    record = AdvanceRequest(first=first, why=reason, by="landings", at_utc=at.isoformat())
    ledgers.of(REQUESTS).append(record)


def answer(product: ProductStore, number: int, outcome: Literal["advanced", "given_up"], at: datetime) -> None:
    """Record that the requests up to a number are settled: `advanced` by a run, or `given_up`."""
    if number > product.history.newest_settled_request():
        product.ledgers.of(ANSWERED).append(Answered(request=number, outcome=outcome, at_utc=at.isoformat()))
