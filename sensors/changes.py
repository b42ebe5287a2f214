"""Find what changed about keys that are closed: labels that landed late, and requests to advance keys again.

Belongs here: reading, bounded whatever the history. Does not belong here: which run mends it (`landings`).
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from platform_assets import naming
from platform_assets.handle import Product
from platform_assets.history.reader import History
from platform_assets.records.asked import ANSWERED, REQUESTS, AdvanceRequest, Answered
from platform_assets.specs.base import Source
from platform_assets.storage.tables import TableStore
from platform_assets.storage.writing import LedgerWriters

LATE_KEYS = 31
"""For how many of the last closed keys labels are looked for, and for as many keys after they were given up; older ones
are asked for by a request."""
MOST_REQUESTS = 50

Mark = Callable[..., str | None]
"""`(source, key, beside="") -> what tells a landed file from another at the same place`, None where there is none;
`beside` is added to the file's name."""


class Unfinished(NamedTuple):
    """Why a file that is there is not known to be whole, to go on after its name.

    Attributes:
        why: one clause.
        is_open: whether that is still being found out, so that not even a deadline closes the key.
    """

    why: str
    is_open: bool = False


Asked = tuple[tuple[int, AdvanceRequest], ...]
"""Open requests to advance, by number, the oldest first."""
WhyNot = Callable[[Source, str, str], Unfinished | None]
"""`(source, key, mark) -> why a file that is there is not known to be whole`, None when it is."""


def late_labels(
    product: Product, newest: str | None, labelled: Iterable[str], mark: Mark, why_not: WhyNot
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the marks of labels that landed whole and were not taken in, and the keys whose labels were.

        `labelled` are keys whose labels were taken in before.

    Tables of records are opened only when a file is there that is not known to be taken in.
    """
    spec = product.spec
    if newest is None:
        return {}, ()
    label, reach = spec.label_source, LATE_KEYS + spec.label_delay + spec.label_patience
    keys = spec.grain.with_lookback((newest,), reach - 1)
    known = set(labelled) & set(keys)
    landed = {key: found for key in keys if key not in known and (found := mark(label, key)) is not None}
    if landed:
        known |= taken_in(product.tables, label.name, list(landed))
    late = {key: value for key, value in landed.items() if key not in known}
    return {key: value for key, value in late.items() if why_not(label, key, value) is None}, tuple(sorted(known))


def taken_in(tables: TableStore, label: str, keys: Sequence[str]) -> set[str]:
    """Return the keys whose labels came through to the end: a run may have been killed between any two stages."""
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


def open_requests(history: History, consumed: int = 0) -> tuple[Asked, int]:
    """Return the requests to advance that no run has answered, and up to which number all are settled."""
    consumed = max(consumed, history.answered())
    found: list[tuple[int, AdvanceRequest]] = []
    for number, record in history.requests(consumed):
        if isinstance(record, AdvanceRequest):
            found.append((number, record))
        elif not found:
            consumed = number
        if len(found) == MOST_REQUESTS:
            break
    return tuple(found), consumed


def ask(ledgers: LedgerWriters, first: str, why: str, at: datetime) -> None:
    """Record a request to advance the keys from one on."""
    request = AdvanceRequest(first=first, why=why, by="landings", at_utc=at.isoformat())
    ledgers.of(REQUESTS).append(request)


def answer(product: Product, number: int, outcome: Literal["advanced", "given_up"], at: datetime) -> None:
    """Record that the requests up to a number are settled: `advanced` by a run, or `given_up`."""
    if number > product.history.answered():
        product.ledgers.of(ANSWERED).append(Answered(request=number, outcome=outcome, at_utc=at.isoformat()))
