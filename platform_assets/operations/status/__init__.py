"""Report a product's state: what serves, how old it is, how good it was, what was decided, what is wrong, what to do.

`facts` reads the records, `state` has what of them is printed as JSON, and `text` renders that for a terminal. The
state at a past moment is made of the same facts, of a history that ends there.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import NamedTuple

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.engine.product_files import Broken
from platform_assets.operations.status import facts, todo
from platform_assets.operations.status.facts import Facts, Standing
from platform_assets.operations.status.state import BrokenFile, BrokenState, Past, State
from platform_assets.operations.status.text import as_text
from platform_assets.product.spec import Product
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.alerts import Failure

__all__ = ["NotOnRecord", "as_text", "at", "of_broken", "of_product", "parse", "read"]


class NotOnRecord(Problem):
    """A moment of which a product's records say nothing."""


class Asked(NamedTuple):
    """The moment in question, or the first and the last one of a date."""

    first: datetime
    last: datetime


def read(
    settings: Settings, product: Product | Broken, failed: Failure | None = None, asked: Asked | None = None
) -> State | Past | BrokenState:
    """Return a product's state, now or at a moment that was asked for; see `of_product` and `at`.

    Raises:
        NotOnRecord: nothing is known of that moment.
    """
    if isinstance(product, Product):
        opened = ProductStore(product, settings)
        return of_product(opened, failed) if asked is None else at(opened, asked)
    if asked is not None:
        raise NotOnRecord(product.error)
    return of_broken(settings, product)


def of_product(product: ProductStore, failed: Failure | None = None) -> State:
    """Return a product's state; what is not known is None.

    Args:
        failed: the newest failed run that Dagster knows of, which no sensor may have recorded yet.
    """
    known = Facts(product, failed=failed)
    return State(**{name: getattr(known, name) for name in State.__struct_fields__})


def of_broken(settings: Settings, broken: Broken) -> BrokenState:
    """Return the state of a product whose file is broken: why, and what is released, which stays."""
    latest = History(settings.root, broken.name).live()
    release = None if latest is None else facts.released(*latest)
    steps = todo.of_broken(broken.name, broken.file, broken.error)
    file = BrokenFile(file=broken.file, error=broken.error)
    return BrokenState(product=broken.name, broken=file, release=release, todo=steps)


def parse(text: str) -> Asked:
    """Return the moment that a person asks for.

    Raises:
        ValueError: it is neither a date nor a moment.
    """
    with suppress(ValueError):
        day = date.fromisoformat(text)
        return Asked(datetime.combine(day, time.min, UTC), datetime.combine(day, time.max, UTC))
    try:
        moment = facts.moment(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"--at is {text!r}; expected a date, such as 2026-11-30, or a moment, such as 2026-11-30T12:00, in UTC "
            "unless it has an offset."
        ) from None
    return Asked(moment, moment)


def at(product: ProductStore, asked: Asked) -> Past:
    """Return a product's state at a moment, by the records' own times; of a date, at its end, or now if it is earlier.

    Times are the product's: a recording's are those of its replayed clock.

    Raises:
        NotOnRecord: it is in the future, or before the product's first record.
    """
    name, history, grain = product.name, product.history, product.spec.grain
    release = history.release(1)
    keys = sorted(filter(grain.contains, product.tables.records("decision")), key=grain.index)
    times = [None if release is None else release.at_utc]
    times += [decision.at_utc for decision in history.decisions(keys[:1]).values()]
    times += [record.at_utc for key in history.holds() for _, record in history.faults(key)]
    begun = [facts.moment(text) for text in times if text is not None]
    if not begun:
        raise NotOnRecord(f"no record of {name} in {product.settings.root} has a time yet.")
    now, first = product.now, min(begun)
    if asked.first > now:
        raise NotOnRecord(
            f"{asked.first.isoformat(timespec='seconds')} is in the future of {name}, whose clock shows "
            f"{now.isoformat(timespec='seconds')}; expected an earlier --at."
        )
    if asked.last < first:
        raise NotOnRecord(
            f"{asked.last.isoformat(timespec='seconds')} is before the first record of {name}, of "
            f"{first.isoformat(timespec='seconds')}; expected a later --at."
        )
    known = Standing(product, until=min(asked.last, now))
    return Past(**{member: getattr(known, member) for member in Past.__struct_fields__})
