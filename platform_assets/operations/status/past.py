"""Report which model was live at a past moment, which keys were held, and what was decided, by the records' own times.

Times are the product's: a recording's are those of its replayed clock. A record without a time does not count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import NamedTuple

from platform_assets.base.problems import Problem
from platform_assets.operations.status.live import left_out, live
from platform_assets.operations.status.state import Past
from platform_assets.store.history.holds import Hold
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import FaultRecord


class NotOnRecord(Problem):
    """A moment of which a product's records say nothing."""


class Asked(NamedTuple):
    """The moment in question, or the first and the last one of a date."""

    first: datetime
    last: datetime


def parse(text: str) -> Asked:
    """Return what a person asks for.

    Raises:
        ValueError: it is neither a date nor a moment.
    """
    with suppress(ValueError):
        day = date.fromisoformat(text)
        return Asked(datetime.combine(day, time.min, UTC), datetime.combine(day, time.max, UTC))
    try:
        moment = _moment(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"--at is {text!r}; expected a date, such as 2026-11-30, or a moment, such as 2026-11-30T12:00, in UTC "
            "unless it has an offset."
        ) from None
    return Asked(moment, moment)


def read(product: ProductStore, asked: Asked) -> Past:
    """Return a product's state at a moment; of a date, at its end, or now if that is earlier.

    One read per release since then and per record of a fault, and some twenty.

    Raises:
        NotOnRecord: it is in the future, or before the product's first record.
    """
    spec, history = product.spec, product.history
    keys = sorted(filter(spec.grain.contains, product.tables.records("decision")), key=spec.grain.index)
    faults = {key: [*history.faults(key)] for key in history.holds()}
    moment = _check(product, asked, keys, [record for records in faults.values() for _, record in records])
    # Keys are decided in order, so their decisions are in order of time too.
    count = bisect_right(keys, moment, key=lambda key: _decided_at(product, key))
    decision = history.decision(keys[count - 1]) if count else None
    release = next((item for item in history.releases_newest_first() if _moment(item[1].at_utc) <= moment), None)
    closed = None if decision is None else decision.key
    return Past(
        product=spec.name,
        title=spec.title,
        grain=spec.grain.kind,
        at_utc=moment.isoformat(timespec="seconds"),
        newest_closed_key=closed,
        release=None if release is None else live(product, *release, closed, moment),
        decision=decision,
        held=[left_out(key, hold) for key in sorted(faults) for hold in _hold(faults[key], moment)],
    )


def _check(product: ProductStore, asked: Asked, keys: list[str], faults: list[FaultRecord]) -> datetime:
    """Return the moment at which the state is to be read."""
    release = product.history.release(1)
    begun = [_moment(record.at_utc) for record in faults if record.at_utc is not None]
    begun += [] if release is None else [_moment(release.at_utc)]
    begun += [_decided_at(product, key) for key in keys[:1]]
    if not begun:
        raise NotOnRecord(f"no record of {product.name} in {product.settings.root} has a time yet.")
    now, first = product.now, min(begun)
    if asked.first > now:
        raise NotOnRecord(
            f"{_shown(asked.first)} is in the future of {product.name}, whose clock shows {_shown(now)}; expected an "
            "earlier --at."
        )
    if asked.last < first:
        raise NotOnRecord(
            f"{_shown(asked.last)} is before the first record of {product.name}, of {_shown(first)}; expected a later "
            "--at."
        )
    return min(asked.last, now)


def _hold(records: list[tuple[int, FaultRecord]], moment: datetime) -> Iterator[Hold]:
    """Yield the hold of a key at a moment, if it left the key out."""
    known = [item for item in records if item[1].at_utc is not None and _moment(item[1].at_utc) <= moment]
    for number, record in known[-1:]:
        if (hold := Hold(number=number, record=record)).is_excluded:
            yield hold


def _decided_at(product: ProductStore, key: str) -> datetime:
    decision = product.history.decision(key)
    assert decision is not None, f"{product.name} has a record of the decision on {key} and not the decision"
    return _moment(decision.at_utc)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
